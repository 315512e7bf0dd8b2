//! The operations of the store, each stopped at each of its steps.

use std::time::{Duration, SystemTime};

use super::steps::{Files, Operation, World, at_every_step, open_it};
use super::*;
use modelfs::model::hash;
use modelfs::store::disk::Access;
use modelfs::store::{NodeKey, Pin, SavedCatalog};

fn two_files() -> Vec<(u32, BlobLayout)> {
    vec![(1, pieces(1, 50_000, 5_000)), (2, pieces(2, 90_000, 6_000))]
}

fn no_more(_: &Store, _: &Files, _: u32) {}

/// Puts parts of a file.
fn store_parts(store: &Store, file: &(u32, BlobLayout), p: PartRange) -> Result<(), StoreError> {
    let blob = store.blob(file.1.clone())?;
    let written = put(store, &blob, file.0, p)?;
    assert_ne!(written, Written::Skipped, "nobody else is here");
    Ok(())
}

/// Both files whole and durable.
fn both(world: &mut World, files: &Files) {
    for file in files {
        store_parts(world.open().unwrap(), file, file.1.all_parts()).unwrap();
    }
}

fn whole(store: &Store, file: &(u32, BlobLayout)) -> bool {
    check(&store.blob(file.1.clone()).unwrap(), file.0, file.1.all_parts())
}

fn pin_of(version: &str) -> Pin {
    Pin {
        source: source("s"),
        version: format!("g/m@{version}").parse().unwrap(),
        hash: hash::sha256(version.as_bytes()),
        owner: "me".into(),
        since: SystemTime::UNIX_EPOCH + Duration::from_secs(5),
    }
}

#[test]
fn writes_become_durable_with_a_commit() {
    let steps = at_every_step(&Operation {
        files: two_files(),
        prepare: |world, files| {
            store_parts(world.open().unwrap(), &files[0], parts(0, 2)).unwrap();
        },
        before: open_it,
        act: |world, files| {
            let store = world.store();
            store_parts(store, &files[0], parts(2, 5))?;
            store_parts(store, &files[1], files[1].1.all_parts())?;
            store.commit()?;
            world.done();
            store_parts(store, &files[0], parts(6, 9))?;
            store.commit()?;
            world.done();
            Ok(())
        },
        spoilt: false,
        after: |store, files, acts| {
            let blob = store.blob(files[0].1.clone()).unwrap();
            assert!(check(&blob, 1, parts(0, 2)), "durable before");
            assert!(acts < 1 || check(&blob, 1, parts(0, 5)) && whole(store, &files[1]));
            assert!(acts < 2 || check(&blob, 1, parts(6, 9)));
        },
    });
    assert!(steps > 20, "{steps}");
}

#[test]
fn evicting_all_and_some_of_a_file() {
    let steps = at_every_step(&Operation {
        files: two_files(),
        prepare: both,
        before: open_it,
        act: |world, files| {
            let store = world.store();
            // one piece is held: the others are punched, not removed with the file
            let hold = store.blob(files[1].1.clone())?.hold(parts(0, 1));
            store.evict(&[files[1].1.key()], false)?;
            drop(hold);
            world.done();
            store_parts(store, &files[1], files[1].1.all_parts())?;
            store.evict(&[files[1].1.key()], false)?;
            world.done();
            Ok(())
        },
        spoilt: false,
        after: |store, files, acts| {
            assert!(whole(store, &files[0]), "nobody evicted it");
            let left = store.presence(&files[1].1.key()).0;
            assert!(acts < 2 || left == ByteSize(0), "evicted, and back again");
        },
    });
    assert!(steps > 10, "{steps}");
}

/// More than the cache takes: what makes room is eviction, in the middle of everything.
fn many_files() -> Vec<(u32, BlobLayout)> {
    (1..11).map(|n| (n, pieces(n, 700_000, 60_000))).collect()
}

#[test]
fn reserving_evicts_the_least_recently_used() {
    let steps = at_every_step(&Operation {
        files: many_files(),
        prepare: |world, files| both(world, &files[..4]),
        before: open_it,
        act: |world, files| {
            for file in &files[4..] {
                store_parts(world.store(), file, file.1.all_parts())?;
            }
            // all of it, promised to somebody else
            let free = world.store().usage();
            world.store().reserve(free.limit.0 - free.used.0 + 900_000)?;
            Ok(())
        },
        spoilt: false,
        after: no_more,
    });
    assert!(steps > 20, "{steps}");
}

