//! One promise a test, on a real disk.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::*;
use modelfs::model::hash;
use modelfs::store::{Faults, FaultyDisk, MemoryDisk, NodeKey, Pin, SavedCatalog};

const LIMIT: ByteSize = ByteSize::mib(64);
const LEAF: u64 = 64 << 10;

fn pin_of(owner: &str, version: &str) -> Pin {
    Pin {
        source: source("s"),
        version: format!("g/m@{version}").parse().unwrap(),
        hash: hash::sha256(version.as_bytes()),
        owner: owner.into(),
        since: SystemTime::UNIX_EPOCH + Duration::from_secs(5),
    }
}

#[test]
fn written_parts_are_readable_at_once_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let l = layout(1, 10 * LEAF + 77, LEAF);
    {
        let store = Store::open(options(dir.path(), LIMIT)).unwrap();
        let blob = store.blob(l.clone()).unwrap();
        assert!(!check(&blob, 1, parts(0, 1)));
        assert_eq!(put(&store, &blob, 1, parts(2, 5)).unwrap(), Written::Stored);
        assert_eq!(put(&store, &blob, 1, parts(3, 4)).unwrap(), Written::Present);
        assert_eq!(put(&store, &blob, 1, parts(10, 11)).unwrap(), Written::Stored);
        assert!(check(&blob, 1, parts(2, 5)) && !check(&blob, 1, parts(1, 3)));
        assert_eq!(blob.missing(l.all_parts()), [parts(0, 2), parts(5, 10)]);
        assert_eq!(store.usage().reserved, ByteSize(0));
    }
    let store = Store::open(options(dir.path(), LIMIT)).unwrap();
    assert_eq!(store.presence(&l.key()), (ByteSize(3 * LEAF + 77), false));
    let blob = store.blob(l.clone()).unwrap();
    assert!(check(&blob, 1, parts(2, 5)) && check(&blob, 1, parts(10, 11)));
    put(&store, &blob, 1, l.all_parts()).unwrap();
    assert!(blob.is_complete() && check(&blob, 1, l.all_parts()));
    let mode = |p: &Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&blob_path(dir.path(), &l.key())), 0o400);
    assert_eq!(mode(dir.path()), 0o700);
    let (file, hold) = blob.complete_file().unwrap().unwrap();
    assert_eq!(file.metadata().unwrap().len(), l.len());
    assert_eq!(store.evict(&[l.key()], false).unwrap().kept_busy.0, blob.cost(l.all_parts()));
    drop(hold);
    // the kernel may have the descriptor still
    assert!(store.evict(&[l.key()], false).unwrap().kept_busy.0 > 0);
    assert!(check(&blob, 1, l.all_parts()));
    drop(file);
    assert!(store.evict(&[l.key()], false).unwrap().freed.0 >= l.len());
    assert!(!blob_path(dir.path(), &l.key()).exists());
    assert!(blob.complete_file().unwrap().is_none());
    put(&store, &blob, 1, parts(0, 1)).unwrap();
    assert!(check(&blob, 1, parts(0, 1)));
}

#[test]
fn a_part_must_be_written_whole_and_reads_stay_in_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(dir.path(), LIMIT)).unwrap();
    let blob = store.blob(layout(1, 10 * LEAF, LEAF)).unwrap();
    let mut space = store.reserve(LEAF * 4).unwrap();
    assert!(blob.write(PartIx(0), &[1; 100], &[], &mut space).is_err());
    assert!(blob.write(PartIx(10), &[1; 100], &[], &mut space).is_err());
    assert!(blob.write(PartIx(0), &[], &[], &mut space).is_err());
    assert!(blob.read(10 * LEAF - 1, &mut [0; 2]).is_err());
    assert_eq!(blob.read(10 * LEAF, &mut []).unwrap(), ReadState::Hit);
}

#[test]
fn a_blob_is_one_value_however_often_it_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(dir.path(), LIMIT)).unwrap();
    let a = store.blob(layout(1, LEAF, LEAF)).unwrap();
    assert!(Arc::ptr_eq(&a, &store.blob(layout(1, LEAF, LEAF)).unwrap()));
    assert!(store.blobs().is_empty());
}

