//! Under pressure: a cache of a quarter of the data, many threads, and somebody who measures.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;

/// xorshift64: the tests need no better chance.
pub struct Chance(pub u64);

impl Chance {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
}

#[test]
fn four_threads_read_no_wrong_byte_and_stay_within_the_limit() {
    const LIMIT: ByteSize = ByteSize::mib(16);
    const FILES: u32 = 24;
    let dir = tempfile::tempdir().unwrap();
    let mut opt = options(dir.path(), LIMIT);
    opt.commit_bytes = ByteSize::mib(2);
    opt.commit_after = std::time::Duration::from_millis(20);
    let store = Store::open(opt).unwrap();
    // odd leaf sizes, so that neighbours share blocks
    let layouts: Vec<_> = (0..FILES)
        .map(|n| {
            pieces(n, 2_500_000 + u64::from(n) * 1111, [65_536, 10_000, 37_777][n as usize % 3])
        })
        .collect();
    let stop = AtomicBool::new(false);
    let (hits, writes, looks) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let most = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for t in 0..4 {
            let (store, layouts, stop, hits, writes) = (&store, &layouts, &stop, &hits, &writes);
            scope.spawn(move || {
                let mut chance = Chance(0x1234_5678_9abc + t);
                while !stop.load(Ordering::Relaxed) {
                    let n = chance.below(u64::from(FILES)) as u32;
                    let l = &layouts[n as usize];
                    let blob = store.blob(l.clone()).unwrap();
                    for _ in 0..8 {
                        let start = chance.below(u64::from(l.part_count())) as u32;
                        let end = (start + 1 + chance.below(8) as u32).min(l.part_count());
                        if check(&blob, n, parts(start, end)) {
                            hits.fetch_add(1, Ordering::Relaxed);
                            continue;
                        }
                        match put(store, &blob, n, parts(start, end)) {
                            Ok(_) => writes.fetch_add(1, Ordering::Relaxed),
                            Err(StoreError::NoSpace { .. }) => 0,
                            Err(e) => panic!("{e}"),
                        };
                        check(&blob, n, parts(start, end));
                    }
                    if chance.below(50) == 0 {
                        let _ = store.evict(&[l.key()], false).unwrap();
                    }
                }
            });
        }
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let used = store.usage().used;
                assert!(used <= LIMIT, "{used:?}");
                let taken = du(dir.path());
                most.fetch_max(taken, Ordering::Relaxed);
                assert!(taken <= LIMIT.0, "{taken} on disk, limit {}", LIMIT.0);
                looks.fetch_add(1, Ordering::Relaxed);
            }
        });
        std::thread::sleep(std::time::Duration::from_secs(4));
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(store.usage().reserved, ByteSize(0));
    let n = [&hits, &writes, &looks, &most].map(|n| n.load(Ordering::Relaxed));
    assert!(n[0] > 100 && n[1] > 100 && n[2] > 10, "{n:?}");
    assert!(n[3] > LIMIT.0 / 2, "the books are not absurdly careful: {n:?}");
    drop(store);
    let store = Store::open(options(dir.path(), LIMIT)).unwrap();
    for (n, l) in (0..).zip(&layouts) {
        let blob = store.blob(l.clone()).unwrap();
        for run in blob.present(l.all_parts()) {
            assert!(check(&blob, n, run));
        }
    }
    let found = store.verify(&store.blobs(), &|_, _| true).unwrap();
    assert_eq!(found.dropped, ByteSize(0));
}

#[test]
fn least_recently_used_goes_first() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(dir.path(), ByteSize::mib(12))).unwrap();
    let l = |n| layout(n, 1 << 20, 64 << 10);
    let mut blobs = Vec::new();
    for n in 0..5 {
        let blob = store.blob(l(n)).unwrap();
        put(&store, &blob, n, parts(0, 16)).unwrap();
        blobs.push(blob);
    }
    store.commit().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert!(check(&blobs[0], 0, parts(3, 4)));
    for n in 5..12 {
        put(&store, &store.blob(l(n)).unwrap(), n, parts(0, 16)).unwrap();
    }
    assert!(blobs[0].is_complete(), "just read");
    assert!(!blobs[1].is_complete(), "the oldest");
}

#[test]
fn reserving_commits_what_only_waits_for_its_commit() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(dir.path(), ByteSize::mib(12))).unwrap();
    // nothing is ever committed but by need
    for n in 0..40 {
        let blob = store.blob(layout(n, 1 << 20, 64 << 10)).unwrap();
        assert_eq!(put(&store, &blob, n, parts(0, 16)).unwrap(), Written::Stored);
        assert!(check(&blob, n, parts(0, 16)));
    }
    assert!(du(dir.path()) <= 12 << 20);
}

#[test]
fn many_small_files_stay_within_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let limit = ByteSize::mib(10);
    let store = Store::open(options(dir.path(), limit)).unwrap();
    for n in 0..1500 {
        let blob = store.blob(layout(n, 700, 64 << 10)).unwrap();
        put(&store, &blob, n, parts(0, 1)).unwrap();
        assert!(check(&blob, n, parts(0, 1)));
        if n % 100 == 0 {
            assert!(store.usage().used <= limit && du(dir.path()) <= limit.0);
        }
    }
    assert!(store.usage().blobs > 100, "{:?}", store.usage());
}
