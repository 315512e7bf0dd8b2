//! A machine whose clock stands before 1970, as one without a battery may begin: nothing panics.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use modelfs_test_support::Server;

use crate::harness::{Daemon, Place};

/// Takes the time of day from who asks the C library: 100,000,000 seconds before 1970.
const CLOCK: &str = r#"
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t clock, struct timespec *at) {
    int failed = (int) syscall(SYS_clock_gettime, clock, at);
    if (!failed && clock == CLOCK_REALTIME) at->tv_sec = -100000000;
    return failed;
}
"#;

fn preload(place: &Place) -> PathBuf {
    let (source, library) = (place.path("clock.c"), place.path("clock.so"));
    fs::write(&source, CLOCK).expect("a file of the test's own");
    let mut build = Command::new("cc");
    build.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source);
    assert!(build.status().expect("a C compiler, as the build needs one").success());
    library
}

fn back_then(mut command: Command, library: &Path) -> Command {
    command.env("LD_PRELOAD", library);
    command
}

#[test]
fn a_clock_before_1970_is_no_reason_to_die() {
    let place = Place::new();
    let library = preload(&place);
    let plain = place.path("plain");
    fs::create_dir(&plain).expect("a folder");
    fs::write(plain.join("w.bin"), modelfs_test_support::bytes(3, 300_000)).expect("a file");
    let registry = place.registry();
    let registry = registry.to_str().expect("temporary folders have UTF-8 names");
    let run = |args: &[&str]| {
        let out = back_then(place.modelfs(args), &library).output().expect("the binary starts");
        assert!(out.status.success(), "{args:?}: {out:?}");
        String::from_utf8(out.stdout).expect("UTF-8")
    };
    let source = plain.to_str().expect("temporary folders have UTF-8 names");
    run(&["publish", source, "org/net", "v1", "--registry", registry]);
    let catalog = fs::read_to_string(place.registry().join("models.json")).expect("published");
    assert!(!catalog.contains("published_at"), "no time is better than a wrong one: {catalog}");

    run(&["pin", "org/net@v1", "--prefetch", "--registry", registry]);
    run(&["info", "org/net@v1", "--registry", registry]);
    run(&["evict", "--all", "--force"]);

    let server = Server::start(&place.registry());
    let mut mount = place.modelfs(["mount"]);
    mount.arg(place.mountpoint()).args(["--registry", &server.url()]);
    let daemon = Daemon::start(&place, back_then(mount, &library));
    let processes = daemon.children();
    // What answers commands cannot say what day it is, and says so.
    let status = place.run(["status"]);
    assert_eq!((status.code, status.err.contains("before 1970")), (1, true), "{status:?}");
    let read = fs::read(daemon.path("org/net/v1/w.bin")).expect("read");
    assert!(read == modelfs_test_support::bytes(3, 300_000), "a wrong byte");
    assert_eq!(daemon.children(), processes, "nothing died of it");
    daemon.stop();
}