#[test]
fn the_second_opener_is_told_the_first_ones_process() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(dir.path(), LIMIT)).unwrap();
    match Store::open(options(dir.path(), LIMIT)) {
        Err(StoreError::Locked { holder, .. }) => assert_eq!(holder.pid, std::process::id()),
        other => panic!("{other:?}"),
    }
    drop(store);
    Store::open(options(dir.path(), LIMIT)).unwrap();
}

#[test]
fn a_newer_index_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(Store::open(options(dir.path(), LIMIT)).unwrap());
    let db = rusqlite::Connection::open(dir.path().join("index.db")).unwrap();
    db.pragma_update(None, "user_version", 99).unwrap();
    drop(db);
    let before = std::fs::read(dir.path().join("index.db")).unwrap();
    match Store::open(options(dir.path(), LIMIT)) {
        Err(error @ StoreError::Newer { found: 99, known, .. }) => {
            let text = error.to_string();
            let numbers = format!("has version 99, this modelfs knows up to {known}");
            assert!(text.contains(&numbers) && text.contains("index.db"), "{text}");
        }
        other => panic!("{other:?}"),
    }
    assert!(before == std::fs::read(dir.path().join("index.db")).unwrap());
}

#[test]
fn a_damaged_index_costs_nothing_that_is_whole() {
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage); 4] = [
        ("garbage", |b| b.fill(0xa5)),
        ("cut", |b| b.truncate(b.len() / 2 + 100)),
        ("empty pages", |b| b[4096..].fill(0)),
        ("one zeroed page", |b| b[2 * 4096..3 * 4096].fill(0)),
    ];
    for (what, damage) in damages {
        for clean in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let (a, b) = (layout(1, 9 * LEAF + 5, LEAF), layout(2, 3 * LEAF, LEAF));
            {
                let store = Store::open(options(dir.path(), LIMIT)).unwrap();
                let blob = store.blob(a.clone()).unwrap();
                put(&store, &blob, 1, parts(1, 4)).unwrap();
                put(&store, &blob, 1, parts(9, 10)).unwrap();
                put(&store, &store.blob(b.clone()).unwrap(), 2, b.all_parts()).unwrap();
                store.pin(&pin_of("me", "v1"), &[b.key()]).unwrap();
            }
            let path = dir.path().join("index.db");
            if !clean {
                let db = rusqlite::Connection::open(&path).unwrap();
                db.execute("UPDATE meta SET value = 0 WHERE key = 'clean'", []).unwrap();
            }
            let mut bytes = std::fs::read(&path).unwrap();
            damage(&mut bytes);
            std::fs::write(&path, bytes).unwrap();
            let store = Store::open(options(dir.path(), LIMIT)).unwrap();
            let blob = store.blob(a.clone()).unwrap();
            assert_eq!(
                blob.missing(a.all_parts()),
                [parts(0, 1), parts(4, 9)],
                "{what}, clean {clean}"
            );
            assert!(check(&blob, 1, parts(1, 4)) && check(&blob, 1, parts(9, 10)));
            assert!(store.presence(&b.key()).1, "{what}");
            assert!(du(dir.path()) <= store.usage().used.0);
        }
    }
}

#[test]
fn a_flipped_bit_in_the_index_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let l = layout(1, 9 * LEAF, LEAF);
    {
        let store = Store::open(options(dir.path(), LIMIT)).unwrap();
        put(&store, &store.blob(l.clone()).unwrap(), 1, parts(0, 1)).unwrap();
    }
    let db = rusqlite::Connection::open(dir.path().join("index.db")).unwrap();
    assert_eq!(db.execute("UPDATE segments SET parts = x'0f'", []).unwrap(), 1);
    drop(db);
    let store = Store::open(options(dir.path(), LIMIT)).unwrap();
    let blob = store.blob(l.clone()).unwrap();
    assert_eq!(blob.missing(l.all_parts()), [parts(1, 9)]);
    assert!(check(&blob, 1, parts(0, 1)));
}

