//! Caches that earlier programs left are taken over: `tests/e2e/upgrade/README.md` says what is in them.
//!
//! Each test has a copy of its own.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use modelfs::model::{Digest, Name, SourceName, VersionRef};
use modelfs::store::{NodeKey, Store, StoreOptions};
use modelfs_test_support::Server;
use serde_json::Value;

use crate::harness::{Daemon, Place};

/// Lays out an archive in a place of the test's own; what it says of itself.
fn unpack(place: &Place, archive: &str) -> Value {
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("upgrade").join(archive);
    let mut tar = place.program("tar");
    tar.args(["--extract", "--gzip", "--sparse", "--preserve-permissions", "--no-same-owner"]);
    let status = tar.arg("--file").arg(archive).status().expect("tar starts");
    assert!(status.success());
    let expected = fs::read(place.path("expected.json")).expect("it is in the archive");
    serde_json::from_slice(&expected).expect("JSON")
}

/// Mounts the registry that the cache knows; what leads to it is `server`.
fn mount<'a>(place: &'a Place, server: &Server) -> Daemon<'a> {
    let mut command = place.modelfs(["mount"]);
    command.arg(place.mountpoint());
    command.args(["--registry", "http://models.test", "--read-deadline", "5s"]);
    command.env("http_proxy", server.url()).env_remove("no_proxy").env_remove("NO_PROXY");
    Daemon::start(place, command)
}

/// `[start, end]` of what is cached of each file.
fn cached(expected: &Value) -> BTreeMap<&str, Vec<(usize, usize)>> {
    let number = |n: &Value| n.as_u64().expect("a number") as usize;
    let pair = |range: &Value| (number(&range[0]), number(&range[1]));
    let ranges = |all: &Value| all.as_array().expect("ranges").iter().map(pair).collect();
    let files = expected["cached"].as_object().expect("files");
    files.iter().map(|(path, all)| (path.as_str(), ranges(all))).collect()
}

/// The file as it was published; the mount has it below its group.
fn plain(place: &Place, path: &str) -> Vec<u8> {
    let path = path.strip_prefix("org/").expect("the only group");
    fs::read(place.path("plain").join(path)).expect("it is in the archive")
}

