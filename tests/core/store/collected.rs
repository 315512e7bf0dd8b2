//! Names and documents that nothing needs any more are forgotten, and nothing else is.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use super::*;
use modelfs::base::Clock;
use modelfs::model::hash;
use modelfs::store::{Formats, NodeId, NodeKey, NodesInUse, Pin, RealDisk, SavedCatalog};

/// Time that goes on when it is told to.
#[derive(Debug, Default)]
struct Told(AtomicU64);

impl Clock for Told {
    fn now(&self) -> Instant {
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        *START.get_or_init(Instant::now) + Duration::from_secs(self.0.load(Ordering::SeqCst))
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + self.0.load(Ordering::SeqCst))
    }
}

fn version(name: &str, hash: Digest) -> NodeKey {
    NodeKey::Version { group: "g".into(), model: "m".into(), version: name.into(), hash }
}

/// A catalog of these tests: a line for each version of the one model, name and hash.
fn listed(body: &[u8], tell: &mut dyn FnMut(NodeKey)) -> bool {
    let Ok(text) = std::str::from_utf8(body) else { return false };
    tell(NodeKey::Group { group: "g".into() });
    tell(NodeKey::Model { group: "g".into(), model: "m".into() });
    for (name, hash) in text.lines().filter_map(|line| line.split_once(' ')) {
        tell(version(name, hash.parse().expect("a digest")));
    }
    true
}

/// A manifest of these tests: the key of its one blob, and then anything.
fn blobs(_: &Digest, body: &[u8]) -> Option<Vec<ContentKey>> {
    let key = std::str::from_utf8(body.get(..64)?).ok()?;
    Some(vec![ContentKey::new(key.parse().ok()?)])
}

const FORMATS: Formats = Formats { listed, blobs };

fn catalog(versions: &[(String, Digest)]) -> SavedCatalog {
    let lines = versions.iter().map(|(name, hash)| format!("{name} {hash}\n"));
    let body = lines.collect::<String>().into_bytes();
    SavedCatalog { body, etag: None, last_modified: None, checked: SystemTime::UNIX_EPOCH }
}

fn listing(round: u32, count: u32) -> Vec<(String, Digest)> {
    let hash = |n| hash::sha256(format!("{round} {n}").as_bytes());
    (0..count).map(|n| (format!("version-{n}"), hash(n))).collect()
}

fn eventually(what: &str, holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(60), "never happened: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn changed_listings_push_no_data_out_and_no_number_is_used_again() {
    const LIMIT: ByteSize = ByteSize::mib(100);
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(dir.path(), LIMIT)).unwrap();
    store.reads(&source("s"), FORMATS);
    let files: Vec<BlobLayout> = (0..40).map(|n| layout(n, 1 << 20, 64 << 10)).collect();
    for (n, file) in (0..).zip(&files) {
        put(&store, &store.blob(file.clone()).unwrap(), n, file.all_parts()).unwrap();
    }
    store.commit().unwrap();
    let mut seen: HashSet<NodeId> = HashSet::new();
    let mut first = None;
    for round in 0..15 {
        let versions = listing(round, 20_000);
        store.save_catalog(&source("s"), &catalog(&versions)).unwrap();
        let keys: Vec<NodeKey> = versions.iter().map(|(name, hash)| version(name, *hash)).collect();
        let ids = store.nodes(&source("s"), &keys).unwrap();
        assert!(ids.iter().all(|id| seen.insert(*id)), "a number was used again");
        assert_eq!(
            store.nodes(&source("s"), &keys).unwrap(),
            ids,
            "what is listed keeps its number"
        );
        first.get_or_insert(ids[0]);
        assert!(store.usage().used <= LIMIT && du(dir.path()) <= LIMIT.0, "{:?}", store.usage());
    }
    let first = first.expect("there were rounds");
    eventually("the first listing is forgotten", || store.node(first).unwrap().is_none());
    for file in &files {
        assert!(store.presence(&file.key()).1, "data was pushed out by names");
    }
    store.commit().unwrap();
    let index = || std::fs::metadata(dir.path().join("index.db")).unwrap().len();
    eventually("the space goes back to the disk", || index() < 24 << 20);
    let last = listing(14, 20_000);
    let keys: Vec<NodeKey> = last.iter().map(|(name, hash)| version(name, *hash)).collect();
    let ids = store.nodes(&source("s"), &keys).unwrap();
    drop(store);
    let store = Store::open(options(dir.path(), LIMIT)).unwrap();
    assert_eq!(store.nodes(&source("s"), &keys).unwrap(), ids, "from process to process");
}