#[test]
fn blobs_changed_by_another_program_are_misses_and_can_be_written_again() {
    type Damage = fn(&Path);
    let remove: Damage = |p| std::fs::remove_file(p).unwrap();
    let cut: Damage = |p| {
        std::fs::set_permissions(p, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::OpenOptions::new().write(true).open(p).unwrap().set_len(LEAF).unwrap();
    };
    // an open file outlives its name, so removal shows after a restart only
    for (damage, reopen, read_first) in [
        (remove, true, true),
        (remove, true, false),
        (cut, true, true),
        (cut, false, true),
        (cut, false, false),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let l = layout(1, 9 * LEAF, LEAF);
        let mut store = Store::open(options(dir.path(), LIMIT)).unwrap();
        put(&store, &store.blob(l.clone()).unwrap(), 1, parts(0, 8)).unwrap();
        store.commit().unwrap();
        if reopen {
            drop(store);
            damage(&blob_path(dir.path(), &l.key()));
            store = Store::open(options(dir.path(), LIMIT)).unwrap();
        } else {
            damage(&blob_path(dir.path(), &l.key()));
        }
        let blob = store.blob(l.clone()).unwrap();
        if read_first {
            assert!(!check(&blob, 1, parts(5, 6)));
        }
        // the first write may be the one that notices
        let _ = put(&store, &blob, 1, parts(8, 9));
        for _ in 0..2 {
            let _ = put(&store, &blob, 1, l.all_parts());
        }
        assert!(check(&blob, 1, l.all_parts()));
        drop(blob);
        drop(store);
        let store = Store::open(options(dir.path(), LIMIT)).unwrap();
        assert!(check(&store.blob(l.clone()).unwrap(), 1, l.all_parts()));
        assert!(du(dir.path()) <= store.usage().used.0);
    }
}

#[test]
fn a_folder_deleted_underneath_is_an_error_not_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("cache");
    let store = Store::open(options(&root, LIMIT)).unwrap();
    let blob = store.blob(layout(1, 9 * LEAF, LEAF)).unwrap();
    put(&store, &blob, 1, parts(0, 2)).unwrap();
    store.commit().unwrap();
    std::fs::remove_dir_all(&root).unwrap();
    let _ = put(&store, &blob, 1, parts(2, 4));
    let _ = put(&store, &store.blob(layout(2, LEAF, LEAF)).unwrap(), 2, parts(0, 1));
    let _ = store.commit();
    let _ = store.evict(&store.blobs(), true);
    let _ = store.verify(&store.blobs(), &|_, _| true);
    let _ = check(&blob, 1, parts(0, 2));
}

#[test]
fn pins_have_owners_and_keep_what_they_pin() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (layout(1, LEAF, LEAF), layout(2, LEAF, LEAF));
    let version = pin_of("", "v1").version;
    {
        let store = Store::open(options(dir.path(), LIMIT)).unwrap();
        for (n, l) in [(1, &a), (2, &b)] {
            put(&store, &store.blob(l.clone()).unwrap(), n, l.all_parts()).unwrap();
        }
        store.pin(&pin_of("me", "v1"), &[a.key()]).unwrap();
        store.pin(&pin_of("me", "v1"), &[a.key()]).unwrap();
        store.pin(&pin_of("you", "v1"), &[a.key()]).unwrap();
        store.pin(&pin_of("you", "v2"), &[a.key(), b.key()]).unwrap();
    }
    let store = Store::open(options(dir.path(), LIMIT)).unwrap();
    assert_eq!(store.pins().unwrap().len(), 3);
    assert_eq!(store.pins().unwrap()[0], pin_of("me", "v1"));
    let done = store.evict(&[a.key(), b.key()], false).unwrap();
    assert_eq!((done.freed.0, done.kept_pinned.0), (0, 2 * LEAF));
    assert_eq!(store.unpin(&source("s"), &version, "me").unwrap(), (true, vec!["you".to_owned()]));
    assert_eq!(store.unpin(&source("s"), &version, "me").unwrap(), (false, vec!["you".to_owned()]));
    assert_eq!(store.unpin(&source("s"), &version, "you").unwrap(), (true, vec![]));
    assert!(store.is_pinned(&a.key()), "the other version shares the file");
    assert!(store.evict(&[b.key()], true).unwrap().freed.0 >= LEAF);
    assert!(store.is_pinned(&b.key()), "evicted by force, pinned still");
    store.unpin(&source("s"), &pin_of("", "v2").version, "you").unwrap();
    assert!(!store.is_pinned(&a.key()));
    assert!(store.evict(&[a.key()], false).unwrap().freed.0 >= LEAF);
}

