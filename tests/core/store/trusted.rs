//! What is believed of an earlier life: nothing that another program changed, nothing that an index from
//! elsewhere says. Whatever happened to the folder, a read is right or a miss, and the store opens.

use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};

use super::steps::LIMIT;
use super::*;
use modelfs::store::disk::Access;
use modelfs::store::{Disk, Faults, FaultyDisk, MemoryDisk};

const LEAF: u64 = 64 << 10;
const PARTS: u32 = 12;
const NONE: [u32; 0] = [];

/// One file of many objects of one part each, so that parts can be evicted one by one.
fn file(n: u32) -> BlobLayout {
    BlobLayout::new((0..PARTS).map(|i| {
        let p = layout(n * 1000 + i, LEAF, LEAF).pieces()[0].clone();
        (p.check, p.object, LEAF, ObjectRange::new(0, LEAF))
    }))
    .unwrap()
}

fn open(root: &Path) -> Store {
    Store::open(options(root, LIMIT)).unwrap()
}

/// Stores files whole and closes the store in good order.
fn store_whole(root: &Path, numbers: &[u32]) {
    let store = open(root);
    for n in numbers {
        let l = file(*n);
        put(&store, &store.blob(l.clone()).unwrap(), *n, l.all_parts()).unwrap();
    }
}

/// Reads each part by itself: the parts that hit, each of which must be right.
fn hits(store: &Store, n: u32) -> Vec<u32> {
    let blob = store.blob(file(n)).unwrap();
    let mut hits = Vec::new();
    for part in file(n).all_parts().iter() {
        let range = file(n).part(part).file;
        let mut got = vec![0xee; range.len() as usize];
        if blob.read(range.start(), &mut got).unwrap() == ReadState::Hit {
            assert!(
                got == pattern(n, range.start(), range.len()),
                "a wrong byte in part {}",
                part.0
            );
            hits.push(part.0);
        }
    }
    hits
}

/// The blob's file, opened by another program that may write it.
fn opened_by_another(root: &Path, n: u32) -> std::fs::File {
    let path = blob_path(root, &file(n).key());
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap()
}

fn overwrite(root: &Path, n: u32, part: u32) {
    let at = file(n).part(PartIx(part)).file.start();
    opened_by_another(root, n).write_all_at(&[0xaa; 4096], at + 8192).unwrap();
}

fn all_but(part: u32) -> Vec<u32> {
    (0..PARTS).filter(|p| *p != part).collect()
}

#[test]
fn an_index_from_a_backup_makes_no_byte_wrong() {
    let dir = tempfile::tempdir().unwrap();
    store_whole(dir.path(), &[1, 2, 3]);
    let backup = std::fs::read(dir.path().join("index.db")).unwrap();
    {
        let store = open(dir.path());
        // some of one goes, all of another
        let blob = store.blob(file(1)).unwrap();
        let hold = blob.hold(parts(0, 3));
        store.evict(&[file(1).key(), file(2).key()], false).unwrap();
        drop(hold);
        assert_eq!(hits(&store, 1), [0, 1, 2]);
    }
    std::fs::write(dir.path().join("index.db"), backup).unwrap();
    let store = open(dir.path());
    assert_eq!(hits(&store, 1), [0, 1, 2]);
    assert_eq!(hits(&store, 2), NONE);
    assert_eq!(hits(&store, 3), all_but(PARTS), "untouched");
    let blob = store.blob(file(1)).unwrap();
    put(&store, &blob, 1, file(1).all_parts()).unwrap();
    assert_eq!(hits(&store, 1), all_but(PARTS), "it can be stored again");
}

#[test]
fn a_blob_that_was_punched_cut_or_zeroed_after_a_clean_stop_makes_no_byte_wrong() {
    let dir = tempfile::tempdir().unwrap();
    store_whole(dir.path(), &[1, 2, 3, 4]);
    let len = file(1).len();
    let start = |part: u32| file(1).part(PartIx(part)).file.start();
    let fallocate = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(opened_by_another(dir.path(), 1), fallocate, start(5), LEAF).unwrap();
    let cut = opened_by_another(dir.path(), 2);
    cut.set_len(start(7)).unwrap();
    cut.set_len(len).unwrap();
    let mut zeroed = opened_by_another(dir.path(), 3);
    zeroed.seek(SeekFrom::Start(0)).unwrap();
    zeroed.write_all(&vec![0; len as usize]).unwrap();
    drop((cut, zeroed));
    let store = open(dir.path());
    for n in 1..=3 {
        let blob = store.blob(file(n)).unwrap();
        assert!(blob.complete_file().unwrap().is_none(), "file {n} is not given to the kernel");
    }
    assert_eq!(hits(&store, 1), all_but(5));
    assert_eq!(hits(&store, 2), (0..7).collect::<Vec<_>>());
    assert_eq!(hits(&store, 3), NONE);
    let untouched = store.blob(file(4)).unwrap();
    assert!(untouched.complete_file().unwrap().is_some(), "nothing of it was touched");
}

