//! A secret that was given to reach a registry, or that a registry's answers hold, is in nothing
//! that a run leaves behind or says.
//!
//! Exempt, since they are the user's own and closed to others, or known to be open to all: the
//! environment and the command line of the process itself.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use modelfs_test_support::{Fault, Server, When, bytes};

use crate::harness::{Place, Ran, eventually, is_mounted};

/// Stands in every secret; user, password, query, redirect and answer each have one of their own.
const MARK: &str = "s3cret";

/// A server that refuses everything, says much, and remembers what it was told.
fn talkative() -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let told: Arc<Mutex<Vec<u8>>> = Arc::default();
    let hears = told.clone();
    // Ends with the test's process: it holds nothing.
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let mut head = [0; 4096];
            let len = stream.read(&mut head).unwrap_or_default();
            hears.lock().expect("nobody panics with it").extend_from_slice(&head[..len]);
            let body = format!("<html>no {MARK}-body for you</html>");
            let _ = write!(
                stream,
                "HTTP/1.1 403 no {MARK}-reason\r\nwww-authenticate: Bearer {MARK}-realm\r\n\
                 set-cookie: id={MARK}-cookie\r\nlocation: http://{MARK}-host/{MARK}-path\r\n\
                 content-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    (address, told)
}

/// A mount in the background that ends with the test.
struct Background<'a>(&'a Place);

impl Drop for Background<'_> {
    fn drop(&mut self) {
        let at = self.0.mountpoint();
        let _ = self.0.modelfs(["unmount".as_ref(), at.as_os_str()]).output();
    }
}

/// Everything that was said and left.
#[derive(Default)]
pub struct Left(Vec<(String, Vec<u8>)>);

impl Left {
    pub fn ran(&mut self, what: &str, ran: &Ran) {
        self.0.push((format!("output of {what}"), ran.out.clone().into()));
        self.0.push((format!("errors of {what}"), ran.err.clone().into()));
    }

    pub fn files(&mut self, folder: &Path) {
        for entry in fs::read_dir(folder).expect("the test's own").flatten() {
            let kind = entry.file_type().expect("it is there");
            if kind.is_dir() {
                self.files(&entry.path());
            } else if kind.is_file() {
                let bytes = fs::read(entry.path()).expect("root reads all");
                self.0.push((entry.path().display().to_string(), bytes));
            }
        }
    }

    pub fn xattrs(&mut self, path: &Path) {
        let out = Command::new("getfattr").args(["-d", "-m", "-", "-e", "text"]).arg(path).output();
        let out = out.expect("getfattr is installed");
        self.0.push((format!("attributes of {}", path.display()), out.stdout));
        for name in ["error", "sha256", "cached", "pinned", "verified"] {
            let value = crate::harness::xattr(path, name).unwrap_or_default();
            self.0.push((format!("{name} of {}", path.display()), value.into()));
        }
    }

    pub fn holds_none_of(&self, secrets: &[String]) {
        for (what, bytes) in &self.0 {
            for secret in secrets {
                let found = bytes.windows(secret.len()).position(|w| w == secret.as_bytes());
                if let Some(at) = found {
                    let around = &bytes[at.saturating_sub(200)..bytes.len().min(at + 200)];
                    panic!("{secret} in {what}: {:?}", String::from_utf8_lossy(around));
                }
            }
        }
    }
}

