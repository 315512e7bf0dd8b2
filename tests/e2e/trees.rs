//! A mounted version is the published folder, for root and for an ordinary user, however it is read.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use modelfs_test_support::bytes;
use modelfs_test_support::fs_assertions;

use crate::harness::{Place, User, eventually, set_mode, xattr};

/// A tree with every kind of file that matters: empty, one byte, odd sizes, hidden, nested, over
/// several chunks, the same content twice.
pub fn plain_tree(at: &Path) {
    let write = |name: &str, bytes: &[u8]| {
        let path = at.join(name);
        fs::create_dir_all(path.parent().expect("below the folder")).expect("a folder");
        fs::write(path, bytes).expect("a file");
    };
    write("config.json", b"{}\n");
    write("empty", b"");
    write("one", b"1");
    write(".gitattributes", b"*.bin lfs\n");
    write("1_Pooling/config.json", &bytes(1, 190));
    write("deep/er/and/deeper/vocab.txt", &bytes(2, 231_508));
    write("naïve name.txt", &bytes(3, 4097));
    write("weights.safetensors", &bytes(4, 9_000_001));
    write("twin.safetensors", &bytes(4, 9_000_001));
    write("big.bin", &bytes(5, 25 << 20));
}

/// The tree, published as `org/net@v1` in a place of the test's own.
fn published(how: &[&str]) -> (Place, PathBuf) {
    let place = Place::new();
    let plain = place.path("plain");
    fs::create_dir(&plain).expect("a folder");
    plain_tree(&plain);
    place.publish(&plain, "org/net", "v1", how);
    (place, plain)
}

fn same_tree(user: User, mount: &[&str], publish: &[&str]) {
    let place = Place::of(user);
    let plain = place.path("plain");
    fs::create_dir(&plain).expect("a folder");
    plain_tree(&plain);
    make_readable(&plain);
    place.publish(&plain, "org/net", "v1", publish);
    let daemon = place.mount_folder(mount);
    fs_assertions::assert_same_tree(&plain, &daemon.path("org/net/v1"));
    // Once more, now that everything is cached: by passthrough where that is to be had.
    fs_assertions::assert_same_tree(&plain, &daemon.path("org/net/v1"));
    daemon.stop();
}

fn make_readable(at: &Path) {
    set_mode(at, 0o755);
    let status = Command::new("chmod").args(["-R", "a+rX"]).arg(at).status().expect("chmod");
    assert!(status.success());
}

#[test]
fn the_same_tree_for_root() {
    same_tree(User::Me, &[], &["--chunk-size", "4MiB"]);
}

#[test]
fn the_same_tree_without_passthrough() {
    same_tree(
        User::Me,
        &["--no-passthrough"],
        &["--leaf-digest", "sha256", "--leaf-size", "64KiB"],
    );
}

