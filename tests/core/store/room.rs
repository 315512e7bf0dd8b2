//! What has room when there is little: names beside pins, and what is said when there is none.

use std::time::SystemTime;

use super::*;
use modelfs::store::{MemoryDisk, NodeKey, Pin, SavedCatalog};

fn pin() -> Pin {
    Pin {
        source: source("s"),
        version: "g/m@v".parse().unwrap(),
        hash: Digest::from_bytes([1; 32]),
        owner: "me".into(),
        since: SystemTime::UNIX_EPOCH,
    }
}

/// Pins files of 1 MiB and fills them until no more fits.
fn fill_with_pins(store: &Store) -> u32 {
    let files: Vec<BlobLayout> = (0..64).map(|n| layout(n, 1 << 20, 64 << 10)).collect();
    store.pin(&pin(), &files.iter().map(BlobLayout::key).collect::<Vec<_>>()).unwrap();
    for (n, file) in (0..).zip(&files) {
        let blob = store.blob(file.clone()).unwrap();
        for part in 0..16 {
            match put(store, &blob, n, parts(part, part + 1)) {
                Ok(_) => {}
                Err(StoreError::NoSpace { .. }) => return n,
                Err(e) => panic!("{e}"),
            }
        }
    }
    panic!("all of it fits");
}

fn hash_of(n: u32) -> Digest {
    let mut bytes = [3; 32];
    bytes[..4].copy_from_slice(&n.to_le_bytes());
    Digest::from_bytes(bytes)
}

/// Looks up so many names, and keeps a document and a catalog.
fn remember(store: &Store, from: u32, count: u32) -> Result<(), StoreError> {
    for n in from..from + count {
        let key = NodeKey::Version {
            group: "group".into(),
            model: "model".into(),
            version: format!("v{n}").into(),
            hash: hash_of(n),
        };
        store.nodes(&source("s"), &[key])?;
    }
    let document = vec![from as u8; 50_000];
    store.save_manifest(&modelfs::model::hash::sha256(&document), &document)?;
    let checked = SystemTime::UNIX_EPOCH;
    let catalog = SavedCatalog { body: document, etag: None, last_modified: None, checked };
    store.save_catalog(&source("s"), &catalog)
}

#[test]
fn names_have_room_that_pins_cannot_take() {
    let dir = tempfile::tempdir().unwrap();
    let limit = ByteSize::mib(12);
    let store = Store::open(options(dir.path(), limit)).unwrap();
    assert!(fill_with_pins(&store) > 6, "most of it is for data");
    store.commit().unwrap();
    for n in 0..4 {
        remember(&store, n * 5, 5).unwrap();
        assert!(store.usage().used <= limit && du(dir.path()) <= limit.0, "{:?}", store.usage());
    }
    drop(store);
    let store = Store::open(options(dir.path(), limit)).unwrap();
    remember(&store, 100, 5).unwrap();
    assert!(store.usage().used <= limit && du(dir.path()) <= limit.0, "{:?}", store.usage());
}

#[test]
fn names_have_room_under_a_limit_that_was_lowered_below_the_pins() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(dir.path(), ByteSize::mib(32))).unwrap();
    fill_with_pins(&store);
    drop(store);
    let store = Store::open(options(dir.path(), ByteSize::mib(8))).unwrap();
    let used = store.usage().used;
    assert!(used > store.usage().limit);
    remember(&store, 0, 5).unwrap();
    assert_eq!(store.usage().used, used, "they were counted already");
    assert!(check(&store.blob(layout(0, 1 << 20, 64 << 10)).unwrap(), 0, parts(0, 16)));
}

#[test]
fn the_room_for_names_lies_on_the_disk_and_goes_as_they_come() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(dir.path(), ByteSize::mib(64))).unwrap();
    let headroom = || std::fs::metadata(dir.path().join("headroom")).map_or(0, |m| m.len());
    assert_eq!(headroom(), 4 << 20, "a sixteenth");
    remember(&store, 0, 20).unwrap();
    assert!(headroom() < 4 << 20, "{}", headroom());
    store.commit().unwrap();
    assert!(headroom() < 4 << 20, "what they took is not kept twice: {}", headroom());
}

#[test]
fn a_version_that_does_not_fit_is_refused_with_the_reason_and_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let limit = ByteSize::mib(16);
    let store = Store::open(options(dir.path(), limit)).unwrap();
    let error = store.reserve(15 << 20).unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("too small") && text.contains("15.0 MiB") && text.contains("16.0 MiB"));
    assert!(error.next_step().is_some_and(|step| step.contains("--cache-size")));
    fill_with_pins(&store);
    let pinned = store.usage().pinned;
    let error = store.reserve(1 << 20).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, StoreError::NoSpace { .. }), "{error:?}");
    assert!(text.contains("1.0 MiB needed") && text.contains(&format!("{pinned} are pinned")));
    assert!(error.next_step().is_some_and(|step| step.contains("unpin")));
    // the limit allows a petabyte, the disk has less
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(MemoryDisk::new());
    let store = open_on(dir.path(), ByteSize::gib(1 << 20), disk);
    let error = store.reserve(2 << 40).unwrap_err();
    assert!(matches!(error, StoreError::DiskFull { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("2.0 TiB needed") && text.contains("1.0 TiB are free"), "{text}");
    assert!(error.next_step().is_some_and(|step| step.contains("free space")));
    assert_eq!(store.usage().reserved, ByteSize(0), "nothing is kept of what failed");
}
