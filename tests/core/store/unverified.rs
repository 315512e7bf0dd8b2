//! Objects that can be verified only when all of them is there: their bytes are kept, and nobody reads them
//! before they were accepted.

use std::fs::File;
use std::io::Write as _;

use super::steps::{Operation, at_every_step, open_it};
use super::*;
use modelfs::model::{LARGE_PART, hash};
use modelfs::store::{Faults, FaultyDisk, MemoryDisk, RealDisk, UnverifiedWriter};

const LIMIT: ByteSize = ByteSize::mib(64);
const MIB: u64 = 1 << 20;

/// A file that is one object of `len` bytes, with one digest.
pub fn large(n: u32, len: u64) -> BlobLayout {
    around(n, 0, len, 0)
}

/// The same between two small objects, so that edge blocks are shared.
fn around(n: u32, before: u64, len: u64, after: u64) -> BlobLayout {
    let name = |what: u8| hash::sha256(&[&n.to_le_bytes()[..], &[what]].concat());
    let whole = |check, what, len| (check, name(what), len, ObjectRange::new(0, len));
    let pieces = [
        whole(Check::Whole, 0, before),
        whole(Check::WholeLarge, 1, len),
        whole(Check::Whole, 2, after),
    ];
    BlobLayout::new(pieces.into_iter().filter(|(_, _, len, _)| *len > 0)).unwrap()
}

/// Where the large piece of such a file is.
fn at(layout: &BlobLayout) -> usize {
    layout.pieces().iter().position(|piece| piece.check == Check::WholeLarge).unwrap()
}

/// Begins or goes on.
pub fn begin(store: &Store, layout: &BlobLayout) -> UnverifiedWriter {
    let blob = store.blob(layout.clone()).unwrap();
    blob.begin_unverified(at(layout)).unwrap().expect("nobody else writes it")
}

/// Reads back what is there, which must be the bytes of file `n`.
pub fn read_back(writer: &mut UnverifiedWriter, n: u32, layout: &BlobLayout) {
    let start = layout.pieces()[at(layout)].file.start();
    let (mut found, mut buf) = (Vec::new(), vec![0; 300_000]);
    loop {
        match writer.read_back(&mut buf).unwrap() {
            0 => break,
            read => found.extend_from_slice(&buf[..read]),
        }
    }
    assert_eq!(found.len() as u64, writer.len());
    assert!(found == pattern(n, start, writer.len()), "not what was written");
}

/// Appends up to `end` of the object, or all of it, in pieces of an odd length.
pub fn append(
    writer: &mut UnverifiedWriter,
    n: u32,
    layout: &BlobLayout,
    end: u64,
) -> Result<(), StoreError> {
    let start = layout.pieces()[at(layout)].file.start();
    let end = end.min(writer.total());
    while writer.len() < end {
        let len = (end - writer.len()).min(777_777);
        writer.append(&pattern(n, start + writer.len(), len))?;
    }
    Ok(())
}

fn is_readable(store: &Store, n: u32, layout: &BlobLayout) -> bool {
    let parts = layout.parts_of_piece(at(layout));
    check(&store.blob(layout.clone()).unwrap(), n, parts)
}

#[test]
fn bytes_are_readable_once_all_of_them_were_accepted_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    let layout = large(1, 5 * MIB + 17);
    {
        let store = open_on(dir.path(), LIMIT, Arc::new(RealDisk::new(dir.path())));
        let blob = store.blob(layout.clone()).unwrap();
        let mut writer = begin(&store, &layout);
        assert!(blob.begin_unverified(0).unwrap().is_none(), "one writer at a time");
        append(&mut writer, 1, &layout, layout.len()).unwrap();
        store.commit().unwrap();
        assert!(!is_readable(&store, 1, &layout) && blob.present(layout.all_parts()).is_empty());
        assert_eq!(store.presence(&layout.key()), (ByteSize(0), false));
        assert!(blob.complete_file().unwrap().is_none(), "not for the kernel either");
        let object = layout.pieces()[0].object;
        assert!(store.local_copies(&[object], ObjectRange::new(0, MIB)).unwrap().is_empty());
        let usage = store.usage();
        assert_eq!((usage.unverified, usage.data), (ByteSize(layout.len()), ByteSize(0)));
        assert!(usage.used.0 >= layout.len());
        writer.accept().unwrap();
        assert!(is_readable(&store, 1, &layout) && blob.is_complete());
        let usage = store.usage();
        assert_eq!((usage.unverified, usage.data), (ByteSize(0), ByteSize(layout.len())));
        assert!(blob.begin_unverified(0).unwrap().is_none(), "it is all there");
        store.commit().unwrap();
        let found = store.verify(&store.blobs(), &|_, _| true).unwrap();
        assert_eq!((found.checked.0, found.dropped.0), (layout.len(), 0));
    }
    let store = open_on(dir.path(), LIMIT, Arc::new(RealDisk::new(dir.path())));
    assert!(is_readable(&store, 1, &layout));
    // each part has a checksum of its own
    let learned = store.blob(layout.clone()).unwrap().learned(layout.all_parts()).unwrap();
    let parts = layout.all_parts().iter().map(|part| {
        let one = PartRange { start: part.0, end: part.0 + 1 };
        Some(hash::blake3(&bytes_of(1, &layout, one)))
    });
    assert_eq!(learned, parts.collect::<Vec<_>>());
}

