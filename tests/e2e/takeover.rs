//! A worker dies: whoever reads notices nothing but a pause.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use modelfs_test_support::{Fault, Server, When, bytes, mapped};

use crate::harness::{Daemon, Place, User, eventually, is_mounted, signal, xattr};

pub const SIZE: usize = 24 << 20;

/// A version with one large file and some small ones.
pub fn published(place: &Place) -> Vec<u8> {
    let plain = place.path("plain");
    fs::create_dir_all(&plain).expect("a folder");
    let bytes = bytes(21, SIZE);
    fs::write(plain.join("w.bin"), &bytes).expect("a file");
    for n in 0..300 {
        fs::write(plain.join(format!("{n:03}.json")), n.to_string()).expect("a file");
    }
    place.publish(&plain, "org/net", "v1", &["--chunk-size", "8MiB"]);
    bytes
}

/// Ends the worker; returns when another one answers.
fn replace(daemon: &Daemon<'_>, how: &str) {
    let before = daemon.worker();
    assert!(signal(before, how), "kill -{how} {before}");
    eventually("another worker", || {
        daemon.status()["daemon"]["worker"].as_u64().is_some_and(|now| now != u64::from(before))
    });
}

#[test]
fn a_read_in_flight_is_answered_by_the_next_worker() {
    let place = Place::new();
    let bytes = published(&place);
    let server = Server::start(&place.registry());
    let daemon = place.mount(&server.url(), &["--no-passthrough"]);
    let path = daemon.path("org/net/v1/w.bin");
    let file = File::open(&path).expect("opens");
    server.on("/data/", When::Always, Fault::Delay(Duration::from_secs(2)));
    let reading = std::thread::spawn(move || {
        let mut buffer = vec![0; 300_000];
        file.read_exact_at(&mut buffer, 12 << 20).map(|()| buffer)
    });
    std::thread::sleep(Duration::from_millis(500));
    assert!(!reading.is_finished(), "the read waits for the registry");
    replace(&daemon, "KILL");
    server.heal();
    let read = reading.join().expect("the reader does not panic").expect("no error reaches it");
    assert!(read == bytes[12 << 20..(12 << 20) + 300_000], "a wrong byte");
    daemon.stop();
}

/// Whatever kills it, with files open in each way: what was open goes on, what is opened later too.
fn what_is_open_goes_on(place: &Place, more: &[&str]) {
    let bytes = published(place);
    let daemon = place.mount_folder(more);
    let path = daemon.path("org/net/v1/w.bin");
    let ino = fs::metadata(&path).expect("stat").ino();
    let cached = File::open(&path).expect("opens before it is complete: cached mode");
    let map = mapped::map(&cached);
    assert_eq!(map[5 << 20], bytes[5 << 20]);
    let mut list = fs::read_dir(daemon.path("org/net/v1")).expect("lists");
    let mut names: Vec<_> = list.by_ref().take(10).map(|e| e.expect("an entry").path()).collect();
    // So that pages come from the daemon and not from memory.
    let forget = |file: &File| {
        rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed).expect("fadvise");
    };
    for how in ["KILL", "FPE", "ABRT", "TERM"] {
        if how == "TERM" {
            // Not a death: a service manager sends it to all, and the supervisor alone decides.
            assert!(signal(daemon.worker(), how));
        } else {
            replace(&daemon, how);
        }
        let mut buffer = vec![0; SIZE];
        forget(&cached);
        cached.read_exact_at(&mut buffer, 0).expect("goes on");
        assert!(buffer == bytes, "{how}: a wrong byte");
        let again = File::open(&path).expect("opens again");
        again.read_exact_at(&mut buffer, 0).expect("reads");
        assert!(buffer == bytes, "{how}: a wrong byte");
        assert_eq!(fs::metadata(&path).expect("stat").ino(), ino);
    }
    assert_eq!(map[20 << 20], bytes[20 << 20]);
    names.extend(list.map(|e| e.expect("the list goes on").path()));
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 301, "every entry, once");
    assert_eq!(daemon.status()["daemon"]["restarts"], 3);
    drop((map, cached));
    daemon.stop();
}

#[test]
fn open_files_maps_and_lists_go_on() {
    what_is_open_goes_on(&Place::new(), &[]);
}

#[test]
fn open_files_maps_and_lists_go_on_in_cached_mode() {
    what_is_open_goes_on(&Place::new(), &["--no-passthrough"]);
}

#[test]
fn open_files_maps_and_lists_go_on_for_an_ordinary_user() {
    let place = Place::of(User::Ordinary);
    published(&place);
    let daemon = place.mount_folder(&[]);
    // In a process of that user: nobody else may look into its mount.
    let script = "exec 3< \"$1\"; for n in 1 2 3 4 5 6 7 8 9 10; do \
                  sha256sum < \"$1\" || exit 1; sleep 0.3; done; sha256sum <&3";
    let mut reader = place.program("sh");
    reader.args(["-c", script, "sh"]).arg(daemon.path("org/net/v1/w.bin"));
    let reader = reader.stdout(Stdio::piped()).spawn().expect("sh starts");
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(500));
        replace(&daemon, "KILL");
    }
    let out = reader.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&out.stdout);
    let plain = fs::read(place.path("plain/w.bin")).expect("own file");
    let digest = modelfs::model::hash::sha256(&plain).to_string();
    assert!(out.status.success(), "{text}");
    assert_eq!(text.lines().filter(|l| l.starts_with(&digest)).count(), 11, "{text}");
    daemon.stop();
}

