//! Catalogs and manifests that do not come, or come wrong: an outage is never ENOENT and never an
//! empty folder; what a healthy registry says, even `{}`, is obeyed.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use modelfs_test_support::{Fault, Server, When, bytes};

use crate::fault_scene::{DEADLINE, SLACK, is_an_outage, manifest};
use crate::harness::{Daemon, Place, eventually, xattr};

const CATALOG: &str = "/models.json";
const LONG: Duration = Duration::from_secs(3600);

/// Versions `v0`, `v1`, … of one model, each with a file of its own in a folder, behind a server.
struct Scene {
    place: Place,
    server: Server,
}

impl Scene {
    fn new(versions: usize) -> Self {
        let place = Place::new();
        for n in 0..versions {
            publish(&place, n);
        }
        let server = Server::start(&place.registry());
        Self { place, server }
    }

    fn mount(&self) -> Daemon<'_> {
        let args = ["--read-deadline", "2s", "--catalog-ttl", "200ms", "--scrub-rate", "0"];
        self.place.mount(&self.server.url(), &args)
    }

    fn catalog(&self) -> Vec<u8> {
        fs::read(self.place.registry().join("models.json")).expect("published")
    }

    /// Waits until the catalog was asked for and answered so many times more.
    fn asked_again(&self, times: usize) {
        let before = self.server.requests_for(CATALOG);
        eventually("the catalog is asked for", || {
            self.server.requests_for(CATALOG) >= before + times
        });
    }
}

fn publish(place: &Place, n: usize) {
    let plain = place.path(&format!("plain-{n}"));
    fs::create_dir_all(plain.join("in")).expect("a folder");
    fs::write(plain.join("in/w.bin"), content(n)).expect("a file");
    place.publish(&plain, "org/net", &format!("v{n}"), &[]);
}

fn content(n: usize) -> Vec<u8> {
    bytes(2000 + n as u64, 300_000)
}

fn names(folder: &Path) -> std::io::Result<Vec<String>> {
    let entries = fs::read_dir(folder)?.collect::<std::io::Result<Vec<_>>>()?;
    let name = |e: fs::DirEntry| e.file_name().into_string().expect("UTF-8");
    let mut names: Vec<_> = entries.into_iter().map(name).collect();
    names.sort();
    Ok(names)
}

/// What is wrong with a document, and what the reason says.
type Line = (Fault, &'static [&'static str]);

/// Each fault on the manifest of a version that nobody has looked into yet.
#[test]
fn manifests() {
    let scene = Scene::new(13);
    let other = scene.place.registry().join(&manifest(&scene.place, "v0")[1..]);
    let other = fs::read(other).expect("a manifest");
    let lines: [Line; 12] = [
        (Fault::Delay(LONG), &["timed out", "no answer"]),
        (Fault::Stall(20), &["cut off", "no answer"]),
        (Fault::Drip(1, Duration::from_millis(100)), &["no answer"]),
        (Fault::Reset(20), &["cut off"]),
        (Fault::Truncate(20), &["cut off"]),
        (Fault::Short(20), &["SHA-256 mismatch"]),
        (Fault::FlipBit(20), &["SHA-256 mismatch"]),
        (Fault::Serve(other), &["SHA-256 mismatch"]),
        (Fault::WrongContentLength(1 << 60), &["more than 67108864 bytes"]),
        (Fault::Encoding("gzip".into()), &["Content-Encoding"]),
        (Fault::Status(404, None), &["not found in the registry"]),
        (Fault::Status(503, None), &["answered 503"]),
    ];
    let daemon = scene.mount();
    std::thread::scope(|threads| {
        for (n, (fault, words)) in lines.iter().enumerate() {
            let (scene, daemon, n) = (&scene, &daemon, n + 1);
            threads.spawn(move || without_manifest(scene, daemon, n, fault, words));
        }
    });
    daemon.stop();
}

