//! What a service manager sees.

use std::os::unix::net::UnixDatagram;
use std::process::Stdio;

use crate::harness::{PATIENCE, Place, is_mounted, signal};

#[test]
fn a_service_manager_hears_ready_alive_and_stopping() {
    let place = Place::new();
    let plain = place.path("plain");
    std::fs::create_dir(&plain).expect("a folder");
    std::fs::write(plain.join("a"), "a").expect("a file");
    place.publish(&plain, "org/net", "v1", &[]);
    let at = place.path("run/notify");
    let manager = UnixDatagram::bind(&at).expect("own folder");
    manager.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let hear = |what: &str| {
        let mut buffer = [0; 4096];
        loop {
            let len = manager.recv(&mut buffer).unwrap_or_else(|e| panic!("{what}: {e}"));
            let said = String::from_utf8_lossy(&buffer[..len]).into_owned();
            if said.lines().any(|line| line == what) {
                return said;
            }
        }
    };
    let mut command = place.modelfs(["mount"]);
    command.arg(place.mountpoint()).arg("--registry").arg(place.registry());
    command.env("NOTIFY_SOCKET", &at).env("WATCHDOG_USEC", "1000000");
    let mut child =
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary starts");
    let ready = hear("READY=1");
    assert!(ready.contains("STATUS="), "{ready}");
    assert!(place.mountpoint().join("org/net/v1/a").exists(), "ready means that it can be read");
    hear("WATCHDOG=1");
    hear("WATCHDOG=1");
    assert!(signal(child.id(), "TERM"));
    hear("STOPPING=1");
    assert!(child.wait().expect("own child").success());
    assert!(!is_mounted(&place.mountpoint()));
}
