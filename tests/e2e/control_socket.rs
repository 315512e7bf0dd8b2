//! The control socket under people who mean no good, and scripts gone wild.
//!
//! Whatever they send, the daemon lives and `status` is answered.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use modelfs_test_support::bytes;
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::harness::{Daemon, PATIENCE, Place, User, set_mode};

/// More than the daemon lets in at once.
const IDLE: usize = 1000;

fn published() -> Place {
    let place = Place::new();
    let plain = place.path("plain");
    std::fs::create_dir(&plain).expect("a folder");
    std::fs::write(plain.join("w.bin"), bytes(3, 5000)).expect("a file");
    place.publish(&plain, "org/net", "v1", &[]);
    place
}

fn socket(daemon: &Daemon<'_>) -> PathBuf {
    daemon.status()["daemon"]["socket"].as_str().expect("it has one").into()
}

fn connect(socket: &Path) -> UnixStream {
    let stream = UnixStream::connect(socket).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream.set_write_timeout(Some(PATIENCE)).expect("a socket");
    stream
}

/// All that comes until the daemon closes the connection, which it has to.
fn rest(stream: &mut UnixStream) -> String {
    let mut out = Vec::new();
    match stream.read_to_end(&mut out) {
        Ok(_) => {}
        // It closed with something of ours unread.
        Err(e) if matches!(e.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {}
        Err(e) => panic!("the connection stays open: {e}"),
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// What is answered to these bytes, after which nothing more comes.
fn sent(socket: &Path, bytes: &[u8]) -> String {
    let mut stream = connect(socket);
    // A daemon that has read enough may close before all of it is sent.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    rest(&mut stream)
}

/// What is answered to a whole request, by a client that waits for it.
fn asked(socket: &Path, bytes: &[u8]) -> String {
    let mut stream = connect(socket);
    let _ = stream.write_all(bytes);
    rest(&mut stream)
}

fn request(path: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

#[test]
fn other_users_are_refused_even_where_the_folders_are_open() {
    let place = published();
    let daemon = place.mount_folder(&[]);
    let socket = socket(&daemon);
    let folder = socket.parent().expect("it lies in a folder");
    let mode = |p: &Path| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::metadata(p).expect("it is there").permissions().mode() & 0o777
    };
    assert_eq!((mode(&socket), mode(folder)), (0o600, 0o700));
    let stranger = Place::of(User::Ordinary);
    let ask = |place: &Place| {
        let mut curl = place.program("curl");
        curl.args(["--silent", "--show-error", "--max-time", "60", "--unix-socket"]);
        curl.arg(&socket).arg("http://modelfs/v1/status");
        curl.output().expect("curl starts")
    };
    assert!(!ask(&stranger).status.success(), "closed by its mode");
    // Somebody opened it by mistake: who asks is still looked at.
    set_mode(&place.path("run"), 0o755);
    set_mode(folder, 0o755);
    set_mode(&socket, 0o666);
    let out = ask(&stranger);
    assert!(!out.status.success() && out.stdout.is_empty(), "{out:?}");
    let out = ask(&place);
    assert!(out.status.success() && out.stdout.starts_with(b"{"), "its own user: {out:?}");
    let log = daemon.stop();
    assert!(log.contains("refused a control connection of another user"), "{log}");
}

#[test]
fn invalid_control_requests_are_refused_and_the_daemon_goes_on() {
    let place = published();
    let daemon = place.mount_folder(&[]);
    let socket = socket(&daemon);
    for seed in 0..50 {
        sent(&socket, &bytes(seed, 1 + (seed as usize * 997) % 40_000));
    }
    let long = "x".repeat(1 << 20);
    let many: String = (0..500).map(|n| format!("a{n}: b\r\n")).collect();
    let heads = [
        format!("GET /v1/status HTTP/1.1\r\nhost: x\r\nlong: {long}\r\n\r\n"),
        format!("GET /{long} HTTP/1.1\r\nhost: x\r\n\r\n"),
        format!("GET /v1/status HTTP/1.1\r\n{many}\r\n"),
        "GET /v1/status HTTP/9.9\r\n\r\n".to_owned(),
        "\r\n\r\n\r\n".to_owned(),
        "GET /v1/status HTTP/1.1\r\ncontent-length: -1\r\n\r\n".to_owned(),
        "GET /v1/status HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n".to_owned(),
        "POST /v1/pin HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n"
            .to_owned(),
        format!("POST /v1/pin HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n100000\r\n{long}\r\n0\r\n\r\n"),
    ];
    for head in heads {
        let answer = sent(&socket, head.as_bytes());
        assert!(!answer.starts_with("HTTP/1.1 2"), "{head:.60}: {answer}");
    }
    let bodies: [&[u8]; 7] =
        [b"{", b"[]", b"null", b"\xff\xfe", b"{\"reference\":7}", long.as_bytes(), &[b'['; 60_000]];
    for body in bodies {
        let answer = asked(&socket, &request("/v1/info", body));
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.len() < 2000, "{answer:.2000}");
        assert!(answer.contains("\"exit_code\":2"), "{answer}");
    }
    for path in ["/v1/nothing", "/../../etc/passwd", "/v1/status/", "/v2/status"] {
        let answer = asked(&socket, &request(path, b"{}"));
        assert!(answer.starts_with("HTTP/1.1 400 "), "{path}: {answer}");
    }
    // Looking needs no more than GET; changing does.
    assert!(
        asked(&socket, b"GET /v1/status HTTP/1.1\r\nhost: x\r\n\r\n").starts_with("HTTP/1.1 200 ")
    );
    assert!(
        asked(&socket, b"GET /v1/unmount HTTP/1.1\r\nhost: x\r\n\r\n").starts_with("HTTP/1.1 405 ")
    );
    // A client that hangs up in the middle.
    for cut in 1..40 {
        let whole = request("/v1/prefetch", b"{\"reference\":{}}");
        let _ = connect(&socket).write_all(&whole[..cut]);
    }
    assert_eq!(daemon.status()["daemon"]["pid"], daemon.pid());
    let log = daemon.stop();
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn a_body_that_arrives_too_slowly_is_abandoned() {
    let place = published();
    let daemon = place.mount_folder(&[]);
    let socket = socket(&daemon);
    let mut half_head = connect(&socket);
    half_head.write_all(b"GET /v1/status HTTP/1.1\r\nho").expect("sends");
    let mut half_body = connect(&socket);
    let whole = request("/v1/info", b"{\"reference\":7}");
    half_body.write_all(&whole[..whole.len() - 1]).expect("sends");
    let mut silent = connect(&socket);
    // A drop now and then does not help: all of it has to be there in time.
    let mut drip = connect(&socket);
    let dripped = std::thread::spawn(move || {
        let started = Instant::now();
        while started.elapsed() < PATIENCE && drip.write_all(b"G").is_ok() {
            std::thread::sleep(Duration::from_millis(200));
        }
        started.elapsed() < PATIENCE
    });
    for stream in [&mut half_head, &mut silent] {
        let answer = rest(stream);
        assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
    }
    let answer = rest(&mut half_body);
    assert!(answer.contains("did not arrive in time"), "{answer}");
    assert!(dripped.join().expect("no panic"), "it drips on");
    daemon.stop();
}

#[test]
fn a_thousand_idle_connections_do_not_block_a_request() {
    let limit = getrlimit(Resource::Nofile);
    let enough = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, enough).expect("up to its own limit");
    let place = published();
    let daemon = place.mount_folder(&[]);
    let socket = socket(&daemon);
    let descriptors =
        || std::fs::read_dir(format!("/proc/{}/fd", daemon.worker())).expect("it lives").count();
    let before = descriptors();
    let idle: Vec<_> = (0..IDLE).map(|_| connect(&socket)).collect();
    let asked = Instant::now();
    // They stay for ten seconds and would leave 128 at a time.
    for _ in 0..3 {
        assert_eq!(daemon.status()["daemon"]["pid"], daemon.pid());
    }
    let took = asked.elapsed();
    println!("three answers in {took:?} beside {IDLE} idle connections");
    assert!(took < Duration::from_secs(25), "{took:?}");
    let more = descriptors().saturating_sub(before);
    assert!(more < 200, "{more} descriptors");
    drop(idle);
    daemon.stop();
}
