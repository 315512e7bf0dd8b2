//! A registry in a folder whose file system hangs: it costs what is not cached, and nothing else.
//!
//! The file system is a mount of our own whose process is stopped, so that it can be made to hang and
//! to go on again.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use modelfs_test_support::bytes;

use crate::harness::{Daemon, PATIENCE, Place, eventually, signal};

/// Files that are read while the folder hangs, by as many readers again and again: many times more
/// reads than there are threads.
const COLD: usize = 64;
/// As tokio has them; a pool that is shared with them would be exhausted.
const THREADS: usize = 512;

/// A registry's folder, published as a version of another registry and mounted.
struct Hanging {
    outer: Place,
}

impl Hanging {
    fn new(plain: &std::path::Path) -> Self {
        let outer = Place::new();
        let folder = outer.path("folder");
        fs::create_dir(&folder).expect("a folder");
        let args = ["publish", text(plain), "org/net", "v1", "--registry"];
        outer.ok(args.into_iter().chain([text(&folder)]));
        fs::remove_file(folder.join(".publish.lock")).expect("not a registry's");
        outer.publish(&folder, "registries/one", "v1", &[]);
        Self { outer }
    }

    fn mount(&self) -> (Daemon<'_>, PathBuf) {
        // Without passthrough, or the kernel would go on reading; nobody may replace who is stopped.
        let daemon = self.outer.mount_folder(&["--no-passthrough", "--hang-timeout", "0s"]);
        let folder = daemon.path("registries/one/v1");
        (daemon, folder)
    }
}

/// Lets everybody go on at the end, also of a test that fails: who waits for them would wait for ever.
struct End<'a> {
    server: u32,
    stop: &'a AtomicBool,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        signal(self.server, "CONT");
    }
}

fn text(path: &std::path::Path) -> &str {
    path.to_str().expect("temporary folders have UTF-8 names")
}

fn threads(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).expect("it lives").count()
}

#[test]
fn cached_reads_and_commands_are_not_delayed_by_a_hung_folder() {
    let place = Place::new();
    let plain = place.path("plain");
    fs::create_dir(&plain).expect("a folder");
    // Large enough that none is read along with another.
    let cold = |n: usize| bytes(100 + n as u64, 2 << 20);
    for n in 0..COLD {
        fs::write(plain.join(format!("cold-{n:02}.bin")), cold(n)).expect("a file");
    }
    let warm = bytes(7, 3 << 20);
    fs::write(plain.join("warm.bin"), &warm).expect("a file");
    let hanging = Hanging::new(&plain);
    let (outer, folder) = hanging.mount();
    let args = ["--no-passthrough", "--read-deadline", "2s", "--catalog-ttl", "1s"];
    let daemon = place.mount(text(&folder), &args);
    let version = daemon.path("org/net/v1");
    assert!(fs::read(version.join("warm.bin")).expect("read") == warm);
    let (server, worker) = (outer.worker(), daemon.worker());

    assert!(signal(server, "STOP"));
    let (stop, failed) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let end = End { server, stop: &stop };
        for n in 0..COLD {
            let (path, stop, failed) = (version.join(format!("cold-{n:02}.bin")), &stop, &failed);
            scope.spawn(move || {
                let mut buffer = [0; 4096];
                while !stop.load(Ordering::SeqCst) {
                    let file = File::open(&path).expect("names are cached");
                    match file.read_exact_at(&mut buffer, 1 << 20) {
                        // The folder goes on as soon as the readers were told to stop.
                        Ok(()) => assert!(stop.load(Ordering::SeqCst), "it does not hang"),
                        Err(error) => {
                            assert!(matches!(error.raw_os_error(), Some(5 | 110)), "{error}");
                        }
                    }
                    failed.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        // Until so many have failed that a pool that is shared would be full, or is.
        let begun = Instant::now();
        eventually("reads fail, each by its deadline", || {
            failed.load(Ordering::SeqCst) >= 4 * COLD && begun.elapsed() > Duration::from_secs(20)
        });
        let (tell, told) = mpsc::channel();
        let (daemon, version, warm) = (&daemon, &version, &warm);
        scope.spawn(move || {
            let file = File::open(version.join("warm.bin")).expect("opens");
            let mut buffer = vec![0; warm.len()];
            for _ in 0..10 {
                rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("fadvise");
                file.read_exact_at(&mut buffer, 0).expect("cached");
                assert!(&buffer == warm, "a wrong byte");
            }
            let _ = tell.send(daemon.status());
        });
        let status = told.recv_timeout(Duration::from_secs(15));
        let status = status.expect("ten cached reads and a command come to an end");
        let trouble = status["registry"]["trouble"].as_str().unwrap_or_default();
        assert!(trouble.contains("no answer within") || trouble.contains("hang"), "{status}");
        // Readers that go on would keep every thread of the pool in use by turns. Once they have ended,
        // threads without work go after some seconds; those that hang would stay.
        stop.store(true, Ordering::SeqCst);
        eventually("few threads wait for the folder", || threads(worker) < THREADS / 4);
        drop(end);
    });

    for n in 0..COLD {
        let path = version.join(format!("cold-{n:02}.bin"));
        eventually("right again", || fs::read(&path).is_ok_and(|b| b == cold(n)));
    }
    daemon.stop();
    outer.stop();
}

#[test]
fn a_mount_ends_while_its_folder_hangs() {
    let place = Place::new();
    let plain = place.path("plain");
    fs::create_dir(&plain).expect("a folder");
    fs::write(plain.join("cold.bin"), bytes(1, 2 << 20)).expect("a file");
    let hanging = Hanging::new(&plain);
    let (outer, folder) = hanging.mount();
    let daemon = place.mount(text(&folder), &["--no-passthrough", "--read-deadline", "4s"]);
    let path = daemon.path("org/net/v1/cold.bin");
    let (server, file) = (outer.worker(), File::open(path).expect("opens"));
    assert!(signal(server, "STOP"));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _end = End { server, stop: &stop };
        scope.spawn(|| {
            let mut buffer = [0; 4096];
            let _ = file.read_exact_at(&mut buffer, 0);
        });
        eventually("it hangs", || daemon.status()["traffic"]["requests"].as_u64() > Some(0));
        let begun = Instant::now();
        daemon.stop();
        assert!(begun.elapsed() < PATIENCE / 3, "{:?}", begun.elapsed());
    });
    outer.stop();
}
