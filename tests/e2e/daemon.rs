//! The daemon's life: one per store, clean ends, what survives a crash.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use modelfs_test_support::{bytes, write_bytes};

use crate::harness::{Place, eventually, is_mounted, signal};

fn published(place: &Place, size: u64) -> Vec<u8> {
    let plain = place.path("plain");
    fs::create_dir_all(&plain).expect("a folder");
    let bytes = bytes(3, size as usize);
    fs::write(plain.join("w.bin"), &bytes).expect("a file");
    place.publish(&plain, "org/net", "v1", &[]);
    bytes
}

#[test]
fn a_second_daemon_on_the_same_store_names_the_first() {
    let place = Place::new();
    published(&place, 1000);
    let daemon = place.mount_folder(&[]);
    let other = place.path("other");
    fs::create_dir(&other).expect("a folder");
    let registry = place.registry();
    let ran = place.run([
        "mount".as_ref(),
        other.as_os_str(),
        "--registry".as_ref(),
        registry.as_os_str(),
    ]);
    assert_eq!(ran.code, 7, "{ran:?}");
    assert!(ran.err.contains(&daemon.pid().to_string()), "{ran:?}");
    assert!(!is_mounted(&other));
    daemon.stop();
}

#[test]
fn signals_end_it_cleanly_with_files_open() {
    for signal in ["INT", "TERM"] {
        let place = Place::new();
        published(&place, 3 << 20);
        let daemon = place.mount_folder(&[]);
        let file = File::open(daemon.path("org/net/v1/w.bin")).expect("opens");
        let mut buffer = [0; 4096];
        file.read_exact_at(&mut buffer, 0).expect("reads");
        daemon.signal(signal);
        let (code, log) = daemon.wait();
        assert_eq!(code, 0, "{signal}: {log}");
        assert!(!is_mounted(&place.mountpoint()));
        drop(file);
    }
}

#[test]
fn unmount_by_command_ends_the_daemon() {
    let place = Place::new();
    published(&place, 1000);
    let daemon = place.mount_folder(&[]);
    let mountpoint = place.mountpoint();
    place.ok(["unmount".as_ref(), mountpoint.as_os_str()]);
    let (code, log) = daemon.wait();
    assert_eq!(code, 0, "{log}");
    assert!(!is_mounted(&mountpoint));
}

#[test]
fn an_unmount_from_outside_ends_the_daemon() {
    let place = Place::new();
    published(&place, 1000);
    let daemon = place.mount_folder(&[]);
    let status = place.program("umount").arg(place.mountpoint()).status().expect("umount");
    assert!(status.success());
    assert_eq!(daemon.wait().0, 0);
}

#[test]
fn mount_in_the_background_returns_when_the_mount_is_ready() {
    let place = Place::new();
    let bytes = published(&place, 5000);
    let (mountpoint, registry) = (place.mountpoint(), place.registry());
    place.ok([
        "mount".as_ref(),
        mountpoint.as_os_str(),
        "--registry".as_ref(),
        registry.as_os_str(),
        "--background".as_ref(),
    ]);
    assert_eq!(fs::read(mountpoint.join("org/net/v1/w.bin")).expect("mounted"), bytes);
    let path = place.ok(["path", "org/net@v1"]);
    assert_eq!(path.trim(), mountpoint.join("org/net/v1").to_str().expect("UTF-8"));
    place.ok(["unmount".as_ref(), mountpoint.as_os_str()]);
    eventually("unmounted", || !is_mounted(&mountpoint));
    eventually("the store is free", || place.run(["status", "--json"]).json()["daemon"].is_null());

    let ran = place.run([
        "mount",
        "/nonexistent/here",
        "--registry",
        "/nonexistent/there",
        "--background",
    ]);
    assert_ne!(ran.code, 0, "a failure in the background is the command's failure: {ran:?}");
    assert!(ran.err.contains("/nonexistent/"), "{ran:?}");
}

