//! The command line: words, exit codes and JSON, without a mount but in the last tests.
//!
//! Each test has folders of its own.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use modelfs_test_support::bytes;
use serde_json::Value;

use crate::harness::{Place, Ran};

const COMMANDS: [&str; 12] = [
    "mount", "unmount", "status", "list", "info", "path", "prefetch", "pin", "unpin", "evict",
    "verify", "publish",
];

/// Large enough for several leaves and two chunks of 1 MiB.
pub const SIZE: usize = (1 << 20) + 300_000;

/// A place with `org/net@v1` (two files) and `org/net@v2` (one of them changed) in its registry.
pub fn two_versions() -> Place {
    let place = Place::new();
    let plain = place.path("plain");
    fs::create_dir(&plain).expect("a folder");
    fs::write(plain.join("weights.bin"), bytes(1, SIZE)).expect("a file");
    fs::write(plain.join("config.json"), b"{}").expect("a file");
    let chunks = ["--chunk-size", "1MiB"];
    place.publish(&plain, "org/net", "v1", &[&chunks[..], &["--meta", "license=mit"]].concat());
    fs::write(plain.join("config.json"), b"{\"a\":1}").expect("a file");
    place.publish(&plain, "org/net", "v2", &chunks);
    place
}

/// Runs a command with this place's registry.
pub fn with_registry(place: &Place, args: &[&str]) -> Ran {
    Ran::from(
        place
            .modelfs(args)
            .env("MODELFS_REGISTRY", place.registry())
            .output()
            .expect("the binary starts"),
    )
}

fn last_json(ran: &Ran) -> Value {
    let line = ran.out.lines().last().unwrap_or_default();
    serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {ran:?}"))
}

fn blob_files(place: &Place) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in fs::read_dir(place.cache().join("blobs")).expect("a cache").flatten() {
        let files = fs::read_dir(folder.path()).into_iter().flatten().flatten();
        found.extend(files.map(|f| f.path()).filter(|p| p.extension().is_none()));
    }
    found
}

#[test]
fn every_command_explains_itself_with_an_example() {
    let place = Place::new();
    for command in COMMANDS {
        let help = place.ok([command, "--help"]);
        assert!(help.contains(&format!("\n  modelfs {command}")), "{help}");
    }
    assert!(place.ok(["--version"]).starts_with("modelfs "));
}

#[test]
fn wrong_arguments_end_with_2_and_say_what_to_write() {
    let place = Place::new();
    for (args, said) in [
        (&["frobnicate"][..], "frobnicate"),
        (&["info", "just-a-name"], "GROUP/MODEL@VERSION"),
        (&["info", "a/../c@v"], "'..'"),
        (&["evict"], "REF"),
        (&["mount", "m"], "MODELFS_REGISTRY"),
        (&["mount", "m", "--registry", "r", "--cache-size", "much"], "50GiB"),
        (&["mount", "m", "--registry", "ftp://x"], "http"),
        (&["prefetch", "a/b@c"], "--registry"),
        (&["list", "--remote"], "--registry"),
        (&["publish", ".", "a/b", "v", "--registry", "http://x"], "folder"),
        (&["publish", ".", "a", "v", "--registry", "r"], "GROUP/MODEL"),
        (&["publish", ".", "a/b", "v", "--registry", "r", "--meta", "x"], "KEY=VALUE"),
        (&["pin", "a/b@c", "--owner", "a,b"], "owner"),
    ] {
        let ran = place.run(args);
        assert_eq!(ran.code, 2, "{args:?}: {ran:?}");
        assert!(ran.err.contains(said), "{args:?}: {ran:?}");
        assert!(ran.out.is_empty(), "{args:?}: {ran:?}");
        let as_json = place.run(args.iter().chain(&["--json"]));
        let error: Value = serde_json::from_str(&as_json.err).expect("JSON on standard error");
        assert_eq!(error["error"]["exit_code"], 2, "{args:?}: {as_json:?}");
        assert_eq!(error["error"]["kind"], "usage");
    }
}