#[test]
fn the_next_process_goes_on_where_the_one_before_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let layout = around(2, 5_000, 4 * MIB + 4321, 9_000);
    let open = || open_on(dir.path(), LIMIT, Arc::new(RealDisk::new(dir.path())));
    {
        let store = open();
        let mut writer = begin(&store, &layout);
        append(&mut writer, 2, &layout, 2 * MIB + 99).unwrap();
    }
    let db = rusqlite::Connection::open(dir.path().join("index.db")).unwrap();
    let clean: i64 =
        db.query_row("SELECT value FROM meta WHERE key = 'clean'", [], |r| r.get(0)).unwrap();
    assert_eq!(clean, 1, "closed well, in the middle of an object");
    drop(db);
    {
        let store = open();
        assert_eq!(store.usage().unverified, ByteSize(2 * MIB + 99));
        assert!(store.holds(&layout.key()) && store.blobs() == [layout.key()]);
        let mut writer = begin(&store, &layout);
        assert_eq!((writer.len(), writer.total()), (2 * MIB + 99, 4 * MIB + 4321));
        let early = writer.append(&[1]).unwrap_err().to_string();
        assert!(early.contains("out of order"), "what was kept must be hashed again: {early}");
        read_back(&mut writer, 2, &layout);
        assert!(writer.append(&vec![1; 3 * MIB as usize]).is_err(), "longer than the object");
        append(&mut writer, 2, &layout, 3 * MIB).unwrap();
        // its neighbours, in the blocks at its edges
        let blob = store.blob(layout.clone()).unwrap();
        put(&store, &blob, 2, layout.parts_of_piece(0)).unwrap();
        put(&store, &blob, 2, layout.parts_of_piece(2)).unwrap();
        store.commit().unwrap();
        append(&mut writer, 2, &layout, 4 * MIB).unwrap();
    }
    let store = open();
    let mut writer = begin(&store, &layout);
    assert_eq!(writer.len(), 4 * MIB);
    read_back(&mut writer, 2, &layout);
    append(&mut writer, 2, &layout, u64::MAX).unwrap();
    writer.accept().unwrap();
    assert!(check(&store.blob(layout.clone()).unwrap(), 2, layout.all_parts()));
    assert!(du(&dir.path().join("blobs")) <= store.usage().used.0);
}

#[test]
fn what_did_not_match_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, layout) = (MemoryDisk::new(), large(3, 3 * MIB));
    let store = open_on(dir.path(), LIMIT, Arc::new(disk.clone()));
    let before = store.usage().used;
    drop(begin(&store, &layout));
    assert!(
        disk.list(&Path::new("blobs").join(&layout.key().to_string()[..2])).unwrap().is_empty()
    );
    for committed in [false, true] {
        let mut writer = begin(&store, &layout);
        append(&mut writer, 3, &layout, 3 * MIB).unwrap();
        if committed {
            store.commit().unwrap();
        }
        writer.discard();
        assert!(!store.holds(&layout.key()));
        assert_eq!((disk.allocated(), store.usage().used), (0, before));
    }
    let mut writer = begin(&store, &layout);
    append(&mut writer, 3, &layout, MIB).unwrap();
    let early = writer.accept().unwrap_err().to_string();
    assert!(early.contains("not complete"), "{early}");
    assert!(!is_readable(&store, 3, &layout));
}

