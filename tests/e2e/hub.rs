//! The Hugging Face Hub under a mount: looked up by name, resolved once, readable without a network.

use modelfs_test_support::{HUB_TOKEN, HubFile, HubRepo, HubServer, bytes};

use crate::harness::{Daemon, Place, eventually, names, xattr};

pub const MAIN: &str = "1111111111111111111111111111111111111111";
pub const MOVED: &str = "2222222222222222222222222222222222222222";

pub fn file(path: &str, bytes: Vec<u8>, lfs: bool) -> HubFile {
    HubFile { path: path.to_owned(), bytes, lfs }
}

pub fn weights(seed: u64) -> Vec<u8> {
    bytes(seed, 300_000)
}

/// A repository with two branches.
pub fn repository() -> HubRepo {
    let name = |name: &str, commit: &str| (name.to_owned(), commit.to_owned());
    let old = vec![
        file("config.json", br#"{"a":1}"#.to_vec(), false),
        file("onnx/model.onnx", weights(1), true),
    ];
    let new = vec![file("config.json", br#"{"a":2}"#.to_vec(), false)];
    HubRepo {
        branches: vec![name("main", MAIN), name("fix/it", MOVED)],
        commits: [(MAIN.to_owned(), old), (MOVED.to_owned(), new)].into(),
        ..HubRepo::default()
    }
}

fn hub() -> HubServer {
    let hub = HubServer::start();
    hub.put("models/org/net", repository());
    hub
}

/// The paths that were asked for since the last call.
fn requests(hub: &HubServer) -> Vec<String> {
    hub.requests().into_iter().map(|request| request.path).collect()
}

#[test]
fn a_repository_of_the_hub_is_looked_up_by_name_and_read_lazily() {
    let (place, hub) = (Place::new(), hub());
    let daemon = place.mount_hub(&hub, "hf://", &[]);
    assert_eq!(names(&place.mountpoint()), [""; 0], "what was not looked up is not listed");
    assert!(requests(&hub).is_empty(), "nothing is asked before a name is");

    let config = daemon.path("org/net/main/config.json");
    assert_eq!(std::fs::read(&config).unwrap(), br#"{"a":1}"#);
    let asked = requests(&hub);
    assert!(!asked.iter().any(|path| path.contains("model.onnx")), "lazily: {asked:?}");
    assert_eq!(std::fs::read(daemon.path("org/net/main/onnx/model.onnx")).unwrap(), weights(1));
    assert_eq!(names(&daemon.path("org/net")), ["fix--it", "main"]);
    assert_eq!(names(&daemon.path("org")), ["net"]);

    // A commit is a version, too, and the same one: nothing is fetched twice.
    let by_commit = daemon.path(&format!("org/net/{MAIN}/config.json"));
    requests(&hub);
    assert_eq!(std::fs::read(by_commit).unwrap(), br#"{"a":1}"#);
    assert!(!requests(&hub).iter().any(|path| path.contains("/resolve/")));
    // A listed branch that nobody opened was not resolved; now it is.
    assert_eq!(std::fs::read(daemon.path("org/net/fix--it/config.json")).unwrap(), br#"{"a":2}"#);
    daemon.stop();
}

#[test]
fn a_name_that_the_hub_lacks_costs_one_request_and_then_none_for_a_while() {
    let (place, hub) = (Place::new(), hub());
    let daemon = place.mount_hub(&hub, "hf://", &[]);
    let missing = |path: &str| {
        let error = std::fs::metadata(daemon.path(path)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{path}: {error}");
    };
    missing("org/none");
    assert_eq!(requests(&hub).len(), 1);
    missing("org/none");
    missing("org/none/main");
    missing("org/.git");
    missing(".git");
    assert!(requests(&hub).is_empty());
    missing("org/net/v9");
    requests(&hub);
    missing("org/net/v9");
    assert!(requests(&hub).is_empty());
    daemon.stop();
}

#[test]
fn an_outage_of_the_hub_is_an_error_and_never_a_missing_model() {
    let (place, hub) = (Place::new(), hub());
    let daemon = place.mount_hub(&hub, "hf://", &["--read-deadline", "2s"]);
    hub.down(true);
    let error = std::fs::metadata(daemon.path("org/net")).unwrap_err();
    assert_ne!(error.kind(), std::io::ErrorKind::NotFound, "{error}");
    hub.down(false);
    eventually("the Hub is asked again", || daemon.path("org/net/main/config.json").exists());
    daemon.stop();
}

#[test]
fn what_was_resolved_once_is_readable_without_a_network_and_after_a_restart() {
    let (place, hub) = (Place::new(), hub());
    let daemon = place.mount_hub(&hub, "hf://", &[]);
    let read = |daemon: &Daemon<'_>| std::fs::read(daemon.path("org/net/main/config.json"));
    assert_eq!(read(&daemon).unwrap(), br#"{"a":1}"#);
    daemon.stop();

    hub.down(true);
    let daemon = place.mount_hub(&hub, "hf://", &["--read-deadline", "2s"]);
    assert_eq!(names(&daemon.path("org/net")), ["fix--it", "main"]);
    assert_eq!(read(&daemon).unwrap(), br#"{"a":1}"#);
    let error = std::fs::read(daemon.path("org/net/main/onnx/model.onnx")).unwrap_err();
    assert_ne!(error.kind(), std::io::ErrorKind::NotFound, "{error}");
    daemon.stop();
}

#[test]
fn a_moved_branch_shows_after_the_time_to_live_and_open_files_keep_theirs() {
    let (place, hub) = (Place::new(), hub());
    let daemon = place.mount_hub(&hub, "hf://", &["--catalog-ttl", "1s"]);
    let config = daemon.path("org/net/main/config.json");
    let open = std::fs::File::open(&config).unwrap();
    assert_eq!(std::fs::read(&config).unwrap(), br#"{"a":1}"#);
    hub.change("models/org/net", |repo| repo.branches[0].1 = MOVED.to_owned());
    eventually("the branch has moved", || std::fs::read(&config).unwrap() == br#"{"a":2}"#);
    assert_eq!(std::io::read_to_string(open).unwrap(), r#"{"a":1}"#);
    daemon.stop();
}

#[test]
fn one_repository_is_listed_and_commands_find_its_versions() {
    let (place, hub) = (Place::new(), hub());
    let daemon = place.mount_hub(&hub, "hf://org/net", &[]);
    assert_eq!(names(&place.mountpoint()), ["org"]);
    assert_eq!(names(&daemon.path("org/net")), ["fix--it", "main"]);
    place.ok(["pin", "org/net@main"]);
    place.ok(["prefetch", "org/net@main"]);
    let pinned = xattr(&daemon.path("org/net/main/config.json"), "pinned");
    assert_eq!(pinned.as_deref(), Some("yes"));
    let listed = place.run(["list", "--json"]).json();
    assert_eq!(listed["versions"][0]["complete"], true, "{listed}");
    let gone = place.run(["pin", "org/net@v9"]);
    assert_eq!(gone.code, 3, "{gone:?}");
    daemon.stop();
}

#[test]
fn the_token_of_the_hub_is_stored_and_printed_nowhere() {
    let (place, hub) = (Place::new(), hub());
    hub.change("models/org/net", |repo| repo.private = true);
    let daemon = place.mount_hub(&hub, "hf://", &[]);
    assert_eq!(std::fs::read(daemon.path("org/net/main/onnx/model.onnx")).unwrap(), weights(1));
    place.ok(["pin", "org/net@main"]);
    let status = place.ok(["status", "--json"]);
    let log = daemon.stop();
    assert!(!status.contains(HUB_TOKEN) && !log.contains(HUB_TOKEN));
    let mut folders = vec![place.cache()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
                continue;
            }
            let bytes = std::fs::read(entry.path()).unwrap();
            let found = bytes.windows(HUB_TOKEN.len()).any(|w| w == HUB_TOKEN.as_bytes());
            assert!(!found, "{}", entry.path().display());
        }
    }
    let elsewhere = hub.requests().into_iter().filter(|r| r.cdn && r.authorization.is_some());
    assert_eq!(elsewhere.count(), 0, "the token goes to the Hub only");
}