#[test]
fn a_version_from_publishing_to_eviction_without_a_daemon() {
    let place = two_versions();
    let remote = with_registry(&place, &["list", "--remote", "--json"]).json();
    let versions = remote["versions"].as_array().expect("a list");
    assert_eq!(versions.len(), 2);
    assert_eq!((&versions[0]["version"], &versions[0]["cached"]), (&"v1".into(), &0.into()));

    let info = with_registry(&place, &["info", "org/net", "v1", "--json"]).json();
    assert_eq!(info["total"], SIZE + 2);
    assert_eq!(info["metadata"]["license"], "mit");
    assert_eq!(info["files"].as_array().map(Vec::len), Some(2));

    let fetched = with_registry(&place, &["prefetch", "org/net@v1", "--json"]);
    assert_eq!(fetched.code, 0, "{fetched:?}");
    assert_eq!(last_json(&fetched)["done"]["fetched"], SIZE + 2);
    let again = with_registry(&place, &["prefetch", "org/net/v1", "--json"]);
    assert_eq!(last_json(&again)["done"]["fetched"], 0);

    // From here on no registry is given: the index knows.
    let list = place.ok(["list"]);
    assert!(list.contains("org/net@v1") && list.contains("100%"), "{list}");
    let checked = place.run(["verify", "--json"]).json();
    assert!(checked["checked"].as_u64() >= Some(SIZE as u64), "{checked}");

    place.ok(["pin", "org/net@v1", "--owner", "ann"]);
    let kept = place.run(["evict", "org/net@v1"]);
    assert_eq!(kept.code, 1, "{kept:?}");
    assert!(kept.err.contains("ann") && kept.err.contains("modelfs unpin"), "{kept:?}");
    let stranger = place.run(["unpin", "org/net@v1", "--owner", "bob"]);
    assert_eq!(stranger.code, 4, "{stranger:?}");
    assert!(stranger.err.contains("ann"), "{stranger:?}");
    place.ok(["unpin", "org/net@v1", "--owner", "ann"]);

    let freed = place.run(["evict", "org/net@v1", "--json"]).json();
    assert!(freed["freed"].as_u64() >= Some(SIZE as u64), "{freed}");
    assert_eq!(place.run(["evict", "org/net@v1"]).code, 4, "nothing is left to evict");
    assert!(place.ok(["list"]).contains("Nothing is cached"));
}

#[test]
fn versions_share_what_they_have_in_common() {
    let place = two_versions();
    assert_eq!(with_registry(&place, &["prefetch", "org/net@v1"]).code, 0);
    let info = with_registry(&place, &["info", "org/net@v2", "--json"]).json();
    assert_eq!(info["cached"], SIZE, "the unchanged file is there before anything was fetched");
    with_registry(&place, &["pin", "org/net@v2", "--owner", "ann"]);
    let all = place.run(["evict", "--all", "--json"]).json();
    assert!(all["kept_pinned"].as_u64() >= Some(SIZE as u64), "{all}");
    assert_eq!(all["pins"][0]["owner"], "ann");
    let forced = place.run(["evict", "--all", "--force", "--json"]).json();
    assert!(forced["freed"].as_u64() >= Some(SIZE as u64), "{forced}");
}

#[test]
fn a_version_that_is_not_in_the_registry_ends_with_3_and_a_suggestion() {
    let place = two_versions();
    for (wrong, right) in [("org/net@v3", "org/net@v"), ("org/nett@v1", "org/net@v1")] {
        let ran = with_registry(&place, &["prefetch", wrong]);
        assert_eq!(ran.code, 3, "{ran:?}");
        assert!(ran.err.contains(&format!("did you mean {right}")), "{ran:?}");
        assert!(ran.err.contains("modelfs list --remote"), "{ran:?}");
    }
}

#[test]
fn a_version_that_is_not_cached_ends_with_4() {
    let place = two_versions();
    for args in [
        &["path", "org/net@v1"][..],
        &["evict", "org/net@v1"],
        &["verify", "org/net@v1"],
        &["unpin", "org/net@v1"],
        &["unmount"],
    ] {
        let ran = place.run(args);
        assert_eq!(ran.code, 4, "{args:?}: {ran:?}");
    }
}

