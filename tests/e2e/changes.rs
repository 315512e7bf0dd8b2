//! A version that changes in the registry: the open file keeps its content, the next open has the new.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use modelfs_test_support::bytes;

use crate::harness::{Place, eventually};

#[test]
fn open_files_keep_the_old_content_and_new_opens_see_the_new() {
    let place = Place::new();
    let (old, new) = (bytes(1, 5 << 20), bytes(2, 6 << 20));
    let plain = place.path("plain");
    fs::create_dir(&plain).expect("a folder");
    fs::write(plain.join("w.bin"), &old).expect("a file");
    place.publish(&plain, "org/net", "v1", &[]);
    let daemon = place.mount_folder(&["--catalog-ttl", "200ms"]);
    let path = daemon.path("org/net/v1/w.bin");
    let mut head = vec![0; 4096];
    let open = File::open(&path).expect("opens");
    open.read_exact_at(&mut head, 0).expect("reads");

    fs::write(plain.join("w.bin"), &new).expect("a file");
    fs::write(plain.join("added"), b"added").expect("a file");
    place.publish(&plain, "org/net", "v1", &["--replace"]);
    eventually("the new content by path", || fs::read(&path).is_ok_and(|b| b == new));
    assert_eq!(fs::read(daemon.path("org/net/v1/added")).expect("a new file"), b"added");

    let mut all = vec![0; old.len()];
    open.read_exact_at(&mut all, 0).expect("the old content to the end");
    assert!(all == old);
    daemon.stop();
}

#[test]
fn versions_appear_and_vanish_without_a_remount() {
    let place = Place::new();
    let plain = place.path("plain");
    fs::create_dir(&plain).expect("a folder");
    fs::write(plain.join("w.bin"), b"1").expect("a file");
    place.publish(&plain, "org/net", "v1", &[]);
    let daemon = place.mount_folder(&["--catalog-ttl", "200ms"]);
    let listed = |path: &str| -> Vec<String> {
        let Ok(entries) = fs::read_dir(daemon.path(path)) else { return Vec::new() };
        entries.map(|e| e.expect("an entry").file_name().into_string().expect("UTF-8")).collect()
    };
    assert_eq!(listed("org/net"), ["v1"]);
    assert!(!daemon.path("org/net/v2").exists());
    assert!(!daemon.path("other").exists());
    place.publish(&plain, "org/net", "v2", &[]);
    place.publish(&plain, "other/thing", "v1", &[]);
    eventually("v2", || daemon.path("org/net/v2/w.bin").exists());
    eventually("the other group", || listed("") == ["org", "other"]);
    // The kernel is told of one folder after the other.
    eventually("the list", || listed("org/net") == ["v1", "v2"]);

    let catalog = place.registry().join("models.json");
    let mut json: serde_json::Value =
        serde_json::from_slice(&fs::read(&catalog).expect("it is there")).expect("JSON");
    json["org"]["net"].as_object_mut().expect("a model").remove("v1");
    fs::write(place.registry().join("next"), json.to_string()).expect("a file");
    fs::rename(place.registry().join("next"), &catalog).expect("renamed");
    eventually("v1 is gone", || !daemon.path("org/net/v1").exists());
    assert_eq!(listed("org/net"), ["v2"]);
    daemon.stop();
}