#[test]
fn an_object_that_can_never_fit_is_refused_before_its_first_byte() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_on(dir.path(), LIMIT, Arc::new(MemoryDisk::new()));
    let (blob, used) = (store.blob(large(4, 48 << 30)).unwrap(), store.usage().used);
    match blob.begin_unverified(0) {
        Err(error @ (StoreError::TooLarge { .. } | StoreError::Limit { .. })) => {
            let text = error.to_string();
            assert!(text.contains("48.0 GiB") && text.contains("64.0 MiB"), "{text}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(store.usage().used, used);
    // one that fits has all of its space from the start
    let writer = begin(&store, &large(5, 20 * MIB));
    assert!(store.usage().reserved.0 >= 20 * MIB, "{:?}", store.usage());
    drop(writer);
    assert_eq!(store.usage().reserved, ByteSize(0));
    let small = store.blob(layout(6, MIB, 65536)).unwrap();
    assert!(small.begin_unverified(0).is_err(), "has leaves");
}

#[test]
fn unverified_bytes_go_first_when_space_is_needed_and_from_their_end_on() {
    const MOST: u64 = 64 << 20;
    let dir = tempfile::tempdir().unwrap();
    let disk = MemoryDisk::new();
    let store = open_on(dir.path(), LIMIT, Arc::new(disk.clone()));
    let old = (1, layout(1, 4 * MIB, 65536));
    put(&store, &store.blob(old.1.clone()).unwrap(), 1, old.1.all_parts()).unwrap();
    let large = large(7, 40 * MIB);
    let mut writer = begin(&store, &large);
    append(&mut writer, 7, &large, 36 * MIB).unwrap();
    store.commit().unwrap();
    let lacking = |bytes: u64| MOST - store.usage().used.0 + bytes;
    // while it is written it stays, and what is older goes
    drop(store.reserve(lacking(MIB)).unwrap());
    assert_eq!(store.usage().unverified, ByteSize(36 * MIB));
    assert!(!check(&store.blob(old.1.clone()).unwrap(), 1, old.1.all_parts()));
    put(&store, &store.blob(old.1.clone()).unwrap(), 1, old.1.all_parts()).unwrap();
    store.commit().unwrap();
    drop(writer);
    drop(store.reserve(lacking(MIB)).unwrap());
    assert_eq!(store.usage().unverified, ByteSize(32 * MIB), "its last segment");
    assert!(
        check(&store.blob(old.1.clone()).unwrap(), 1, old.1.all_parts()),
        "older, but verified"
    );
    assert!(disk.allocated() <= store.usage().used.0);
    // what is left of it is gone on with
    let mut writer = begin(&store, &large);
    assert_eq!(writer.len(), 32 * MIB);
    read_back(&mut writer, 7, &large);
    append(&mut writer, 7, &large, 33 * MIB).unwrap();
    drop(writer);
    store.commit().unwrap();
    // by name they go whatever is pinned elsewhere
    assert!(store.evict(&[large.key()], false).unwrap().freed.0 >= 33 * MIB);
    assert_eq!(store.usage().unverified, ByteSize(0));
    assert!(!store.holds(&large.key()));
}

#[test]
fn a_pin_keeps_unverified_bytes_too() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_on(dir.path(), LIMIT, Arc::new(MemoryDisk::new()));
    let large = large(8, 40 * MIB);
    let mut writer = begin(&store, &large);
    append(&mut writer, 8, &large, 30 * MIB).unwrap();
    drop(writer);
    let pin = modelfs::store::Pin {
        source: source("s"),
        version: "g/m@v".parse().unwrap(),
        hash: Digest::from_bytes([1; 32]),
        owner: "me".into(),
        since: std::time::SystemTime::UNIX_EPOCH,
    };
    store.pin(&pin, &[large.key()]).unwrap();
    assert!(store.usage().pinned.0 >= 30 * MIB);
    assert!(store.reserve(30 * MIB).is_err());
    assert_eq!(store.evict(&[large.key()], false).unwrap().freed, ByteSize(0));
    assert_eq!(store.usage().unverified, ByteSize(30 * MIB));
    store.evict(&[large.key()], true).unwrap();
    assert_eq!(store.usage().unverified, ByteSize(0));
}

#[test]
fn verified_parts_that_come_another_way_take_the_place_of_unverified_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_on(dir.path(), LIMIT, Arc::new(MemoryDisk::new()));
    let large = large(9, 3 * MIB);
    let blob = store.blob(large.clone()).unwrap();
    let mut writer = begin(&store, &large);
    append(&mut writer, 9, &large, 2 * MIB).unwrap();
    assert_eq!(
        put(&store, &blob, 9, parts(0, 1)).unwrap(),
        Written::Skipped,
        "it is being written"
    );
    drop(writer);
    assert_eq!(put(&store, &blob, 9, parts(0, 1)).unwrap(), Written::Stored);
    assert!(check(&blob, 9, parts(0, 1)));
    assert_eq!(store.usage().unverified, ByteSize(0));
    assert!(blob.begin_unverified(0).unwrap().is_none(), "something is present");
}

