//! Registries over TLS: a certificate that nobody vouches for is refused, one that the system's
//! store vouches for is not, and a mount gets over a server that shows the wrong one for a while.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use modelfs_test_support::bytes;

use crate::fault_names::Plain;
use crate::fault_scene::is_an_outage;
use crate::harness::{Place, Ran, eventually, xattr};

/// Serves a folder over TLS on the given port, or one of its own, which it prints.
const SERVER: &str = "
import functools, http.server, ssl, sys
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[1])
server = http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[4])), handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[2], sys.argv[3])
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
";

struct Server {
    child: Child,
    port: u16,
}

impl Server {
    /// Serves the place's registry under `cert`; port 0: any that is free.
    fn start(place: &Place, cert: &str, port: u16) -> Self {
        let mut child = Command::new("python3")
            .args(["-c", SERVER])
            .args([place.registry(), place.path(cert), place.path("key.pem")])
            .arg(port.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("python3 is installed: make deps");
        let out = child.stdout.take().expect("piped");
        let mut server = Self { child, port: 0 };
        let mut port = String::new();
        BufReader::new(out).read_line(&mut port).expect("a port");
        server.port = port.trim().parse().expect("a port");
        server
    }

    fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn openssl(place: &Place, args: &str) {
    let out = Command::new("openssl")
        .args(args.split(' '))
        .current_dir(place.dir.path())
        .output()
        .expect("openssl is installed: make deps");
    assert!(out.status.success(), "openssl {args}: {}", String::from_utf8_lossy(&out.stderr));
}

/// `ca.pem` vouches for `cert.pem` of `localhost` and `other.pem` of another host; nobody for
/// `nobody.pem`.
fn certificates(place: &Place) {
    openssl(
        place,
        "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=ca",
    );
    openssl(place, "req -newkey rsa:2048 -nodes -keyout key.pem -out request -subj /CN=localhost");
    openssl(
        place,
        "req -x509 -key key.pem -out nobody.pem -days 2 -subj /CN=localhost -addext basicConstraints=critical,CA:FALSE",
    );
    for (cert, host) in [("cert.pem", "localhost"), ("other.pem", "other.example")] {
        let extensions = format!("subjectAltName=DNS:{host}\nbasicConstraints=CA:FALSE\n");
        fs::write(place.path("extensions"), extensions).expect("a file");
        let sign = "x509 -req -in request -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
            -extfile extensions -out";
        let words = sign.split_whitespace().collect::<Vec<_>>().join(" ");
        openssl(place, &format!("{words} {cert}"));
    }
}

#[test]
fn certificates_are_checked() {
    let place = Place::new();
    let plain = place.path("plain");
    fs::create_dir(&plain).expect("a folder");
    fs::write(plain.join("w.bin"), bytes(1, 3 << 20)).expect("a file");
    place.publish(&plain, "org/net", "v1", &[]);

    certificates(&place);
    let server = Server::start(&place, "cert.pem", 0);
    let url = server.url();

    let ran = place.run(["prefetch", "org/net@v1", "--registry", &url]);
    assert_eq!(ran.code, 5, "{ran:?}");
    assert!(ran.err.contains("certificate"), "{ran:?}");

    let mut trusted = place.modelfs(["prefetch", "org/net@v1", "--registry", &url]);
    let out = trusted.env("SSL_CERT_FILE", place.path("ca.pem")).output().expect("it starts");
    let ran = Ran::from(out);
    assert_eq!(ran.code, 0, "{ran:?}");
    let checked = place.run(["verify", "--json"]).json()["checked"].as_u64();
    assert_eq!(checked, Some(3 << 20));
    drop(server);
}

#[test]
fn a_mount_gets_over_a_wrong_certificate() {
    let place = Place::new();
    let plain = place.path("plain");
    fs::create_dir(&plain).expect("a folder");
    for name in ["first", "nobody.pem", "other.pem"] {
        fs::write(plain.join(name), bytes(name.len() as u64, 300_000)).expect("a file");
    }
    place.publish(&plain, "org/net", "v1", &[]);
    certificates(&place);
    let server = Server::start(&place, "cert.pem", 0);
    let mut command = place.modelfs(["mount", "--read-deadline", "2s", "--catalog-ttl", "200ms"]);
    command.arg(place.mountpoint()).args(["--registry", &server.url()]);
    command.env("SSL_CERT_FILE", place.path("ca.pem"));
    let daemon = Plain::start(command);
    let version = place.mountpoint().join("org/net/v1");
    let right = |name: &str| {
        let got = fs::read(version.join(name));
        got.map(|got| assert!(got == bytes(name.len() as u64, 300_000), "a wrong byte"))
    };
    right("first").expect("the certificate is good");
    let mut server = Some(server);
    let port = server.as_ref().map_or(0, |s| s.port);
    for name in ["nobody.pem", "other.pem"] {
        drop(server.take());
        let wrong = Server::start(&place, name, port);
        eventually("the catalog cannot be asked for", || {
            xattr(&place.mountpoint(), "error").is_some_and(|why| why.contains("certificate"))
        });
        is_an_outage(&right(name).expect_err("nothing is taken from it"));
        let reason = xattr(&version.join(name), "error").expect("a reason");
        assert!(reason.contains("certificate"), "{reason}");
        println!("{reason}");
        assert_eq!(fs::read_dir(&version).expect("listed").count(), 3);
        drop(wrong);
        server = Some(Server::start(&place, "cert.pem", port));
        eventually("right again", || right(name).is_ok());
    }
    daemon.stop();
}