#[test]
fn verify_drops_just_what_changed() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(dir.path(), LIMIT)).unwrap();
    let (a, b) = (layout(1, 9 * LEAF, LEAF), layout(2, 3 * LEAF, LEAF));
    let blob = store.blob(a.clone()).unwrap();
    put(&store, &blob, 1, a.all_parts()).unwrap();
    put(&store, &store.blob(b.clone()).unwrap(), 2, b.all_parts()).unwrap();
    let found = store.verify(&store.blobs(), &|_, _| true).unwrap();
    assert_eq!((found.checked.0, found.dropped.0), (12 * LEAF, 0));
    let path = blob_path(dir.path(), &a.key());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_at(&file, &[0], 4 * LEAF + 17).unwrap();
    let seen = std::cell::Cell::new((0, 0));
    let found = store
        .verify(&[a.key(), b.key()], &|done, all| {
            seen.set((done, all));
            true
        })
        .unwrap();
    assert_eq!((found.dropped.0, found.damaged), (LEAF, vec![a.key()]));
    assert_eq!(seen.get(), (12 * LEAF, 12 * LEAF));
    assert_eq!(blob.missing(a.all_parts()), [parts(4, 5)]);
    put(&store, &blob, 1, parts(4, 5)).unwrap();
    assert!(check(&blob, 1, a.all_parts()));
}

#[test]
fn bytes_of_an_object_are_found_in_other_blobs_and_shared() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(dir.path(), LIMIT)).unwrap();
    let from = layout(1, 9 * LEAF, LEAF);
    let object = from.pieces()[0].clone();
    // the same object, from its third leaf on
    let cut = ObjectRange::new(2 * LEAF, 9 * LEAF);
    let to = BlobLayout::new([(object.check, object.object, 9 * LEAF, cut)]).unwrap();
    put(&store, &store.blob(from.clone()).unwrap(), 1, parts(1, 6)).unwrap();
    for digest in [object.object, object.identity()] {
        let found = store.local_copies(&[digest], ObjectRange::new(3 * LEAF, 9 * LEAF)).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].object, ObjectRange::new(3 * LEAF, 6 * LEAF));
        let source = &found[0];
        let mut bytes = vec![0; (3 * LEAF) as usize];
        assert_eq!(source.blob.read(source.file.start(), &mut bytes).unwrap(), ReadState::Hit);
        store.commit().unwrap();
        assert!(store.evict(&[from.key()], false).unwrap().kept_busy.0 > 0, "held");
        let blob = store.blob(to.clone()).unwrap();
        let mut space = store.reserve(blob.cost(parts(1, 4))).unwrap();
        blob.write_shared(PartIx(1), &bytes, &[], (source, source.file.start()), &mut space)
            .unwrap();
        let mut back = vec![0; bytes.len()];
        assert_eq!(blob.read(LEAF, &mut back).unwrap(), ReadState::Hit);
        assert!(back == bytes && back == pattern(1, 3 * LEAF, 3 * LEAF));
        drop(found);
        assert!(store.evict(&[to.key()], false).unwrap().freed.0 > 0);
    }
    assert!(store.local_copies(&[hash::sha256(b"no")], ObjectRange::new(0, 9)).unwrap().is_empty());
}

