//! Root on a cache that is not root's: it works there as the cache's owner, and gives nothing away.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use modelfs_test_support::bytes;

use crate::harness::{ORDINARY, Place, Ran, is_mounted, ordinary_ids, set_mode};

const PRECIOUS: &str = "what only root may read or write";

fn published() -> Place {
    let place = Place::new();
    let plain = place.path("plain");
    fs::create_dir(&plain).expect("a folder");
    fs::write(plain.join("w.bin"), bytes(41, 300_000)).expect("a file");
    place.publish(&plain, "org/net", "v1", &[]);
    place
}

/// Gives a folder to the ordinary user, as that user might have made it.
fn give(path: &Path) {
    let (uid, gid) = ordinary_ids();
    chown(path, Some(uid), Some(gid)).expect("root gives folders away");
}

/// A file of root's at a place where the owner of the folder can have moved it.
fn precious(path: &Path) {
    fs::write(path, PRECIOUS).expect("root writes anywhere");
    set_mode(path, 0o600);
}

fn is_precious(path: &Path, after: &str) {
    let meta = fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{after}: {e}"));
    let mode = meta.permissions().mode() & 0o777;
    assert_eq!((meta.uid(), meta.gid(), mode), (0, 0, 0o600), "after {after}: it is root's");
    assert_eq!(fs::read_to_string(path).expect("root reads"), PRECIOUS, "after {after}");
}

fn mount(place: &Place, more: &[&str]) -> Ran {
    let (at, registry) = (place.mountpoint(), place.registry());
    let (at, registry) = (at.to_str().expect("UTF-8"), registry.to_str().expect("UTF-8"));
    let ran = place.run([&["mount", at, "--registry", registry, "--background"], more].concat());
    if ran.code == 0 {
        place.ok(["unmount", at]);
    }
    assert!(!is_mounted(&place.mountpoint()));
    ran
}

const COMMANDS: [&[&str]; 7] = [
    &["status"],
    &["list"],
    &["pin", "org/net@v1"],
    &["prefetch", "org/net@v1"],
    &["verify"],
    &["unpin", "org/net@v1"],
    &["evict", "--all"],
];

/// Runs one as root, with the registry where it is needed.
fn run(place: &Place, command: &[&str]) -> Ran {
    let mut modelfs = place.modelfs(command);
    modelfs.env("MODELFS_REGISTRY", place.registry());
    Ran::from(modelfs.output().expect("the binary starts"))
}

#[test]
fn a_file_of_roots_that_was_moved_into_a_users_cache_stays_roots() {
    let place = published();
    give(&place.cache());
    assert_eq!(run(&place, &["prefetch", "org/net@v1"]).code, 0);
    let shelf = fs::read_dir(place.cache().join("blobs")).expect("blobs").flatten().next();
    let shelf = shelf.expect("one that has a blob").path();
    let moved: Vec<PathBuf> = ["index.db.old", "blobs/notes"].map(|n| place.cache().join(n)).into();
    let moved: Vec<_> = moved.into_iter().chain([shelf.join("0".repeat(64))]).collect();
    moved.iter().for_each(|path| precious(path));
    let check = |after: &str| moved.iter().for_each(|path| is_precious(path, after));
    for command in COMMANDS {
        run(&place, command);
        check(&command.join(" "));
    }
    mount(&place, &["--worker-user", ORDINARY]);
    check("mount");
    // As the lock stands when a hand-over was cut short, or the folder was a privileged daemon's.
    chown(place.cache().join("lock"), Some(0), Some(0)).expect("root may");
    for command in COMMANDS {
        run(&place, command);
        check(&command.join(" "));
    }
    mount(&place, &["--worker-user", ORDINARY]);
    check("mount with a lock of root's");
}

#[test]
fn a_file_of_roots_that_was_moved_to_the_lock_is_not_written() {
    let place = published();
    give(&place.cache());
    let lock = place.cache().join("lock");
    precious(&lock);
    for command in COMMANDS {
        let ran = run(&place, command);
        is_precious(&lock, &command.join(" "));
        // A command that only looks may do without the lock.
        assert!([0, 4, 7].contains(&ran.code), "{command:?}: {ran:?}");
    }
    let ran = run(&place, &["prefetch", "org/net@v1"]);
    assert_eq!(ran.code, 7, "{ran:?}");
    assert!(ran.err.contains("chown"), "it says what to do: {ran:?}");
    let ran = mount(&place, &["--worker-user", ORDINARY]);
    assert_eq!(ran.code, 7, "{ran:?}");
    assert!(ran.err.contains("chown"), "it says what to do: {ran:?}");
    is_precious(&lock, "mount");
}

#[test]
fn root_makes_a_cache_in_a_users_folder_as_that_user() {
    let place = published();
    let home = place.path("home");
    fs::create_dir(&home).expect("a folder");
    give(&home);
    let cache = home.join("far/cache");
    let cache_dir = ["--cache-dir", cache.to_str().expect("UTF-8")];
    let ran = run(&place, &[&["prefetch", "org/net@v1"], &cache_dir[..]].concat());
    assert_eq!(ran.code, 0, "{ran:?}");
    let mine = ordinary_ids().0;
    for path in [home.join("far"), cache.clone(), cache.join("lock"), cache.join("index.db")] {
        assert_eq!(fs::metadata(&path).expect("made").uid(), mine, "{}", path.display());
    }
    let ran = mount(&place, &[&["--worker-user", ORDINARY], &cache_dir[..]].concat());
    assert_eq!(ran.code, 0, "{ran:?}");
}

#[test]
fn files_of_roots_are_given_away_only_where_nobody_else_could_have_put_them() {
    let place = published();
    let home = place.path("home");
    let cache = home.join("cache");
    fs::create_dir_all(cache.join("blobs/aa")).expect("a folder");
    set_mode(&cache, 0o700);
    let file = cache.join("blobs/aa/file");
    precious(&file);
    let more = ["--cache-dir", cache.to_str().expect("UTF-8"), "--worker-user", ORDINARY];
    let refused = |why: &Path| {
        let ran = mount(&place, &more);
        assert_eq!(ran.code, 7, "{ran:?}");
        assert!(ran.err.contains(why.to_str().expect("UTF-8")), "{ran:?}");
        assert_eq!(fs::metadata(&cache).expect("there").uid(), 0);
        is_precious(&file, "a mount that was refused");
    };
    // The folder above is the user's, or anybody's; then the folder itself.
    give(&home);
    refused(&home);
    chown(&home, Some(0), Some(0)).expect("root may");
    set_mode(&home, 0o777);
    refused(&home);
    set_mode(&home, 0o755);
    set_mode(&cache, 0o777);
    refused(&cache);
    // Root's alone: now it changes hands, and all that lies there.
    set_mode(&cache, 0o700);
    let ran = mount(&place, &more);
    assert_eq!(ran.code, 0, "{ran:?}");
    for path in [&cache, &cache.join("blobs"), &cache.join("lock")] {
        assert_eq!(fs::metadata(path).expect("there").uid(), ordinary_ids().0);
    }
}

#[test]
fn a_daemon_that_keeps_roots_rights_works_on_no_users_cache() {
    let place = published();
    give(&place.cache());
    for more in [["--keep-privileges", "--quiet"], ["--worker-user", "root"]] {
        let ran = mount(&place, &more);
        assert_eq!(ran.code, 7, "{ran:?}");
        assert!(ran.err.contains(ORDINARY) && ran.err.contains("--cache-dir"), "{ran:?}");
        assert_eq!(fs::read_dir(place.cache()).expect("there").count(), 0, "nothing is left there");
    }
}