#[test]
fn relative_paths_mean_the_same_in_the_background() {
    let place = Place::new();
    let bytes = published(&place, 5000);
    // Commands run in the place's own folder; the daemon leaves it.
    let cache = place.path("own-cache");
    let more = ["--registry", "registry", "--cache-dir", "own-cache", "--background"];
    let ran = place.run([&["mount", "models"][..], &more].concat());
    let at = |command: &[&str]| place.run([command, &["--cache-dir", "own-cache"]].concat());
    let _end = Ended(&place, "own-cache");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains(place.mountpoint().to_str().expect("UTF-8")), "{ran:?}");
    let status = || at(&["status", "--json"]).json();
    let worker = || status()["daemon"]["worker"].as_u64();
    let agrees = |when: &str| {
        let status = status();
        let is = |path: &serde_json::Value| path.as_str().map(PathBuf::from).expect("a path");
        assert_eq!(is(&status["daemon"]["mountpoint"]), place.mountpoint(), "{when}");
        assert_eq!(is(&status["cache"]["folder"]), cache, "{when}");
        assert_eq!(is(&status["registry"]["name"]), place.registry(), "{when}");
        assert!(is(&status["daemon"]["log"]).is_file(), "{when}: {status}");
        let path = at(&["path", "org/net@v1"]);
        assert_eq!(Path::new(path.out.trim()), place.mountpoint().join("org/net/v1"), "{when}");
        assert_eq!(fs::read(place.mountpoint().join("org/net/v1/w.bin")).expect("reads"), bytes);
    };
    agrees("at first");
    let first = worker().expect("it answers");
    assert!(signal(first.try_into().expect("small"), "KILL"));
    eventually("another worker", || worker().is_some_and(|now| now != first));
    agrees("after a death");
    assert_eq!(at(&["restart"]).code, 0);
    agrees("after a restart");
    assert_eq!(at(&["unmount"]).code, 0);
    assert!(!is_mounted(&place.mountpoint()));
}

/// Ends the daemon of a cache, however the test ends.
struct Ended<'a>(&'a Place, &'a str);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.run(["unmount", "--cache-dir", self.1]);
    }
}

#[test]
fn a_mount_below_a_renamed_folder_is_taken_away() {
    type End = fn(&Place, u32);
    let ends: [(&str, End); 5] = [
        ("unmount", |place, _| drop(place.ok(["unmount"]))),
        ("unmount by the old path", |place, _| {
            place.ok(["unmount".as_ref(), place.path("srv/models").as_os_str()]);
        }),
        ("unmount by the new path", |place, _| {
            place.ok(["unmount".as_ref(), place.path("moved/models").as_os_str()]);
        }),
        ("SIGTERM", |_, supervisor| assert!(signal(supervisor, "TERM"))),
        ("the death of the supervisor", |_, supervisor| assert!(signal(supervisor, "KILL"))),
    ];
    for (how, end) in ends {
        let place = Place::new();
        let bytes = published(&place, 5000);
        let (at, moved) = (place.path("srv/models"), place.path("moved/models"));
        fs::create_dir_all(&at).expect("a folder");
        let registry = place.registry();
        let at = at.as_os_str();
        let more = ["--registry".as_ref(), registry.as_os_str(), "--background".as_ref()];
        place.ok([&["mount".as_ref(), at][..], &more].concat());
        let _end = Detached(&place, "moved/models");
        let status = place.run(["status", "--json"]).json();
        let supervisor = status["daemon"]["pid"].as_u64().expect("a number");
        let supervisor = supervisor.try_into().expect("small");
        fs::rename(place.path("srv"), place.path("moved")).expect("own folders");
        assert!(is_mounted(&moved), "{how}");
        assert_eq!(fs::read(moved.join("org/net/v1/w.bin")).expect("it goes on"), bytes, "{how}");
        end(&place, supervisor);
        eventually(how, || !is_mounted(&moved));
        eventually(how, || !Path::new(&format!("/proc/{supervisor}")).exists());
        assert!(fs::read_dir(&moved).expect("no dead mount").next().is_none(), "{how}");
    }
}

/// Leaves no mount there, however the test ends.
struct Detached<'a>(&'a Place, &'a str);

impl Drop for Detached<'_> {
    fn drop(&mut self) {
        crate::harness::detach(&self.0.path(self.1));
    }
}

#[test]
fn what_is_cached_survives_a_restart_and_needs_no_registry() {
    let place = Place::new();
    let bytes = published(&place, 12 << 20);
    let daemon = place.mount_folder(&[]);
    let version = "org/net/v1/w.bin";
    assert!(fs::read(daemon.path(version)).expect("reads") == bytes);
    let inode = |d: &crate::harness::Daemon<'_>| {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(d.path(version)).expect("stat").ino()
    };
    let before = inode(&daemon);
    daemon.stop();

    fs::rename(place.registry(), place.path("away")).expect("the registry is gone");
    let daemon = place.mount_folder(&[]);
    assert_eq!(inode(&daemon), before, "an inode means the same to the next daemon");
    assert!(fs::read(daemon.path(version)).expect("offline") == bytes);
    assert_eq!(daemon.status()["traffic"]["bytes"], 0);
    daemon.stop();
}

