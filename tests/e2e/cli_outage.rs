//! What commands say while a registry cannot be reached.
//!
//! Each test has folders and servers of its own.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use modelfs_test_support::{Fault, Server, When};

use crate::cli::{two_versions, with_registry};
use crate::harness::{Place, Ran};

/// A missing folder takes no waiting; a loaded machine may take a while for anything.
const AT_ONCE: Duration = Duration::from_secs(4);

#[test]
fn a_missing_registry_folder_fails_at_once_as_what_it_is() {
    let place = two_versions();
    let named = format!("the folder {} is not there", place.registry().display());
    let daemon = place.mount_folder(&[]);
    fs::read_dir(daemon.path("org/net/v1")).expect("its manifest is known from here on");
    fs::rename(place.registry(), place.path("away")).expect("the registry goes away");
    let begun = Instant::now();
    let error = fs::read(daemon.path("org/net/v1/weights.bin")).expect_err("nothing is cached");
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()), "{error}");
    let failed = |args: &[&str]| {
        let begun = Instant::now();
        let ran = with_registry(&place, args);
        assert_eq!(ran.code, 5, "{args:?}: {ran:?}");
        assert!(ran.err.contains(&named), "{args:?}: {ran:?}");
        assert!(begun.elapsed() < AT_ONCE, "{args:?}: {:?}", begun.elapsed());
    };
    assert!(begun.elapsed() < AT_ONCE, "reading: {:?}", begun.elapsed());
    failed(&["prefetch", "org/net@v1"]);
    daemon.stop();
    failed(&["prefetch", "org/net@v1"]);
    fs::remove_dir_all(place.cache()).expect("nothing is known of the registry any more");
    failed(&["list", "--remote"]);
    failed(&["prefetch", "org/net@v1"]);
}

/// `waiting for http://…, for at most 7s more: …`, once.
fn says_what_it_waits_for(said: &str, registry: &str, most: u64) {
    let start = format!("waiting for {registry}, for at most ");
    let lines: Vec<_> = said.lines().filter_map(|l| l.strip_prefix(&start)).collect();
    assert_eq!(lines.len(), 1, "{said}");
    let seconds = lines[0].split_once("s more: ").and_then(|(n, _)| n.parse::<u64>().ok());
    assert!(seconds.is_some_and(|n| n > 0 && n <= most), "{said}");
}

#[test]
fn a_command_says_what_it_waits_for_and_until_when() {
    let place = two_versions();
    let server = Server::start(&place.registry());
    let daemon = place.mount(&server.url(), &["--read-deadline", "6s"]);
    server.go_away();
    let prefetch = place.run(["prefetch", "org/net@v1"]);
    assert_eq!(prefetch.code, 5, "{prefetch:?}");
    says_what_it_waits_for(&prefetch.err, &server.url(), 6);
    let quiet = place.run(["prefetch", "org/net@v1", "--quiet"]);
    assert!(!quiet.err.contains("waiting"), "{quiet:?}");
    daemon.stop();

    let elsewhere = Place::new();
    let mut list = elsewhere.modelfs(["list", "--remote"]);
    let list = Ran::from(list.env("MODELFS_REGISTRY", server.url()).output().expect("it runs"));
    assert_eq!(list.code, 5, "{list:?}");
    says_what_it_waits_for(&list.err, &server.url(), 30);

    let mut mount = elsewhere.modelfs(["mount", "models", "--registry", &server.url()]);
    let mount = Ran::from(mount.output().expect("it runs"));
    assert_eq!(mount.code, 5, "{mount:?}");
    let waits = format!("waiting for {}, for at most ", server.url());
    assert!(mount.err.contains(&waits), "{mount:?}");
}

#[test]
fn a_slow_registry_is_no_outage() {
    let place = two_versions();
    let server = Server::start(&place.registry());
    let daemon = place.mount(&server.url(), &[]);
    // Some 3 s for a chunk of 1 MiB.
    let drip = Fault::Drip(16 << 10, Duration::from_millis(50));
    server.on("/data/", When::Always, drip);
    let begun = Instant::now();
    let ran = place.run(["prefetch", "org/net@v1"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(begun.elapsed() > Duration::from_secs(2), "it was slow: {:?}", begun.elapsed());
    assert!(ran.err.is_empty(), "{ran:?}");
    daemon.stop();
}

#[test]
fn a_terminal_shows_the_outage_instead_of_an_empty_bar() {
    let place = two_versions();
    let server = Server::start(&place.registry());
    let daemon = place.mount(&server.url(), &["--read-deadline", "6s"]);
    server.go_away();
    let modelfs = place.modelfs(["prefetch", "org/net@v1"]);
    let program = modelfs.get_program().to_str().expect("UTF-8").to_owned();
    // A terminal of its own.
    let mut script: Command = place.program("script");
    script.args(["-qec", &format!("'{program}' prefetch org/net@v1"), "/dev/null"]);
    let ran = Ran::from(script.env("TERM", "xterm").output().expect("script is in bsdutils"));
    assert_eq!(ran.code, 5, "{ran:?}");
    assert!(ran.out.contains(&format!("waiting for {}, for at most ", server.url())), "{ran:?}");
    assert!(!ran.out.contains("0 B/0 B"), "{ran:?}");
    daemon.stop();
}
