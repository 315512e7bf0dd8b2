//! The supervisor's decisions: restarts on request, giving up, ending in bad moments.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use modelfs_test_support::{Fault, Server, When, bytes};

use crate::harness::{Place, eventually, is_mounted, set_mode, signal, xattr};

const SIZE: usize = 12 << 20;

fn published(place: &Place) -> Vec<u8> {
    let plain = place.path("plain");
    fs::create_dir_all(&plain).expect("a folder");
    let bytes = bytes(22, SIZE);
    fs::write(plain.join("w.bin"), &bytes).expect("a file");
    place.publish(&plain, "org/net", "v1", &["--chunk-size", "4MiB"]);
    bytes
}

#[test]
fn a_restart_fails_no_operation() {
    let place = Place::new();
    let bytes = published(&place);
    let daemon = place.mount_folder(&[]);
    let path = daemon.path("org/net/v1/w.bin");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut times = 0;
                    while !done.load(Ordering::Relaxed) {
                        assert!(fs::read(&path).expect("no read fails") == bytes, "a wrong byte");
                        times += 1;
                    }
                    times
                })
            })
            .collect();
        for by_signal in [false, true, false] {
            let before = daemon.worker();
            match by_signal {
                true => daemon.signal("HUP"),
                false => {
                    let said = place.ok(["restart", "--json"]);
                    let said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
                    assert_ne!(said["worker"], before);
                }
            }
            eventually("another worker", || daemon.worker() != before);
        }
        done.store(true, Ordering::Relaxed);
        assert!(readers.into_iter().all(|r| r.join().expect("no reader fails") > 0));
    });
    daemon.stop();
}

#[test]
fn the_installed_program_takes_over_unless_its_protocol_differs() {
    let place = Place::new();
    let bytes = published(&place);
    place.install();
    let daemon = place.mount_folder(&[]);
    let path = daemon.path("org/net/v1/w.bin");
    assert!(fs::read(&path).expect("reads") == bytes);
    let before = daemon.worker();

    // A program of another age: it introduces itself and waits.
    let other = "#!/usr/bin/env python3\nimport socket, time\nlink = socket.socket(fileno=0)\n\
                 link.send(b'{\"hello\":{\"protocol\":999,\"version\":\"9.9\"}}')\nlink.recv(100)\n";
    let new = place.path("modelfs.new");
    fs::write(&new, other).expect("own folder");
    set_mode(&new, 0o755);
    fs::rename(&new, place.path("modelfs")).expect("own folder");
    let mut restart = place.program(crate::harness::binary());
    let refused = crate::harness::Ran::from(restart.arg("restart").output().expect("starts"));
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.err.contains("999") && refused.err.contains("9.9"), "{refused:?}");
    place.install();
    assert_eq!(daemon.worker(), before, "the old one stays");
    assert!(fs::read(&path).expect("reads") == bytes);

    place.ok(["restart"]);
    let exe = fs::read_link(format!("/proc/{}/exe", daemon.worker())).expect("lives");
    assert_eq!(exe, place.path("modelfs").canonicalize().expect("there"), "not the deleted one");
    daemon.stop();
}

#[test]
fn after_too_many_deaths_reads_fail_with_a_reason_until_a_restart() {
    let place = Place::new();
    let bytes = published(&place);
    let daemon = place.mount_folder(&["--max-restarts", "1", "--no-passthrough"]);
    let path = daemon.path("org/net/v1/w.bin");
    let file = File::open(&path).expect("opens");
    daemon.give_up();
    let mut buffer = [0; 4096];
    let failed = file.read_exact_at(&mut buffer, 5 << 20).expect_err("nobody serves");
    assert_eq!(failed.raw_os_error(), Some(5), "EIO, not {failed}");
    let reason = xattr(&path, "error").expect("the reason can be read");
    assert!(reason.contains("died") && reason.contains("modelfs restart"), "{reason}");
    let status = place.run(["status"]);
    assert_eq!(status.code, 1, "{status:?}");
    assert!(status.err.contains("died"), "{status:?}");

    place.ok(["restart"]);
    file.read_exact_at(&mut buffer, 5 << 20).expect("the same handle reads again");
    assert!(buffer == bytes[5 << 20..(5 << 20) + 4096]);
    assert_eq!(place.run(["status"]).code, 0);
    daemon.stop();
}

#[test]
fn workers_that_served_may_die_as_often_as_they_like() {
    let place = Place::new();
    let bytes = published(&place);
    let daemon = place.mount_folder(&["--max-restarts", "2", "--no-passthrough"]);
    let file = File::open(daemon.path("org/net/v1/w.bin")).expect("opens");
    for _ in 0..5 {
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("fadvise");
        let mut buffer = vec![0; SIZE];
        file.read_exact_at(&mut buffer, 0).expect("no read fails");
        assert!(buffer == bytes, "a wrong byte");
        let worker = daemon.worker();
        assert!(signal(worker, "KILL"));
        eventually("another worker", || {
            let status = place.run(["status", "--json"]);
            assert!(!status.err.contains("in a row"), "{status:?}");
            status.code == 0 && status.json()["daemon"]["worker"] != worker
        });
    }
    daemon.stop();
}

