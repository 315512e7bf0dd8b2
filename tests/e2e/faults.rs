//! What a registry does wrong costs an error with a reason, never a wrong byte, and heals.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use modelfs_test_support::Server;
use modelfs_test_support::bytes;
use modelfs_test_support::{Fault, When};

use crate::harness::{Daemon, Place, eventually, xattr};

const SIZE: usize = 24 << 20;
/// What is broken: the second of three chunks.
const BROKEN: std::ops::Range<u64> = 8 << 20..16 << 20;

struct Scene {
    place: Place,
    server: Server,
    bytes: Vec<u8>,
    /// The path of the second chunk of the file.
    chunk: String,
}

impl Scene {
    fn new() -> Self {
        let place = Place::new();
        let plain = place.path("plain");
        fs::create_dir(&plain).expect("a folder");
        let bytes = bytes(11, SIZE);
        fs::write(plain.join("w.bin"), &bytes).expect("a file");
        place.publish(&plain, "org/net", "v1", &["--chunk-size", "8MiB"]);
        let server = Server::start(&place.registry());
        let digest =
            modelfs::base::hash::sha256(&bytes[BROKEN.start as usize..BROKEN.end as usize]);
        Self { place, server, bytes, chunk: format!("/data/{digest}") }
    }

    fn mount(&self) -> Daemon<'_> {
        self.place.mount(&self.server.url(), &["--read-deadline", "2s", "--catalog-ttl", "1s"])
    }

    /// Reads the middle of the broken chunk: never anything but the right bytes or an error.
    fn try_broken(&self, daemon: &Daemon<'_>) -> std::io::Result<()> {
        let file = File::open(daemon.path("org/net/v1/w.bin")).expect("it opens all the same");
        let mut buffer = vec![0; 200_000];
        let at = 12 << 20;
        file.read_exact_at(&mut buffer, at)?;
        assert!(buffer == self.bytes[at as usize..at as usize + buffer.len()], "a wrong byte");
        Ok(())
    }

    /// The other chunks are read right, to their last byte.
    fn rest_is_right(&self, daemon: &Daemon<'_>) {
        let file = File::open(daemon.path("org/net/v1/w.bin")).expect("opens");
        let mut buffer = vec![0; 1 << 20];
        for at in (0..SIZE as u64).step_by(buffer.len()).filter(|at| !BROKEN.contains(at)) {
            // The kernel reads ahead across the edge; what it fails to get there it asks for again.
            file.read_exact_at(&mut buffer, at).unwrap_or_else(|e| panic!("at {at}: {e}"));
            assert!(buffer == self.bytes[at as usize..at as usize + buffer.len()], "a wrong byte");
        }
    }
}

/// With this fault on the chunk: an error with its reason, then right again without a remount.
fn fails_and_heals(fault: Fault, reason: &[&str]) {
    let scene = Scene::new();
    let daemon = scene.mount();
    scene.server.on(&scene.chunk, When::Always, fault.clone());
    let error = scene.try_broken(&daemon).expect_err("nothing right was to be had");
    assert!(
        matches!(error.raw_os_error(), Some(5 | 110)),
        "{fault:?}: EIO or ETIMEDOUT, not {error}"
    );
    let path = daemon.path("org/net/v1/w.bin");
    let said = xattr(&path, "error").expect("the reason can be read");
    assert!(reason.iter().any(|r| said.contains(r)), "{fault:?}: {said}");
    assert_eq!(fs::metadata(&path).expect("never ENOENT").len(), SIZE as u64);
    scene.rest_is_right(&daemon);
    scene.server.heal();
    eventually("right again", || scene.try_broken(&daemon).is_ok());
    assert!(fs::read(&path).expect("reads") == scene.bytes);
    daemon.stop();
}

#[test]
fn a_flipped_bit() {
    fails_and_heals(Fault::FlipBit(4 << 20), &["do not match"]);
}

#[test]
fn a_truncated_body() {
    fails_and_heals(Fault::Truncate(100_000), &["cut off", "bytes"]);
}

#[test]
fn a_wrong_length() {
    fails_and_heals(Fault::WrongContentLength(77), &["77", "length", "bytes"]);
}

#[test]
fn a_wrong_range() {
    fails_and_heals(Fault::WrongContentRange("bytes 0-9/10".to_owned()), &["range", "Range"]);
}

#[test]
fn a_404() {
    fails_and_heals(Fault::Status(404, None), &["not found"]);
}

#[test]
fn a_503() {
    fails_and_heals(Fault::Status(503, None), &["503"]);
}

#[test]
fn a_connection_that_breaks_mid_body() {
    fails_and_heals(Fault::Reset(50_000), &["data/"]);
}

#[test]
fn a_server_that_falls_silent_mid_body() {
    fails_and_heals(Fault::Stall(50_000), &["no answer", "silent", "data/"]);
}

#[test]
fn a_hiccup_is_not_noticed() {
    for fault in [
        Fault::FlipBit(4 << 20),
        Fault::Truncate(1_000_000),
        Fault::Reset(500_000),
        Fault::Status(503, None),
        Fault::Status(429, Some("0".to_owned())),
        Fault::Gone,
    ] {
        let scene = Scene::new();
        scene.server.on(&scene.chunk, When::First(1), fault.clone());
        let daemon = scene.mount();
        scene.try_broken(&daemon).unwrap_or_else(|e| panic!("{fault:?}: {e}"));
        daemon.stop();
    }
}

#[test]
fn a_server_that_goes_away_and_comes_back() {
    let scene = Scene::new();
    let daemon = scene.mount();
    let path = daemon.path("org/net/v1/w.bin");
    let mut head = vec![0; 1 << 20];
    File::open(&path).expect("opens").read_exact_at(&mut head, 0).expect("reads");
    scene.server.go_away();
    // What is cached, the tree included, needs no server.
    std::thread::sleep(Duration::from_millis(1200));
    File::open(&path).expect("opens").read_exact_at(&mut head, 0).expect("cached");
    assert!(head == scene.bytes[..1 << 20]);
    let names: Vec<_> = fs::read_dir(daemon.path("org/net/v1")).expect("listed").collect();
    assert_eq!(names.len(), 1);
    let error = fs::read(&path).expect_err("the rest is not to be had");
    assert_ne!(error.kind(), ErrorKind::NotFound);
    assert!(xattr(&path, "error").is_some());
    eventually("status names the trouble", || daemon.status()["registry"]["trouble"].is_string());
    scene.server.come_back();
    eventually("right again", || fs::read(&path).is_ok_and(|b| b == scene.bytes));
    assert_eq!(xattr(&path, "error"), None, "an error that is over is forgotten");
    daemon.stop();
}

#[test]
fn a_server_that_dies_in_the_middle_of_a_body() {
    let scene = Scene::new();
    scene.server.on(&scene.chunk, When::Always, Fault::Drip(20_000, Duration::from_millis(50)));
    let daemon = scene.mount();
    let outcome = std::thread::scope(|scope| {
        let reader = scope.spawn(|| scene.try_broken(&daemon));
        std::thread::sleep(Duration::from_millis(400));
        scene.server.go_away();
        reader.join().expect("no wrong byte")
    });
    if let Err(error) = outcome {
        assert!(matches!(error.raw_os_error(), Some(5 | 110)), "{error}");
    }
    scene.server.heal();
    scene.server.come_back();
    eventually("right again", || scene.try_broken(&daemon).is_ok());
    daemon.stop();
}
