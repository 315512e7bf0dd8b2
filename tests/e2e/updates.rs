//! Restarts that fail: the worker that serves goes on, and whoever asked hears why.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use modelfs_test_support::bytes;

use crate::harness::{Daemon, Place, Ran, eventually, signal};

const SIZE: usize = 6 << 20;

fn published(place: &Place) -> Vec<u8> {
    let plain = place.path("plain");
    fs::create_dir_all(&plain).expect("a folder");
    let bytes = bytes(23, SIZE);
    fs::write(plain.join("w.bin"), &bytes).expect("a file");
    place.publish(&plain, "org/net", "v1", &["--chunk-size", "2MiB"]);
    bytes
}

/// A program of the same protocol that says these things, each after it was spoken to, and then does
/// the last thing. `hear` answers pings and returns when something else is said.
fn program(says: &[&str], last: &str) -> String {
    let mut text = "#!/usr/bin/env python3\nimport socket, sys, time\n\
                    link = socket.socket(fileno=0)\n\
                    def hear():\n  while link.recv(1 << 16) == b'\"ping\"': link.send(b'\"pong\"')\n"
        .to_owned();
    for (n, message) in says.iter().enumerate() {
        if n > 0 {
            text += "hear()\n";
        }
        text += &format!("link.send(b'{message}')\n");
    }
    text + last + "\n"
}

const HELLO: &str = "{\"hello\":{\"protocol\":2,\"version\":\"9.9\"}}";
const CHECKED: &str = "\"checked\"";
const FAILED: &str =
    "{\"failed\":{\"kind\":\"storage\",\"message\":\"the index has gone bad\",\"exit_code\":7}}";

/// Puts another program in the place of the daemon's.
fn install(place: &Place, text: &str) {
    let script = place.path("program");
    fs::write(&script, text).expect("own folder");
    place.install_copy(&script);
}

/// `modelfs restart` by the program under test, whatever lies in the daemon's place.
fn restart(place: &Place) -> Ran {
    let mut restart = place.program(crate::harness::binary());
    Ran::from(restart.arg("restart").output().expect("starts"))
}

fn status(place: &Place) -> serde_json::Value {
    let mut status = place.program(crate::harness::binary());
    Ran::from(status.args(["status", "--json"]).output().expect("starts")).json()
}

fn worker(place: &Place) -> Option<u64> {
    status(place)["daemon"]["worker"].as_u64()
}

/// Reads a part of the file, so that the process that serves has to answer.
fn reads(file: &File, bytes: &[u8]) {
    rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed).expect("fadvise");
    let mut buffer = vec![0; SIZE];
    file.read_exact_at(&mut buffer, 0).expect("it reads on");
    assert!(buffer == bytes, "a wrong byte");
}

/// A mount by a program of the test's own, all of it cached.
fn mounted(place: &Place) -> (Daemon<'_>, File, Vec<u8>) {
    let bytes = published(place);
    place.install();
    let daemon = place.mount_folder(&["--no-passthrough", "--hang-timeout", "3s"]);
    let file = File::open(daemon.path("org/net/v1/w.bin")).expect("opens");
    reads(&file, &bytes);
    (daemon, file, bytes)
}

#[test]
fn a_new_program_that_fails_before_it_could_begin_leaves_the_old_worker_serving() {
    let place = Place::new();
    let (daemon, file, bytes) = mounted(&place);
    let before = worker(&place);
    for (text, reason) in [
        ("#!/bin/sh\nexit 3\n".to_owned(), "exit status: 3"),
        (program(&[HELLO], "sys.exit(3)"), "exit status: 3"),
        (program(&[HELLO, FAILED], "sys.exit(7)"), "the index has gone bad"),
        // It does not answer; and it answers nothing but pings.
        (program(&[HELLO], "time.sleep(100)"), "did not answer for 3s"),
        (program(&[HELLO], "while True: hear()"), "not prepared within 6s"),
    ] {
        install(&place, &text);
        let refused = restart(&place);
        assert_eq!(refused.code, 1, "{reason}: {refused:?}");
        assert!(refused.err.contains(reason), "{reason}: {refused:?}");
        assert_eq!(worker(&place), before, "{reason}: the old one serves on");
        reads(&file, &bytes);
    }
    assert_eq!(status(&place)["daemon"]["restarts"], 0);
    place.install();
    assert_eq!(restart(&place).code, 0);
    reads(&file, &bytes);
    daemon.stop();
}

