//! `.views/hf` on a real mount: the layout of the Hugging Face cache, over the Hub and over other registries.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use modelfs_test_support::HubServer;
use rustix::io::Errno;

use crate::harness::{Daemon, Place, eventually, names};
use crate::hub::{MAIN, MOVED, file, repository, weights};

const PULL: &str = "3333333333333333333333333333333333333333";

fn hub() -> HubServer {
    let (hub, mut repo) = (HubServer::start(), repository());
    repo.others = vec![("refs/pr/1".to_owned(), PULL.to_owned())];
    repo.commits.insert(PULL.to_owned(), repo.commits[MOVED].clone());
    hub.put("models/org/net", repo);
    hub
}

fn mount<'a>(place: &'a Place, hub: &HubServer, more: &[&str]) -> Daemon<'a> {
    place.mount_hub(hub, "hf://", more)
}

fn view(place: &Place) -> PathBuf {
    place.mountpoint().join(".views/hf")
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn is_missing(path: &Path) -> bool {
    matches!(fs::symlink_metadata(path), Err(e) if e.kind() == ErrorKind::NotFound)
}

/// The paths that were asked for since the last call.
fn requests(hub: &HubServer) -> Vec<String> {
    hub.requests().into_iter().map(|request| request.path).collect()
}

#[test]
fn a_repository_has_the_layout_of_the_hugging_face_cache() {
    let (place, hub) = (Place::new(), hub());
    let daemon = mount(&place, &hub, &[]);
    let repo = view(&place).join("models--org--net");
    assert_eq!(text(&repo.join("refs/main")), MAIN, "without a line feed");
    assert_eq!(names(&repo), ["blobs", "refs", "snapshots", "trees"]);
    assert_eq!(names(&repo.join("blobs")), [""; 0]);
    let snapshot = repo.join("snapshots").join(MAIN);
    assert_eq!(names(&snapshot), ["config.json", "onnx"]);
    assert_eq!(text(&snapshot.join("config.json")), r#"{"a":1}"#);
    assert!(fs::symlink_metadata(snapshot.join("config.json")).unwrap().is_file(), "no link");
    let tree: serde_json::Value =
        serde_json::from_str(&text(&repo.join(format!("trees/{MAIN}.json")))).unwrap();
    assert_eq!(tree["format_version"], 1);
    assert_eq!(tree["files"]["onnx/model.onnx"]["lfs_size"], 300_000, "{tree}");
    assert_eq!(tree["files"]["config.json"]["size"], 7, "{tree}");

    assert!(text(&view(&place).join("CACHEDIR.TAG")).starts_with("Signature: 8a477f597d28d172"));
    assert_eq!(names(&view(&place).join(".locks/models--org--net")), [""; 0]);
    assert_eq!(names(&view(&place)), ["models--org--net"], "tag and locks are found by name only");
    assert_eq!(names(&place.mountpoint()), ["org"], "views are found by name only");
    assert_eq!(names(&place.mountpoint().join(".views")), ["hf"]);
    let asked = requests(&hub);
    assert!(!asked.iter().any(|path| path.contains("model.onnx")), "lazily: {asked:?}");
    daemon.stop();
}

#[test]
fn a_file_is_one_inode_whatever_path_leads_to_it() {
    let (place, hub) = (Place::new(), hub());
    let daemon = mount(&place, &hub, &[]);
    let inode = |path: &str| fs::metadata(place.mountpoint().join(path)).unwrap().ino();
    let snapshot = format!(".views/hf/models--org--net/snapshots/{MAIN}/onnx/model.onnx");
    let in_view = inode(&snapshot);
    assert_eq!(inode("org/net/main/onnx/model.onnx"), in_view);
    assert_eq!(inode(&format!("org/net/{MAIN}/onnx/model.onnx")), in_view);
    assert_eq!(fs::read(place.mountpoint().join(&snapshot)).unwrap(), weights(1));
    requests(&hub);
    let by_branch = place.mountpoint().join("org/net/main/onnx/model.onnx");
    assert_eq!(fs::read(by_branch).unwrap(), weights(1));
    assert_eq!(requests(&hub), [""; 0]);
    daemon.stop();
}

#[test]
fn a_missing_file_is_known_to_be_missing_and_a_present_one_is_not() {
    let (place, hub) = (Place::new(), hub());
    let daemon = mount(&place, &hub, &[]);
    let none = view(&place).join("models--org--net/.no_exist").join(MAIN);
    assert_eq!(fs::metadata(none.join("adapter_config.json")).unwrap().len(), 0);
    assert!(fs::metadata(none.join("a/b/c/tokenizer.json")).unwrap().is_file());
    assert!(fs::metadata(none.join("onnx/other.onnx")).unwrap().is_file());
    assert!(fs::metadata(none.join("onnx")).unwrap().is_dir());
    assert!(is_missing(&none.join("config.json")));
    assert!(is_missing(&none.join("onnx/model.onnx")));
    assert!(is_missing(&none.with_file_name(MOVED.replace('2', "9")).join("x.json")));
    daemon.stop();
}

#[test]
fn what_the_manifest_leaves_out_is_not_called_missing() {
    let (place, hub) = (Place::new(), hub());
    // A commit that does not bind the file that it lists: that file is left out.
    hub.edit_tree(|entries| {
        for entry in entries {
            if entry["path"] == "onnx/model.onnx" {
                entry["size"] = 5.into();
            }
        }
    });
    let daemon = mount(&place, &hub, &[]);
    let repo = view(&place).join("models--org--net");
    assert_eq!(names(&repo.join("snapshots").join(MAIN)), ["config.json"]);
    assert!(is_missing(&repo.join(".no_exist").join(MAIN).join("onnx/model.onnx")));
    assert!(is_missing(&repo.join(".no_exist").join(MAIN).join("adapter_config.json")));
    daemon.stop();
}

#[test]
fn references_with_slashes_are_nested_and_listed_ones_lead_to_listed_commits() {
    let (place, hub) = (Place::new(), hub());
    let daemon = mount(&place, &hub, &[]);
    let repo = view(&place).join("models--org--net");
    assert_eq!(text(&repo.join("refs/main")), MAIN);
    assert_eq!(names(&repo.join("refs")), ["main"], "the other branch was not used");
    assert_eq!(text(&repo.join("refs/fix/it")), MOVED);
    assert_eq!(text(&repo.join("refs/refs/pr/1")), PULL);
    assert!(is_missing(&repo.join("refs/none")));
    let listed = || names(&repo.join("refs"));
    eventually("used references are listed", || listed() == ["fix", "main", "refs"]);
    assert_eq!(names(&repo.join("refs/fix")), ["it"]);
    assert_eq!(names(&repo.join("refs/refs/pr")), ["1"]);
    let commits = || names(&repo.join("snapshots"));
    eventually("their commits are listed", || commits() == [MAIN, MOVED, PULL]);
    daemon.stop();
}

#[test]
fn a_moved_branch_shows_and_the_commit_before_stays_readable() {
    let (place, hub) = (Place::new(), hub());
    let daemon = mount(&place, &hub, &["--catalog-ttl", "1s"]);
    let repo = view(&place).join("models--org--net");
    assert_eq!(text(&repo.join("refs/main")), MAIN);
    assert_eq!(text(&repo.join("snapshots").join(MAIN).join("config.json")), r#"{"a":1}"#);
    // A program that asked the Hub itself comes with a commit that no reference here leads to yet.
    let new = "4".repeat(40);
    hub.change("models/org/net", |repo| {
        let files = vec![file("config.json", br#"{"a":4}"#.to_vec(), false)];
        repo.commits.insert(new.clone(), files);
        repo.branches[0].1 = new.clone();
    });
    assert_eq!(text(&repo.join("snapshots").join(&new).join("config.json")), r#"{"a":4}"#);
    eventually("the reference moves", || text(&repo.join("refs/main")) == new);
    assert_eq!(text(&repo.join("snapshots").join(MAIN).join("config.json")), r#"{"a":1}"#);
    daemon.stop();
}

#[test]
fn what_was_used_is_there_offline_and_an_outage_is_no_missing_commit() {
    let (place, hub) = (Place::new(), hub());
    let repo = view(&place).join("models--org--net");
    let config = repo.join("snapshots").join(MAIN).join("config.json");
    let daemon = mount(&place, &hub, &[]);
    // By the reference alone: no path of the tree named the commit.
    assert_eq!(text(&repo.join("refs/main")), MAIN);
    assert_eq!(text(&config), r#"{"a":1}"#);
    daemon.stop();

    hub.down(true);
    let daemon = mount(&place, &hub, &["--read-deadline", "2s"]);
    assert_eq!(names(&view(&place)), ["models--org--net"]);
    assert_eq!(names(&repo.join("refs")), ["main"]);
    assert_eq!(text(&repo.join("refs/main")), MAIN);
    assert_eq!(text(&config), r#"{"a":1}"#);
    let error = fs::metadata(repo.join("snapshots").join(MOVED)).unwrap_err();
    assert_ne!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(is_missing(&repo.join("snapshots/main")));
    daemon.stop();
}

#[test]
fn writers_are_told_that_the_view_is_read_only() {
    let (place, hub) = (Place::new(), hub());
    let daemon = mount(&place, &hub, &[]);
    let repo = view(&place).join("models--org--net");
    let snapshot = repo.join("snapshots").join(MAIN);
    let errno = |result: std::io::Result<()>| result.unwrap_err().raw_os_error();
    let read_only = Some(Errno::ROFS.raw_os_error());
    assert_eq!(errno(fs::write(repo.join("refs/main"), "x")), read_only);
    assert_eq!(errno(fs::write(snapshot.join("new"), "x")), read_only);
    assert_eq!(errno(fs::create_dir(repo.join("blobs/tmp"))), read_only);
    assert_eq!(errno(fs::remove_file(snapshot.join("config.json"))), read_only);
    let lock = view(&place).join(".locks/models--org--net/x.lock");
    assert_eq!(errno(fs::write(lock, "")), read_only);
    daemon.stop();
}

#[test]
fn a_name_that_is_no_repository_asks_nobody() {
    let (place, hub) = (Place::new(), hub());
    let daemon = mount(&place, &hub, &[]);
    requests(&hub);
    for name in ["models--gpt2", "version.txt", "datasets--org--net", "models--.git--x", "tmp"] {
        assert!(is_missing(&view(&place).join(name)), "{name}");
    }
    assert_eq!(requests(&hub), [""; 0]);
    assert!(is_missing(&view(&place).join("models--org--none")));
    assert_eq!(requests(&hub).len(), 1);
    daemon.stop();
}

#[test]
fn a_takeover_keeps_what_is_open_and_what_is_listed() {
    let (place, hub) = (Place::new(), hub());
    let daemon = mount(&place, &hub, &[]);
    let repo = view(&place).join("models--org--net");
    assert_eq!(text(&repo.join("refs/main")), MAIN);
    let path = repo.join("snapshots").join(MAIN).join("config.json");
    let inode = fs::metadata(&path).unwrap().ino();
    let open = fs::File::open(&path).unwrap();
    let worker = daemon.worker();
    assert!(crate::harness::signal(worker, "KILL"));
    assert_eq!(std::io::read_to_string(open).unwrap(), r#"{"a":1}"#);
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
    assert_eq!(text(&repo.join("refs/main")), MAIN);
    assert_eq!(names(&repo.join("snapshots")), [MAIN]);
    assert_ne!(daemon.worker(), worker);
    daemon.stop();
}

#[test]
fn a_registry_without_commits_has_made_ones_and_main_is_its_latest_version() {
    let place = Place::new();
    let source = place.path("source");
    fs::create_dir(&source).unwrap();
    for version in ["1.0", "2.0"] {
        fs::write(source.join("config.json"), version).unwrap();
        place.publish(&source, "acme/net", version, &[]);
    }
    let daemon = place.mount_folder(&[]);
    assert_eq!(names(&view(&place)), [""; 0], "nothing was used yet");
    let repo = view(&place).join("models--acme--net");
    let one = text(&repo.join("refs/1.0"));
    assert!(one.len() == 40 && one.bytes().all(|b| b.is_ascii_hexdigit()), "{one}");
    assert_eq!(text(&repo.join("snapshots").join(&one).join("config.json")), "1.0");
    let default = text(&repo.join("refs/main"));
    assert_ne!(default, one);
    assert_eq!(text(&repo.join("snapshots").join(&default).join("config.json")), "2.0");
    let in_tree = fs::metadata(place.mountpoint().join("acme/net/1.0/config.json")).unwrap();
    let in_view = fs::metadata(repo.join("snapshots").join(&one).join("config.json")).unwrap();
    assert_eq!(in_tree.ino(), in_view.ino());
    eventually("it is listed", || names(&view(&place)) == ["models--acme--net"]);
    assert!(is_missing(&repo.join("snapshots").join("f".repeat(40))));
    daemon.stop();
}