#[test]
fn a_pin_keeps_a_blob_until_it_is_removed() {
    let steps = at_every_step(&Operation {
        files: two_files(),
        prepare: |world, files| {
            both(world, files);
            world.store().pin(&pin_of("old"), &[files[0].1.key()]).unwrap();
        },
        before: open_it,
        act: |world, files| {
            let store = world.store();
            store.pin(&pin_of("new"), &[files[1].1.key()])?;
            world.done();
            store.unpin(&source("s"), &pin_of("old").version, "me")?;
            world.done();
            store.evict(&[files[0].1.key(), files[1].1.key()], false)?;
            world.done();
            Ok(())
        },
        spoilt: false,
        after: |store, files, acts| {
            let pins = store.pins().unwrap();
            let has = |v| pins.contains(&pin_of(v));
            assert!(has("new") || acts < 1, "promised");
            assert!(!has("new") || whole(store, &files[1]), "pinned");
            assert!(acts < 2 || !has("old"), "let go");
            assert!(acts > 0 || has("old"));
            assert!(!has("old") || whole(store, &files[0]), "pinned");
            assert_eq!(store.is_pinned(&files[1].1.key()), has("new"));
        },
    });
    assert!(steps > 5, "{steps}");
}

#[test]
fn remembering_names_and_documents() {
    fn names() -> [NodeKey; 2] {
        let (group, model): (Box<str>, Box<str>) = ("g".into(), "m".into());
        [NodeKey::Group { group: group.clone() }, NodeKey::Model { group, model }]
    }
    let steps = at_every_step(&Operation {
        files: two_files(),
        prepare: |world, files| {
            let ids = world.open().unwrap().nodes(&source("s"), &names()[..1]).unwrap();
            assert_eq!(ids[0].0, 1);
            store_parts(world.store(), &files[0], parts(0, 1)).unwrap();
        },
        before: open_it,
        act: |world, files| {
            let store = world.store();
            store.nodes(&source("s"), &names())?;
            world.done();
            let catalog = SavedCatalog {
                body: vec![7; 100_000],
                etag: None,
                last_modified: None,
                checked: SystemTime::UNIX_EPOCH,
            };
            store.save_catalog(&source("s"), &catalog)?;
            store.catalog_checked(&source("s"), SystemTime::UNIX_EPOCH + Duration::from_secs(1))?;
            let document = vec![9; 50_000];
            store.save_manifest(&hash::sha256(&document), &document)?;
            // the same bytes by the name that another version gives them
            let name = hash::sha256(b"another");
            let others = files[0].1.pieces().iter().map(|p| {
                (p.check, name, p.object_len, ObjectRange::at(p.object_offset, p.file.len()))
            });
            drop(store.blob(BlobLayout::new(others).unwrap())?);
            store_parts(store, &files[0], parts(3, 4))?;
            store.commit()?;
            world.done();
            Ok(())
        },
        spoilt: false,
        after: |store, _, acts| {
            if let Some(saved) = store.saved_catalog(&source("s")).unwrap() {
                assert!(saved.body == vec![7; 100_000], "whole or not at all");
            }
            let hash = hash::sha256(&vec![9; 50_000]);
            if let Some(body) = store.saved_manifest(&hash).unwrap() {
                assert_eq!(hash::sha256(&body), hash);
            }
            assert!(acts < 2 || store.saved_manifest(&hash).unwrap().is_some(), "durable since");
            let ids = store.nodes(&source("s"), &names()).unwrap();
            assert_eq!(ids[0].0, 1, "ids outlive everything");
            assert!(acts < 1 || ids[1].0 == 2, "told, so durable");
        },
    });
    assert!(steps > 5, "{steps}");
}

#[test]
fn a_closed_store_refuses_writes_and_serves_reads() {
    let steps = at_every_step(&Operation {
        files: two_files(),
        prepare: |world, _| open_it(world),
        before: open_it,
        act: |world, files| {
            store_parts(world.store(), &files[0], files[0].1.all_parts())?;
            world.close();
            Ok(())
        },
        spoilt: false,
        after: no_more,
    });
    assert!(steps > 10, "{steps}");
}

