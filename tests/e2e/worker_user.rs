//! The worker of root's daemon is a user of its own, and its cache is that user's.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use modelfs_test_support::{Fault, Server, When, bytes};

use crate::harness::{
    Daemon, ORDINARY, Place, Ran, User, eventually, is_mounted, ordinary_ids, set_mode, signal,
};

const SIZE: usize = 3 << 20;

/// A third user, whom every system has.
const NOBODY: u32 = 65_534;

/// Two files of different content.
fn published(place: &Place) -> [Vec<u8>; 2] {
    ordinary_ids();
    let plain = place.path("plain");
    fs::create_dir_all(&plain).expect("a folder");
    let files = [bytes(31, SIZE), bytes(32, SIZE)];
    for (name, bytes) in ["a.bin", "b.bin"].iter().zip(&files) {
        fs::write(plain.join(name), bytes).expect("a file");
    }
    place.publish(&plain, "org/net", "v1", &["--chunk-size", "1MiB"]);
    files
}

fn mounted<'a>(place: &'a Place, server: &Server, more: &[&str]) -> Daemon<'a> {
    place.mount(&server.url(), &[&["--worker-user", ORDINARY], more].concat())
}

/// Reads from the daemon, not from memory.
fn reads(daemon: &Daemon<'_>, name: &str, bytes: &[u8]) {
    let file = File::open(daemon.path("org/net/v1").join(name)).expect("opens");
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("fadvise");
    let mut buffer = vec![0; bytes.len()];
    file.read_exact_at(&mut buffer, 0).expect("reads");
    assert!(buffer == bytes, "{name}: a wrong byte");
}

/// Files and folders below, that one too, whose owner is another; links are not looked at.
fn not_of(uid: u32, path: &Path) -> Vec<PathBuf> {
    let meta = fs::symlink_metadata(path).expect("it is there");
    let mut found: Vec<_> =
        (meta.uid() != uid && !meta.is_symlink()).then(|| path.to_owned()).into_iter().collect();
    if meta.is_dir() {
        for entry in fs::read_dir(path).expect("root reads all") {
            found.extend(not_of(uid, &entry.expect("an entry").path()));
        }
    }
    found
}

fn line<'a>(status: &'a str, what: &str) -> Vec<&'a str> {
    let line = status.lines().find_map(|l| l.strip_prefix(what)).expect("Linux says it");
    line.split_whitespace().collect()
}

/// The process is the ordinary user in every way, and may do nothing else.
fn is_theirs(worker: u32) {
    let (uid, gid) = ordinary_ids();
    let status = fs::read_to_string(format!("/proc/{worker}/status")).expect("it lives");
    assert_eq!(line(&status, "Uid:"), vec![uid.to_string(); 4]);
    assert_eq!(line(&status, "Gid:"), vec![gid.to_string(); 4]);
    let groups = Command::new("id").args(["-G", ORDINARY]).output().expect("id").stdout;
    let groups = String::from_utf8(groups).expect("numbers");
    let mut theirs = line(&status, "Groups:");
    let mut own: Vec<_> = groups.split_whitespace().collect();
    theirs.sort_unstable();
    own.sort_unstable();
    assert_eq!(theirs, own, "not one of root's");
    for set in ["CapEff:", "CapPrm:", "CapInh:", "CapBnd:", "CapAmb:"] {
        assert_eq!(line(&status, set), ["0000000000000000"], "{set}");
    }
    assert_eq!(line(&status, "NoNewPrivs:"), ["1"]);
}