#[test]
fn a_new_program_that_cannot_open_the_store_gives_way_to_the_old_one_and_says_why() {
    let place = Place::new();
    let (daemon, file, bytes) = mounted(&place);
    let before = worker(&place);
    for (last, reason) in [
        (format!("hear()\nlink.send(b'{FAILED}')\nsys.exit(7)"), "gone bad"),
        ("hear()\nsys.exit(5)".to_owned(), "exit status: 5"),
        // While the old one makes room.
        ("sys.exit(6)".to_owned(), "exit status: 6"),
        ("hear()\ntime.sleep(100)".to_owned(), "did not answer for 3s"),
    ] {
        install(&place, &program(&[HELLO, CHECKED], &last));
        let refused = restart(&place);
        assert_eq!(refused.code, 1, "{reason}: {refused:?}");
        assert!(refused.err.contains(reason), "{reason}: {refused:?}");
        reads(&file, &bytes);
        let said = status(&place)["daemon"].clone();
        assert!(said["failed_restart"].as_str().is_some_and(|s| s.contains(reason)), "{said}");
        assert_ne!(said["worker"].as_u64(), before);
        // The program that served, although another one lies in its place.
        let exe = fs::read_link(format!("/proc/{}/exe", said["worker"])).expect("lives");
        assert!(exe.to_string_lossy().ends_with("modelfs (deleted)"), "{exe:?}");
    }
    // Its worker may die, too: the program in its place is never asked for that.
    let dead = worker(&place);
    let pid = dead.and_then(|pid| pid.try_into().ok()).expect("a worker answers");
    assert!(signal(pid, "KILL"));
    eventually("another worker", || worker(&place).is_some_and(|now| Some(now) != dead));
    reads(&file, &bytes);
    place.install();
    assert_eq!(restart(&place).code, 0);
    assert!(status(&place)["daemon"]["failed_restart"].is_null());
    reads(&file, &bytes);
    daemon.stop();
}

#[test]
fn an_index_of_a_newer_program_is_refused_before_the_old_worker_goes() {
    let place = Place::new();
    let (daemon, file, bytes) = mounted(&place);
    let before = worker(&place);
    let index = place.cache().join("index.db");
    // In the file's header alone, where the worker that has it open does not look.
    let header = |version: [u8; 4]| {
        let index = File::options().write(true).open(&index).expect("own cache");
        index.write_all_at(&version, 60).expect("own cache");
    };
    let mut now = [0; 4];
    File::open(&index).expect("own cache").read_exact_at(&mut now, 60).expect("a header");
    header([0, 0, 3, 0]);
    let refused = restart(&place);
    header(now);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.err.contains("768"), "{refused:?}");
    assert_eq!(worker(&place), before);
    reads(&file, &bytes);
    daemon.stop();
}

#[test]
fn a_mount_that_was_given_up_is_served_again_although_the_installed_program_fails() {
    let place = Place::new();
    let bytes = published(&place);
    place.install();
    let daemon = place.mount_folder(&["--no-passthrough", "--max-restarts", "1"]);
    daemon.give_up();
    install(&place, "#!/bin/sh\nexit 3\n");
    let refused = restart(&place);
    assert!(refused.err.contains("exit status: 3"), "{refused:?}");
    let file = File::open(daemon.path("org/net/v1/w.bin")).expect("opens");
    reads(&file, &bytes);
    daemon.stop();
}
