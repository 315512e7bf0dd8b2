//! Disks that are full, fail, turn read-only or lie, on small file systems of each kind: readers get
//! the right bytes or an error with a reason, never wrong ones; and all is well when the trouble is
//! over.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use modelfs_test_support::{FsKind, LoopFs, Server, bytes};

use crate::harness::{Daemon, Place, Ran, binary, eventually, xattr};

const SIZE: usize = 24 << 20;
const FILE: &str = "org/net/v1/w.bin";

/// A daemon's folders, with the cache on a file system of its own. That goes first.
struct Scene {
    fs: LoopFs,
    server: Server,
    bytes: Vec<u8>,
    place: Place,
}

/// The same test on each kind of file system.
macro_rules! on_every_kind {
    ($($test:ident),* $(,)?) => { $(
        mod $test {
            use modelfs_test_support::FsKind;

            #[test]
            fn on_ext4() {
                super::$test(&super::Scene::new(FsKind::Ext4));
            }

            #[test]
            fn on_xfs() {
                super::$test(&super::Scene::new(FsKind::Xfs));
            }

            #[test]
            fn on_btrfs() {
                super::$test(&super::Scene::new(FsKind::Btrfs));
            }
        }
    )* };
}

on_every_kind! {
    a_full_disk,
    a_disk_that_others_filled_to_the_last_block,
    a_disk_that_fails_to_write,
    an_emptied_cache_folder,
    bytes_altered_and_found_by_verify,
    bytes_altered_and_found_by_the_scrub,
    a_truncated_blob,
    a_corrupt_index,
    an_index_that_is_locked,
}

impl Scene {
    fn new(kind: FsKind) -> Self {
        let place = Place::new();
        let fs = LoopFs::at(kind, &place.cache());
        let plain = place.path("plain");
        fs::create_dir(&plain).expect("a folder");
        let bytes = bytes(7, SIZE);
        fs::write(plain.join("w.bin"), &bytes).expect("a file");
        place.publish(&plain, "org/net", "v1", &["--chunk-size", "4MiB"]);
        let server = Server::start(&place.registry());
        Self { fs, server, bytes, place }
    }

    fn mount(&self) -> Daemon<'_> {
        self.mount_with(&[])
    }

    fn mount_with(&self, more: &[&str]) -> Daemon<'_> {
        let mut args = vec!["--cache-size", "200MiB", "--read-deadline", "20s"];
        args.extend(more);
        self.place.mount(&self.server.url(), &args)
    }

    /// Reads all of the file, not from the kernel's memory: right bytes or an error.
    fn read(&self, daemon: &Daemon<'_>) -> io::Result<()> {
        let file = File::open(daemon.path(FILE))?;
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        let mut buffer = vec![0; 512 << 10];
        for at in (0..SIZE).step_by(buffer.len()) {
            file.read_exact_at(&mut buffer, at as u64)?;
            assert!(buffer == self.bytes[at..at + buffer.len()], "a wrong byte after {at}");
        }
        Ok(())
    }

    /// Right bytes, or an error that says what is wrong.
    fn read_or_reason(&self, daemon: &Daemon<'_>) -> io::Result<()> {
        let outcome = self.read(daemon);
        if let Err(error) = &outcome {
            assert_eq!(error.raw_os_error(), Some(5), "{error}");
            assert!(xattr(&daemon.path(FILE), "error").is_some(), "EIO without a reason");
        }
        outcome
    }

    fn reads_right(&self, daemon: &Daemon<'_>) {
        self.read(daemon).unwrap_or_else(|e| {
            panic!("{e}: {:?}", xattr(&daemon.path(FILE), "error"));
        });
    }

    fn cached(daemon: &Daemon<'_>) -> usize {
        let said = xattr(&daemon.path(FILE), "cached").expect("every file says it");
        said.parse().expect("a number")
    }

    /// Everything is right again: read, cached, verified, and read without the registry.
    fn is_healed(&self, daemon: &Daemon<'_>) {
        eventually("all of it is cached", || {
            self.reads_right(daemon);
            Self::cached(daemon) == SIZE
        });
        let found = self.place.run(["verify"]);
        assert_eq!(found.code, 0, "{found:?}");
        self.needs_no_registry(daemon);
    }

    fn needs_no_registry(&self, daemon: &Daemon<'_>) {
        self.server.go_away();
        self.reads_right(daemon);
        self.server.come_back();
    }

    /// All of the file in the cache, and nobody there.
    fn filled(self: &Scene) {
        let daemon = self.mount();
        self.is_healed(&daemon);
        daemon.stop();
    }

    fn blob(&self) -> PathBuf {
        let folders = fs::read_dir(self.place.cache().join("blobs")).expect("a cache");
        let files = folders.flat_map(|f| fs::read_dir(f.expect("own").path()).expect("a folder"));
        let mut blobs = files.map(|f| f.expect("own").path()).filter(|p| p.extension().is_none());
        blobs.next().expect("one model file, one blob")
    }

    /// The blob, for somebody who has no business there.
    fn blob_to_spoil(&self) -> File {
        let path = self.blob();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("root may");
        File::options().read(true).write(true).open(path).expect("root may")
    }

    fn alter(&self) {
        let file = self.blob_to_spoil();
        for at in [100_000, SIZE as u64 / 2, SIZE as u64 - 1] {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).expect("it is there");
            file.write_all_at(&[!byte[0]], at).expect("root may");
        }
        file.sync_all().expect("synced");
    }

    /// Ends a daemon that may have reason to complain, and takes the file system to the workshop.
    fn remount_without(&self, daemon: Daemon<'_>) {
        daemon.signal("TERM");
        daemon.wait();
        self.fs.unmount();
        self.fs.mount();
    }
}

