//! Real programs on the view of the Hugging Face cache, by `modelfs run`: what they find, and what that
//! costs.
//!
//! They need Python environments, which `scripts/test-views.sh` makes; `make test-views` runs it.

use std::path::{Path, PathBuf};
use std::process::Command;

use modelfs_test_support::{HubFile, HubRepo, HubServer};

use crate::harness::{Daemon, Place, Ran, eventually};

const MAIN: &str = "1111111111111111111111111111111111111111";
const MOVED: &str = "2222222222222222222222222222222222222222";

/// The Python programs of the environments, each with another version of huggingface_hub.
fn pythons() -> Vec<PathBuf> {
    let all = std::env::var("MODELFS_TEST_PYTHONS").expect("make test-views sets it");
    all.split(':').map(PathBuf::from).collect()
}

/// A folder with a small model.
fn model() -> PathBuf {
    PathBuf::from(std::env::var("MODELFS_TEST_MODEL").expect("make test-views sets it"))
}

fn files(folder: &Path) -> Vec<HubFile> {
    let mut all = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(at) = folders.pop() {
        for entry in std::fs::read_dir(at)
            .expect("a step of the test succeeds")
            .map(|entry| entry.expect("a step of the test succeeds").path())
        {
            if entry.is_dir() {
                folders.push(entry);
                continue;
            }
            let path = entry
                .strip_prefix(folder)
                .expect("a step of the test succeeds")
                .to_str()
                .expect("temporary folders have UTF-8 names")
                .to_owned();
            let lfs = path.ends_with(".safetensors");
            all.push(HubFile {
                path,
                bytes: std::fs::read(&entry).expect("a step of the test succeeds"),
                lfs,
            });
        }
    }
    all
}

fn hub() -> HubServer {
    let hub = HubServer::start();
    let repo = HubRepo {
        branches: vec![("main".to_owned(), MAIN.to_owned())],
        commits: [(MAIN.to_owned(), files(&model()))].into(),
        ..HubRepo::default()
    };
    hub.put("models/org/net", repo);
    hub.page(1000);
    hub
}

fn mount<'a>(place: &'a Place, hub: &HubServer, more: &[&str]) -> Daemon<'a> {
    place.mount_hub(hub, "hf://", more)
}

/// Runs the client; what it printed.
fn client(place: &Place, python: &Path, flags: &[&str]) -> serde_json::Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../clients/views.py");
    let mut command: Command = place.modelfs(["run"]);
    command.args(flags).arg("--").arg(python).arg(script).arg("org/net").arg(model());
    command.env("HF_HOME", place.path("hf-home"));
    let ran = Ran::from(command.output().expect("a step of the test succeeds"));
    assert_eq!(ran.code, 0, "{} {flags:?}: {ran:?}", python.display());
    let last = ran.out.lines().last().unwrap_or_default();
    serde_json::from_str(last).unwrap_or_else(|e| panic!("{e}: {ran:?}"))
}

/// An address that nothing listens at.
fn free() -> String {
    std::net::TcpListener::bind("127.0.0.1:0")
        .expect("a step of the test succeeds")
        .local_addr()
        .expect("a step of the test succeeds")
        .to_string()
}

#[test]
fn programs_load_a_model_by_name_offline_and_read_each_byte_once() {
    for python in pythons() {
        let (place, hub) = (Place::new(), hub());
        let daemon = mount(&place, &hub, &[]);
        let cold = client(&place, &python, &[]);
        assert_eq!(cold["commit"], MAIN, "{cold}");
        let asked = hub.requests();
        let bodies = asked.iter().filter(|r| r.path.contains("/resolve/") && !r.cdn).count();
        println!("{cold}: {} requests, of which {bodies} for files", asked.len());
        // References, the commit, its tree, and each file once: what was fetched is not fetched again.
        assert!(bodies <= files(&model()).len(), "{asked:?}");
        assert_eq!(client(&place, &python, &[]), cold);
        let again = hub.requests();
        assert!(!again.iter().any(|r| r.path.contains("/resolve/")), "{again:?}");
        hub.down(true);
        assert_eq!(client(&place, &python, &[]), cold, "without a network");
        daemon.stop();
    }
}

#[test]
fn programs_that_ask_the_hub_are_answered_by_the_daemon_also_when_a_branch_moved() {
    for python in pythons() {
        let (place, hub) = (Place::new(), hub());
        let address = free();
        let more = ["--hub-endpoint", address.as_str(), "--catalog-ttl", "1s"];
        let daemon = mount(&place, &hub, &more);
        let before = client(&place, &python, &["--online"]);
        assert_eq!(before["commit"], MAIN, "{before}");
        hub.change("models/org/net", |repo| {
            let files = repo.commits[MAIN].clone();
            repo.commits.insert(MOVED.to_owned(), files);
            repo.branches[0].1 = MOVED.to_owned();
        });
        let reference = daemon.path(".views/hf/models--org--net/refs/main");
        eventually("the branch has moved", || {
            std::fs::read_to_string(&reference).unwrap() == MOVED
        });
        let after = client(&place, &python, &["--online"]);
        assert_eq!(after["commit"], MOVED, "{after}");
        println!("{before} then {after}");
        daemon.stop();
    }
}
