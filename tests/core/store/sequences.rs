//! Random lives of a store against a model of it in memory.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;

use super::crash::copy_index;
use super::unverified::{append, large, read_back};
use super::*;
use modelfs::store::{MemoryDisk, Pin, UnverifiedWriter};

/// The last one is a large object.
const FILES: u32 = 6;
const LARGE: u32 = FILES - 1;

#[derive(Debug, Clone)]
enum Step {
    Write(u32, u32, u32),
    Read(u32, u32, u32),
    Evict(u32, bool),
    Pin(u32),
    Unpin(u32),
    Reserve(u64),
    Commit,
    Verify,
    /// Of the large object: begins, reads back what is there, and appends so many bytes.
    Append(u64),
    Accept,
    Discard,
    Leave,
    Reopen,
    Crash(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let file = 0..FILES;
    prop_oneof![
        8 => (file.clone(), any::<u32>(), 1u32..12).prop_map(|(f, s, n)| Step::Write(f, s, n)),
        4 => (file.clone(), any::<u32>(), 1u32..6).prop_map(|(f, s, n)| Step::Read(f, s, n)),
        1 => (file.clone(), any::<bool>()).prop_map(|(f, force)| Step::Evict(f, force)),
        1 => file.clone().prop_map(Step::Pin),
        1 => file.prop_map(Step::Unpin),
        1 => (0u64..6_000_000).prop_map(Step::Reserve),
        2 => Just(Step::Commit),
        1 => Just(Step::Verify),
        4 => (1u64..1_500_000).prop_map(Step::Append),
        2 => Just(Step::Accept),
        1 => Just(Step::Discard),
        1 => Just(Step::Leave),
        1 => Just(Step::Reopen),
        1 => any::<u64>().prop_map(Step::Crash),
    ]
}

fn file(n: u32) -> BlobLayout {
    if n == LARGE {
        return large(n, 2_500_001);
    }
    pieces(n, 1_200_000 + u64::from(n) * 400_001, [65_536, 30_001, 100_000][n as usize % 3])
}

fn pin_of(n: u32) -> Pin {
    Pin {
        source: source("s"),
        version: format!("g/m@v{n}").parse().unwrap(),
        hash: *file(n).key().digest(),
        owner: "me".into(),
        since: std::time::SystemTime::UNIX_EPOCH,
    }
}

fn run(steps: Vec<Step>) {
    let limit = ByteSize::mib(8);
    let dir = tempfile::tempdir().unwrap();
    let (mut disk, mut generation) = (MemoryDisk::new(), 0);
    let root = |g: u32| dir.path().join(g.to_string());
    let mut store = Some(open_on(&root(0), limit, Arc::new(disk.clone())));
    let mut pinned = BTreeSet::new();
    // parts that were ever written: nothing else may be present
    let mut written: Vec<BTreeSet<u32>> = vec![BTreeSet::new(); FILES as usize];
    // of pinned files: parts that were committed while pinned must stay
    let mut firm: Vec<BTreeSet<u32>> = vec![BTreeSet::new(); FILES as usize];
    let mut writer: Option<UnverifiedWriter> = None;
    // the most that may be unverified of the large object
    let mut appended = 0;
    for step in steps {
        if matches!(step, Step::Reopen | Step::Crash(_)) {
            writer = None;
        }
        let s = store.as_ref().unwrap();
        let span = |f: u32, start: u32, n: u32| {
            let count = file(f).part_count();
            parts(start % count, (start % count + n).min(count))
        };
        match step.clone() {
            Step::Write(f, start, n) => {
                let p = span(f, start, n);
                let blob = s.blob(file(f)).unwrap();
                match put(s, &blob, f, p) {
                    Ok(_) => {
                        let being_written = f == LARGE && writer.is_some();
                        assert_ne!(check(&blob, f, p), being_written, "readable at once");
                        if !being_written {
                            written[f as usize].extend(p.start..p.end);
                        }
                    }
                    Err(StoreError::NoSpace { .. }) => {}
                    Err(e) => panic!("{e}"),
                }
            }
            Step::Read(f, start, n) => {
                check(&s.blob(file(f)).unwrap(), f, span(f, start, n));
            }
            Step::Evict(f, force) => {
                let done = s.evict(&[file(f).key()], force).unwrap();
                if pinned.contains(&f) && !force {
                    assert_eq!(done.freed, ByteSize(0));
                } else {
                    assert_eq!(s.presence(&file(f).key()).0, ByteSize(0));
                    firm[f as usize].clear();
                    let stays = f != LARGE || writer.is_some();
                    assert!(stays || s.usage().unverified == ByteSize(0), "{step:?}");
                }
            }
            Step::Pin(f) => {
                if s.pin(&pin_of(f), &[file(f).key()]).is_ok() {
                    pinned.insert(f);
                }
            }
            Step::Unpin(f) => {
                let had = s.unpin(&source("s"), &pin_of(f).version, "me").unwrap().0;
                assert_eq!(had, pinned.remove(&f));
                firm[f as usize].clear();
            }
            Step::Reserve(n) => {
                if let Ok(space) = s.reserve(n) {
                    assert!(s.usage().reserved.0 >= n && space.left() == n);
                }
            }
            Step::Commit => s.commit().unwrap(),
            Step::Verify => {
                assert_eq!(s.verify(&s.blobs(), &|_, _| true).unwrap().dropped, ByteSize(0));
            }
            Step::Append(n) => {
                if writer.is_none() {
                    let blob = s.blob(file(LARGE)).unwrap();
                    writer = match blob.begin_unverified(0) {
                        Ok(writer) => writer,
                        Err(StoreError::NoSpace { .. }) => None,
                        Err(e) => panic!("{e}"),
                    };
                    let some = !blob.present(file(LARGE).all_parts()).is_empty();
                    assert!(!some || writer.is_none(), "nothing of it is present");
                    if let Some(writer) = &mut writer {
                        assert!(writer.len() <= appended);
                        read_back(writer, LARGE, &file(LARGE));
                    }
                }
                if let Some(writer) = &mut writer {
                    let end = writer.len() + n;
                    append(writer, LARGE, &file(LARGE), end).unwrap();
                    appended = writer.len();
                }
            }
            Step::Accept => {
                if let Some(writer) = writer.take() {
                    let complete = writer.len() == writer.total();
                    let all = file(LARGE).all_parts();
                    assert_eq!(writer.accept().is_ok(), complete);
                    if complete {
                        written[LARGE as usize].extend(all.start..all.end);
                        assert!(check(&s.blob(file(LARGE)).unwrap(), LARGE, all));
                    }
                }
            }
            Step::Discard => {
                if let Some(writer) = writer.take() {
                    writer.discard();
                    assert_eq!(s.usage().unverified, ByteSize(0));
                }
            }
            Step::Leave => writer = None,
            Step::Reopen => {
                drop(store.take());
                store = Some(open_on(&root(generation), limit, Arc::new(disk.clone())));
            }
            Step::Crash(seed) => {
                let before = root(generation);
                generation += 1;
                copy_index(&before, &root(generation));
                disk = disk.crash(seed);
                // what the dead one still does, it does to a disk that is gone
                store = Some(open_on(&root(generation), limit, Arc::new(disk.clone())));
            }
        }
        let s = store.as_ref().unwrap();
        let used = s.usage();
        assert!(used.used <= limit, "{step:?}: {used:?}");
        assert!(disk.allocated() <= used.used.0, "{step:?}");
        assert!(writer.is_some() || used.reserved == ByteSize(0), "{step:?}");
        match &writer {
            Some(writer) => assert_eq!(used.unverified.0, writer.len(), "{step:?}"),
            None => assert!(used.unverified.0 <= appended, "{step:?}"),
        }
        for f in 0..FILES {
            let blob = s.blob(file(f)).unwrap();
            let present: BTreeSet<u32> = blob
                .present(file(f).all_parts())
                .into_iter()
                .flat_map(|r| r.start..r.end)
                .collect();
            assert!(present.is_subset(&written[f as usize]), "{step:?}: more than was written");
            assert!(firm[f as usize].is_subset(&present), "{step:?}: lost what was pinned");
            for run in blob.present(file(f).all_parts()) {
                assert!(check(&blob, f, run), "{step:?}");
            }
            let durable = matches!(step, Step::Commit | Step::Reopen | Step::Verify);
            if durable && pinned.contains(&f) {
                firm[f as usize] = present;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32,
        failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_sequence_of_store_operations_keeps_the_promises(steps in proptest::collection::vec(step(), 1..40)) {
        run(steps);
    }
}