#[test]
fn names_outlive_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let hash = hash::sha256(b"m");
    let (g, m, v): (Box<str>, Box<str>, Box<str>) = ("g".into(), "m".into(), "v".into());
    let keys = [
        NodeKey::Group { group: g.clone() },
        NodeKey::Model { group: g.clone(), model: m.clone() },
        NodeKey::Version { group: g, model: m, version: v, hash },
    ];
    let catalog = SavedCatalog {
        body: vec![5; 100_000],
        etag: Some("e".into()),
        last_modified: None,
        checked: SystemTime::UNIX_EPOCH,
    };
    let ids = {
        let store = Store::open(options(dir.path(), LIMIT)).unwrap();
        assert!(store.saved_catalog(&source("s")).unwrap().is_none());
        store.save_catalog(&source("s"), &catalog).unwrap();
        store.save_manifest(&hash, b"m").unwrap();
        store.save_manifest(&hash, b"m").unwrap();
        let ids = store.nodes(&source("s"), &keys).unwrap();
        assert_ne!(ids, store.nodes(&source("t"), &keys).unwrap());
        ids
    };
    let store = Store::open(options(dir.path(), LIMIT)).unwrap();
    assert_eq!(store.nodes(&source("s"), &keys).unwrap(), ids);
    for (id, key) in ids.iter().zip(&keys) {
        assert_eq!(store.node(*id).unwrap(), Some((source("s"), key.clone())));
    }
    assert_eq!(store.known_versions(&source("s")).unwrap(), [("g/m@v".parse().unwrap(), hash)]);
    assert_eq!(store.saved_manifest(&hash).unwrap().unwrap(), b"m");
    let later = SystemTime::UNIX_EPOCH + Duration::from_secs(9);
    store.catalog_checked(&source("s"), later).unwrap();
    let back = store.saved_catalog(&source("s")).unwrap().unwrap();
    assert_eq!((back.body, back.etag, back.checked), (catalog.body, catalog.etag, later));
    // saving the same again and again takes no more
    let used = store.usage().used;
    for _ in 0..20 {
        store
            .save_catalog(&source("s"), &store.saved_catalog(&source("s")).unwrap().unwrap())
            .unwrap();
    }
    assert!(store.usage().used.0 - used.0 < 1 << 20, "{} {}", used, store.usage().used);
}

#[test]
fn a_disk_that_is_full_evicts_and_tries_again_and_then_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (faults, memory) = (Faults::default(), MemoryDisk::new());
    let disk = Arc::new(FaultyDisk::new(memory.clone(), faults.clone()));
    let store = open_on(dir.path(), LIMIT, disk);
    let old = store.blob(layout(1, 32 * LEAF, LEAF)).unwrap();
    put(&store, &old, 1, parts(0, 32)).unwrap();
    store.commit().unwrap();
    let new = store.blob(layout(2, 8 * LEAF, LEAF)).unwrap();
    put(&store, &new, 2, parts(0, 1)).unwrap();
    store.commit().unwrap();
    faults.room(Some(LEAF / 2));
    assert_eq!(put(&store, &new, 2, parts(1, 2)).unwrap(), Written::Stored);
    assert!(check(&new, 2, parts(0, 2)) && old.present_bytes() < 32 * LEAF);
    faults.room(None);
    // nothing to evict: what there is, is held
    let hold = (old.hold(parts(0, 32)), new.hold(parts(0, 8)));
    faults.room(Some(LEAF / 2));
    let used = store.usage().used;
    assert!(matches!(put(&store, &new, 2, parts(2, 3)), Err(StoreError::DiskFull { .. })));
    assert!(!check(&new, 2, parts(2, 3)) && check(&new, 2, parts(0, 2)));
    assert_eq!(store.usage().used, used, "what did not fit is not counted");
    drop(hold);
}