#[test]
fn an_empty_folder_becomes_a_store() {
    let steps = at_every_step(&Operation {
        files: two_files(),
        prepare: |world, _| std::fs::create_dir_all(&world.root).unwrap(),
        before: |_| {},
        act: |world, _| world.open().map(drop),
        spoilt: false,
        after: no_more,
    });
    assert!(steps > 3, "{steps}");
}

fn open_and_commit(world: &mut World, files: &Files) -> Result<(), StoreError> {
    world.open()?;
    world.done();
    store_parts(world.store(), &files[1], files[1].1.all_parts())?;
    world.store().commit()
}

#[test]
fn a_store_opens_after_a_crash() {
    let steps = at_every_step(&Operation {
        files: two_files(),
        prepare: |world, files| {
            both(world, files);
            world.close();
            // as if it had not been closed, with all that a crash can leave behind
            let db = rusqlite::Connection::open(world.root.join("index.db")).unwrap();
            db.execute("UPDATE meta SET value = 0 WHERE key = 'clean'", []).unwrap();
            db.execute("DELETE FROM segments WHERE blob = 1 AND segment > 1", []).unwrap();
            for table in ["segments", "objects"] {
                db.execute(&format!("DELETE FROM {table} WHERE blob = 2"), []).unwrap();
            }
            db.execute("DELETE FROM blobs WHERE id = 2", []).unwrap();
            for name in ["blobs/stray", "blobs/aa/stray"] {
                world.memory.make_folder(Path::new("blobs/aa")).unwrap();
                let file = world.memory.open(Path::new(name), Access::Create).unwrap();
                file.write_at(&[1; 9000], 0).unwrap();
                file.sync().unwrap();
            }
            // not the store's: they stay
            for folder in ["blobs", "blobs/aa"] {
                world.memory.sync_folder(Path::new(folder)).unwrap();
            }
        },
        before: |_| {},
        act: open_and_commit,
        spoilt: false,
        after: |store, files, _| {
            assert!(whole(store, &files[1]), "taken back by its sums");
            let blob = store.blob(files[0].1.clone()).unwrap();
            assert!(check(&blob, 1, parts(0, 2)));
        },
    });
    assert!(steps > 10, "{steps}");
}

#[test]
fn making_a_new_index_of_a_damaged_one() {
    let steps = at_every_step(&Operation {
        files: two_files(),
        prepare: |world, files| {
            both(world, files);
            world.store().pin(&pin_of("kept"), &[files[0].1.key()]).unwrap();
            world.close();
            // something that only shows when it is read
            let db = rusqlite::Connection::open(world.root.join("index.db")).unwrap();
            db.execute("UPDATE segments SET seal = seal + 1", []).unwrap();
        },
        before: |_| {},
        act: open_and_commit,
        spoilt: false,
        after: |store, files, _| {
            assert!(files.iter().all(|f| whole(store, f)), "taken back by their sums");
            assert_eq!(store.pins().unwrap(), [pin_of("kept")], "carried over");
        },
    });
    assert!(steps > 10, "{steps}");
}

#[test]
fn dropping_what_verification_found() {
    let steps = at_every_step(&Operation {
        files: two_files(),
        prepare: |world, files| {
            both(world, files);
            world.close();
            let key = files[0].1.key().to_string();
            world.memory.flip(&Path::new("blobs").join(&key[..2]).join(&key), 17_000);
        },
        before: open_it,
        act: |world, _| {
            let found = world.store().verify(&world.store().blobs(), &|_, _| true)?;
            assert_eq!(found.dropped, ByteSize(5_000), "one part");
            world.done();
            Ok(())
        },
        spoilt: true,
        after: |store, files, _| assert!(whole(store, &files[1]), "nothing wrong with it"),
    });
    assert!(steps > 1, "{steps}");
}

#[test]
fn a_smaller_limit_at_the_next_start() {
    let steps = at_every_step(&Operation {
        files: many_files(),
        prepare: |world, files| {
            let big = options(&world.root, ByteSize::mib(64));
            let disk = std::sync::Arc::new(world.memory.clone());
            let store = Store::open_with(big, disk, std::sync::Arc::new(SystemClock)).unwrap();
            for file in files {
                store_parts(&store, file, file.1.all_parts()).unwrap();
            }
        },
        before: |_| {},
        act: |world, _| world.open().map(drop),
        spoilt: false,
        after: no_more,
    });
    assert!(steps > 3, "{steps}");
}