#[test]
fn four_kibibytes_that_another_program_overwrote_are_found_at_the_first_read_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    store_whole(dir.path(), &[1]);
    overwrite(dir.path(), 1, 4);
    let store = open(dir.path());
    assert_eq!(hits(&store, 1), all_but(4));
}

#[test]
fn what_was_changed_before_we_changed_the_same_blob_is_found_after_the_next_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let blob = store.blob(file(1)).unwrap();
    put(&store, &blob, 1, parts(0, 6)).unwrap();
    store.commit().unwrap();
    drop((blob, store));
    // while nothing runs
    overwrite(dir.path(), 1, 2);
    let store = open(dir.path());
    let blob = store.blob(file(1)).unwrap();
    put(&store, &blob, 1, parts(6, 8)).unwrap();
    store.commit().unwrap();
    // while the store is open
    overwrite(dir.path(), 1, 4);
    put(&store, &blob, 1, parts(8, PARTS)).unwrap();
    drop((blob, store));
    let store = open(dir.path());
    let expected: Vec<u32> = (0..PARTS).filter(|p| ![2, 4].contains(p)).collect();
    assert_eq!(hits(&store, 1), expected);
}

#[test]
fn a_part_that_does_not_match_is_not_copied_into_another_blob() {
    let dir = tempfile::tempdir().unwrap();
    store_whole(dir.path(), &[1]);
    overwrite(dir.path(), 1, 4);
    let store = open(dir.path());
    let layout = file(1);
    let part = layout.part(PartIx(4));
    let object = layout.pieces()[part.piece].object;
    let found = store.local_copies(&[object], part.object).unwrap();
    let source = found.first().expect("the index claims it");
    // the copy shares blocks where the disk can; it looks at nothing but what is proven
    let other = pieces(1, u64::from(PARTS) * LEAF, LEAF);
    let blob = store.blob(other).unwrap();
    let right = pattern(1, 0, LEAF);
    let mut space = store.reserve(blob.cost(parts(0, 1))).unwrap();
    blob.write_shared(PartIx(0), &right, &[], (source, source.file.start()), &mut space).unwrap();
    let mut got = vec![0; LEAF as usize];
    assert_eq!(blob.read(0, &mut got).unwrap(), ReadState::Hit);
    assert!(got == right, "a wrong byte came with the copy");
    assert_eq!(source.blob.read(source.file.start(), &mut got).unwrap(), ReadState::Miss);
}

#[test]
fn after_a_power_cut_only_a_checksum_makes_a_part_readable() {
    let dir = tempfile::tempdir().unwrap();
    let (root, after) = (dir.path().join("a"), dir.path().join("b"));
    let memory = MemoryDisk::new();
    let store = open_on(&root, LIMIT, Arc::new(memory.clone()));
    let blob = store.blob(file(1)).unwrap();
    put(&store, &blob, 1, file(1).all_parts()).unwrap();
    store.commit().unwrap();
    super::crash::copy_index(&root, &after);
    std::fs::copy(root.join("epoch"), after.join("epoch")).unwrap();
    let cut = memory.crash(7);
    let path = Path::new("blobs").join(&file(1).key().to_string()[..2]);
    cut.flip(&path.join(file(1).key().to_string()), file(1).part(PartIx(9)).file.start() + 5);
    std::mem::forget((blob, store));
    let store = open_on(&after, LIMIT, Arc::new(cut));
    let blob = store.blob(file(1)).unwrap();
    assert!(!blob.is_complete(), "nothing is proven yet");
    assert_eq!(hits(&store, 1), all_but(9));
}

#[test]
fn a_process_that_was_killed_costs_no_comparison() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let blob = store.blob(file(1)).unwrap();
    put(&store, &blob, 1, file(1).all_parts()).unwrap();
    store.commit().unwrap();
    let other = dir.path().with_extension("after");
    // what the next process finds: the same files, and an index that was not closed
    std::fs::create_dir(&other).unwrap();
    super::crash::copy_index(dir.path(), &other);
    for name in ["epoch", "blobs"] {
        std::fs::rename(dir.path().join(name), other.join(name)).unwrap();
    }
    std::mem::forget((blob, store));
    let store = open(&other);
    let blob = store.blob(file(1)).unwrap();
    assert!(blob.complete_file().unwrap().is_some(), "given to the kernel at once");
    drop((blob, store));
    std::fs::remove_dir_all(&other).unwrap();
}

