//! What must not keep a mount from being served: a worker that hangs at its start, a registry that is
//! silent, a guard that is gone, a supervisor that is stopped.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use modelfs_test_support::{Fault, Server, When};

use crate::harness::{Place, Ran, eventually, is_mounted, signal};
use crate::takeover::{SIZE, published, reads_of};

/// What it comes to, which must be soon; whoever waits for ever is left behind.
fn soon<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (tell, told) = mpsc::channel();
    let started = Instant::now();
    std::thread::spawn(move || tell.send(work()));
    let outcome = told.recv_timeout(SOON).unwrap_or_else(|_| panic!("{what}: not within {SOON:?}"));
    eprintln!("{what}: {:?}", started.elapsed());
    outcome
}

/// Far more than a worker's start takes on a loaded machine, far less than a registry is waited for.
const SOON: Duration = Duration::from_secs(10);

/// Reads all of an open file, none of it from the page cache.
fn read_all(file: &File) -> std::io::Result<Vec<u8>> {
    rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed)?;
    let mut buffer = vec![0; SIZE];
    file.read_exact_at(&mut buffer, 0)?;
    Ok(buffer)
}

#[test]
fn a_worker_that_hangs_at_its_start_is_replaced_too() {
    let place = Place::new();
    let bytes = published(&place);
    let daemon = place.mount_folder(&["--no-passthrough", "--hang-timeout", "3s"]);
    let file = File::open(daemon.path("org/net/v1/w.bin")).expect("opens");
    let before = daemon.children();
    assert!(signal(daemon.worker(), "KILL"));
    // As soon as it is there: it has said nothing yet.
    let started = Instant::now();
    let next = loop {
        let new = daemon.children().into_iter().find(|pid| !before.contains(pid));
        if let Some(pid) = new {
            break pid;
        }
        assert!(started.elapsed() < SOON, "no worker is started");
    };
    assert!(signal(next, "STOP"));
    let read = soon("a read while the next worker hangs", move || read_all(&file));
    assert!(read.expect("no error reaches the reader") == bytes, "a wrong byte");
    assert_ne!(daemon.worker(), next);
    daemon.stop();
}

#[test]
fn a_silent_server_delays_no_cached_read_after_a_death_or_a_restart() {
    let place = Place::new();
    let bytes = published(&place);
    let server = Server::start(&place.registry());
    let daemon = place.mount(&server.url(), &["--no-passthrough"]);
    let path = daemon.path("org/net/v1/w.bin");
    assert!(fs::read(&path).expect("reads") == bytes, "a wrong byte");
    // So that all of it is committed: what a death may cost is not what is looked at here.
    place.ok(["restart"]);
    server.on("models.json", When::Always, Fault::Delay(Duration::from_secs(60)));
    let worker = daemon.worker();
    assert!(signal(worker, "KILL"));
    for what in ["after a death", "after a restart"] {
        let path = path.clone();
        let read = soon(what, move || File::open(path).and_then(|file| read_all(&file)));
        assert!(read.expect("no error reaches the reader") == bytes, "a wrong byte");
        if what == "after a death" {
            place.ok(["restart"]);
        }
    }
    assert_ne!(daemon.worker(), worker);
    // Who looks for a name that is new waits for the registry, and hears when it is there.
    server.heal();
    place.publish(&place.path("plain"), "org/net", "v2", &[]);
    place.ok(["restart"]);
    let new = daemon.path("org/net/v2/w.bin");
    assert!(soon("a new name", move || fs::metadata(new)).is_ok(), "asked before it is ENOENT");
    daemon.stop();
}

#[test]
fn a_registry_on_a_hung_file_system_delays_no_cached_read_after_a_death_or_a_restart() {
    let place = Place::new();
    let bytes = published(&place);
    let far = place.path("far");
    fs::create_dir(&far).expect("own folder");
    fs::rename(place.registry(), far.join("registry")).expect("own folder");
    let registry = far.join("registry");
    let daemon = place.mount(registry.to_str().expect("UTF-8"), &["--no-passthrough"]);
    let path = daemon.path("org/net/v1/w.bin");
    assert!(fs::read(&path).expect("reads") == bytes, "a wrong byte");
    place.ok(["restart"]);
    let hung = HungFs::over(&far);
    let worker = daemon.worker();
    assert!(signal(worker, "KILL"));
    for what in ["after a death", "after a restart"] {
        let path = path.clone();
        let read = soon(what, move || File::open(path).and_then(|file| read_all(&file)));
        assert!(read.expect("no error reaches the reader") == bytes, "a wrong byte");
        if what == "after a death" {
            place.ok(["restart"]);
        }
    }
    assert_ne!(daemon.worker(), worker);
    // What is not cached waits, and comes when it is there again.
    let small = daemon.path("org/net/v1/007.json");
    let waiting = std::thread::spawn(move || fs::read(small));
    eventually("the worker without it", || {
        let status = daemon.status();
        status["registry"]["trouble"].as_str().is_some_and(|t| t.contains("does not answer"))
    });
    assert!(!waiting.is_finished());
    drop(hung);
    let read = waiting.join().expect("no panic").expect("no error reaches the reader");
    assert_eq!(read, b"7");
    daemon.stop();
}

