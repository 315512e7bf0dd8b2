//! A cache folder that others meddle with: emptied and taken by another process, or left with half
//! of its index. Nothing of that may ever look like data.

use super::steps::LIMIT;
use super::*;
use modelfs::store::{Faults, FaultyDisk, MemoryDisk};

const LEAF: u64 = 64 << 10;

/// As `rm -rf cache/*` does.
fn empty(root: &Path) {
    for entry in std::fs::read_dir(root).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => std::fs::remove_dir_all(entry.path()).unwrap(),
            false => std::fs::remove_file(entry.path()).unwrap(),
        }
    }
}

#[test]
fn a_folder_that_another_process_took_over_is_no_longer_ours() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (layout(1, 9 * LEAF, LEAF), layout(2, 9 * LEAF, LEAF));
    for l in [&a, &b] {
        let store = Store::open(options(dir.path(), LIMIT)).unwrap();
        let n = if l.key() == a.key() { 1 } else { 2 };
        put(&store, &store.blob(l.clone()).unwrap(), n, l.all_parts()).unwrap();
    }
    // nothing is open yet: files are found by their names
    let first = Store::open(options(dir.path(), LIMIT)).unwrap();
    empty(dir.path());
    let second = Store::open(options(dir.path(), LIMIT)).unwrap();
    let (theirs, other) = (second.blob(a.clone()).unwrap(), second.blob(b.clone()).unwrap());
    for (n, blob) in [(1, &theirs), (2, &other)] {
        put(&second, blob, n, parts(0, 1)).unwrap();
        second.commit().unwrap();
    }
    // what the other one has not written is a hole, not a part of ours
    let ours = first.blob(a.clone()).unwrap();
    assert!(!check(&ours, 1, parts(3, 4)));
    assert!(first.blob(b.clone()).unwrap().complete_file().unwrap().is_none());
    // nor do we write, cut or remove what is theirs
    assert!(put(&first, &ours, 1, parts(4, 6)).is_err());
    first.evict(&[a.key(), b.key()], true).unwrap();
    drop((ours, first));
    for (n, blob) in [(1, &theirs), (2, &other)] {
        assert!(check(blob, n, parts(0, 1)));
        put(&second, blob, n, parts(1, 9)).unwrap();
    }
    drop((theirs, other, second));
    let second = Store::open(options(dir.path(), LIMIT)).unwrap();
    assert!(check(&second.blob(a.clone()).unwrap(), 1, a.all_parts()));
    assert!(check(&second.blob(b.clone()).unwrap(), 2, b.all_parts()));
}

#[test]
fn a_passthrough_file_is_not_punched_when_the_index_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let a = layout(1, 9 * LEAF, LEAF);
    let file = {
        let store = Store::open(options(dir.path(), LIMIT)).unwrap();
        let blob = store.blob(a.clone()).unwrap();
        put(&store, &blob, 1, a.all_parts()).unwrap();
        blob.complete_file().unwrap().unwrap().0
    };
    for entry in std::fs::read_dir(dir.path()).unwrap().map(Result::unwrap) {
        if entry.file_name().to_string_lossy().starts_with("index.db") {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
    let sums = blob_path(dir.path(), &a.key()).with_extension("sums");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&sums, mode).unwrap();
    let mut certified = std::fs::read(&sums).unwrap();
    *certified.last_mut().unwrap() ^= 1;
    std::fs::write(&sums, certified).unwrap();
    let store = Store::open(options(dir.path(), LIMIT)).unwrap();
    let blob = store.blob(a.clone()).unwrap();
    assert!(check(&blob, 1, parts(0, 8)) && !blob.is_complete(), "taken back but for one part");
    let mut got = vec![0; a.len() as usize];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut got, 0).unwrap();
    assert!(got == pattern(1, 0, a.len()), "a wrong byte");
}

#[test]
fn an_emptied_folder_is_filled_again_and_nobody_else_gets_it_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let a = layout(1, 9 * LEAF, LEAF);
    let store = Store::open(options(dir.path(), LIMIT)).unwrap();
    let blob = store.blob(a.clone()).unwrap();
    put(&store, &blob, 1, parts(0, 4)).unwrap();
    store.commit().unwrap();
    empty(dir.path());
    let other = layout(2, 9 * LEAF, LEAF);
    put(&store, &store.blob(other.clone()).unwrap(), 2, other.all_parts()).unwrap();
    match Store::open(options(dir.path(), LIMIT)) {
        Err(StoreError::Locked { holder, .. }) => assert_eq!(holder.pid, std::process::id()),
        wrong => panic!("{wrong:?}"),
    }
    drop((blob, store));
    let store = Store::open(options(dir.path(), LIMIT)).unwrap();
    assert!(check(&store.blob(other.clone()).unwrap(), 2, other.all_parts()), "taken back");
    assert_eq!(store.presence(&a.key()).0, ByteSize(0));
}

#[test]
fn an_index_that_lost_its_log_claims_nothing_that_was_evicted_since() {
    let dir = tempfile::tempdir().unwrap();
    let (root, after) = (dir.path().join("a"), dir.path().join("b"));
    let memory = MemoryDisk::new();
    let (a, b) = (pieces(1, 900_000, 60_000), pieces(2, 900_000, 60_000));
    for round in 0..2 {
        let disk = FaultyDisk::new(memory.clone(), Faults::default());
        let store = open_on(&root, LIMIT, Arc::new(disk));
        for (n, l) in [(1, &a), (2, &b)] {
            put(&store, &store.blob(l.clone()).unwrap(), n, l.all_parts()).unwrap();
        }
        store.commit().unwrap();
        if round == 0 {
            continue;
        }
        // all but one piece of it goes, and some of that comes back; nothing ends well
        let hold = store.blob(a.clone()).unwrap().hold(parts(0, 1));
        store.evict(&[a.key()], false).unwrap();
        drop(hold);
        std::fs::create_dir_all(&after).unwrap();
        std::fs::copy(root.join("index.db"), after.join("index.db")).unwrap();
        let again = open_on(&after, LIMIT, Arc::new(memory.clone()));
        for (n, l) in [(1, &a), (2, &b)] {
            let blob = again.blob(l.clone()).unwrap();
            blob.prove(l.all_parts()).unwrap();
            for run in blob.present(l.all_parts()) {
                assert!(check(&blob, n, run));
            }
        }
        assert!(check(&again.blob(b.clone()).unwrap(), 2, b.all_parts()), "untouched");
        let found = again.verify(&again.blobs(), &|_, _| true).unwrap();
        assert_eq!(found.dropped, ByteSize(0));
    }
}