fn assert_same_inodes(daemon: &Daemon<'_>, expected: &Value) {
    for (path, inode) in expected["inodes"].as_object().expect("paths") {
        let found = fs::metadata(daemon.path(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
        assert_eq!(Some(found.ino()), inode.as_u64(), "{path}");
    }
}

fn assert_same_pins(place: &Place, expected: &Value) {
    let mut found = Vec::new();
    for version in ["net@v1", "net@v2", "small@v1"] {
        let info = place.run(["info", &format!("org/{version}"), "--json"]).json();
        for pin in info["pins"].as_array().expect("pins") {
            found.push(serde_json::json!([
                pin["group"],
                pin["model"],
                pin["version"],
                pin["owner"]
            ]));
        }
    }
    assert_eq!(Value::from(found), expected["pins"]);
}

/// Reads what is cached and nothing else: the kernel reads ahead of nobody who says "random".
fn assert_cached_bytes(place: &Place, daemon: &Daemon<'_>, expected: &Value) {
    for (path, ranges) in cached(expected) {
        let want = plain(place, path);
        let file = File::open(daemon.path(path)).expect("opens");
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random).expect("fadvise");
        for (start, mut end) in ranges {
            // The kernel asks for whole pages, and a part may end within one.
            if end < want.len() {
                end -= end % 4096;
            }
            let mut got = vec![0; end - start];
            file.read_exact_at(&mut got, start as u64).unwrap_or_else(|e| panic!("{path}: {e}"));
            assert!(got == want[start..end], "{path}: wrong bytes in {start}..{end}");
        }
    }
}

#[test]
fn a_cache_of_an_earlier_program_is_taken_over_and_nothing_is_fetched_twice() {
    taken_over("schema-2.tar.gz");
}

#[test]
fn a_cache_of_the_program_before_sources_had_names_is_taken_over_and_nothing_is_fetched_twice() {
    taken_over("schema-4.tar.gz");
}

/// Everything of the cache of an earlier program is used as it is.
fn taken_over(archive: &str) {
    let place = Place::new();
    let expected = unpack(&place, archive);
    let server = Server::start(&place.registry());

    server.go_away();
    let daemon = mount(&place, &server);
    // First of all: what is read below is a load of its own, and it reads more.
    let trace = place.ok(["trace", "export", "org/net@v1"]);
    assert_eq!(serde_json::from_str::<Value>(&trace).expect("JSON"), expected["trace"]);
    assert_cached_bytes(&place, &daemon, &expected);
    assert_same_inodes(&daemon, &expected);
    assert_same_pins(&place, &expected);
    assert_eq!(daemon.status()["traffic"]["bytes"], 0, "nothing was fetched");
    daemon.stop();

    server.come_back();
    server.reset();
    let daemon = mount(&place, &server);
    let mut missing = BTreeMap::new();
    for path in expected["inodes"].as_object().expect("paths").keys() {
        if !daemon.path(path).is_file() {
            continue;
        }
        let want = plain(&place, path);
        assert!(fs::read(daemon.path(path)).expect("reads") == want, "{path}");
        let had: usize =
            cached(&expected).get(path.as_str()).into_iter().flatten().map(|(a, b)| b - a).sum();
        // Files with the same content are one blob.
        missing.insert(want.clone(), want.len() - had);
    }
    let missing: usize = missing.into_values().sum();
    assert_eq!(daemon.status()["traffic"]["bytes"], missing);
    // The server counts the same. Chunks are far larger than leaf lists and manifests.
    let requests = server.requests();
    let of_chunk = |path: &str| {
        let file = place.registry().join(path.trim_start_matches('/'));
        path.starts_with("/data/") && fs::metadata(file).is_ok_and(|m| m.len() > 16 << 10)
    };
    let sent = requests.iter().filter(|r| of_chunk(&r.path)).map(|r| r.sent).sum::<u64>();
    assert_eq!(sent, missing as u64, "{requests:#?}");
    assert_same_inodes(&daemon, &expected);
    daemon.stop();
    assert!(place.ok(["verify"]).contains("no damage found"));
}

#[test]
fn a_source_of_an_earlier_cache_that_gets_a_name_keeps_its_pins_and_inode_numbers() {
    let place = Place::new();
    let expected = unpack(&place, "schema-4.tar.gz");
    let url = "http://models.test";
    let hub = SourceName::configured("hub").expect("a name");
    let store = Store::open(StoreOptions::at(place.path("cache"))).expect("opens");
    let unnamed = SourceName::of_address(url);
    assert_eq!(store.sources().expect("reads"), std::slice::from_ref(&unnamed));
    let versions = store.known_versions(&unnamed).expect("reads");
    let keys: Vec<NodeKey> =
        versions.iter().map(|(version, hash)| node_key(version, *hash)).collect();
    let numbers = store.nodes(&unnamed, &keys).expect("reads");
    assert_eq!(versions.len(), 3);

    store.uses(&hub, url, "xprim").expect("renames");
    assert_eq!(store.sources().expect("reads"), std::slice::from_ref(&hub));
    assert_eq!(store.known_versions(&hub).expect("reads"), versions);
    assert_eq!(store.nodes(&hub, &keys).expect("reads"), numbers);
    let pins = store.pins().expect("reads");
    assert!(pins.iter().all(|pin| pin.source == hub));
    let mut pins: Vec<Value> = pins
        .iter()
        .map(|pin| {
            let VersionRef { model, version } = &pin.version;
            let names = [model.group.as_str(), model.model.as_str(), version.as_str(), &pin.owner];
            serde_json::json!(names)
        })
        .collect();
    pins.sort_by_key(ToString::to_string);
    assert_eq!(Value::from(pins), expected["pins"]);
}

fn node_key(version: &VersionRef, hash: Digest) -> NodeKey {
    let VersionRef { model, version } = version;
    let text = |name: &Name| name.as_str().into();
    NodeKey::Version {
        group: text(&model.group),
        model: text(&model.model),
        version: text(version),
        hash,
    }
}
