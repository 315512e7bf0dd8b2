//! Readers with digests while workers are killed and commands fly: no error, no wrong byte.
//!
//! Short in `make test`; `make test-torture` sets the seconds.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use modelfs_test_support::{Server, bytes};

use crate::harness::{Place, signal};

/// How long, if the environment does not say.
const SECONDS: u64 = 12;
const FILES: usize = 4;
const SIZE: usize = 10 << 20;

/// A number that differs from call to call, the same in every run.
fn next(seed: &AtomicU64) -> u64 {
    let mut x = seed.load(Ordering::Relaxed);
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    seed.store(x, Ordering::Relaxed);
    x
}

/// Says that it is done when it goes.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn kills_evictions_and_restarts_under_readers() {
    let seconds = std::env::var("MODELFS_TORTURE_SECONDS").ok().and_then(|s| s.parse().ok());
    let place = Place::new();
    let plain = place.path("plain");
    fs::create_dir(&plain).expect("a folder");
    let contents: Vec<_> = (0..FILES).map(|n| bytes(n as u64, SIZE + n)).collect();
    for (n, content) in contents.iter().enumerate() {
        fs::write(plain.join(format!("{n}.bin")), content).expect("a file");
    }
    place.publish(&plain, "org/net", "v1", &["--chunk-size", "2MiB"]);
    let server = Server::start(&place.registry());
    // Room for half of it, and never so many deaths that it gives up.
    let size = ["--cache-size", "24MiB", "--max-restarts", "0"];
    let daemon = place.mount(&server.url(), &size);
    let (done, compared) = (AtomicBool::new(false), AtomicU64::new(0));
    let until = Instant::now() + Duration::from_secs(seconds.unwrap_or(SECONDS));
    let (mut kills, mut restarts) = (0, 0);
    std::thread::scope(|scope| {
        // Also if an assertion fails: the readers end, and the scope with them.
        let _ends = Ends(&done);
        let readers: Vec<_> = (0..FILES)
            .map(|n| {
                let (path, content) = (daemon.path(&format!("org/net/v1/{n}.bin")), &contents[n]);
                let (done, compared) = (&done, &compared);
                scope.spawn(move || {
                    while !done.load(Ordering::Relaxed) {
                        let read = fs::read(&path).unwrap_or_else(|e| panic!("{n}: {e}"));
                        assert!(read == *content, "{n}: a wrong byte");
                        compared.fetch_add(read.len() as u64, Ordering::Relaxed);
                        let listed = fs::read_dir(path.parent().expect("a folder"));
                        assert_eq!(listed.expect("lists").count(), FILES);
                    }
                })
            })
            .collect();
        let seed = AtomicU64::new(0x9E37_79B9_7F4A_7C15);
        while Instant::now() < until && readers.iter().all(|r| !r.is_finished()) {
            std::thread::sleep(Duration::from_millis(next(&seed) % 700));
            match next(&seed) % 6 {
                0 => {
                    // 1: all of it is being read; 4: nothing is cached.
                    let ran = place.run(["evict", "--all"]);
                    assert!(matches!(ran.code, 0 | 1 | 4), "{ran:?}");
                }
                1 => {
                    // 7: what is open takes all the room there is.
                    let ran = place.run(["prefetch", "org/net@v1"]);
                    assert!(matches!(ran.code, 0 | 7), "{ran:?}");
                }
                2 => restarts += u64::from(place.run(["restart"]).code == 0),
                _ => {
                    let worker = place.run(["status", "--json"]);
                    let pid = serde_json::from_str::<serde_json::Value>(&worker.out)
                        .ok()
                        .and_then(|s| s["daemon"]["worker"].as_u64());
                    if let Some(pid) = pid.and_then(|pid| u32::try_from(pid).ok()) {
                        kills += u64::from(signal(pid, "KILL"));
                    }
                }
            }
        }
        done.store(true, Ordering::Relaxed);
        for reader in readers {
            if let Err(panic) = reader.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
    let compared = compared.load(Ordering::Relaxed);
    println!("{kills} kills and {restarts} restarts survived, {compared} bytes compared");
    assert!(kills > 0 && compared > SIZE as u64, "{kills} kills, {compared} bytes");
    place.ok(["verify"]);
    daemon.stop();
}
