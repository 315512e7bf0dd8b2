//! A process that may open a handful of files: what it says of it fits on a page.

use std::fs::{self, File};
use std::io::Read;
use std::time::{Duration, Instant};

use modelfs_test_support::bytes;

use crate::harness::{Daemon, Place, binary};

/// Enough to start with, and many fewer than files are read.
const DESCRIPTORS: u32 = 48;
const FILES: usize = 200;
/// Lines that one place of the program may write at once, and then one in so long.
const AT_ONCE: usize = 20;
const EACH: Duration = Duration::from_secs(5);

#[test]
fn repeated_errors_are_logged_with_a_limit() {
    let place = Place::new();
    let plain = place.path("plain");
    fs::create_dir(&plain).expect("a folder");
    let content = |n: usize| bytes(n as u64, 1 << 20);
    for n in 0..FILES {
        fs::write(plain.join(format!("{n:03}")), content(n)).expect("a file");
    }
    place.publish(&plain, "org/net", "v1", &[]);
    let mut command = place.program("prlimit");
    command.arg(format!("--nofile={DESCRIPTORS}")).arg(binary()).arg("mount");
    command.arg(place.mountpoint()).arg("--registry").arg(place.registry());
    command.args(["--read-deadline", "3s"]);
    let daemon = Daemon::start(&place, command);
    let begun = Instant::now();
    for _ in 0..3 {
        let open = std::sync::Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for n in 0..FILES {
                let (path, open) = (daemon.path(&format!("org/net/v1/{n:03}")), &open);
                scope.spawn(move || {
                    let Ok(mut file) = File::open(path) else { return };
                    let mut got = Vec::new();
                    if file.read_to_end(&mut got).is_ok() {
                        assert!(got == content(n), "a wrong byte");
                    }
                    // Kept, so that its descriptors are.
                    open.lock().expect("nobody panics with it").push(file);
                });
            }
        });
    }
    let log = daemon.stop();
    let most = AT_ONCE + (begun.elapsed().as_secs() / EACH.as_secs()) as usize + 1;
    let lines = |what: &str| log.lines().filter(|line| line.contains(what)).count();
    let troubled = lines("Too many open files");
    assert!(troubled > 0, "there was no trouble: {log}");
    for what in ["could not be stored", "a read failed"] {
        assert!(lines(what) <= most, "{} lines of '{what}', at most {most}", lines(what));
    }
    // There are few places that say such a thing.
    assert!(log.lines().count() < 8 * most, "{} lines", log.lines().count());
}