#[test]
fn bytes_that_another_program_changed_after_they_were_hashed_are_not_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_on(dir.path(), LIMIT, Arc::new(RealDisk::new(dir.path())));
    let large = large(10, 2 * MIB);
    let mut writer = begin(&store, &large);
    append(&mut writer, 10, &large, 2 * MIB).unwrap();
    let path = blob_path(dir.path(), &large.key());
    let mut file = File::options().write(true).open(&path);
    if file.is_err() {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        file = File::options().write(true).open(&path);
    }
    file.unwrap().write_all(b"not what was hashed").unwrap();
    let refused = writer.accept().unwrap_err().to_string();
    assert!(refused.contains("another program changed"), "{refused}");
    assert!(!is_readable(&store, 10, &large) && !store.holds(&large.key()));
}

#[test]
fn a_failed_sync_keeps_what_was_committed_before_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    let disk = Arc::new(FaultyDisk::new(MemoryDisk::new(), faults.clone()));
    let store = open_on(dir.path(), LIMIT, disk);
    let large = large(11, 6 * MIB);
    let mut writer = begin(&store, &large);
    append(&mut writer, 11, &large, 2 * MIB + 5).unwrap();
    store.commit().unwrap();
    append(&mut writer, 11, &large, 4 * MIB).unwrap();
    faults.fail_sync(true);
    assert!(store.commit().is_err());
    faults.fail_sync(false);
    let lost = append(&mut writer, 11, &large, 5 * MIB).unwrap_err().to_string();
    assert!(lost.contains("were dropped"), "{lost}");
    drop(writer);
    let mut writer = begin(&store, &large);
    assert!(writer.len() <= 2 * MIB + 5 && writer.len() >= 2 * MIB, "{}", writer.len());
    read_back(&mut writer, 11, &large);
    append(&mut writer, 11, &large, 6 * MIB).unwrap();
    writer.accept().unwrap();
    store.commit().unwrap();
    assert!(is_readable(&store, 11, &large));
}

#[test]
fn a_write_that_failed_can_be_repeated_and_one_that_is_not_costs_no_space() {
    let dir = tempfile::tempdir().unwrap();
    let (faults, memory) = (Faults::default(), MemoryDisk::new());
    let disk = Arc::new(FaultyDisk::new(memory.clone(), faults.clone()));
    let store = open_on(dir.path(), LIMIT, disk);
    let large = large(12, 4 * MIB);
    let mut writer = begin(&store, &large);
    append(&mut writer, 12, &large, MIB + 3).unwrap();
    for repeated in [true, false] {
        let len = writer.len();
        faults.room(Some(100_000));
        assert!(matches!(
            append(&mut writer, 12, &large, len + MIB),
            Err(StoreError::DiskFull { .. })
        ));
        faults.room(None);
        assert_eq!(writer.len(), len);
        if repeated {
            append(&mut writer, 12, &large, len + MIB).unwrap();
        }
    }
    drop(writer);
    store.commit().unwrap();
    let kept = store.usage();
    assert_eq!(kept.unverified, ByteSize(2 * MIB), "whole parts");
    assert!(memory.allocated() <= kept.used.0);
    let mut writer = begin(&store, &large);
    read_back(&mut writer, 12, &large);
    append(&mut writer, 12, &large, 4 * MIB).unwrap();
    writer.accept().unwrap();
    assert!(is_readable(&store, 12, &large));
}