#[test]
fn a_failed_write_leaves_nothing_and_a_failed_sync_drops_the_group() {
    let dir = tempfile::tempdir().unwrap();
    let (faults, memory) = (Faults::default(), MemoryDisk::new());
    let disk = Arc::new(FaultyDisk::new(memory.clone(), faults.clone()));
    let store = open_on(dir.path(), LIMIT, disk);
    let blob = store.blob(layout(1, 32 * LEAF, LEAF)).unwrap();
    put(&store, &blob, 1, parts(0, 4)).unwrap();
    store.commit().unwrap();
    faults.fail_at(0, std::io::ErrorKind::Other);
    assert!(matches!(put(&store, &blob, 1, parts(4, 8)), Err(StoreError::Disk { .. })));
    assert_eq!(blob.present_bytes(), 4 * LEAF);
    put(&store, &blob, 1, parts(4, 8)).unwrap();
    faults.fail_sync(true);
    assert!(check(&blob, 1, parts(0, 8)));
    assert!(store.commit().is_err());
    faults.fail_sync(false);
    assert!(check(&blob, 1, parts(0, 4)) && !blob.is_present(PartIx(4)));
    put(&store, &blob, 1, parts(4, 8)).unwrap();
    store.commit().unwrap();
    drop((blob, store));
    let store = open_on(dir.path(), LIMIT, Arc::new(memory.crash(3)));
    assert!(check(&store.blob(layout(1, 32 * LEAF, LEAF)).unwrap(), 1, parts(0, 8)));
}

#[test]
fn a_smaller_limit_evicts_the_oldest_and_keeps_the_pinned() {
    let dir = tempfile::tempdir().unwrap();
    let l = |n| layout(n, 16 * LEAF, LEAF);
    {
        let store = Store::open(options(dir.path(), LIMIT)).unwrap();
        for n in 0..20 {
            put(&store, &store.blob(l(n)).unwrap(), n, parts(0, 16)).unwrap();
            store.commit().unwrap();
        }
        store.pin(&pin_of("me", "v"), &[l(0).key()]).unwrap();
    }
    let small = ByteSize::mib(12);
    let store = Store::open(options(dir.path(), small)).unwrap();
    assert!(store.usage().used <= small, "{:?}", store.usage());
    assert!(du(dir.path()) <= small.0);
    assert!(store.presence(&l(0).key()).1 && !store.presence(&l(1).key()).1);
    assert!(store.presence(&l(19).key()).1, "the newest stays");
    store.pin(&pin_of("me", "w"), &store.blobs()).unwrap();
    assert!(matches!(store.reserve(5 << 20), Err(StoreError::NoSpace { .. })));
    let pinned = store.usage().pinned;
    drop(store);
    let store = Store::open(options(dir.path(), ByteSize::mib(8))).unwrap();
    assert_eq!(store.usage().pinned, pinned, "pinned stays, and usage says so");
    assert!(matches!(store.reserve(1 << 20), Err(StoreError::NoSpace { .. })));
    drop(store);
    // without a limit: the last one
    let store = Store::open(StoreOptions { limit: None, ..options(dir.path(), small) }).unwrap();
    assert_eq!(store.usage().limit, ByteSize::mib(8));
    let none = Store::open(options(dir.path(), ByteSize::mib(7)));
    assert!(matches!(none, Err(StoreError::Limit { .. })));
}

#[test]
fn what_is_being_read_is_not_evicted() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    let disk = Arc::new(FaultyDisk::new(MemoryDisk::new(), faults.clone()));
    let store = open_on(dir.path(), LIMIT, disk);
    let l = layout(1, 4 * LEAF, LEAF);
    let blob = store.blob(l.clone()).unwrap();
    put(&store, &blob, 1, l.all_parts()).unwrap();
    store.commit().unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let (other, key) = (store.clone(), l.key());
    faults.on_read(Box::new(move || {
        tell.send(other.evict(&[key], false).unwrap().kept_busy.0).unwrap();
    }));
    assert!(check(&blob, 1, parts(0, 2)));
    assert_eq!(told.recv().unwrap(), 4 * LEAF);
    assert!(store.evict(&[key], false).unwrap().freed.0 > 0);
}