#[test]
fn the_worker_is_another_user_and_so_is_the_next() {
    for more in [&[][..], &["--no-passthrough"]] {
        let place = Place::new();
        let files = published(&place);
        let daemon = place.mount_folder(&[&["--worker-user", ORDINARY], more].concat());
        reads(&daemon, "a.bin", &files[0]);
        place.ok(["prefetch", "org/net@v1"]);
        let open = File::open(daemon.path("org/net/v1/a.bin")).expect("opens");
        let confinement = &daemon.status()["daemon"]["confinement"];
        assert_eq!(confinement["user"], ordinary_ids().0, "{confinement}");
        assert!(confinement["missing"].is_null(), "{confinement}");
        assert_eq!(daemon.status()["daemon"]["passthrough"], more.is_empty());
        for _ in 0..2 {
            let worker = daemon.worker();
            is_theirs(worker);
            reads(&daemon, "a.bin", &files[0]);
            reads(&daemon, "b.bin", &files[1]);
            assert!(signal(worker, "KILL"));
            eventually("another worker", || {
                let now = daemon.status()["daemon"]["worker"].as_u64();
                now.is_some_and(|now| now != u64::from(worker))
            });
        }
        place.ok(["restart"]);
        is_theirs(daemon.worker());
        let mut buffer = vec![0; SIZE];
        open.read_exact_at(&mut buffer, 0).expect("what was open goes on");
        assert!(buffer == files[0], "a wrong byte");
        drop(open);
        daemon.stop();
        assert_eq!(not_of(ordinary_ids().0, &place.cache()), Vec::<PathBuf>::new());
    }
}

#[test]
fn in_the_background_with_the_log_of_root() {
    let place = Place::new();
    let files = published(&place);
    let (at, registry) = (place.mountpoint(), place.registry());
    let (at, registry) = (at.to_str().expect("UTF-8"), registry.to_str().expect("UTF-8"));
    // A cache whose folders above are not there yet: root makes them, its worker comes through.
    let cache = place.path("far/below/cache");
    let cache = cache.to_str().expect("UTF-8");
    let more = ["--background", "--worker-user", ORDINARY, "--cache-dir", cache];
    let ran = place.run([&["mount", at, "--registry", registry][..], &more].concat());
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(fs::read(place.mountpoint().join("org/net/v1/a.bin")).expect("reads") == files[0]);
    let status = place.run(["status", "--json", "--cache-dir", cache]).json();
    let worker = status["daemon"]["worker"].as_u64().expect("it answers");
    is_theirs(worker.try_into().expect("small"));
    place.ok(["unmount", at, "--cache-dir", cache]);
    assert!(!is_mounted(&place.mountpoint()));
    assert_eq!(fs::metadata(place.path("far/below")).expect("made").uid(), 0);
}

#[test]
fn a_cache_of_roots_is_handed_over_and_nothing_is_lost_nor_taken_along() {
    let place = Place::new();
    let files = published(&place);
    let server = Server::start(&place.registry());
    let daemon = place.mount(&server.url(), &["--worker-user", "root"]);
    reads(&daemon, "a.bin", &files[0]);
    reads(&daemon, "b.bin", &files[1]);
    let missing = daemon.status()["daemon"]["confinement"]["missing"].to_string();
    assert!(missing.contains("useradd"), "it says what to do: {missing}");
    daemon.stop();
    assert_eq!(not_of(0, &place.cache()), Vec::<PathBuf>::new());

    // What somebody laid there: links to a file and a folder, another name of a file.
    let precious = place.path("precious");
    fs::create_dir(&precious).expect("a folder");
    fs::write(precious.join("file"), "x").expect("a file");
    let blobs = place.cache().join("blobs");
    symlink(precious.join("file"), blobs.join("link")).expect("a link");
    symlink(&precious, blobs.join("ff-folder")).expect("a link");
    fs::hard_link(precious.join("file"), blobs.join("name")).expect("a name");

    server.on("/data/", When::Always, Fault::Gone);
    let daemon = mounted(&place, &server, &["--read-deadline", "2s"]);
    is_theirs(daemon.worker());
    reads(&daemon, "a.bin", &files[0]);
    reads(&daemon, "b.bin", &files[1]);
    let log = daemon.stop();
    assert!(log.contains("stay root's"), "{log}");
    assert_eq!(not_of(0, &precious), Vec::<PathBuf>::new(), "no link is followed");
    let _ = fs::remove_file(blobs.join("name"));
    assert_eq!(not_of(ordinary_ids().0, &place.cache()), Vec::<PathBuf>::new());

    // Theirs by now: what root lays there is not looked for.
    fs::write(place.cache().join("roots"), "x").expect("root may");
    let daemon = mounted(&place, &server, &[]);
    reads(&daemon, "a.bin", &files[0]);
    daemon.stop();
    assert_eq!(not_of(ordinary_ids().0, &place.cache()), [place.cache().join("roots")]);
}

