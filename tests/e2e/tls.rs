//! Registries over TLS: a certificate that nobody vouches for is refused, one that the system's
//! store vouches for is not.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use modelfs_test_support::bytes;

use crate::harness::{Place, Ran};

/// Serves a folder over TLS on a port of its own, which it prints.
const SERVER: &str = "
import functools, http.server, ssl, sys
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[1])
server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[2], sys.argv[3])
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
";

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
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

#[test]
fn certificates_are_checked() {
    let place = Place::new();
    let plain = place.path("plain");
    fs::create_dir(&plain).expect("a folder");
    fs::write(plain.join("w.bin"), bytes(1, 3 << 20)).expect("a file");
    place.publish(&plain, "org/net", "v1", &[]);

    openssl(
        &place,
        "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=ca",
    );
    openssl(&place, "req -newkey rsa:2048 -nodes -keyout key.pem -out request -subj /CN=localhost");
    let extensions = "subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n";
    fs::write(place.path("extensions"), extensions).expect("a file");
    openssl(
        &place,
        "x509 -req -in request -CA ca.pem -CAkey ca.key -CAcreateserial -out cert.pem -days 2 -extfile extensions",
    );
    let mut child = Command::new("python3")
        .args(["-c", SERVER])
        .args([place.registry(), place.path("cert.pem"), place.path("key.pem")])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("python3 is installed: make deps");
    let mut port = String::new();
    let out = child.stdout.take().expect("piped");
    let server = Server(child);
    BufReader::new(out).read_line(&mut port).expect("a port");
    let url = format!("https://localhost:{}", port.trim());

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
