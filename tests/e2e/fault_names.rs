//! A registry whose name cannot be resolved for a while.
//!
//! The daemon runs in a mount namespace of its own, where `/etc/hosts` is the test's and no other
//! source of names is asked: nothing leaves this machine. Its mount is seen through
//! `/proc/<pid>/root` and ends with its processes.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use modelfs_test_support::{Server, bytes};

use crate::fault_scene::is_an_outage;
use crate::harness::{PATIENCE, Place, binary, eventually, xattr};

/// A daemon started by a command that is not only `modelfs mount`.
pub struct Plain(Child);

impl Plain {
    /// Starts it and waits until it is ready.
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        let daemon = Self(child);
        let mut ready = String::new();
        out.read_line(&mut ready).expect("a pipe can be read");
        assert!(!ready.is_empty(), "it ended before it was ready");
        // The rest of its output must not fill the pipe.
        std::thread::spawn(move || {
            let mut rest = String::new();
            let _ = out.read_to_string(&mut rest);
        });
        daemon
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Ends it as a user would.
    pub fn stop(mut self) {
        let pid = self.pid().to_string();
        let status = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(status.is_ok_and(|s| s.success()), "kill -TERM");
        let begun = std::time::Instant::now();
        let code = loop {
            match self.0.try_wait().expect("own child") {
                Some(status) => break status.code(),
                None => assert!(begun.elapsed() < PATIENCE, "the daemon does not end"),
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        };
        assert_eq!(code, Some(0));
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// In the new namespace: names come from the test's file alone, then the daemon.
const SETUP: &str = "set -e; cd \"$1\"; shift; mount --bind hosts /etc/hosts; \
    mount --bind nsswitch.conf /etc/nsswitch.conf; exec \"$@\"";

const NAME: &str = "registry.test";

fn hosts(place: &Place, known: bool) {
    let line = if known { format!("127.0.0.1 {NAME}\n") } else { String::new() };
    // Written in place: what is mounted is this very file.
    fs::write(place.path("hosts"), format!("127.0.0.1 localhost\n{line}")).expect("a file");
}

#[test]
fn a_name_that_cannot_be_resolved_for_a_while() {
    let place = Place::new();
    let plain = place.path("plain");
    fs::create_dir(&plain).expect("a folder");
    for name in ["first", "second"] {
        fs::write(plain.join(name), bytes(name.len() as u64, 300_000)).expect("a file");
    }
    place.publish(&plain, "org/net", "v1", &[]);
    let server = Server::start(&place.registry());
    hosts(&place, true);
    fs::write(place.path("nsswitch.conf"), "hosts: files\n").expect("a file");

    let url = format!("http://{NAME}:{}", server.address().port());
    let mut command = place.program("unshare");
    command.args(["--mount", "sh", "-c", SETUP, "sh"]).arg(place.dir.path()).arg(binary());
    command.arg("mount").arg(place.mountpoint()).args(["--registry", &url]);
    command.args(["--read-deadline", "2s", "--catalog-ttl", "200ms"]);
    command.env("NO_PROXY", NAME).env("no_proxy", NAME);
    let daemon = Plain::start(command);
    let outside = format!("/proc/{}/root", daemon.pid());
    let inside = place.mountpoint();
    let mount = Path::new(&outside).join(inside.strip_prefix("/").expect("absolute"));
    let version = mount.join("org/net/v1");
    let right = |name: &str| {
        let got = fs::read(version.join(name));
        got.map(|got| assert!(got == bytes(name.len() as u64, 300_000), "a wrong byte"))
    };
    right("first").expect("the name is known");

    hosts(&place, false);
    // Connections that stand need no name.
    server.go_away();
    server.come_back();
    eventually("the catalog cannot be asked for", || {
        xattr(&mount, "error").is_some_and(|why| why.contains("dns error"))
    });
    right("first").expect("cached");
    is_an_outage(&right("second").expect_err("it was never fetched"));
    let reason = xattr(&version.join("second"), "error").expect("a reason");
    assert!(reason.contains("dns error"), "{reason}");
    println!("{reason}");
    assert_eq!(fs::read_dir(&version).expect("listed").count(), 2);
    hosts(&place, true);
    eventually("right again", || right("second").is_ok());
    daemon.stop();
}