#[derive(Default)]
struct Holding(Mutex<HashSet<NodeId>>);

impl NodesInUse for Holding {
    fn holds(&self, node: NodeId) -> bool {
        self.0.lock().unwrap().contains(&node)
    }
}

/// Keeps a manifest of a version, which is not listed: its node, and its document's SHA-256.
fn keep(store: &Store, name: &str, file: &BlobLayout) -> (NodeId, Digest) {
    let body = format!("{}{name}{}", file.key(), "x".repeat(100_000)).into_bytes();
    let hash = hash::sha256(&body);
    let id = store.nodes(&source("s"), &[version(name, hash)]).unwrap()[0];
    store.save_manifest(&hash, &body).unwrap();
    (id, hash)
}

#[test]
fn listed_pinned_cached_open_and_recently_used_documents_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(Told::default());
    let disk = Arc::new(RealDisk::new(dir.path()));
    let limit = ByteSize::mib(32);
    let store = Store::open_with(options(dir.path(), limit), disk, clock.clone()).unwrap();
    store.reads(&source("s"), FORMATS);
    let holding = Arc::new(Holding::default());
    let in_use: Arc<dyn NodesInUse> = holding.clone();
    store.asks(Arc::downgrade(&in_use));
    let file = |n| layout(n, 64 << 10, 64 << 10);
    let names = ["listed", "pinned", "cached", "known", "used"];
    let kept: Vec<(NodeId, Digest)> =
        (0..).zip(names).map(|(n, name)| keep(&store, name, &file(n))).collect();
    store.save_catalog(&source("s"), &catalog(&[(names[0].to_owned(), kept[0].1)])).unwrap();
    let pin = Pin {
        source: source("s"),
        version: "g/m@pinned".parse().unwrap(),
        hash: kept[1].1,
        owner: "me".into(),
        since: SystemTime::UNIX_EPOCH,
    };
    store.pin(&pin, &[]).unwrap();
    put(&store, &store.blob(file(2)).unwrap(), 2, parts(0, 1)).unwrap();
    holding.0.lock().unwrap().insert(kept[3].0);
    store.save_trace(&kept[1].1, b"a trace").unwrap();
    let (old, old_hash) = keep(&store, "old", &file(100));
    store.save_trace(&old_hash, b"a trace").unwrap();
    clock.0.fetch_add(3600, Ordering::SeqCst);
    assert!(store.saved_manifest(&kept[4].1).unwrap().is_some());
    for n in 0..30 {
        keep(&store, &format!("many-{n}"), &file(200 + n));
    }
    eventually("the oldest is forgotten", || store.node(old).unwrap().is_none());
    assert!(store.saved_manifest(&old_hash).unwrap().is_none());
    assert!(store.trace(&old_hash).unwrap().is_none());
    for ((id, hash), name) in kept.iter().zip(names) {
        assert_eq!(store.node(*id).unwrap(), Some((source("s"), version(name, *hash))), "{name}");
        assert!(store.saved_manifest(hash).unwrap().is_some(), "{name}");
    }
    assert!(store.trace(&kept[1].1).unwrap().is_some());
    let again = store.nodes(&source("s"), &[version("old", old_hash)]).unwrap()[0];
    assert!(again > old, "another number");
}