#[test]
fn parts_that_were_proven_are_believed_after_the_next_restart() {
    let dir = tempfile::tempdir().unwrap();
    store_whole(dir.path(), &[1]);
    std::fs::remove_file(dir.path().join("epoch")).unwrap();
    let store = open(dir.path());
    let blob = store.blob(file(1)).unwrap();
    assert!(blob.complete_file().unwrap().is_none(), "not yet compared");
    assert_eq!(hits(&store, 1), all_but(PARTS));
    assert!(blob.complete_file().unwrap().is_some(), "compared");
    drop((blob, store));
    let store = open(dir.path());
    let blob = store.blob(file(1)).unwrap();
    assert!(blob.complete_file().unwrap().is_some(), "believed");
}

#[test]
fn a_part_that_eviction_had_to_leave_is_compared_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    store_whole(dir.path(), &[1]);
    overwrite(dir.path(), 1, 4);
    // another program has it open, so that no lease is given and nothing is punched
    let held = opened_by_another(dir.path(), 1);
    let store = open(dir.path());
    let evicted = store.evict(&[file(1).key()], false).unwrap();
    assert_eq!(evicted.freed, ByteSize(0), "{evicted:?}");
    drop(held);
    assert_eq!(hits(&store, 1), all_but(4));
}

#[test]
fn what_a_power_cut_left_unproven_is_unproven_for_every_process_until_it_was_compared() {
    let dir = tempfile::tempdir().unwrap();
    let root = |n: u32| dir.path().join(n.to_string());
    let copied = |from: u32, to: u32| {
        super::crash::copy_index(&root(from), &root(to));
        std::fs::copy(root(from).join("epoch"), root(to).join("epoch")).unwrap();
    };
    let memory = MemoryDisk::new();
    let store = open_on(&root(0), LIMIT, Arc::new(memory.clone()));
    put(&store, &store.blob(file(1)).unwrap(), 1, file(1).all_parts()).unwrap();
    store.commit().unwrap();
    copied(0, 1);
    std::mem::forget(store);
    // every file is as it was left, but one byte was lost with the power
    let cut = memory.crash(7);
    let path = Path::new("blobs").join(&file(1).key().to_string()[..2]);
    cut.flip(&path.join(file(1).key().to_string()), file(1).part(PartIx(9)).file.start() + 5);
    // one process ends in good order, the next is killed; neither reads the file
    drop(open_on(&root(1), LIMIT, Arc::new(cut.clone())));
    let store = open_on(&root(1), LIMIT, Arc::new(cut.clone()));
    copied(1, 2);
    std::mem::forget(store);
    let store = open_on(&root(2), LIMIT, Arc::new(cut));
    assert_eq!(hits(&store, 1), all_but(9));
}

#[test]
fn an_index_from_a_backup_counts_what_was_stored_since() {
    let dir = tempfile::tempdir().unwrap();
    store_whole(dir.path(), &[1]);
    let backup = std::fs::read(dir.path().join("index.db")).unwrap();
    store_whole(dir.path(), &[2, 3]);
    std::fs::write(dir.path().join("index.db"), backup).unwrap();
    let store = open(dir.path());
    assert!(du(dir.path()) <= store.usage().used.0);
    for n in 1..=3 {
        assert_eq!(hits(&store, n), all_but(PARTS), "taken back");
    }
}

#[test]
fn what_another_program_changed_before_it_was_committed_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let blob = store.blob(file(1)).unwrap();
    put(&store, &blob, 1, parts(0, 6)).unwrap();
    overwrite(dir.path(), 1, 2);
    put(&store, &blob, 1, parts(6, PARTS)).unwrap();
    assert_eq!(hits(&store, 1), all_but(2));
}

#[test]
fn a_file_that_was_replaced_is_not_given_to_the_kernel() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let blob = store.blob(file(1)).unwrap();
    put(&store, &blob, 1, file(1).all_parts()).unwrap();
    assert!(blob.complete_file().unwrap().is_some());
    let path = blob_path(dir.path(), &file(1).key());
    let new = path.with_extension("new");
    std::fs::write(&new, vec![0xaa; file(1).len() as usize]).unwrap();
    std::fs::rename(&new, &path).unwrap();
    assert!(blob.complete_file().unwrap().is_none());
    assert_eq!(hits(&store, 1), NONE);
}

