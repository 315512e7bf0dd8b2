//! Any life of a fetcher: readers, readahead, prefetches begun and dropped, evictions and every
//! kind of fault at once, in a cache that is too small for it all and with little memory.
//!
//! Always: the right bytes or an error, and never more on disk than the limit. In the end, once the
//! registry is well again: everything can be read, and nothing is left under way or taken.

use std::sync::Arc;
use std::time::Duration;

use modelfs::base::FileRange;
use modelfs::base::units::ByteSize;
use modelfs::fetch::{CachedFile, FetchOptions, InFlight};
use modelfs::model::{FileIx, HashAlgorithm};
use modelfs::registry::{Call, Fault, RegistryError, When};
use modelfs_test_support::bytes;
use proptest::prelude::*;

use crate::fetch_rig::Rig;

/// Together more than the cache has room for.
const FILES: [usize; 4] = [5 << 20, 3 << 20, (2 << 20) + 777, 100];
const LIMIT: ByteSize = ByteSize::mib(10);

#[derive(Debug, Clone)]
enum Step {
    Read { file: usize, at: u64, len: u64 },
    Ahead { file: usize, at: u64, len: u64 },
    Prefetch { after_ms: u64 },
    Evict { file: usize },
    Break { when: u64, fault: usize, at: u64 },
    Heal,
    Rest { ms: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let place = || (0..FILES.len(), any::<u64>(), 1u64..1 << 20);
    let step = prop_oneof![
        8 => place().prop_map(|(file, at, len)| Step::Read { file, at, len }),
        3 => place().prop_map(|(file, at, len)| Step::Ahead { file, at, len: 4 * len }),
        1 => (0u64..300).prop_map(|after_ms| Step::Prefetch { after_ms }),
        1 => (0..FILES.len()).prop_map(|file| Step::Evict { file }),
        3 => (0u64..4, 0usize..6, 0u64..5 << 20)
            .prop_map(|(when, fault, at)| Step::Break { when, fault, at }),
        1 => Just(Step::Heal),
        2 => (0u64..30).prop_map(|ms| Step::Rest { ms }),
    ];
    proptest::collection::vec(step, 5..60)
}

fn fault(kind: usize, at: u64) -> (Call, Fault) {
    let what = || "it".to_owned();
    let down = RegistryError::Unreachable { what: what(), why: "refused".into() };
    match kind {
        0 => (Call::Object(None), Fault::CutOff(at)),
        1 => (Call::Object(None), Fault::Stall(at)),
        2 => (Call::Object(None), Fault::FlipBit(at)),
        3 => (Call::Object(None), Fault::Fail(down)),
        4 => (Call::Object(None), Fault::Delay(Duration::from_millis(at % 50))),
        _ => (Call::Document(None), Fault::Fail(down)),
    }
}

/// The range that a step means in a file of that length.
fn range(len: usize, at: u64, want: u64) -> FileRange {
    let start = at % len as u64;
    FileRange::new(start, (start + want).min(len as u64))
}

async fn live(steps: Vec<Step>, leaves: Option<HashAlgorithm>) {
    let options = FetchOptions {
        read_deadline: Duration::from_millis(400),
        memory: ByteSize::mib(3),
        connections: 4,
        ..FetchOptions::default()
    };
    let rig = Arc::new(Rig::with(LIMIT, options, None));
    let data: Arc<Vec<Vec<u8>>> =
        Arc::new(FILES.iter().enumerate().map(|(n, len)| bytes(n as u64, *len)).collect());
    let names = ["a", "b", "c", "d"];
    let list: Vec<_> = names.iter().zip(data.iter()).map(|(n, b)| (*n, &b[..])).collect();
    let hash = rig.put(&list, leaves);
    let manifest = rig.manifest(&hash).await;
    let small = rig.put(&list[1..2], leaves);
    let small = rig.manifest(&small).await;
    let mut files = Vec::new();
    for ix in 0..FILES.len() as u32 {
        files.push(rig.file_of(&manifest, ix));
    }
    let mut tasks = Vec::new();
    for step in steps {
        match step {
            Step::Read { file, at, len } => {
                let (rig, data, open) = (rig.clone(), data.clone(), files[file].clone());
                tasks.push(tokio::spawn(async move {
                    let range = range(FILES[file], at, len);
                    if let Ok(got) = rig.reader(&open).read(range).await {
                        let want = &data[file][range.start() as usize..range.end() as usize];
                        assert!(got == want, "wrong bytes in {range} of file {file}");
                    }
                }));
            }
            Step::Ahead { file, at, len } => {
                rig.read_ahead(&files[file], range(FILES[file], at, len));
            }
            Step::Prefetch { after_ms } => {
                let (rig, small) = (rig.clone(), small.clone());
                tasks.push(tokio::spawn(async move {
                    let prefetch = rig.prefetch(&small);
                    let _ = tokio::time::timeout(Duration::from_millis(after_ms), prefetch).await;
                }));
            }
            Step::Evict { file } => {
                let (rig, key) = (rig.clone(), manifest.layout(FileIx(file as u32)).key());
                tasks.push(tokio::task::spawn_blocking(move || {
                    rig.store.evict(&[key], true).expect("evicts");
                }));
            }
            Step::Break { when, fault: kind, at } => {
                let (call, fault) = fault(kind, at);
                let when = if when == 0 { When::Always } else { When::First(when) };
                rig.faulty.on(call, when, fault);
            }
            Step::Heal => rig.faulty.heal(),
            Step::Rest { ms } => tokio::time::sleep(Duration::from_millis(ms)).await,
        }
        let usage = rig.store.usage();
        assert!(usage.used <= usage.limit, "{usage:?}");
    }
    for task in tasks {
        task.await.expect("no panic");
    }
    rig.faulty.heal();
    for (ix, file) in files.iter().enumerate() {
        for start in (0..FILES[ix]).step_by(1 << 20) {
            let range = range(FILES[ix], start as u64, 1 << 20);
            let got = once_healed(&rig, file, range).await;
            assert!(got == data[ix][range.start() as usize..range.end() as usize]);
            let usage = rig.store.usage();
            assert!(usage.used <= usage.limit, "{usage:?}");
        }
    }
    let started = std::time::Instant::now();
    while rig.fetcher.in_flight() != InFlight::default() {
        assert!(started.elapsed() < Duration::from_secs(5), "left: {:?}", rig.fetcher.in_flight());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(rig.store.usage().reserved, ByteSize(0));
}

/// A flight from before may still be silent or pause between two attempts, which is not scaled down
/// with the deadline; it ends within two of them.
async fn once_healed(rig: &Rig, file: &Arc<CachedFile>, range: FileRange) -> Vec<u8> {
    let started = std::time::Instant::now();
    loop {
        match rig.read(file, range.start(), range.len()).await {
            Ok(got) => return got,
            Err(error) => {
                let late = started.elapsed() > Duration::from_millis(1500);
                assert!(!late, "{range} once healed: {error}");
            }
        }
    }
}

fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(16)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]
    #[test]
    fn any_sequence_of_fetcher_operations_keeps_the_promises(steps in steps(), kind in 0usize..3) {
        let kind = [None, Some(HashAlgorithm::Sha256), Some(HashAlgorithm::Blake3)][kind];
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(4)
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(live(steps, kind));
    }
}