#[test]
fn a_file_that_is_gone_takes_its_unverified_bytes_along() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_on(dir.path(), LIMIT, Arc::new(RealDisk::new(dir.path())));
    let large = large(13, 4 * MIB);
    let mut writer = begin(&store, &large);
    append(&mut writer, 13, &large, MIB).unwrap();
    drop(writer);
    store.commit().unwrap();
    drop(store);
    std::fs::remove_file(blob_path(dir.path(), &large.key())).unwrap();
    let store = open_on(dir.path(), LIMIT, Arc::new(RealDisk::new(dir.path())));
    let mut writer = begin(&store, &large);
    // whatever it says of its length, what cannot be read cannot be accepted
    let mut buf = vec![0; MIB as usize];
    let error = writer.read_back(&mut buf).and_then(|_| append(&mut writer, 13, &large, 4 * MIB));
    assert!(error.is_err());
    writer.discard();
    let mut writer = begin(&store, &large);
    append(&mut writer, 13, &large, 4 * MIB).unwrap();
    writer.accept().unwrap();
    assert!(is_readable(&store, 13, &large));
}

#[test]
fn a_large_object_of_a_damaged_index_costs_only_a_fetch() {
    let dir = tempfile::tempdir().unwrap();
    let disk = MemoryDisk::new();
    let (large, other) = (large(14, 3 * MIB), large(15, 2 * MIB));
    {
        let store = open_on(dir.path(), LIMIT, Arc::new(disk.clone()));
        let mut writer = begin(&store, &large);
        append(&mut writer, 14, &large, MIB).unwrap();
        let mut whole = begin(&store, &other);
        append(&mut whole, 15, &other, 2 * MIB).unwrap();
        whole.accept().unwrap();
    }
    let db = rusqlite::Connection::open(dir.path().join("index.db")).unwrap();
    // more than the piece has
    db.execute("UPDATE unverified SET len = ?1", [1i64 << 40]).unwrap();
    drop(db);
    let store = open_on(dir.path(), LIMIT, Arc::new(disk.clone()));
    assert!(is_readable(&store, 15, &other), "taken back by its checksums");
    assert!(!store.holds(&large.key()), "nothing certifies it");
    assert_eq!(begin(&store, &large).len(), 0);
}

#[test]
fn a_machine_that_stops_while_a_large_object_is_fetched_keeps_what_was_committed() {
    let steps = at_every_step(&Operation {
        files: vec![
            (1, large(1, 3 * LARGE_PART + 11)),
            (2, around(2, 7_000, LARGE_PART + 5, 3_000)),
        ],
        prepare: |world, files| {
            let store = world.open().unwrap();
            let mut writer = begin(store, &files[0].1);
            append(&mut writer, 1, &files[0].1, LARGE_PART / 2).unwrap();
        },
        before: open_it,
        act: |world, files| {
            let store = world.store();
            let mut first = begin(store, &files[0].1);
            read_back(&mut first, 1, &files[0].1);
            append(&mut first, 1, &files[0].1, 2 * LARGE_PART)?;
            let blob = store.blob(files[1].1.clone())?;
            put(store, &blob, 2, files[1].1.parts_of_piece(0))?;
            let mut second = blob.begin_unverified(1)?.expect("nobody else writes it");
            append(&mut second, 2, &files[1].1, LARGE_PART / 3)?;
            store.commit()?;
            world.done();
            append(&mut first, 1, &files[0].1, u64::MAX)?;
            first.accept()?;
            second.discard();
            store.commit()?;
            world.done();
            Ok(())
        },
        spoilt: false,
        after: |store, files, acts| {
            let (first, second) = (&files[0].1, &files[1].1);
            if is_readable(store, 1, first) {
                assert!(acts > 0);
            } else {
                // right up to where it is claimed, whatever the disk lost
                let mut writer = begin(store, first);
                assert!(acts < 2 && writer.len() >= LARGE_PART / 2, "{writer:?}");
                assert!(acts < 1 || writer.len() >= 2 * LARGE_PART, "{writer:?}");
                read_back(&mut writer, 1, first);
                append(&mut writer, 1, first, u64::MAX).unwrap();
                writer.accept().unwrap();
            }
            assert!(whole(store, 1, first));
            let mut writer = begin(store, second);
            assert!(acts < 2 || writer.is_empty(), "it was discarded");
            read_back(&mut writer, 2, second);
        },
    });
    assert!(steps > 20, "{steps}");
}

fn whole(store: &Store, n: u32, layout: &BlobLayout) -> bool {
    check(&store.blob(layout.clone()).unwrap(), n, layout.all_parts())
}