#[test]
fn without_its_registry_what_is_cached_can_be_used_and_the_rest_ends_with_5() {
    let place = two_versions();
    assert_eq!(with_registry(&place, &["prefetch", "org/net@v1"]).code, 0);
    fs::rename(place.registry(), place.path("away")).expect("the registry goes away");
    for args in [&["list"][..], &["info", "org/net@v1"], &["verify"], &["status"]] {
        let ran = with_registry(&place, args);
        assert_eq!(ran.code, 0, "{args:?}: {ran:?}");
    }
    assert_eq!(with_registry(&place, &["prefetch", "org/net@v1"]).code, 0, "all of it is here");

    let elsewhere = Place::new();
    fs::remove_dir(elsewhere.registry()).expect("its own folder");
    let ran = with_registry(&elsewhere, &["list", "--remote"]);
    assert_eq!(ran.code, 5, "{ran:?}");
}

#[test]
fn damage_ends_with_6_names_the_file_and_heals() {
    let place = two_versions();
    assert_eq!(with_registry(&place, &["prefetch", "org/net@v1"]).code, 0);
    let large = blob_files(&place)
        .into_iter()
        .find(|p| fs::metadata(p).is_ok_and(|m| m.len() == SIZE as u64))
        .expect("the weights are a blob");
    let mut damaged = fs::read(&large).expect("a blob can be read");
    damaged[SIZE / 2] ^= 1;
    crate::harness::set_mode(&large, 0o600);
    fs::write(&large, damaged).expect("the test damages its own blob");

    let ran = place.run(["verify"]);
    assert_eq!(ran.code, 6, "{ran:?}");
    assert!(ran.err.contains("org/net@v1 weights.bin"), "{ran:?}");
    assert!(!ran.err.contains("config.json"), "{ran:?}");
    let healed = with_registry(&place, &["prefetch", "org/net@v1", "--json"]);
    let fetched = last_json(&healed)["done"]["fetched"].as_u64();
    let fetched = fetched.unwrap_or_else(|| panic!("{healed:?}"));
    assert!(fetched > 0 && fetched < SIZE as u64, "only what was dropped comes again: {fetched}");
    place.ok(["verify"]);
}

#[test]
fn text_from_a_registry_is_printed_without_terminal_escapes() {
    let place = Place::new();
    let plain = place.path("plain");
    fs::create_dir(&plain).expect("a folder");
    fs::write(plain.join("a"), b"x").expect("a file");
    place.publish(&plain, "org/net", "v1", &["--meta", "note=\u{1b}[2Jgone\u{202e}"]);
    let info = with_registry(&place, &["info", "org/net@v1"]);
    assert!(info.out.contains("\\u{1b}[2Jgone"), "{info:?}");
    assert!(!info.out.contains(['\u{1b}', '\u{202e}']), "{info:?}");
}

#[test]
fn a_reader_that_is_dropped_does_not_panic_the_flight() {
    let place = two_versions();
    let mut child = place
        .modelfs(["list", "--remote"])
        .env("MODELFS_REGISTRY", place.registry())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    drop(child.stdout.take());
    let mut err = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut err).expect("text");
    assert!(child.wait().expect("own child").success(), "{err}");
    assert!(err.is_empty(), "{err}");
}

