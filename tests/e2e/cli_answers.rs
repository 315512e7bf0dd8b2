//! What commands answer when there is little to say: nothing freed, nothing verified, a warning.
//!
//! Each test has folders of its own.

use std::fs;

use crate::cli::{SIZE, two_versions, with_registry};
use crate::harness::Place;

#[test]
fn an_eviction_that_frees_nothing_fails_alike_for_one_version_and_for_all() {
    let place = two_versions();
    for args in [&["evict", "org/net@v1"][..], &["evict", "--all"]] {
        let ran = place.run(args);
        assert_eq!(ran.code, 4, "nothing is cached: {args:?}: {ran:?}");
    }
    assert_eq!(with_registry(&place, &["pin", "org/net@v1", "--prefetch"]).code, 0);
    for args in [&["evict", "org/net@v1"][..], &["evict", "--all"]] {
        let ran = place.run(args);
        assert_eq!(ran.code, 1, "all is pinned: {args:?}: {ran:?}");
        assert!(ran.err.contains("nothing was freed") && ran.err.contains("pinned"), "{ran:?}");
    }
    let forced = place.run(["evict", "--all", "--force", "--json"]).json();
    assert!(forced["freed"].as_u64() >= Some(SIZE as u64), "{forced}");
}

#[test]
fn a_verification_of_nothing_does_not_report_that_no_damage_was_found() {
    let place = two_versions();
    let said = place.ok(["verify"]);
    assert!(said.contains("nothing was verified") && !said.contains("no damage"), "{said}");
    let never = with_registry(&place, &["verify", "org/net@v1"]);
    assert_eq!(never.code, 4, "{never:?}");
    assert!(never.err.contains("org/net@v1 is not cached"), "{never:?}");
    // Known, and not cached any more.
    assert_eq!(with_registry(&place, &["prefetch", "org/net@v1"]).code, 0);
    place.ok(["evict", "org/net@v1"]);
    let gone = with_registry(&place, &["verify", "org/net@v1"]);
    assert_eq!(gone.code, 4, "{gone:?}");
    assert!(gone.err.contains("nothing of org/net@v1 is cached"), "{gone:?}");
}

#[test]
fn a_little_of_a_large_cache_is_less_than_one_per_cent() {
    let place = two_versions();
    assert_eq!(with_registry(&place, &["prefetch", "org/net@v1"]).code, 0);
    let status = place.ok(["status"]);
    assert!(status.contains("of 50.0 GiB (<1%)"), "{status}");
}

#[test]
fn commands_print_messages_and_no_log_lines() {
    let messages = |text: &str| {
        let good = |line: &&str| line.starts_with("warning: ") || line.starts_with("error: ");
        assert!(!text.is_empty() && text.lines().all(|line| good(&line)), "{text}");
    };
    let place = Place::new();
    let plain = place.path("plain");
    fs::create_dir_all(plain.join("nothing")).expect("a folder");
    fs::write(plain.join("a"), b"x").expect("a file");
    let args = ["publish", "plain", "org/net", "v1"];
    let published = with_registry(&place, &args);
    assert_eq!(published.code, 0, "{published:?}");
    messages(&published.err);
    let quiet = with_registry(&place, &["publish", "plain", "org/net", "v2", "--quiet"]);
    assert!(quiet.err.is_empty(), "{quiet:?}");

    assert_eq!(with_registry(&place, &["prefetch", "org/net@v1"]).code, 0);
    fs::write(place.cache().join("index.db"), b"this was an index once").expect("own file");
    let list = place.run(["list"]);
    assert_eq!(list.code, 0, "{list:?}");
    messages(&list.err);
    // Remembered only by now: the catalog that a registry gave before it went away.
    assert_eq!(with_registry(&place, &["list", "--remote"]).code, 0);
    fs::rename(place.registry(), place.path("away")).expect("the registry goes away");
    let remote = with_registry(&place, &["list", "--remote"]);
    assert_eq!(remote.code, 0, "{remote:?}");
    messages(&remote.err);
}