/// With little room on the disk, however that comes, all is read, and some of it kept.
fn too_little_room(scene: &Scene, give_room: impl FnOnce()) {
    let daemon = scene.mount();
    for _ in 0..2 {
        scene.reads_right(&daemon);
    }
    let kept = Scene::cached(&daemon);
    assert!(kept < SIZE, "{kept}: the disk was not full");
    give_room();
    scene.is_healed(&daemon);
    daemon.stop();
}

fn a_full_disk(scene: &Scene) {
    scene.fs.fill(12 << 20);
    too_little_room(scene, || scene.fs.unfill());
}

/// Names are found, what is cached is read and can be evicted although nothing can be written.
fn a_disk_that_others_filled_to_the_last_block(scene: &Scene) {
    let daemon = scene.mount_with(&["--catalog-ttl", "1s"]);
    eventually("all of it is cached", || {
        scene.reads_right(&daemon);
        Scene::cached(&daemon) == SIZE
    });
    scene.fs.fill(1 << 20);
    let mut crumbs = File::create(scene.fs.path().join("crumbs")).expect("an inode");
    while crumbs.write_all(&[1; 4096]).and_then(|()| crumbs.sync_all()).is_ok() {}
    let many = scene.place.path("many");
    fs::create_dir(&many).expect("a folder");
    for n in 0..3000 {
        fs::write(many.join(format!("a-file-with-a-name-of-some-length-{n}")), n.to_string())
            .expect("a file");
    }
    scene.place.publish(&many, "other/many", "v1", &[]);
    let path = daemon.path("other/many/v1");
    eventually("the new version is found", || path.is_dir());
    assert_eq!(fs::read_dir(&path).expect("it can be listed").count(), 3000);
    scene.needs_no_registry(&daemon);
    let evicted = scene.place.run(["evict", "--all"]);
    assert_eq!(evicted.code, 0, "{evicted:?}");
    assert!(scene.fs.free() >= SIZE as u64 / 2, "{evicted:?}: {} free", scene.fs.free());
    assert_eq!(Scene::cached(&daemon), 0);
    let one = path.join("a-file-with-a-name-of-some-length-77");
    assert_eq!(fs::read(&one).unwrap_or_else(|e| panic!("{e}: {:?}", xattr(&one, "error"))), b"77");
    scene.fs.unfill();
    fs::remove_file(scene.fs.path().join("crumbs")).expect("ours");
    scene.is_healed(&daemon);
    daemon.stop();
}

#[test]
fn a_quota_on_btrfs() {
    let scene = Scene::new(FsKind::Btrfs);
    scene.fs.set_quota(Some(12 << 20));
    let error = fs::write(scene.fs.path().join("big"), vec![1; 16 << 20]).expect_err("a quota");
    assert_eq!(error.kind(), ErrorKind::QuotaExceeded);
    fs::remove_file(scene.fs.path().join("big")).expect("it was begun");
    too_little_room(&scene, || scene.fs.set_quota(None));
}

fn a_disk_that_fails_to_write(scene: &Scene) {
    scene.fs.starve(10 << 20);
    let daemon = scene.mount();
    let mut failed = 0;
    for _ in 0..3 {
        failed += usize::from(scene.read_or_reason(&daemon).is_err());
        // makes the disk fail where the kernel has only promised to write
        let _ = File::open(scene.fs.path()).map(|f| rustix::fs::syncfs(&f));
    }
    assert_eq!(failed, 0, "the registry has all of it, so nobody needs to see an error");
    scene.fs.feed();
    scene.remount_without(daemon);
    let daemon = scene.mount();
    scene.is_healed(&daemon);
    daemon.stop();
}

#[test]
fn an_ext4_that_turned_read_only() {
    let scene = Scene::new(FsKind::Ext4);
    let daemon = scene.mount();
    let mut half = vec![0; SIZE / 2];
    File::open(daemon.path(FILE)).and_then(|mut f| f.read_exact(&mut half)).expect("reads");
    assert!(half == scene.bytes[..SIZE / 2]);
    scene.fs.turn_read_only();
    let error = fs::write(scene.fs.path().join("x"), "x").expect_err("read-only");
    assert_eq!(error.kind(), ErrorKind::ReadOnlyFilesystem);
    for _ in 0..2 {
        scene.reads_right(&daemon);
    }
    scene.remount_without(daemon);
    let daemon = scene.mount();
    scene.is_healed(&daemon);
    daemon.stop();
}