#[test]
fn no_secret_is_stored_logged_or_printed() {
    let place = Place::new();
    let plain = place.path("plain");
    fs::create_dir(&plain).expect("a folder");
    for (n, name) in ["w", "gone", "refused", "away", "early"].iter().enumerate() {
        fs::write(plain.join(name), bytes(n as u64, 2 << 20)).expect("a file");
    }
    place.publish(&plain, "org/net", "v1", &["--chunk-size", "2MiB"]);
    // Only the daemon's side is of interest; the registry may know the secrets.
    let registry = tempfile::tempdir().expect("a folder").keep();
    fs::rename(place.registry(), registry.join("r")).expect("moves");
    let server = Server::start(&registry.join("r"));
    let address = server.address();
    let chunk = |name: &str| {
        let bytes = fs::read(plain.join(name)).expect("just written");
        format!("/data/{}", modelfs::model::hash::sha256(&bytes))
    };
    let elsewhere = |to: String| Fault::Redirect(Some(to));
    // One redirect leads to the file; the others to nobody, to a server that says much, to a name
    // that nobody has, and to what is no URL.
    let right = format!("http://{MARK}-u:{MARK}-p@{address}{}?t={MARK}-query", chunk("w"));
    server.on(&chunk("w"), When::Nth(0), elsewhere(right));
    server.on(&chunk("gone"), When::Always, elsewhere(format!("http://127.0.0.1:1/{MARK}?{MARK}")));
    let (talk, told) = talkative();
    server.on(&chunk("refused"), When::Always, elsewhere(format!("http://{talk}/{MARK}?{MARK}")));
    let nobody = format!("http://{MARK}-host.invalid/?t={MARK}");
    server.on(&chunk("away"), When::Always, elsewhere(nobody));
    server.on(&chunk("early"), When::Always, elsewhere(format!("http://[{MARK}/{MARK}")));

    let url = format!("http://{MARK}-user:{MARK}-pass%21@{address}/?sig={MARK}-sig#{MARK}-frag");
    let mut left = Left::default();
    for (round, log) in ["", "trace", "debug,modelfs=trace"].iter().enumerate() {
        let command = |args: &[&str]| {
            let mut command = place.modelfs(args);
            command
                .env("MODELFS_REGISTRY", &url)
                .env("RUST_LOG", "trace")
                .env("RUST_BACKTRACE", "1");
            if !log.is_empty() {
                command.env("MODELFS_LOG", log);
            }
            Ran::from(command.output().expect("the binary starts"))
        };
        let at = place.mountpoint();
        let at = at.to_str().expect("UTF-8");
        let mounted = command(&["mount", at, "--background", "-vvv", "--read-deadline", "1s"]);
        let background = Background(&place);
        assert_eq!(mounted.code, 0, "{mounted:?}");
        left.ran("mount", &mounted);
        for name in ["w", "gone", "refused", "away", "early"] {
            let path = place.mountpoint().join("org/net/v1").join(name);
            let read = fs::read(&path);
            assert_eq!(read.is_ok(), name == "w", "{name}: {read:.100?}");
            left.xattrs(&path);
            let told = crate::harness::xattr(&path, "error");
            assert_eq!(told.is_some(), name != "w", "{name}: {told:?}");
        }
        let asked = |left: &mut Left| {
            for args in [
                &["status", "-vvv", "--json"][..],
                &["status", "-vvv"],
                &["list", "--remote", "-vvv", "--json"],
                &["list", "-vvv"],
                &["info", "org/net@v1", "-vvv", "--json"],
                &["info", "org/nothing@v1", "-vvv"],
                &["prefetch", "org/net@v1", "-vvv", "--json"],
                &["pin", "org/net@v1", "-vvv"],
                &["verify", "-vvv", "--json"],
                &["evict", "org/net@v1", "--force", "-vvv"],
                &["publish", plain.to_str().expect("UTF-8"), "a/b", "v", "-vvv"],
                &["mount", "/nonexistent/x", "-vvv"],
                &["frobnicate", "-vvv"],
                &["mount", "--help"],
            ] {
                left.ran(&args.join(" "), &command(args));
            }
        };
        asked(&mut left);
        // What lies in the write-ahead log is merged when the store is closed: looked at before.
        left.files(&place.cache());
        left.files(&place.path("run"));
        let lock = fs::read(place.cache().join("lock")).expect("it is held");
        assert!(lock.starts_with(b"{"), "{lock:?}");
        drop(background);
        eventually("unmounted", || !is_mounted(&place.mountpoint()));
        eventually("the store is free", || {
            place.run(["status", "--json"]).json()["daemon"].is_null()
        });
        // The same without a daemon; then without a server.
        asked(&mut left);
        server.go_away();
        left.ran("list", &command(&["list", "--remote", "-vvv"]));
        server.come_back();
        let errors = ["mount", at, "-vvv", "--cache-dir", "/dev/null/x"];
        left.ran("mount", &command(&errors));
        left.files(&place.cache());
        left.files(&place.path("run"));
        left.files(&place.path("models"));
        println!("round {round}: {} things looked at", left.0.len());
    }
    // Not in vain: the server was given them, in the header as well.
    let requests = server.requests();
    let header = |name: &str| {
        let all = requests.iter().flat_map(|r| &r.headers);
        all.filter(|(n, _)| n == name).map(|(_, v)| v.clone()).collect::<Vec<_>>()
    };
    assert!(requests.iter().any(|r| r.path.contains(&format!("sig={MARK}-sig"))));
    let mut secrets: Vec<String> = header("authorization")
        .iter()
        .map(|v| v.strip_prefix("Basic ").expect("basic authentication").to_owned())
        .collect();
    assert!(!secrets.is_empty());
    assert_eq!(header("referer"), Vec::<String>::new());
    secrets.sort();
    secrets.dedup();
    secrets.push(MARK.to_owned());
    let log = left.0.iter().filter(|(what, _)| what.ends_with(".log")).map(|(_, b)| b.len()).max();
    assert!(log > Some(5000), "the log says much: {log:?}");
    assert!(left.0.iter().any(|(what, b)| what.ends_with("index.db-wal") && !b.is_empty()));
    left.holds_none_of(&secrets);
    // Nor was anything sent on to where a redirect led, but what that redirect itself said.
    let told = String::from_utf8_lossy(&told.lock().expect("nobody panics with it")).to_lowercase();
    assert!(told.contains("get /s3cret?s3cret http/1.1"), "{told}");
    for word in ["authorization", "referer", "cookie", "user", "-sig"] {
        assert!(!told.replace("user-agent", "").contains(word), "{word}: {told}");
    }
    fs::remove_dir_all(registry).expect("the test's own");
}

/// URLs that are none are not taken for folders and shown.
#[test]
fn a_url_with_a_slip_in_it_is_not_shown() {
    let place = Place::new();
    for url in [
        format!("http:/u:{MARK}@h/x"),
        format!("https:u:{MARK}@h/x"),
        format!("HTTPS:///u:{MARK}@h/x"),
        format!("htp://u:{MARK}@h/x"),
        format!("http://u:{MARK}@h:99999/x"),
        format!("u:{MARK}@h://x"),
        format!(" http://u:{MARK}@127.0.0.1:1/ x?{MARK}"),
    ] {
        for args in [&["list", "--remote"][..], &["mount", "models"], &["status"]] {
            let args = [args, &["--registry", &url]].concat();
            let ran = place.run(&args);
            assert!(ran.code != 0 || args[0] == "status", "{url}: {ran:?}");
            assert!(!format!("{ran:?}").contains(MARK), "{ran:?}");
        }
    }
}