#[test]
fn a_store_that_another_command_holds_ends_with_7_and_names_it() {
    let place = two_versions();
    assert_eq!(with_registry(&place, &["prefetch", "org/net@v1"]).code, 0);
    let lock = fs::OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(place.cache().join("lock"))
        .expect("the store has a lock");
    lock.lock().expect("nobody else has it");
    use std::io::Write;
    (&lock).write_all(br#"{"pid":4242,"mountpoint":null,"socket":null}"#).expect("a small file");
    let ran = place.run(["list"]);
    assert_eq!(ran.code, 7, "{ran:?}");
    assert!(ran.err.contains("4242"), "{ran:?}");
}

#[test]
fn status_without_a_daemon_tells_of_the_cache() {
    let place = two_versions();
    let status = with_registry(&place, &["status", "--json"]).json();
    assert!(status["daemon"].is_null(), "{status}");
    assert_eq!((&status["cache"]["used"], &status["cache"]["absent"]), (&0.into(), &true.into()));
    let text = place.ok(["status"]);
    assert!(text.starts_with("mounted") && text.contains("50.0 GiB"), "{text}");
    assert!(text.contains("there is no cache yet"), "{text}");
    assert_eq!(with_registry(&place, &["prefetch", "org/net@v1"]).code, 0);
    let status = with_registry(&place, &["status", "--json"]).json();
    assert_eq!(status["cache"]["used"].as_u64().map(|u| u > 0), Some(true), "{status}");
    let text = place.ok(["status"]);
    assert!(text.starts_with("mounted") && text.contains("50.0 GiB"), "{text}");
}

#[test]
fn with_a_daemon_the_commands_say_the_same() {
    let place = two_versions();
    let daemon = place.mount_folder(&[]);
    let fetched = place.run(["prefetch", "org/net@v1", "--json"]);
    assert_eq!(fetched.code, 0, "{fetched:?}");
    assert_eq!(last_json(&fetched)["done"]["fetched"], SIZE + 2);
    let path = place.ok(["path", "org/net@v1"]);
    assert_eq!(PathBuf::from(path.trim()), daemon.path("org/net/v1"));
    let below = format!("{}/weights.bin", path.trim());
    let info = place.run(["info", &below, "--json"]).json();
    assert_eq!((&info["complete"], &info["version"]), (&true.into(), &"v1".into()));
    assert_eq!(place.run(["list", "--json"]).json()["versions"][0]["cached"], SIZE + 2);
    assert!(place.ok(["verify"]).contains("no damage found"));

    let missing = place.run(["prefetch", "org/nett@v1"]);
    assert_eq!(missing.code, 3, "{missing:?}");
    assert!(missing.err.contains("did you mean org/net@v1"), "{missing:?}");
    let other = place.run(["list", "--registry", "/somewhere/else"]);
    assert_eq!(other.code, 2, "{other:?}");

    place.ok(["pin", "org/net@v1"]);
    assert_eq!(place.run(["evict", "org/net@v1"]).code, 1);
    place.ok(["unpin", "org/net@v1"]);
    place.ok(["evict", "org/net@v1"]);
    let status = daemon.status();
    assert_eq!(status["daemon"]["pid"], daemon.pid());
    assert!(status["traffic"]["bytes"].as_u64() >= Some(SIZE as u64), "{status}");
    daemon.stop();
    let left: Vec<_> = fs::read_dir(place.path("run/modelfs")).expect("a folder").collect();
    assert!(left.is_empty(), "the socket is gone: {left:?}");
}

#[test]
fn a_second_signal_ends_the_daemon_at_once_without_leaving_a_mount() {
    let place = two_versions();
    let daemon = place.mount_folder(&[]);
    let mut open = fs::File::open(daemon.path("org/net/v1/weights.bin")).expect("opens");
    open.read_exact(&mut [0; 100]).expect("reads");
    daemon.signal("TERM");
    // Signals sent too close together are one.
    std::thread::sleep(Duration::from_millis(300));
    let second = Instant::now();
    daemon.signal("TERM");
    let (code, log) = daemon.wait();
    assert!(second.elapsed() < Duration::from_secs(3), "{:?}: {log}", second.elapsed());
    // It has committed what it had: a second signal only cuts off what is open.
    assert_eq!(code, 0, "{log}");
    assert!(!crate::harness::is_mounted(&place.mountpoint()), "{log}");
}

#[test]
fn ctrl_c_stops_a_prefetch_and_what_came_is_kept() {
    let place = two_versions();
    let plain = place.path("plain");
    modelfs_test_support::write_bytes(&plain.join("big.bin"), 5, 1 << 30);
    place.publish(&plain, "org/net", "big", &[]);
    let mut child = place
        .modelfs(["prefetch", "org/net@big", "--json"])
        .env("MODELFS_REGISTRY", place.registry())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    // Until something has come that was not there before.
    let come = lines.by_ref().map_while(Result::ok).any(|line| {
        let line: Value = serde_json::from_str(&line).expect("a line of JSON");
        line["progress"]["done"].as_u64() > line["progress"]["at_start"].as_u64()
    });
    assert!(come, "progress is told");
    let pid = child.id().to_string();
    assert!(place.program("kill").args(["-INT", &pid]).status().is_ok_and(|s| s.success()));
    let ran = Ran::from(child.wait_with_output().expect("own child"));
    assert_eq!(ran.code, 130, "{ran:?}");
    assert!(ran.err.contains(r#""kind":"interrupted""#), "{ran:?}");
    let list = place.run(["list", "--json"]).json();
    assert!(list["versions"][0]["cached"].as_u64() > Some(0), "{list}");
    place.ok(["verify"]);
}