pub fn reads_of(pid: u32) -> u64 {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).expect("own process");
    let line = io.lines().find_map(|l| l.strip_prefix("rchar: ")).expect("Linux says it");
    line.parse().expect("a number")
}

#[test]
fn passthrough_goes_on_without_any_worker_and_keeps_its_number_after() {
    let place = Place::new();
    let bytes = published(&place);
    // the scrub reads, too
    let daemon = place.mount_folder(&["--scrub-rate", "0"]);
    place.ok(["prefetch", "org/net@v1"]);
    let path = daemon.path("org/net/v1/w.bin");
    let before = File::open(&path).expect("opens by passthrough");
    replace(&daemon, "KILL");
    // A second number for the same inode would be refused by the kernel: EIO.
    let after = File::open(&path).expect("opens by the same number");
    let worker = daemon.worker();
    let had = reads_of(worker);
    for file in [&before, &after] {
        let mut buffer = vec![0; SIZE];
        rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed).expect("fadvise");
        file.read_exact_at(&mut buffer, 0).expect("reads");
        assert!(buffer == bytes, "a wrong byte");
    }
    let read = reads_of(worker) - had;
    assert!(read < 1 << 20, "the worker is not in the path, but read {read} bytes");
    place.run(["evict", "--all"]);
    assert_eq!(xattr(&path, "cached"), Some(SIZE.to_string()), "open: kept");
    drop((before, after));
    // The supervisor took the number back with the last handle, the former worker's among them.
    eventually("it can be evicted", || {
        place.run(["evict", "--all"]);
        xattr(&path, "cached").as_deref() == Some("0")
    });
    assert!(fs::read(&path).expect("reads") == bytes);
    daemon.stop();
}

#[test]
fn a_catalog_that_changed_meanwhile_is_seen_by_the_next_worker() {
    let place = Place::new();
    published(&place);
    let daemon = place.mount_folder(&["--catalog-ttl", "1h"]);
    let names = || fs::read_dir(daemon.path("org/net")).expect("lists").count();
    assert_eq!(names(), 1);
    let plain = place.path("plain");
    fs::write(plain.join("more.json"), "{}").expect("a file");
    place.publish(&plain, "org/net", "v1", &["--replace"]);
    place.publish(&plain, "org/net", "v2", &[]);
    let old = daemon.path("org/net/v1/more.json");
    assert!(!old.exists(), "the list is not old yet");
    replace(&daemon, "KILL");
    eventually("the new version", || names() == 2);
    eventually("the new meaning of the old", || Path::new(&old).exists());
    daemon.stop();
}

#[test]
fn the_worker_has_no_privileges_and_reaches_nothing_else() {
    let place = Place::new();
    published(&place);
    let daemon = place.mount_folder(&[]);
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.worker())).expect("lives");
    for line in ["CapEff:", "CapPrm:", "CapBnd:"] {
        let set = status.lines().find_map(|l| l.strip_prefix(line)).expect("Linux says it");
        assert_eq!(u64::from_str_radix(set.trim(), 16), Ok(0), "{line} {set}");
    }
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    let confinement = &daemon.status()["daemon"]["confinement"];
    assert_eq!(confinement["unprivileged"], true, "{confinement}");
    assert_eq!(confinement["landlock"], true, "{confinement}");
    assert_eq!(daemon.status()["daemon"]["passthrough"], true, "the supervisor asks for it");
    daemon.stop();

    let daemon = place.mount_folder(&["--keep-privileges"]);
    assert_eq!(daemon.status()["daemon"]["confinement"]["landlock"], false);
    daemon.stop();
}

#[test]
fn the_mount_is_removed_when_the_supervisor_dies() {
    for user in [User::Me, User::Ordinary] {
        let place = Place::of(user);
        published(&place);
        let daemon = place.mount_folder(&[]);
        let worker = daemon.worker();
        daemon.signal("KILL");
        eventually("the mount is gone", || !is_mounted(&place.mountpoint()));
        eventually("the worker is gone", || !Path::new(&format!("/proc/{worker}")).exists());
        drop(daemon);
        place.mount_folder(&[]).stop();
    }
}

#[test]
fn a_worker_without_memory_is_replaced_and_no_read_fails() {
    let place = Place::new();
    let bytes = published(&place);
    let server = Server::start(&place.registry());
    let daemon = place.mount(&server.url(), &["--no-passthrough"]);
    let worker = daemon.worker();
    let pid = i32::try_from(worker).ok().and_then(rustix::process::Pid::from_raw);
    let none = rustix::process::Rlimit { current: Some(1 << 20), maximum: Some(1 << 20) };
    rustix::process::prlimit(pid, rustix::process::Resource::Data, none).expect("root may");
    // It gets no page more: the first large buffer or thread is its end.
    let read = fs::read(daemon.path("org/net/v1/w.bin")).expect("no error reaches the reader");
    assert!(read == bytes, "a wrong byte");
    assert_ne!(daemon.worker(), worker, "it died of it");
    daemon.stop();
}

#[test]
fn a_worker_that_hangs_is_replaced_without_being_asked_to() {
    let place = Place::new();
    let bytes = published(&place);
    let daemon = place.mount_folder(&["--no-passthrough", "--hang-timeout", "1500ms"]);
    let worker = daemon.worker();
    // One that answers is left alone for longer than that.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(daemon.worker(), worker);
    assert!(signal(worker, "STOP"));
    let read = fs::read(daemon.path("org/net/v1/w.bin")).expect("no error reaches the reader");
    assert!(read == bytes, "a wrong byte");
    assert_ne!(daemon.worker(), worker);
    daemon.stop();
}
