//! A crash between every two changes of the disk costs at most the last group, and never truth.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::*;
use modelfs::store::{Faults, FaultyDisk, MemoryDisk};

const LIMIT: ByteSize = ByteSize::mib(64);

pub fn copy_index(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for name in ["index.db", "index.db-wal"] {
        let _ = std::fs::copy(from.join(name), to.join(name));
    }
}

/// Writes, commits, writes, evicts, writes again; what was committed and never touched again.
fn life(
    store: &Store,
    a: &BlobLayout,
    b: &BlobLayout,
    committed: &Mutex<bool>,
) -> Result<(), StoreError> {
    let blob = store.blob(a.clone())?;
    put(store, &blob, 1, parts(0, 3))?;
    put(store, &blob, 1, parts(5, 7))?;
    store.commit()?;
    *committed.lock().unwrap() = true;
    let other = store.blob(b.clone())?;
    put(store, &other, 2, b.all_parts())?;
    put(store, &blob, 1, parts(3, 5))?;
    store.commit()?;
    store.evict(&[b.key()], false)?;
    put(store, &other, 2, b.all_parts())?;
    store.commit()?;
    // one piece is held: the others are punched, not removed with the file
    let hold = other.hold(parts(0, 1));
    store.evict(&[b.key()], false)?;
    drop(hold);
    put(store, &other, 2, b.all_parts())?;
    store.commit()?;
    put(store, &blob, 1, parts(7, 8))?;
    Ok(())
}

#[test]
fn at_every_step() {
    let (a, b) = (pieces(1, 50_000, 5_000), pieces(2, 90_000, 6_000));
    let mut stopped_early = 0;
    // just before and just after each change
    for step in 0.. {
        let dir = tempfile::tempdir().unwrap();
        let (root, after) = (dir.path().join("a"), dir.path().join("b"));
        let (faults, memory) = (Faults::default(), MemoryDisk::new());
        let disk = Arc::new(FaultyDisk::new(memory.clone(), faults.clone()));
        let store = open_on(&root, LIMIT, disk);
        let left: Arc<Mutex<Option<(MemoryDisk, bool)>>> = Arc::default();
        let committed: Arc<Mutex<bool>> = Arc::default();
        let hook = {
            let (root, after, left) = (root.clone(), after.clone(), left.clone());
            let committed = committed.clone();
            move || {
                copy_index(&root, &after);
                let committed = *committed.lock().unwrap();
                *left.lock().unwrap() = Some((memory.crash(step), committed));
            }
        };
        if step % 2 == 0 {
            faults.stop_at(step / 2, Some(Box::new(hook)));
        } else {
            faults.stop_after(step / 2, Some(Box::new(hook)));
        }
        let ended = life(&store, &a, &b, &committed).is_ok();
        // the dead write nothing more
        std::mem::forget(store);
        let Some((disk, committed)) = left.lock().unwrap().take() else {
            assert!(ended);
            break;
        };
        stopped_early += 1;
        let store = open_on(&after, LIMIT, Arc::new(disk.clone()));
        let blob = store.blob(a.clone()).unwrap();
        if committed {
            assert!(check(&blob, 1, parts(0, 3)) && check(&blob, 1, parts(5, 7)), "step {step}");
        }
        for (n, l) in [(1, &a), (2, &b)] {
            let blob = store.blob(l.clone()).unwrap();
            for run in blob.present(l.all_parts()) {
                assert!(check(&blob, n, run), "step {step}: claims what is not there");
            }
        }
        assert!(disk.allocated() <= store.usage().used.0, "step {step}: space that nobody counts");
        for (n, l) in [(1, &a), (2, &b)] {
            let blob = store.blob(l.clone()).unwrap();
            put(&store, &blob, n, l.all_parts()).unwrap();
            assert!(check(&blob, n, l.all_parts()), "step {step}: works on");
        }
    }
    assert!(stopped_early > 60, "{stopped_early}");
}

#[test]
fn an_unclean_start_gives_back_what_no_index_claims() {
    let dir = tempfile::tempdir().unwrap();
    let (root, after): (PathBuf, PathBuf) = (dir.path().join("a"), dir.path().join("b"));
    let memory = MemoryDisk::new();
    let store = open_on(&root, LIMIT, Arc::new(memory.clone()));
    let (a, b) = (layout(1, 1 << 20, 65536), layout(2, 1 << 20, 65536));
    let blob = store.blob(a.clone()).unwrap();
    put(&store, &blob, 1, parts(0, 2)).unwrap();
    store.commit().unwrap();
    put(&store, &blob, 1, parts(2, 10)).unwrap();
    put(&store, &store.blob(b.clone()).unwrap(), 2, b.all_parts()).unwrap();
    copy_index(&root, &after);
    std::mem::forget(store);
    let store = open_on(&after, LIMIT, Arc::new(memory.clone()));
    assert_eq!(store.presence(&a.key()).0, ByteSize(2 * 65536));
    assert!(memory.allocated() < 3 * 65536, "{}", memory.allocated());
}
