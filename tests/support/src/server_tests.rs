//! Tests of the server itself, with requests written by hand.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::*;

struct Setup {
    server: Server,
    _dir: tempfile::TempDir,
}

fn setup() -> Setup {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("data")).unwrap();
    std::fs::write(dir.path().join("models.json"), "{}").unwrap();
    std::fs::write(dir.path().join("data/x"), "0123456789").unwrap();
    Setup { server: Server::start(dir.path()), _dir: dir }
}

impl Setup {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.server.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }

    /// Head and body of the answer to one request, and whether the connection broke.
    fn ask(&self, line: &str, headers: &str) -> (String, String, bool) {
        let mut stream = self.connect();
        write!(stream, "{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n").unwrap();
        let mut out = Vec::new();
        let broken = stream.read_to_end(&mut out).is_err();
        let out = String::from_utf8(out).unwrap().to_lowercase();
        match out.split_once("\r\n\r\n") {
            Some((head, body)) => (head.to_owned(), body.to_owned(), broken),
            None => (out, String::new(), broken),
        }
    }

    fn get(&self, headers: &str) -> (String, String, bool) {
        self.ask("GET /data/x", headers)
    }
}

#[test]
fn files_ranges_tags_and_heads() {
    let s = setup();
    let (head, body, _) = s.get("");
    assert!(head.starts_with("http/1.1 200") && head.contains("content-length: 10"), "{head}");
    assert_eq!(body, "0123456789");
    let (head, body, _) = s.get("Range: bytes=2-4\r\n");
    assert!(head.starts_with("http/1.1 206"), "{head}");
    assert!(head.contains("content-range: bytes 2-4/10"), "{head}");
    assert_eq!(body, "234");
    assert_eq!(s.get("Range: bytes=8-\r\n").1, "89");
    assert!(s.get("Range: bytes=10-20\r\n").0.starts_with("http/1.1 416"));
    let (head, body, _) = s.ask("HEAD /data/x", "");
    assert!(head.contains("content-length: 10") && body.is_empty(), "{head}");
    let tag = head.lines().find_map(|l| l.strip_prefix("etag: ")).unwrap().to_owned();
    assert!(s.get(&format!("If-None-Match: {tag}\r\n")).0.starts_with("http/1.1 304"));
    assert!(s.ask("GET /data/y", "").0.starts_with("http/1.1 404"));
    assert!(s.ask("GET /../x", "").0.starts_with("http/1.1 404"));
    assert!(s.ask("PUT /data/x", "").0.starts_with("http/1.1 405"));
    assert_eq!(s.server.bytes_sent(), 10 + 3 + 2);
    assert_eq!((s.server.requests_for("/data/"), s.server.requests().len()), (7, 9));
    let second = &s.server.requests()[1];
    assert_eq!((second.status, second.range.as_deref(), second.sent), (206, Some("bytes=2-4"), 3));
    s.server.reset();
    assert_eq!((s.server.bytes_sent(), s.server.requests().len()), (0, 0));
}

#[test]
fn faults_are_done_as_told() {
    let s = setup();
    let once = |fault, headers: &str| {
        s.server.heal();
        s.server.on("/data/", When::First(1), fault);
        s.get(headers)
    };
    let (head, body, _) = once(Fault::Truncate(4), "");
    assert!(head.contains("content-length: 10"), "{head}");
    assert_eq!(body, "0123");
    assert_eq!(once(Fault::Reset(0), "").1, "");
    assert_eq!(s.get("").1, "0123456789", "the first request only");
    s.server.on("/data/", When::Always, Fault::Gone);
    s.server.on("/data/x", When::Always, Fault::Status(500, None));
    s.server.heal_path("/data/");
    assert!(s.get("").0.starts_with("http/1.1 500"), "the other rule stays");
    s.server.heal_path("/data/x");
    assert_eq!(s.get("").1, "0123456789");
    let (head, body, broken) = once(Fault::Short(4), "");
    assert!(head.contains("chunked") && !broken, "{head}");
    assert!(body.contains("0123\r\n0\r\n"), "it ends in good order: {body}");
    let (head, body, _) = once(Fault::ExtraBytes(2), "Range: bytes=0-1\r\n");
    assert!(head.contains("chunked") && body.contains("01??"), "{head} {body}");
    assert_eq!(once(Fault::FlipBit(3), "Range: bytes=2-4\r\n").1, "224");
    assert!(once(Fault::WrongContentLength(12), "").0.contains("content-length: 12"));
    let wrong = Fault::WrongContentRange("bytes 0-0/1".into());
    assert!(once(wrong, "Range: bytes=2-4\r\n").0.contains("content-range: bytes 0-0/1"));
    assert_eq!(once(Fault::IgnoreRange, "Range: bytes=2-4\r\n").1, "0123456789");
    let (head, ..) = once(Fault::Status(503, Some("7".into())), "");
    assert!(head.starts_with("http/1.1 503") && head.contains("retry-after: 7"), "{head}");
    assert!(once(Fault::Redirect(None), "").0.contains("location: /data/x"));
    assert!(once(Fault::Encoding("gzip".into()), "").0.contains("content-encoding: gzip"));
    assert!(once(Fault::Chunked, "").0.contains("transfer-encoding: chunked"));
    assert_eq!(once(Fault::Gone, "").0, "");
    let other = || Fault::Serve(b"another".to_vec());
    assert_eq!(once(other(), "").1, "another");
    assert_eq!(once(other(), "Range: bytes=2-3\r\n").1, "ot");
    assert!(once(Fault::Serve(Vec::new()), "").0.contains("content-length: 0"));
    let start = std::time::Instant::now();
    assert_eq!(once(Fault::Drip(3, Duration::from_millis(30)), "").1, "0123456789");
    assert!(start.elapsed() >= Duration::from_millis(120));
    assert_eq!(once(Fault::Delay(Duration::from_millis(50)), "").1, "0123456789");
}

#[test]
fn a_stalled_body_stays_open() {
    let s = setup();
    s.server.on("/data/", When::Always, Fault::Stall(4));
    let mut stream = s.connect();
    stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    write!(stream, "GET /data/x HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut out = Vec::new();
    let error = stream.read_to_end(&mut out).unwrap_err();
    assert!(matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut));
    assert!(out.ends_with(b"\r\n\r\n0123"));
}

#[test]
fn the_test_server_restarts_on_the_same_port() {
    let s = setup();
    let mut open = s.connect();
    s.server.go_away();
    assert!(TcpStream::connect(s.server.address()).is_err(), "refused");
    let mut buffer = [0; 1];
    assert!(!matches!(open.read(&mut buffer), Ok(1..)), "broken");
    s.server.come_back();
    assert_eq!(s.get("").1, "0123456789");
    let address = s.server.address();
    drop(s);
    let gone = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        TcpStream::connect(address).is_err()
    });
    assert!(gone, "dropping it stops it");
}