fn without_manifest(scene: &Scene, daemon: &Daemon<'_>, n: usize, fault: &Fault, words: &[&str]) {
    let mut what = format!("{fault:?}");
    what.truncate(40);
    let object = manifest(&scene.place, &format!("v{n}"));
    let version = daemon.path(&format!("org/net/v{n}"));
    let file = version.join("in/w.bin");
    scene.server.on(&object, When::Always, fault.clone());
    let in_time = |begun: Instant| {
        assert!(begun.elapsed() < DEADLINE + SLACK, "{what}: {:?}", begun.elapsed());
    };
    let begun = Instant::now();
    is_an_outage(&names(&version).expect_err("an empty folder, or a full one"));
    in_time(begun);
    let begun = Instant::now();
    is_an_outage(&fs::metadata(&file).expect_err("nobody knows it yet"));
    in_time(begun);
    // Nor is what never was said to be missing.
    let begun = Instant::now();
    is_an_outage(&fs::metadata(version.join("never")).expect_err("nobody knows"));
    in_time(begun);
    let reason = xattr(&version, "error").expect("the folder has the reason");
    assert!(words.iter().any(|word| reason.contains(word)), "{what}: {reason}");
    println!("{what}: {reason}");
    scene.server.heal_path(&object);
    let healed = Instant::now();
    while let Err(error) = fs::metadata(&file) {
        is_an_outage(&error);
        assert!(healed.elapsed() < DEADLINE + SLACK, "{what}: no better");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(names(&version).expect("listed"), ["in"]);
    assert!(fs::read(&file).expect("well again") == content(n), "{what}: a wrong byte");
    assert!(!version.join("never").exists());
    assert_eq!(xattr(&version, "error"), None, "{what}: what is over is forgotten");
}

/// With a catalog that is none, what was offered before is offered still.
#[test]
fn catalogs() {
    let scene = Scene::new(2);
    let catalog = scene.catalog();
    let half = catalog[..catalog.len() / 2].to_vec();
    let page = b"<html><body>please sign in</body></html>".to_vec();
    let mut lines: Vec<Line> = vec![
        (Fault::Serve(half), &["models.json"]),
        (Fault::Serve(Vec::new()), &["models.json"]),
        (Fault::Serve(page), &["models.json"]),
        (Fault::Serve(b"[]".to_vec()), &["models.json"]),
        (Fault::Serve(b"null".to_vec()), &["models.json"]),
        (Fault::Serve(br#"{"org":{"net":{"v0":{"hash":"00"}}}}"#.to_vec()), &["models.json"]),
        (Fault::Stall(20), &["cut off", "not all there"]),
        (Fault::Drip(1, Duration::from_millis(100)), &["not all there"]),
        (Fault::Delay(LONG), &["timed out", "not all there"]),
        (Fault::Truncate(20), &["cut off"]),
        (Fault::Short(20), &["models.json"]),
        (Fault::WrongContentLength(1 << 60), &["more than 268435456 bytes"]),
        (Fault::Encoding("gzip".into()), &["Content-Encoding"]),
        (Fault::Redirect(None), &["redirects"]),
    ];
    for status in [204, 401, 403, 404, 429, 500, 503] {
        lines.push((Fault::Status(status, None), &["models.json"]));
    }
    let daemon = scene.mount();
    let root = daemon.path("");
    for (line, (fault, words)) in lines.iter().enumerate() {
        let mut what = format!("{fault:?}");
        what.truncate(40);
        scene.server.on(CATALOG, When::Always, fault.clone());
        // Something changes meanwhile, so that the answer cannot be that nothing did.
        let (added, known) = (line + 2, line + 1);
        publish(&scene.place, added);
        eventually(&format!("{what}: trouble is told"), || {
            let reason = xattr(&root, "error");
            reason.is_some_and(|reason| words.iter().any(|word| reason.contains(word)))
        });
        assert_eq!(names(&root).expect("listed"), ["org"], "{what}");
        let offered = names(&daemon.path("org/net")).expect("listed");
        assert_eq!(offered.len(), known + 1, "{what}: {offered:?}");
        // Looked up for the first time, while the catalog is not to be had.
        let file = daemon.path(&format!("org/net/v{known}/in/w.bin"));
        assert!(fs::read(&file).expect("data is not the catalog") == content(known), "{what}");
        let status = daemon.status();
        assert!(status["registry"]["trouble"].is_string(), "{what}: {status}");
        // Nobody knows whether these are there by now.
        for unknown in [format!("org/net/v{added}"), "org/new".to_owned(), "new".to_owned()] {
            is_an_outage(&fs::metadata(daemon.path(&unknown)).expect_err("nobody knows"));
        }
        let hidden = fs::metadata(daemon.path(".git")).expect_err("there is none");
        assert_eq!(hidden.kind(), ErrorKind::NotFound, "{what}");
        scene.server.heal_path(CATALOG);
        let healed = Instant::now();
        let version = daemon.path(&format!("org/net/v{added}"));
        while !version.exists() {
            assert!(healed.elapsed() < 2 * DEADLINE + SLACK, "{what}: no better");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(xattr(&root, "error"), None, "{what}: what is over is forgotten");
        let never = fs::metadata(daemon.path("org/new")).expect_err("it never was");
        assert_eq!(never.kind(), ErrorKind::NotFound, "{what}");
    }
    daemon.stop();
}

/// Without a catalog from before there is nothing to show, and no mount rather than an empty one.
#[test]
fn no_mount_without_a_catalog() {
    let scene = Scene::new(1);
    let half = scene.catalog()[..30].to_vec();
    let faults = [
        Fault::Serve(half),
        Fault::Serve(Vec::new()),
        Fault::Status(404, None),
        Fault::Status(500, None),
        Fault::Stall(10),
        Fault::Drip(1, Duration::from_millis(100)),
    ];
    for fault in faults {
        scene.server.heal();
        scene.server.on(CATALOG, When::Always, fault.clone());
        let (mountpoint, url) = (scene.place.mountpoint(), scene.server.url());
        let mut command = scene.place.modelfs(["mount", "--read-deadline", "2s"]);
        let out = command.arg(&mountpoint).args(["--registry", &url]).output().expect("it starts");
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(5), "{fault:?}: {said}");
        assert!(!crate::harness::is_mounted(&mountpoint), "{fault:?}");
    }
}

/// `{}` from a healthy server is a change like any other: all names go, and what is open stays.
#[test]
fn an_emptied_catalog_is_obeyed_and_what_is_open_stays_readable() {
    let scene = Scene::new(1);
    let daemon = scene.mount();
    let path = daemon.path("org/net/v0/in/w.bin");
    let open = File::open(&path).expect("opens");
    let inode = std::os::unix::fs::MetadataExt::ino(&open.metadata().expect("stat"));
    scene.server.on(CATALOG, When::Always, Fault::Serve(b"{}".to_vec()));
    eventually("it is gone", || !daemon.path("org").exists());
    assert_eq!(names(&daemon.path("")).expect("listed"), [""; 0]);
    assert_eq!(xattr(&daemon.path(""), "error"), None, "this is no trouble");
    let mut all = vec![0; content(0).len()];
    open.read_exact_at(&mut all, 0).expect("nothing of it was fetched before");
    assert!(all == content(0));

    scene.server.heal_path(CATALOG);
    eventually("it is back", || path.exists());
    let back = std::os::unix::fs::MetadataExt::ino(&fs::metadata(&path).expect("stat"));
    assert_eq!(back, inode, "the same version is the same inode");
    assert!(fs::read(&path).expect("reads") == content(0));
    daemon.stop();
}

/// A version that goes and comes back, once the same and once with other content.
#[test]
fn a_version_that_is_removed_and_published_again_is_readable() {
    let scene = Scene::new(2);
    let daemon = scene.mount();
    let path = daemon.path("org/net/v1/in/w.bin");
    let whole = scene.catalog();
    let mut json: serde_json::Value = serde_json::from_slice(&whole).expect("JSON");
    json["org"]["net"].as_object_mut().expect("a model").remove("v1");
    let without = json.to_string().into_bytes();
    for round in 0..3 {
        let open = File::open(&path).expect("opens");
        scene.server.on(CATALOG, When::Always, Fault::Serve(without.clone()));
        eventually("v1 is gone", || !daemon.path("org/net/v1").exists());
        assert_eq!(names(&daemon.path("org/net")).expect("listed"), ["v0"]);
        let mut all = vec![0; content(1).len()];
        open.read_exact_at(&mut all, 0).expect("what is open stays");
        assert!(all == content(1), "round {round}");
        scene.server.heal_path(CATALOG);
        eventually("v1 is back", || path.exists());
        assert!(fs::read(&path).expect("reads") == content(1), "round {round}");
        // Neither is what is known of it now a memory of its absence.
        scene.asked_again(2);
        assert_eq!(names(&daemon.path("org/net")).expect("listed"), ["v0", "v1"]);
    }
    daemon.stop();
}

/// A daemon that starts while the server is dead offers what was last seen: what was looked into is
/// there, what was not is an outage, and neither is missing or empty.
#[test]
fn a_new_daemon_beside_a_dead_server() {
    let scene = Scene::new(2);
    let daemon = scene.mount();
    let known = "org/net/v0/in/w.bin";
    assert!(fs::read(daemon.path(known)).expect("reads") == content(0));
    daemon.stop();
    scene.server.go_away();
    let daemon = scene.mount();
    assert_eq!(names(&daemon.path("")).expect("listed"), ["org"]);
    assert_eq!(names(&daemon.path("org/net")).expect("listed"), ["v0", "v1"]);
    assert_eq!(names(&daemon.path("org/net/v0")).expect("listed"), ["in"]);
    assert!(fs::read(daemon.path(known)).expect("cached") == content(0));
    let never = fs::metadata(daemon.path("org/net/v0/never")).expect_err("the manifest is here");
    assert_eq!(never.kind(), ErrorKind::NotFound);
    is_an_outage(&names(&daemon.path("org/net/v1")).expect_err("never looked into"));
    is_an_outage(&fs::metadata(daemon.path("org/net/v1/in/w.bin")).expect_err("not known"));
    is_an_outage(&fs::metadata(daemon.path("org/net/v2")).expect_err("nobody knows"));
    let reason = xattr(&daemon.path("org/net/v1"), "error").expect("a reason");
    assert!(reason.contains("Connection refused"), "{reason}");
    scene.server.come_back();
    let file = daemon.path("org/net/v1/in/w.bin");
    eventually("right again", || fs::read(&file).is_ok_and(|got| got == content(1)));
    eventually("v2 is known not to be", || {
        let outcome = fs::metadata(daemon.path("org/net/v2"));
        outcome.is_err_and(|e| e.kind() == ErrorKind::NotFound)
    });
    daemon.stop();
}
