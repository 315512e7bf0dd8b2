//! What is remembered of a source is kept by its name, wherever the source is.

use std::time::SystemTime;

use super::*;
use modelfs::store::{NodeId, NodeKey, Pin, SavedCatalog};

const URL: &str = "https://models.example.org/all";

fn hub() -> SourceName {
    SourceName::configured("hub").unwrap()
}

fn key(version: &str) -> NodeKey {
    let hash = Digest::from_bytes([7; 32]);
    NodeKey::Version { group: "g".into(), model: "m".into(), version: version.into(), hash }
}

fn pin_of(source: SourceName) -> Pin {
    Pin {
        source,
        version: "g/m@v".parse().unwrap(),
        hash: Digest::from_bytes([7; 32]),
        owner: "me".into(),
        since: SystemTime::UNIX_EPOCH + Duration::from_secs(5),
    }
}

fn catalog() -> SavedCatalog {
    let checked = SystemTime::UNIX_EPOCH + Duration::from_secs(7);
    SavedCatalog { body: b"listing".to_vec(), etag: None, last_modified: None, checked }
}

fn open(dir: &Path) -> Store {
    Store::open(StoreOptions::at(dir)).unwrap()
}

/// What is known of `source` is a pin of a blob, a catalog, and a node with this number.
fn assert_known(store: &Store, source: &SourceName, layout: &BlobLayout, id: NodeId) {
    assert_eq!(store.sources().unwrap(), std::slice::from_ref(source));
    assert_eq!(store.pins().unwrap(), [pin_of(source.clone())]);
    assert!(store.is_pinned(&layout.key()));
    assert_eq!(store.saved_catalog(source).unwrap().unwrap().body, b"listing");
    assert_eq!(store.node(id).unwrap(), Some((source.clone(), key("v"))));
    assert_eq!(store.nodes(source, &[key("v")]).unwrap(), [id]);
}

#[test]
fn a_source_that_gets_a_name_or_another_url_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (unnamed, layout) = (source(URL), layout(1, 100_000, 10_000));
    let id = {
        let store = open(dir.path());
        store.uses(&unnamed, URL, "xprim").unwrap();
        store.save_catalog(&unnamed, &catalog()).unwrap();
        store.pin(&pin_of(unnamed.clone()), &[layout.key()]).unwrap();
        store.nodes(&unnamed, &[key("v")]).unwrap()[0]
    };
    {
        let store = open(dir.path());
        assert_known(&store, &unnamed, &layout, id);
        let seen = store.collections();
        store.uses(&hub(), URL, "xprim").unwrap();
        assert_known(&store, &hub(), &layout, id);
        assert!(store.collections() > seen, "numbers that are remembered are looked up again");
    }
    let store = open(dir.path());
    store.uses(&hub(), "https://elsewhere.example.org", "xprim").unwrap();
    assert_known(&store, &hub(), &layout, id);
    // the old address is another source now
    let other = store.nodes(&unnamed, &[key("v")]).unwrap();
    store.uses(&hub(), "https://elsewhere.example.org", "xprim").unwrap();
    assert_eq!(store.nodes(&unnamed, &[key("v")]).unwrap(), other);
}
