//! A server that goes away: what is cached stays, what is not is an error, and all is well again
//! when it is back.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

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
            modelfs::model::hash::sha256(&bytes[BROKEN.start as usize..BROKEN.end as usize]);
        Self { place, server, bytes, chunk: format!("/data/{digest}") }
    }

    fn mount(&self) -> Daemon<'_> {
        self.mount_with("2s")
    }

    fn mount_with(&self, deadline: &str) -> Daemon<'_> {
        let args = ["--read-deadline", deadline, "--catalog-ttl", "1s"];
        self.place.mount(&self.server.url(), &args)
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

/// The kernel asks once more for a page that did not come when it read ahead: that must not begin
/// another wait.
#[test]
fn a_read_waits_for_one_deadline_not_for_two() {
    let scene = Scene::new();
    scene.server.on(&scene.chunk, When::Always, Fault::Stall(0));
    let daemon = scene.mount_with("10s");
    let begun = Instant::now();
    let error = scene.try_broken(&daemon).expect_err("nothing comes");
    let took = begun.elapsed();
    assert!(matches!(error.raw_os_error(), Some(5 | 110)), "{error}");
    assert!(took < Duration::from_secs(18), "{took:?} for a deadline of 10 s");
    scene.server.heal();
    eventually("right again", || scene.try_broken(&daemon).is_ok());
    daemon.stop();
}

/// The reader has not come that far, and may never; but whoever looks is told what lies ahead.
#[test]
fn a_failed_readahead_records_its_reason() {
    let scene = Scene::new();
    scene.server.on(&scene.chunk, When::Always, Fault::Status(404, None));
    let daemon = scene.mount();
    let path = daemon.path("org/net/v1/w.bin");
    // The kernel itself reads ahead less than what is left of the good chunk.
    let read_on = || {
        let file = File::open(&path).expect("opens");
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("fadvise");
        let mut buffer = vec![0; 128 << 10];
        for at in (0..5 << 20).step_by(buffer.len()) {
            file.read_exact_at(&mut buffer, at as u64).expect("this chunk is good");
            assert!(buffer == scene.bytes[at..at + buffer.len()], "a wrong byte");
        }
    };
    // Again and again: what is fetched well after a failure takes its reason away, and how far
    // ahead of the reader that was depends on the machine. The second time nothing is fetched well.
    eventually("the reason is there", || {
        read_on();
        xattr(&path, "error").is_some_and(|why| why.contains("not found in the registry"))
    });
    scene.server.heal();
    eventually("right again", || scene.try_broken(&daemon).is_ok());
    assert_eq!(xattr(&path, "error"), None);
    daemon.stop();
}