#[test]
fn files_that_root_makes_without_a_daemon_belong_to_the_workers_user() {
    let place = Place::new();
    let files = published(&place);
    let server = Server::start(&place.registry());
    let daemon = mounted(&place, &server, &[]);
    reads(&daemon, "a.bin", &files[0]);
    daemon.stop();
    let url = server.url();
    let all_theirs = |after: &str| {
        let (uid, cache) = (ordinary_ids().0, place.cache());
        assert_eq!(not_of(uid, &cache), Vec::<PathBuf>::new(), "after {after}");
    };
    for command in [
        &["pin", "org/net@v1"][..],
        &["prefetch", "org/net@v1", "--registry", &url],
        &["verify"],
        &["status"],
        &["unpin", "org/net@v1"],
        &["evict", "--all"],
        &["prefetch", "org/net@v1", "--registry", &url],
    ] {
        place.ok(command);
        all_theirs(&command.join(" "));
    }
    server.on("/data/", When::Always, Fault::Gone);
    let daemon = mounted(&place, &server, &["--read-deadline", "2s"]);
    reads(&daemon, "a.bin", &files[0]);
    reads(&daemon, "b.bin", &files[1]);
    daemon.stop();
    // Also where all is made anew.
    server.heal();
    for name in ["index.db", "index.db-wal", "index.db-shm", "lock"] {
        let _ = fs::remove_file(place.cache().join(name));
    }
    place.ok(["prefetch", "org/net@v1", "--registry", &url]);
    all_theirs("a new index");
    let daemon = mounted(&place, &server, &[]);
    reads(&daemon, "b.bin", &files[1]);
    daemon.stop();
}

#[test]
fn a_worker_can_keep_privileges_and_a_later_one_can_drop_them() {
    let place = Place::new();
    let files = published(&place);
    let server = Server::start(&place.registry());
    let daemon = place.mount(&server.url(), &["--keep-privileges"]);
    assert_eq!(daemon.status()["daemon"]["confinement"]["user"], 0);
    reads(&daemon, "a.bin", &files[0]);
    reads(&daemon, "b.bin", &files[1]);
    daemon.stop();
    server.on("/data/", When::Always, Fault::Gone);
    let daemon = mounted(&place, &server, &["--read-deadline", "2s"]);
    is_theirs(daemon.worker());
    reads(&daemon, "a.bin", &files[0]);
    reads(&daemon, "b.bin", &files[1]);
    daemon.stop();
    assert_eq!(not_of(ordinary_ids().0, &place.cache()), Vec::<PathBuf>::new());
    // What is another user's by now is nothing for root to work on, and that is said.
    for more in [&["--worker-user", "root"][..], &["--keep-privileges"]] {
        let ran = mount(&place, more);
        assert_eq!(ran.code, 7, "{ran:?}");
        assert!(ran.err.contains(place.cache().to_str().expect("UTF-8")), "{ran:?}");
    }
    assert_eq!(not_of(ordinary_ids().0, &place.cache()), Vec::<PathBuf>::new());
}

fn mount(place: &Place, more: &[&str]) -> Ran {
    let (at, registry) = (place.mountpoint(), place.registry());
    let mut args = vec!["mount", at.to_str().expect("UTF-8")];
    if !more.contains(&"--registry") {
        args.extend(["--registry", registry.to_str().expect("UTF-8")]);
    }
    place.run([&args, more].concat())
}