#[test]
fn the_same_tree_for_an_ordinary_user_and_root_beside() {
    // fusermount3 lets others in only with user_allow_other; the user reads for itself, so the
    // assertions run in a process of that user: a second test binary run of this very test.
    if std::env::var_os("MODELFS_E2E_INNER").is_some() {
        let plain = std::env::var("MODELFS_E2E_PLAIN").expect("set by the outer run");
        let mounted = std::env::var("MODELFS_E2E_MOUNTED").expect("set by the outer run");
        fs_assertions::assert_same_tree(Path::new(&plain), Path::new(&mounted));
        return;
    }
    let place = Place::of(User::Ordinary);
    let plain = place.path("plain");
    fs::create_dir(&plain).expect("a folder");
    plain_tree(&plain);
    make_readable(&plain);
    place.publish(&plain, "org/net", "v1", &[]);
    let daemon = place.mount_folder(&[]);
    let test = place.path("test");
    fs::copy(std::env::current_exe().expect("a test has one"), &test).expect("a copy");
    set_mode(&test, 0o755);
    let out = place
        .program(&test)
        .args([
            "--exact",
            "trees::the_same_tree_for_an_ordinary_user_and_root_beside",
            "--nocapture",
        ])
        .env("MODELFS_E2E_INNER", "1")
        .env("MODELFS_E2E_PLAIN", &plain)
        .env("MODELFS_E2E_MOUNTED", daemon.path("org/net/v1"))
        .output()
        .expect("the copy runs");
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(
        out.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let status = daemon.status();
    assert_eq!(status["daemon"]["passthrough"], false);
    assert!(status["daemon"]["why_no_passthrough"].is_string(), "{status}");
    daemon.stop();
}

#[test]
fn plain_layout_without_leaves() {
    same_tree(User::Me, &[], &["--fixed-chunks", "--leaf-size", "none", "--chunk-size", "1MiB"]);
}

#[test]
fn an_alias_is_a_folder_like_any_other() {
    let (place, plain) = published(&[]);
    place.publish(&plain, "org/net", "latest", &["--alias-of", "v1"]);
    let daemon = place.mount_folder(&[]);
    fs_assertions::assert_same_tree(&plain, &daemon.path("org/net/latest"));
    let names: Vec<_> = fs::read_dir(daemon.path("org/net"))
        .expect("a folder")
        .map(|e| e.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    assert_eq!(names, ["latest", "v1"]);
    daemon.stop();
}

#[test]
fn the_manifest_opens_but_is_not_listed() {
    let (place, _) = published(&[]);
    let daemon = place.mount_folder(&[]);
    let manifest = fs::read(daemon.path("org/net/v1/.modelfs/manifest.json")).expect("it opens");
    let hash = place.run(["info", "org/net@v1", "--json"]).json()["hash"]
        .as_str()
        .expect("a hash")
        .to_owned();
    assert_eq!(modelfs::model::hash::sha256(&manifest).to_string(), hash);
    let listed = fs::read_dir(daemon.path("org/net/v1")).expect("a folder");
    assert!(listed.map(|e| e.expect("an entry").file_name()).all(|n| n != ".modelfs"));
    daemon.stop();
}

#[test]
fn extended_attributes_tell() {
    let (place, plain) = published(&[]);
    let daemon = place.mount_folder(&[]);
    let file = daemon.path("org/net/v1/big.bin");
    let digest =
        modelfs::model::hash::sha256(&fs::read(plain.join("big.bin")).expect("plain")).to_string();
    assert_eq!(xattr(&file, "sha256"), Some(digest));
    assert_eq!(xattr(&file, "cached").as_deref(), Some("0"));
    assert_eq!(xattr(&file, "error"), None);
    let before = xattr(&file, "pinned");
    place.ok(["pin", "org/net@v1"]);
    assert_ne!(xattr(&file, "pinned"), before);
    fs::read(&file).expect("readable");
    // Readers have the bytes from memory a moment before they are in the store.
    eventually("all cached", || xattr(&file, "cached") == Some((25 << 20).to_string()));
    daemon.stop();
}

#[test]
fn modification_times_are_the_publishing_time_and_stable() {
    let (place, _) = published(&["--meta", "published_at=2024-02-03T04:05:06Z"]);
    let daemon = place.mount_folder(&[]);
    let mtime = |path: &str| fs::metadata(daemon.path(path)).expect("stat").mtime();
    assert_eq!(mtime("org/net/v1"), 1_706_933_106);
    assert_eq!(mtime("org/net/v1/big.bin"), 1_706_933_106);
    assert_eq!(mtime("org"), mtime("org"));
    daemon.stop();
}

#[test]
fn statfs_tells_the_cache() {
    let (place, _) = published(&[]);
    let daemon = place.mount_folder(&["--cache-size", "1GiB"]);
    let of = || rustix::fs::statvfs(place.mountpoint()).expect("statvfs");
    let before = of();
    assert_eq!(before.f_blocks * before.f_frsize, 1 << 30);
    fs::read(daemon.path("org/net/v1/big.bin")).expect("readable");
    assert!(of().f_bfree * of().f_frsize <= before.f_bfree * before.f_frsize - (25 << 20));
    daemon.stop();
}

#[test]
fn a_copy_of_a_version_can_be_changed_and_deleted_by_its_owner() {
    let place = Place::of(User::Ordinary);
    let plain = place.path("plain");
    fs::create_dir(&plain).expect("a folder");
    fs::create_dir(plain.join("sub")).expect("a folder");
    fs::write(plain.join("sub/config.json"), b"{}").expect("a file");
    make_readable(&plain);
    place.publish(&plain, "org/net", "v1", &[]);
    let daemon = place.mount_folder(&[]);
    // As the ordinary user: root may delete anything.
    let ran = |program: &str, args: &[&str]| {
        let out = place.program(program).args(args).output().expect("it starts");
        assert!(out.status.success(), "{program} {args:?}: {out:?}");
    };
    let copy = place.path("run/copy");
    let copy = copy.to_str().expect("temporary folders have UTF-8 names");
    let version = daemon.path("org/net/v1");
    ran("cp", &["-r", version.to_str().expect("UTF-8"), copy]);
    ran("sh", &["-c", &format!("echo more >> '{copy}/sub/config.json'")]);
    ran("rm", &["-r", copy]);
    daemon.stop();
}

#[test]
fn df_shows_no_limit_of_inodes() {
    let (place, _) = published(&[]);
    let daemon = place.mount_folder(&[]);
    let mut df = Command::new("df");
    let out = df.args(["--output=ipcent"]).arg(place.mountpoint()).output().expect("df");
    let text = String::from_utf8_lossy(&out.stdout);
    assert_eq!(text.lines().last().map(str::trim), Some("-"), "{text}");
    daemon.stop();
}
