//! Files that can be verified only as a whole and that are too large for memory, under a mount: over lines
//! that break, through deaths of the worker, with lies, beside small files.

use std::fs;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use modelfs_test_support::{HubFile, HubLie, HubRepo, HubServer, bytes};

use crate::harness::{Daemon, Place, eventually, signal, xattr};

const COMMIT: &str = "1111111111111111111111111111111111111111";
const MIB: u64 = 1 << 20;
/// Of the large file.
const LEN: u64 = 200 * MIB + 7;
/// What streaming an object may take beyond an idle worker.
const MEMORY: u64 = 64 * MIB;

/// A Hub with one repository: a large file and a small one.
fn hub() -> (HubServer, Vec<u8>) {
    let (hub, large) = (HubServer::start(), bytes(1, LEN as usize));
    let file =
        |path: &str, bytes: &[u8], lfs| HubFile { path: path.into(), bytes: bytes.into(), lfs };
    let files = vec![file("large.bin", &large, true), file("small.json", b"{}", false)];
    let repo = HubRepo {
        branches: vec![("main".into(), COMMIT.into())],
        commits: [(COMMIT.to_owned(), files)].into(),
        ..HubRepo::default()
    };
    hub.put("models/org/net", repo);
    (hub, large)
}

fn mount<'a>(place: &'a Place, hub: &HubServer) -> Daemon<'a> {
    place.mount_hub(hub, "hf://", &["--no-passthrough"])
}

/// Reads a file on a thread of its own.
fn reading(path: &Path) -> Receiver<std::io::Result<Vec<u8>>> {
    let (path, (send, receive)) = (path.to_owned(), channel());
    std::thread::spawn(move || send.send(fs::read(path)));
    receive
}

fn read(reading: &Receiver<std::io::Result<Vec<u8>>>) -> std::io::Result<Vec<u8>> {
    reading.recv_timeout(Duration::from_secs(120)).expect("the read ends")
}

fn cached(path: &Path) -> u64 {
    xattr(path, "cached").expect("an attribute").parse().expect("a number")
}

/// The memory that the worker has resident now.
fn memory(worker: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{worker}/status")).expect("it lives");
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("Linux says so");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

/// Bytes that came over the network since the daemon's start.
fn came(daemon: &Daemon<'_>) -> u64 {
    daemon.status()["traffic"]["bytes"].as_u64().expect("a number")
}

/// Where the requests for the large file began since the last call.
fn starts(hub: &HubServer) -> Vec<u64> {
    let large = hub.requests().into_iter().filter(|r| r.cdn && r.path.contains("large.bin"));
    let start = |range: String| {
        let (first, _) =
            range.strip_prefix("bytes=").and_then(|r| r.split_once('-')).expect("bytes");
        first.parse().expect("a number")
    };
    large.map(|request| request.range.map_or(0, start)).collect()
}

#[test]
fn a_line_that_breaks_again_and_again_brings_a_large_file_right_once_and_within_memory() {
    let (place, (hub, large)) = (Place::new(), hub());
    hub.lie(Some(HubLie::Cut(20 << 20)));
    let daemon = mount(&place, &hub);
    let path = daemon.path("org/net/main/large.bin");
    assert_eq!(fs::metadata(&path).expect("listed").len(), LEN);
    let idle = memory(daemon.worker());
    let large_read = reading(&path);
    eventually("some of it is here", || cached(&path) > 4 * MIB);
    let begun = Instant::now();
    assert_eq!(fs::read(daemon.path("org/net/main/small.json")).expect("reads"), b"{}");
    let small = begun.elapsed();
    assert!(large_read.try_recv().is_err(), "the large file is still on its way");
    let mut most = idle;
    let answer = loop {
        most = most.max(memory(daemon.worker()));
        match large_read.recv_timeout(Duration::from_millis(10)) {
            Ok(answer) => break answer,
            Err(_) => assert!(begun.elapsed() < Duration::from_secs(120), "the read ends"),
        }
    };
    assert!(answer.expect("reads") == large, "a wrong byte");
    let (above, requests, came) = (most - idle, starts(&hub), came(&daemon));
    println!(
        "{} requests, {came} bytes for {LEN}, {above} bytes above idle, small file after {small:?}",
        requests.len()
    );
    assert!(requests.len() >= 15, "the line breaks: {requests:?}");
    assert!(came - LEN <= LEN / 20, "{came} bytes came for {LEN}");
    assert!(above <= MEMORY, "{above} bytes above idle");
    assert!(small < Duration::from_secs(1), "{small:?}");
    assert_eq!(cached(&path), LEN);
    daemon.stop();
}

#[test]
fn a_worker_that_is_killed_in_the_middle_of_a_large_file_goes_on_where_it_was() {
    let (place, (hub, large)) = (Place::new(), hub());
    hub.lie(Some(HubLie::Cut(8 << 20)));
    let daemon = mount(&place, &hub);
    let path = daemon.path("org/net/main/large.bin");
    let large_read = reading(&path);
    // What is not yet synced is lost: at most what came in some seconds.
    eventually("most of it is here", || cached(&path) > 150 * MIB);
    assert!(large_read.try_recv().is_err(), "the large file is still on its way");
    starts(&hub);
    assert!(signal(daemon.worker(), "KILL"));
    hub.lie(None);
    assert!(read(&large_read).expect("the next worker answers") == large, "a wrong byte");
    let requests = starts(&hub);
    let first = requests.iter().min().expect("the rest was fetched");
    assert!(*first > 50 * MIB, "{requests:?}");
    daemon.stop();
}

#[test]
fn a_server_that_begins_to_ignore_ranges_costs_bytes_and_no_wrong_one() {
    let (place, (hub, large)) = (Place::new(), hub());
    hub.lie(Some(HubLie::Cut(20 << 20)));
    let daemon = mount(&place, &hub);
    let path = daemon.path("org/net/main/large.bin");
    let large_read = reading(&path);
    eventually("some of it is here", || cached(&path) > 30 * MIB);
    hub.lie(Some(HubLie::NoRange));
    assert!(read(&large_read).expect("reads") == large, "a wrong byte");
    daemon.stop();
}

#[test]
fn a_lie_about_a_large_file_is_an_error_of_verification_and_nothing_of_it_is_kept() {
    let (place, (hub, large)) = (Place::new(), hub());
    hub.lie(Some(HubLie::WrongByte));
    let daemon = mount(&place, &hub);
    let path = daemon.path("org/net/main/large.bin");
    let error = read(&reading(&path)).expect_err("a wrong byte is never served");
    assert_eq!(error.raw_os_error(), Some(5), "{error}");
    let why = xattr(&path, "error").expect("a reason");
    assert!(why.contains("do not match their digest"), "{why}");
    assert_eq!((cached(&path), starts(&hub)), (0, vec![0, 0]), "twice, and nothing is kept");
    let ran = place.run(["prefetch", "org/net@main"]);
    assert_eq!(ran.code, 6, "{ran:?}");
    assert!(starts(&hub).is_empty(), "it is known to be wrong");
    let log = daemon.stop();
    assert!(log.contains("a registry served wrong bytes"), "{log}");

    // The next daemon asks the registry anew.
    hub.lie(None);
    let daemon = mount(&place, &hub);
    assert!(read(&reading(&path)).expect("reads") == large, "a wrong byte");
    daemon.stop();
}