/// A line that says what and where, one that says what to do; nothing is mounted, the cache untouched.
fn refused(place: &Place, more: &[&str], code: i32, names: &Path) {
    let ran = mount(place, more);
    assert_eq!(ran.code, code, "{ran:?}");
    let said: Vec<_> = ran.err.lines().collect();
    assert_eq!(said.len(), 2, "{ran:?}");
    assert!(said[0].contains(names.to_str().expect("UTF-8")), "{ran:?}");
    assert!(!is_mounted(&place.mountpoint()));
    assert_eq!(fs::read_dir(place.cache()).expect("it is there").count(), 0, "nothing half-done");
}

#[test]
fn an_impossible_mount_request_is_refused_in_one_line_and_changes_nothing() {
    let place = Place::new();
    published(&place);
    let theirs = ["--worker-user", ORDINARY];
    refused(&place, &["--worker-user", "no-such-user"], 2, Path::new("no-such-user"));
    // A registry that is closed to them: its folder, its catalog, a folder above.
    let closed = place.path("closed");
    fs::create_dir(&closed).expect("a folder");
    let catalog = place.registry().join("models.json");
    set_mode(&place.registry(), 0o700);
    refused(&place, &theirs, 5, &place.registry());
    set_mode(&place.registry(), 0o755);
    set_mode(&catalog, 0o600);
    refused(&place, &theirs, 5, &catalog);
    set_mode(&catalog, 0o644);
    set_mode(&closed, 0o700);
    let below = closed.join("registry");
    fs::rename(place.registry(), &below).expect("moves");
    let there = below.to_str().expect("UTF-8");
    refused(&place, &[&theirs[..], &["--registry", there]].concat(), 5, &closed);
    fs::rename(&below, place.registry()).expect("moves back");
    // A cache that they cannot come to.
    let far = closed.join("cache");
    let there = far.to_str().expect("UTF-8");
    refused(&place, &[&theirs[..], &["--cache-dir", there]].concat(), 7, &closed);
    assert!(!far.exists());
    // A cache that is a third one's.
    chown(place.cache(), Some(NOBODY), None).expect("root may");
    refused(&place, &theirs, 7, &place.cache());
    assert_eq!(fs::metadata(place.cache()).expect("it is there").uid(), NOBODY);
    chown(place.cache(), Some(0), None).expect("root may");
    // With all privileges, none of it matters.
    set_mode(&place.registry(), 0o700);
    place.mount_folder(&["--keep-privileges"]).stop();

    let ordinary = Place::of(User::Ordinary);
    refused(&ordinary, &theirs, 2, Path::new("--worker-user"));
}

#[test]
fn root_may_ask_and_neither_the_workers_user_nor_a_third_one() {
    let place = Place::new();
    published(&place);
    let daemon = place.mount_folder(&["--worker-user", ORDINARY]);
    let socket: PathBuf = daemon.status()["daemon"]["socket"].as_str().expect("it has one").into();
    // Opened by mistake: who asks is still looked at.
    set_mode(&place.path("run"), 0o755);
    set_mode(socket.parent().expect("a folder"), 0o755);
    set_mode(&socket, 0o666);
    let ask = |uid: u32| {
        let mut curl = place.program("curl");
        curl.args(["--silent", "--max-time", "60", "--unix-socket"]).arg(&socket);
        curl.arg("http://modelfs/v1/status").uid(uid).gid(uid);
        curl.output().expect("curl starts")
    };
    for uid in [ordinary_ids().0, NOBODY] {
        let out = ask(uid);
        assert!(!out.status.success() && out.stdout.is_empty(), "{uid}: {out:?}");
    }
    assert!(ask(0).stdout.starts_with(b"{"), "root may");
    let log = daemon.stop();
    assert_eq!(log.matches("refused a control connection").count(), 2, "{log}");
}