#[test]
fn checksums_that_cannot_be_read_are_an_error_and_drop_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (faults, memory) = (Faults::default(), MemoryDisk::new());
    let disk = || Arc::new(FaultyDisk::new(memory.clone(), faults.clone()));
    let store = open_on(dir.path(), LIMIT, disk());
    put(&store, &store.blob(file(1)).unwrap(), 1, file(1).all_parts()).unwrap();
    drop(store);
    std::fs::remove_file(dir.path().join("epoch")).unwrap();
    let store = open_on(dir.path(), LIMIT, disk());
    let blob = store.blob(file(1)).unwrap();
    // the whole sidecar: it is shorter than this
    faults.spoil(0..4096);
    assert!(blob.prove(file(1).all_parts()).is_err());
    faults.spoil(0..0);
    assert_eq!(hits(&store, 1), all_but(PARTS), "nothing was dropped");
}

/// Leaves things in the folder that are not the store's, as a desktop and other people do.
fn clutter(root: &Path, key: &ContentKey) -> Vec<PathBuf> {
    let (folder, name) = (root.join("blobs").join("ab"), format!("{:0>64}", "7"));
    std::fs::create_dir_all(&folder).unwrap();
    let files = [root.join("blobs/.DS_Store"), folder.join("notes.txt"), root.join("readme")];
    for file in &files {
        std::fs::write(file, "not a blob").unwrap();
    }
    // a name of ours, in another's folder
    let misplaced = root.join("blobs/cd").join(key.to_string());
    let folders = [root.join("blobs/lost+found"), root.join("blobs/00").join(&name)];
    for folder in [&folders[0], &folders[1], &root.join("blobs/cd")] {
        std::fs::create_dir_all(folder).unwrap();
    }
    std::fs::write(&misplaced, "not a blob").unwrap();
    let pipe = root.join("blobs/00").join(format!("{:0>64}", "8"));
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, 0o600.into()).unwrap();
    let link = root.join("blobs/00").join(format!("{:0>64}", "9"));
    std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
    [files.to_vec(), folders.to_vec(), vec![misplaced, pipe, link]].concat()
}

#[test]
fn the_store_opens_whatever_lies_in_its_folder_and_leaves_it_alone() {
    let dir = tempfile::tempdir().unwrap();
    store_whole(dir.path(), &[1, 2, 3]);
    let strangers = clutter(dir.path(), &file(1).key());
    let there = || strangers.iter().all(|path| path.symlink_metadata().is_ok());
    // one blob has become a hole, one a link to a file that is precious
    opened_by_another(dir.path(), 2).set_len(0).unwrap();
    opened_by_another(dir.path(), 2).set_len(file(2).len()).unwrap();
    let precious = dir.path().join("precious");
    std::fs::rename(blob_path(dir.path(), &file(3).key()), &precious).unwrap();
    std::os::unix::fs::symlink(&precious, blob_path(dir.path(), &file(3).key())).unwrap();
    // after a clean stop, after one that was not, and with an index that is gone
    for round in 0..3 {
        let db = dir.path().join("index.db");
        if round == 1 {
            let conn = rusqlite::Connection::open(&db).unwrap();
            conn.execute("UPDATE meta SET value = 0 WHERE key = 'clean'", []).unwrap();
        } else if round == 2 {
            std::fs::remove_file(&db).unwrap();
        }
        let store = open(dir.path());
        assert_eq!(hits(&store, 1), all_but(PARTS), "round {round}");
        assert_eq!(hits(&store, 2), NONE, "round {round}");
        assert_eq!(hits(&store, 3), NONE, "round {round}");
        assert!(there(), "round {round}");
    }
    assert_eq!(std::fs::read(&precious).unwrap(), pattern(3, 0, file(3).len()));
}

#[test]
fn a_disk_sees_ordinary_files_only() {
    let dir = tempfile::tempdir().unwrap();
    let disk = modelfs::store::RealDisk::new(dir.path());
    std::fs::write(dir.path().join("file"), "x").unwrap();
    std::fs::create_dir(dir.path().join("folder")).unwrap();
    std::os::unix::fs::symlink("file", dir.path().join("link")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, dir.path().join("pipe"), 0o600.into()).unwrap();
    for name in ["folder", "link", "pipe"].map(Path::new) {
        let missing = |e: std::io::Error| assert_eq!(e.kind(), std::io::ErrorKind::NotFound);
        missing(disk.open(name, Access::Read).unwrap_err());
        missing(disk.open(name, Access::Write).unwrap_err());
        missing(disk.open_shared(name).unwrap_err());
        missing(disk.stat(name).unwrap_err());
        missing(disk.remove(name).unwrap_err());
        assert!(disk.open(name, Access::Create).is_err());
        assert!(dir.path().join(name).symlink_metadata().is_ok());
    }
    assert!(disk.stat(Path::new("file")).is_ok());
}
