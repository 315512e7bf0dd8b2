//! What was published a moment ago: it is there when somebody asks for it, and who asks for what is
//! not there is no burden to the registry.

use std::fs;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use modelfs_test_support::{Fault, Server, When};

use crate::harness::{Place, Ran, eventually};

/// The time to live of a catalog in these tests: nothing happens because it ends.
const NEVER: [&str; 2] = ["--catalog-ttl", "1h"];

struct Scene {
    place: Place,
}

impl Scene {
    /// A registry with `org/net@v1`.
    fn new() -> Self {
        let place = Place::new();
        fs::create_dir(place.path("plain")).expect("a folder");
        let scene = Self { place };
        scene.publish("org/net", "v1", "one", &[]);
        scene
    }

    fn publish(&self, model: &str, version: &str, content: &str, more: &[&str]) {
        let plain = self.place.path("plain");
        fs::write(plain.join("which"), content).expect("a file");
        self.place.publish(&plain, model, version, more);
    }

    fn run(&self, args: &[&str]) -> Ran {
        self.place.run(args)
    }
}

#[test]
fn a_version_published_a_moment_ago_is_found_by_path_and_by_every_command() {
    let scene = Scene::new();
    let daemon = scene.place.mount_folder(&NEVER);
    assert!(daemon.path("org/net/v1/which").exists());
    // Each by another way, and each is the first to ask for its name.
    scene.publish("org/net", "v2", "two", &[]);
    assert_eq!(fs::read(daemon.path("org/net/v2/which")).expect("there at once"), b"two");
    scene.publish("other/thing", "v1", "other", &[]);
    assert_eq!(fs::read(daemon.path("other/thing/v1/which")).expect("there at once"), b"other");
    scene.publish("org/net", "v3", "three", &[]);
    let list = scene.run(&["list", "--remote"]);
    assert!(list.out.contains("org/net@v3"), "{list:?}");
    for (version, command) in [("v4", "info"), ("v5", "path"), ("v6", "prefetch"), ("v7", "pin")] {
        // A user has seen to other things meanwhile.
        eventually("it is found", || {
            scene.publish("org/net", version, version, &[]);
            let ran = scene.run(&[command, &format!("org/net@{version}")]);
            assert!([0, 3].contains(&ran.code), "{ran:?}");
            ran.code == 0
        });
    }
    // What was listed before is listed anew.
    eventually("the list", || {
        fs::read_dir(daemon.path("org/net")).is_ok_and(|entries| entries.count() == 7)
    });
    daemon.stop();
}

#[test]
fn refresh_asks_the_registry_now_with_and_without_a_mount() {
    let scene = Scene::new();
    let registry = scene.place.registry();
    let registry = registry.to_str().expect("temporary folders have UTF-8 names");
    let refreshed = |ran: Ran| {
        assert_eq!(ran.code, 0, "{ran:?}");
        let json = ran.json();
        ["versions", "new", "gone"].map(|field| json[field].as_u64().expect("a number"))
    };
    let alone = ["refresh", "--json", "--registry", registry];
    assert_eq!(refreshed(scene.run(&alone)), [1, 1, 0]);
    assert_eq!(refreshed(scene.run(&alone)), [1, 0, 0]);

    let daemon = scene.place.mount_folder(&NEVER);
    let which = daemon.path("org/net/v1/which");
    assert_eq!(fs::read(&which).expect("read"), b"one");
    // A name that is known: nobody asks again for that.
    scene.publish("org/net", "v1", "another", &["--replace"]);
    assert_eq!(fs::read(&which).expect("read"), b"one");
    assert_eq!(refreshed(scene.run(&["refresh", "--json"])), [1, 1, 0]);
    eventually("the new content", || fs::read(&which).is_ok_and(|b| b == b"another"));
    fs::write(scene.place.registry().join("next"), "{}").expect("a file");
    fs::rename(scene.place.registry().join("next"), scene.place.registry().join("models.json"))
        .expect("renamed");
    assert_eq!(refreshed(scene.run(&["refresh", "--json"])), [0, 0, 1]);
    let text = scene.run(&["refresh"]);
    assert!(text.out.contains("offers 0 versions: 0 new, 0 gone"), "{text:?}");
    fs::rename(scene.place.registry(), scene.place.path("away")).expect("renamed");
    let gone = scene.run(&["refresh"]);
    assert_eq!((gone.code, gone.err.contains("not there")), (5, true), "{gone:?}");
    daemon.stop();
}

#[test]
fn names_that_are_not_there_ask_the_registry_now_and_then_and_those_probed_everywhere_never() {
    let scene = Scene::new();
    let server = Server::start(&scene.place.registry());
    let daemon = scene.place.mount(&server.url(), &NEVER);
    let asked = || server.requests_for("/models.json");
    let before = asked();
    for name in [".git", ".Trash-0", "desktop.ini", "Thumbs.db", "org/.hg", "org/net/autorun.inf"] {
        let error = fs::metadata(daemon.path(name)).expect_err(name);
        assert_eq!(error.kind(), ErrorKind::NotFound, "{name}");
    }
    assert_eq!(asked(), before, "no registry hears of these");
    let begun = Instant::now();
    for n in 0..500 {
        let error = fs::metadata(daemon.path(&format!("org/net/none-{n}"))).expect_err("none");
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
    let most = 5 + begun.elapsed().as_secs() as usize / 2 + 1;
    let more = asked() - before;
    assert!((1..=most).contains(&more), "{more} requests for 500 names in {:?}", begun.elapsed());
    daemon.stop();
}

#[test]
fn a_name_that_is_not_there_waits_for_a_silent_registry_for_a_moment_only() {
    let scene = Scene::new();
    let server = Server::start(&scene.place.registry());
    let daemon = scene.place.mount(&server.url(), &NEVER);
    server.on("/models.json", When::Always, Fault::Stall(0));
    let begun = Instant::now();
    for n in 0..3 {
        let error = fs::metadata(daemon.path(&format!("org/net/none-{n}"))).expect_err("none");
        // The last answer was well: the catalog was read and has no such name.
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(12), "{took:?} for three names");
    assert_eq!(fs::read(daemon.path("org/net/v1/which")).expect("data is not the catalog"), b"one");
    server.heal();
    daemon.stop();
}
