//! Recorded loads: the next load of a version is fetched ahead in the order of the one before.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use modelfs_test_support::{Server, bytes};

use crate::harness::{Daemon, Place, eventually, xattr};

const PIECE: usize = 1 << 20;
/// What is read of one: a single request, so that nothing looks like a reader who goes on.
const PAGES: usize = 64 << 10;
/// Pieces that the program reads, of each file: an order that no readahead would guess.
const ORDER: [usize; 8] = [14, 3, 9, 0, 12, 6, 1, 10];

/// Two files whose first bytes tell nothing.
fn published(place: &Place) -> Vec<Vec<u8>> {
    let plain = place.path("plain");
    fs::create_dir_all(&plain).expect("a folder");
    let files: Vec<_> = (0..2).map(|n| bytes(70 + n, 16 * PIECE)).collect();
    for (n, file) in files.iter().enumerate() {
        fs::write(plain.join(format!("{n}.bin")), file).expect("a file");
    }
    place.publish(&plain, "org/net", "v1", &[]);
    files
}

/// Loads: the given pieces of each file in turn, a page of each.
fn load(daemon: &Daemon<'_>, files: &[Vec<u8>], order: &[usize]) {
    let open = |n| File::open(daemon.path(&format!("org/net/v1/{n}.bin"))).expect("opens");
    let opened: Vec<_> = (0..files.len()).map(open).collect();
    for piece in order {
        for (file, want) in opened.iter().zip(files) {
            rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::Random).expect("fadvise");
            let mut got = vec![0; PAGES];
            file.read_exact_at(&mut got, (piece * PIECE) as u64).expect("reads");
            assert!(got == want[piece * PIECE..][..PAGES], "a wrong byte");
        }
    }
}

fn cached(daemon: &Daemon<'_>, n: usize) -> usize {
    let path = daemon.path(&format!("org/net/v1/{n}.bin"));
    xattr(&path, "cached").and_then(|n| n.parse().ok()).unwrap_or(0)
}

#[test]
fn a_load_is_recorded_and_leads_the_next_one_here_and_elsewhere() {
    let place = Place::new();
    let files = published(&place);
    let server = Server::start(&place.registry());
    let daemon = place.mount(&server.url(), &["--no-passthrough"]);
    let none = place.run(["trace", "show", "org/net@v1"]);
    assert_eq!(none.code, 4, "{}", none.err);
    assert!(none.err.contains("nothing of org/net@v1 is cached"), "{}", none.err);
    assert_eq!(fs::read_dir(daemon.path("org/net/v1")).expect("lists").count(), 2);
    let none = place.run(["trace", "show", "org/net@v1"]);
    assert!(none.code == 4 && none.err.contains("no load of org/net@v1 was"), "{}", none.err);

    load(&daemon, &files, &ORDER);
    let shown = place.run(["trace", "show", "org/net@v1", "--json"]).json();
    assert_eq!((shown["files"].as_u64(), shown["steps"].as_u64()), (Some(2), Some(16)), "{shown}");
    let steps = shown["document"]["steps"].as_array().expect("steps");
    let starts: Vec<_> = steps.iter().map(|s| s[1].as_u64().expect("a number")).collect();
    let want = ORDER.iter().flat_map(|piece| [(piece * PIECE) as u64; 2]);
    assert!(starts.iter().copied().eq(want), "{starts:?}");
    let text = place.ok(["trace", "show", "org/net@v1"]);
    assert!(text.starts_with("org/net@v1: 2 files, 16 steps, 1.0 MiB"), "{text}");
    let exported = place.path("load.json");
    place.ok(["trace", "export", "org/net@v1", "-o", exported.to_str().expect("UTF-8")]);
    daemon.stop();

    // Another machine: nothing cached, nothing recorded but what is imported.
    place.ok(["evict", "--all"]);
    place.ok(["trace", "forget", "org/net@v1"]);
    assert_eq!(place.run(["trace", "forget", "org/net@v1"]).code, 4);
    let told = place.ok(["trace", "import", exported.to_str().expect("UTF-8")]);
    assert!(told.contains("2 files, 16 steps, 1.0 MiB"), "{told}");
    let daemon = place.mount(&server.url(), &["--no-passthrough"]);
    // It only begins, and the rest comes.
    load(&daemon, &files, &ORDER[..1]);
    let all = ORDER.len() * PAGES;
    eventually("what the other load touched", || (0..2).all(|n| cached(&daemon, n) >= all));
    std::thread::sleep(Duration::from_millis(300));
    let came = cached(&daemon, 0) + cached(&daemon, 1);
    // Whole leaves, which are twice as long; the files have 32 MiB.
    assert!(came <= 4 * all, "{came} bytes for a load of {}", 2 * all);
    server.reset();
    load(&daemon, &files, &ORDER);
    assert_eq!(server.requests_for("/data/"), 0, "all of it is there before it is read");
    daemon.stop();
}

#[test]
fn a_load_that_deviates_from_the_trace_is_not_prefetched() {
    let place = Place::new();
    let files = published(&place);
    let server = Server::start(&place.registry());
    let daemon = place.mount(&server.url(), &["--no-passthrough"]);
    load(&daemon, &files, &ORDER);
    place.ok(["trace", "show", "org/net@v1"]);
    daemon.stop();
    place.ok(["evict", "--all"]);
    let daemon = place.mount(&server.url(), &["--no-passthrough"]);
    // Pieces that the load left out, page by page.
    let file = File::open(daemon.path("org/net/v1/0.bin")).expect("opens");
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random).expect("fadvise");
    for n in 0..40 {
        let at = [2, 4, 5, 7][n % 4] * PIECE + n * 16384;
        let mut got = vec![0; 4096];
        file.read_exact_at(&mut got, at as u64).expect("reads");
        assert!(got == files[0][at..at + 4096], "a wrong byte");
    }
    std::thread::sleep(Duration::from_millis(500));
    let (one, other) = (cached(&daemon, 0), cached(&daemon, 1));
    assert!(one <= 4 * PIECE && other == 0, "{one} and {other} bytes for 40 pages of one file");
    drop(file);
    daemon.stop();
}

#[test]
fn an_invalid_trace_is_refused_in_one_line() {
    let place = Place::new();
    published(&place);
    let daemon = place.mount_folder(&[]);
    for (text, why) in [
        ("", "is not an exported load"),
        ("{}", "not a trace"),
        (r#"{"modelfs_trace":1}"#, "not a trace"),
    ] {
        let file = place.path("bad.json");
        fs::write(&file, text).expect("a file");
        let ran = place.run(["trace", "import", file.to_str().expect("UTF-8")]);
        assert_eq!(ran.code, 2, "{}", ran.err);
        assert!(ran.err.contains(why), "{}", ran.err);
        assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
    }
    let missing = place.run(["trace", "import", "/nonexistent/load.json"]);
    assert!(missing.code == 2 && missing.err.contains("/nonexistent/load.json"), "{}", missing.err);
    daemon.stop();
}