#[test]
fn a_passthrough_file_outlives_the_daemon_and_later_evictions() {
    let place = Place::new();
    let bytes = published(&place, 12 << 20);
    let mut daemon = place.mount_folder(&[]);
    let path = daemon.path("org/net/v1/w.bin");
    place.ok(["prefetch", "org/net@v1"]);
    let open = File::open(&path).expect("opens by passthrough");
    daemon.kill();
    let reads_right = || {
        let mut buffer = vec![0; bytes.len()];
        rustix::fs::fadvise(&open, 0, None, rustix::fs::Advice::DontNeed).expect("fadvise");
        open.read_exact_at(&mut buffer, 0).expect("no daemon is needed");
        assert!(buffer == bytes, "a wrong byte");
    };
    reads_right();

    // The next daemon clears the dead mount away, and may not take the blocks from under a reader
    // that it knows nothing of.
    assert!(is_mounted(&place.mountpoint()));
    let daemon = place.mount_folder(&[]);
    place.run(["evict", "--all"]);
    reads_right();
    drop(open);
    eventually("it can be evicted once it is closed", || {
        place.run(["evict", "--all"]);
        daemon.status()["cache"]["data"] == 0
    });
    assert!(fs::read(daemon.path("org/net/v1/w.bin")).expect("fetched again") == bytes);
    let log = daemon.stop();
    assert!(log.contains("whose daemon is gone: cleared"), "{log}");
}

#[test]
fn the_scrub_finds_corrupted_bytes() {
    let place = Place::new();
    let bytes = published(&place, 12 << 20);
    let daemon = place.mount_folder(&[]);
    place.ok(["prefetch", "org/net@v1"]);
    daemon.stop();
    let blobs = std::process::Command::new("find")
        .arg(place.cache())
        .args(["-size", "+1M", "-name", "????????*"])
        .output();
    let blobs = String::from_utf8(blobs.expect("find").stdout).expect("UTF-8");
    let blob =
        blobs.lines().find(|l| l.contains("/blobs/") && !l.ends_with(".sums")).expect("a blob");
    crate::harness::set_mode(std::path::Path::new(blob), 0o600);
    let file = File::options().write(true).open(blob).expect("the test's own");
    file.write_all_at(b"rotten", 7 << 20).expect("writes");
    drop(file);

    let daemon = place.mount_folder(&["--scrub-rate", "1GiB"]);
    let path = daemon.path("org/net/v1/w.bin");
    let cached = || crate::harness::xattr(&path, "cached").and_then(|n| n.parse::<usize>().ok());
    eventually("found and dropped", || cached().is_some_and(|n| n < bytes.len()));
    assert!(cached().is_some_and(|n| n > bytes.len() - (1 << 20)), "and nothing else");
    assert!(fs::read(&path).expect("fetched again") == bytes);
    let log = daemon.stop();
    assert!(log.contains("spoilt"), "{log}");
}

#[test]
fn kill_9_during_a_prefetch_loses_at_most_the_last_group() {
    let place = Place::new();
    let plain = place.path("plain");
    fs::create_dir(&plain).expect("a folder");
    const SIZE: u64 = 1 << 30;
    write_bytes(&plain.join("w.bin"), 9, SIZE);
    place.publish(&plain, "org/big", "v1", &[]);
    let daemon = place.mount_folder(&[]);
    let mut prefetch = place
        .modelfs(["prefetch", "org/big@v1"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    eventually("some of it is there", || {
        daemon.status()["cache"]["data"].as_u64().is_some_and(|data| data > SIZE / 4)
    });
    let had = daemon.status()["cache"]["data"].as_u64().expect("a number");
    daemon.crash();
    let _ = prefetch.wait();

    let checked = place.run(["verify", "--json"]);
    assert_eq!(checked.code, 0, "everything that the index claims verifies: {checked:?}");
    let kept = checked.json()["checked"].as_u64().expect("a number");
    // A group is 64 MiB or a second, whatever comes first; what was being written then is lost too.
    println!("{had} bytes were present, {kept} were kept");
    assert!(kept + (256 << 20) >= had, "{kept} of {had} bytes kept");
    assert!(kept > 0);

    let daemon = place.mount_folder(&[]);
    place.ok(["prefetch", "org/big@v1"]);
    let fetched = daemon.status()["traffic"]["bytes"].as_u64().expect("a number");
    assert_eq!(fetched, SIZE - kept, "nothing whole is fetched twice");
    place.ok(["verify"]);
    daemon.stop();
}