fn an_emptied_cache_folder(scene: &Scene) {
    let daemon = scene.mount();
    let mut half = vec![0; SIZE / 2];
    File::open(daemon.path(FILE)).and_then(|mut f| f.read_exact(&mut half)).expect("reads");
    for entry in fs::read_dir(scene.place.cache()).expect("a cache").map(|e| e.expect("own")) {
        match entry.file_type().expect("known").is_dir() {
            true => fs::remove_dir_all(entry.path()).expect("root may"),
            false => fs::remove_file(entry.path()).expect("root may"),
        }
    }
    for _ in 0..2 {
        scene.reads_right(&daemon);
    }
    scene.remount_without(daemon);
    let daemon = scene.mount();
    scene.is_healed(&daemon);
    daemon.stop();
}

fn bytes_altered_and_found_by_verify(scene: &Scene) {
    scene.filled();
    let daemon = scene.mount_with(&["--scrub-rate", "0"]);
    scene.alter();
    let found = scene.place.run(["verify"]);
    assert_eq!(found.code, 6, "{found:?}");
    assert!(found.err.contains("w.bin"), "{found:?}");
    let lost = SIZE - Scene::cached(&daemon);
    assert_eq!(lost, 3 * (128 << 10), "the three leaves that were altered, and no more");
    scene.is_healed(&daemon);
    daemon.stop();
}

fn bytes_altered_and_found_by_the_scrub(scene: &Scene) {
    scene.filled();
    scene.alter();
    let daemon = scene.mount_with(&["--scrub-rate", "1GiB"]);
    eventually("the scrub finds it", || Scene::cached(&daemon) < SIZE);
    eventually("the scrub finds all of it", || Scene::cached(&daemon) == SIZE - 3 * (128 << 10));
    scene.is_healed(&daemon);
    let log = daemon.stop();
    assert!(log.contains("the scrub found spoilt bytes"), "{log}");
}

fn a_truncated_blob(scene: &Scene) {
    scene.filled();
    for with_daemon in [true, false] {
        let daemon = with_daemon.then(|| scene.mount_with(&["--scrub-rate", "0"]));
        scene.blob_to_spoil().set_len(SIZE as u64 / 3).expect("root may");
        let daemon = daemon.unwrap_or_else(|| scene.mount_with(&["--scrub-rate", "0"]));
        scene.is_healed(&daemon);
        daemon.stop();
    }
}

fn a_corrupt_index(scene: &Scene) {
    scene.filled();
    let index = scene.place.cache().join("index.db");
    // while nobody has it open: a new one is made of the blobs
    fs::write(&index, bytes(9, 60_000)).expect("root may");
    let daemon = scene.mount();
    assert_eq!(Scene::cached(&daemon), SIZE, "nothing that is whole is fetched again");
    scene.needs_no_registry(&daemon);
    // under a running daemon
    let file = File::options().write(true).open(&index).expect("root may");
    let len = file.metadata().expect("it").len();
    file.write_all_at(&bytes(10, len as usize), 0).expect("root may");
    drop(file);
    let _ = scene.read_or_reason(&daemon);
    scene.place.run(["evict", "org/net@v1"]);
    let _ = scene.read_or_reason(&daemon);
    scene.remount_without(daemon);
    let daemon = scene.mount();
    scene.is_healed(&daemon);
    daemon.stop();
}

fn an_index_that_is_locked(scene: &Scene) {
    scene.filled();
    let lock = "import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute('PRAGMA locking_mode=EXCLUSIVE')
db.execute('BEGIN EXCLUSIVE')
print('locked', flush=True)
sys.stdin.read()";
    let mut other = Command::new("python3")
        .args(["-c", lock])
        .arg(scene.place.cache().join("index.db"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("scripts/deps.sh installs it");
    let mut out = BufReader::new(other.stdout.take().expect("piped"));
    let mut said = String::new();
    out.read_line(&mut said).expect("a pipe");
    // it must not succeed: then it would stay
    let ran = scene
        .place
        .program("timeout")
        .arg("30")
        .arg(binary())
        .arg("mount")
        .arg(scene.place.mountpoint())
        .args(["--registry", &scene.server.url()])
        .output();
    let ran = Ran::from(ran.expect("it starts"));
    // its standard input ends, and so does it
    drop(other.stdin.take());
    other.wait().expect("own child");
    assert_eq!(said, "locked\n");
    assert_eq!(ran.code, 7, "{ran:?}");
    assert!(ran.err.contains("locked"), "{ran:?}");
    let daemon = scene.mount();
    assert_eq!(Scene::cached(&daemon), SIZE, "it was only locked, not damaged");
    scene.needs_no_registry(&daemon);
    daemon.stop();
}