#[test]
fn a_worker_that_hangs_can_be_replaced() {
    let place = Place::new();
    let bytes = published(&place);
    let daemon = place.mount_folder(&["--no-passthrough"]);
    let file = File::open(daemon.path("org/net/v1/w.bin")).expect("opens");
    assert!(signal(daemon.worker(), "STOP"));
    let reading = std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        file.read_exact_at(&mut buffer, 5 << 20).map(|()| buffer)
    });
    place.ok(["restart"]);
    let read = reading.join().expect("no panic").expect("the read is answered by the next one");
    assert!(read == bytes[5 << 20..(5 << 20) + 4096]);
    daemon.stop();
}

#[test]
fn a_mount_that_stopped_restarting_can_be_unmounted() {
    let place = Place::new();
    published(&place);
    let daemon = place.mount_folder(&["--max-restarts", "1"]);
    daemon.give_up();
    assert_eq!(place.run(["status"]).code, 1);
    daemon.stop();
}

/// The end in a bad moment: within the grace period, nobody left waiting, no mount.
fn ends_well(place: &Place, daemon: crate::harness::Daemon<'_>, twice: bool) {
    daemon.signal("TERM");
    if twice {
        std::thread::sleep(Duration::from_millis(200));
        daemon.signal("TERM");
    }
    let started = Instant::now();
    let children = daemon.children();
    let (code, log) = daemon.wait();
    assert!(twice || code == 0, "{code}: {log}");
    // Three seconds of grace for open files, and what a loaded machine takes.
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}: {log}", started.elapsed());
    assert!(!is_mounted(&place.mountpoint()), "{log}");
    eventually("no process is left", || {
        children.iter().all(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists())
    });
}

#[test]
fn a_daemon_ends_cleanly_while_a_read_waits_for_a_dead_server() {
    for twice in [false, true] {
        let place = Place::new();
        published(&place);
        let server = Server::start(&place.registry());
        let daemon = place.mount(&server.url(), &[]);
        let file = File::open(daemon.path("org/net/v1/w.bin")).expect("opens");
        server.on("/data/", When::Always, Fault::Stall(0));
        let reading =
            std::thread::spawn(move || file.read_exact_at(&mut [0; 4096], 9 << 20).is_err());
        std::thread::sleep(Duration::from_millis(300));
        ends_well(&place, daemon, twice);
        assert!(reading.join().expect("no panic"), "the read ends with an error");
    }
}

#[test]
fn a_daemon_ends_cleanly_during_a_takeover() {
    let place = Place::new();
    published(&place);
    for pause in [0, 20, 60, 120] {
        let daemon = place.mount_folder(&[]);
        let file = File::open(daemon.path("org/net/v1/w.bin")).expect("opens");
        assert!(signal(daemon.worker(), "KILL"));
        std::thread::sleep(Duration::from_millis(pause));
        ends_well(&place, daemon, false);
        drop(file);
    }
}

#[test]
fn two_termination_signals_lose_no_verified_bytes() {
    let place = Place::new();
    let bytes = published(&place);
    let server = Server::start(&place.registry());
    let daemon = place.mount(&server.url(), &["--no-passthrough"]);
    let file = File::open(daemon.path("org/net/v1/w.bin")).expect("opens");
    let mut buffer = vec![0; SIZE];
    file.read_exact_at(&mut buffer, 0).expect("reads");
    assert!(buffer == bytes, "a wrong byte");
    // The file is open, so that the end waits for it, and the last second's bytes are in no index yet.
    daemon.signal("TERM");
    daemon.signal("INT");
    let (code, log) = daemon.wait();
    assert_eq!(code, 0, "{log}");
    assert!(!is_mounted(&place.mountpoint()), "{log}");
    drop(file);

    server.reset();
    let daemon = place.mount(&server.url(), &["--no-passthrough"]);
    assert!(fs::read(daemon.path("org/net/v1/w.bin")).expect("reads") == bytes, "a wrong byte");
    assert_eq!(server.requests_for("/data/"), 0, "{log}");
    daemon.stop();
}

#[test]
fn a_mount_that_is_stopped_ends_with_0_and_with_130_before_it_was_ready() {
    for how in ["INT", "TERM"] {
        let place = Place::new();
        published(&place);
        let server = Server::start(&place.registry());
        server.on("models.json", When::Always, Fault::Stall(0));
        let mut early = place.modelfs(["mount"]);
        early.arg(place.mountpoint()).args(["--registry", &server.url()]);
        let mut early = early.spawn().expect("the binary starts");
        eventually("the registry is asked", || server.requests_for("/models.json") > 0);
        assert!(signal(early.id(), how));
        assert_eq!(early.wait().expect("own child").code(), Some(130), "{how}");

        server.heal();
        let daemon = place.mount(&server.url(), &[]);
        daemon.signal(how);
        let (code, log) = daemon.wait();
        assert_eq!(code, 0, "{how}: {log}");
    }
}