#[test]
fn a_first_mount_of_a_registry_that_hangs_fails_in_a_line() {
    let place = Place::new();
    let far = place.path("far");
    fs::create_dir(&far).expect("own folder");
    let registry = far.join("registry");
    let hung = HungFs::over(&far);
    let mut mount = place.modelfs(["mount"]);
    mount.arg(place.mountpoint()).arg("--registry").arg(&registry);
    let mut mount = mount.stderr(Stdio::piped()).spawn().expect("the binary starts");
    eventually("it ends", || mount.try_wait().expect("own child").is_some());
    let ran = Ran::from(mount.wait_with_output().expect("own child"));
    assert_eq!(ran.code, 5, "{ran:?}");
    assert!(ran.err.contains("does not answer"), "{ran:?}");
    assert!(!is_mounted(&place.mountpoint()));
    drop(hung);
}

#[test]
fn a_guard_that_dies_is_replaced() {
    let place = Place::new();
    published(&place);
    let daemon = place.mount_folder(&[]);
    for _ in 0..2 {
        let worker = daemon.worker();
        let guard = || daemon.children().into_iter().find(|pid| *pid != worker);
        let before = guard().expect("a mount has a guard");
        assert!(signal(before, "KILL"));
        eventually("another guard", || guard().is_some_and(|now| now != before));
        assert!(is_mounted(&place.mountpoint()));
    }
    daemon.signal("KILL");
    eventually("the mount is gone", || !is_mounted(&place.mountpoint()));
}

#[test]
fn while_the_supervisor_is_stopped_files_are_opened_and_read() {
    let place = Place::new();
    let bytes = published(&place);
    let daemon = place.mount_folder(&[]);
    place.ok(["prefetch", "org/net@v1"]);
    let path = daemon.path("org/net/v1/w.bin");
    // More than there are threads that take requests.
    let small: Vec<_> = (0..16).map(|n| daemon.path(&format!("org/net/v1/{n:03}.json"))).collect();
    let list = daemon.path("org/net/v1");
    daemon.signal("STOP");
    let opened: Vec<_> = small
        .iter()
        .map(|path| {
            let (path, (tell, told)) = (path.clone(), mpsc::channel());
            std::thread::spawn(move || tell.send(fs::read(path)));
            told
        })
        .collect();
    let listed = soon("a list", move || fs::read_dir(list).map(Iterator::count));
    assert_eq!(listed.expect("lists"), 301);
    let read = soon("a read", move || File::open(path).and_then(|file| read_all(&file)));
    assert!(read.expect("reads") == bytes, "a wrong byte");
    for (n, told) in opened.into_iter().enumerate() {
        let read = told.recv_timeout(SOON).expect("it is opened").expect("reads");
        assert_eq!(read, n.to_string().into_bytes());
    }
    daemon.signal("CONT");
    // It hears of all that, and what is opened from now on is the kernel's again.
    let worker = daemon.worker();
    eventually("the kernel reads by itself", || {
        let had = reads_of(worker);
        let file = File::open(daemon.path("org/net/v1/w.bin")).expect("opens");
        read_all(&file).expect("reads");
        reads_of(worker) - had < 1 << 20
    });
    daemon.stop();
}

/// A file system that never answers, over a folder; what was there comes back when it goes.
struct HungFs<'a> {
    at: &'a Path,
    /// Whoever waits hears of its end when this is closed.
    _device: File,
}

impl<'a> HungFs<'a> {
    fn over(at: &'a Path) -> Self {
        use std::os::fd::AsRawFd;
        let device = File::options().read(true).write(true).open("/dev/fuse").expect("root may");
        let options =
            format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
        let options = std::ffi::CString::new(options).expect("no NUL in it");
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("hung", at, "fuse", flags, &*options).expect("root may");
        Self { at, _device: device }
    }
}

impl Drop for HungFs<'_> {
    fn drop(&mut self) {
        let flags = rustix::mount::UnmountFlags::DETACH;
        rustix::mount::unmount(self.at, flags).expect("it is mounted there");
    }
}
