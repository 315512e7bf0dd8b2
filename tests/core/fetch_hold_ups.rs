//! What may hold a fetch up, and must not for ever: memory, silence, a store that takes nothing,
//! flights of others, a disk that cannot be read.

use std::sync::Arc;
use std::time::Duration;

use modelfs::base::FileRange;
use modelfs::base::units::ByteSize;
use modelfs::fetch::{FetchError, FetchOptions, Readers};
use modelfs::model::{FileIx, HashAlgorithm};
use modelfs::registry::{Call, Fault, RegistryError, When};
use modelfs::store::{Faults, FaultyDisk, RealDisk, Reservation, Store};
use modelfs_test_support::bytes;

use crate::fetch_rig::{BIG, LEAF, Rig, options};

const MIB: usize = 1 << 20;
/// Within a batch of a full MiB: 1, 2, 4 and 8 leaves came before.
const IN_A_FULL_BATCH: u64 = 15 * LEAF as u64;

/// 1 MiB for demand, 2 MiB for the rest.
fn little_memory() -> FetchOptions {
    FetchOptions { memory: ByteSize::mib(3), ..options() }
}

/// Takes what is free, so that nothing can be stored.
fn fill(store: &Store) -> Reservation {
    let usage = store.usage();
    store.reserve(usage.limit.0 - usage.used.0).expect("it is free")
}

async fn until(what: impl Fn() -> bool) {
    for _ in 0..1000 {
        if what() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it never came to that");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_is_not_held_up_by_the_memory_of_a_readahead_that_it_joins() {
    let rig = Rig::with(BIG, little_memory(), None);
    let files: Vec<Vec<u8>> = (0..4).map(|n| bytes(100 + n, 4 * MIB)).collect();
    let names = ["a", "b", "c", "d"];
    let list: Vec<_> = names.iter().zip(&files).map(|(n, b)| (*n, &b[..])).collect();
    let hash = rig.put(&list, Some(HashAlgorithm::Blake3));
    rig.faulty.on(Call::Object(None), When::First(3), Fault::Stall(IN_A_FULL_BATCH));
    for ix in 0..3 {
        rig.read_ahead(&rig.file(&hash, ix).await, FileRange::new(0, 4 << 20));
    }
    until(|| rig.objects() == 3).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let file = rig.file(&hash, 3).await;
    rig.read_ahead(&file, FileRange::new(0, 4 << 20));
    tokio::time::sleep(Duration::from_millis(50)).await;
    let got = rig.read(&file, 0, 100_000).await.expect("demand has memory of its own");
    assert!(got == files[3][..100_000]);
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_are_served_although_their_data_exceeds_the_memory_budget() {
    let rig = Rig::with(ByteSize::mib(16), little_memory(), None);
    let data = bytes(110, 24 * MIB);
    let hash = rig.put(&[("w", &data)], Some(HashAlgorithm::Blake3));
    let file = rig.file(&hash, 0).await;
    let full = fill(&rig.store);
    let reads = (0..23u64).map(|n| {
        let at = n * MIB as u64 + 1000;
        let read = rig.reader(&file).read(FileRange::at(at, 1 << 20));
        tokio::spawn(async move { (at, read.await) })
    });
    for read in reads.collect::<Vec<_>>() {
        let (at, got) = read.await.expect("no panic");
        assert!(got.expect("through memory") == data[at as usize..][..MIB]);
    }
    let got =
        rig.read(&file, 0, data.len() as u64).await.expect("one that is larger than all of it");
    assert!(got == data);
    drop(full);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefetch_that_cannot_be_stored_ends_and_leaves_no_memory_taken() {
    let faults = Faults::default();
    let dir = tempfile::tempdir().expect("a folder");
    let disk = FaultyDisk::new(RealDisk::new(dir.path()), faults.clone());
    let rig = Rig::with(BIG, little_memory(), Some(Arc::new(disk)));
    let data = bytes(111, 8 * MIB);
    let hash = rig.put(&[("w", &data)], Some(HashAlgorithm::Blake3));
    let manifest = rig.manifest(&hash).await;
    faults.room(Some(100_000));
    let prefetch = rig.prefetch(&manifest);
    let end = tokio::time::timeout(Duration::from_secs(10), prefetch).await;
    assert!(end.expect("it ends").is_err(), "the disk is full");
    let file = rig.file(&hash, 0).await;
    assert!(rig.read(&file, 0, 3 << 20).await.expect("through memory") == data[..3 * MIB]);
    faults.room(None);
    rig.prefetch(&manifest).await.expect("there is room again");
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_is_forgotten_when_it_ends() {
    let rig = Rig::new(BIG);
    let data = bytes(112, MIB);
    let hash = rig.put(&[("w", &data)], Some(HashAlgorithm::Blake3));
    let file = rig.file(&hash, 0).await;
    rig.faulty.on(Call::Object(None), When::Always, Fault::Stall(0));
    let error = rig.read(&file, 0, 10).await.expect_err("nothing came");
    assert!(matches!(error, FetchError::TimedOut { .. }), "{error}");
    rig.faulty.heal();
    assert!(rig.read(&file, 0, 10).await.expect("the registry answers again") == data[..10]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_evicted_during_its_flight_is_fetched_again() {
    let rig = Rig::new(BIG);
    let data = bytes(113, 8 * MIB);
    let hash = rig.put(&[("w", &data)], Some(HashAlgorithm::Blake3));
    let manifest = rig.manifest(&hash).await;
    let file = rig.file(&hash, 0).await;
    rig.faulty.on(Call::Object(None), When::First(1), Fault::Stall(4 << 20));
    rig.read_ahead(&file, FileRange::new(0, 8 << 20));
    until(|| rig.cached(&file, 0, LEAF as u64).is_some()).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let key = manifest.layout(FileIx(0)).key();
    rig.store.evict(&[key], true).expect("evicts");
    assert!(rig.cached(&file, 0, LEAF as u64).is_none(), "it went");
    let got = rig.read(&file, 0, LEAF as u64).await.expect("a flight of its own");
    assert!(got == data[..LEAF]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_cache_hides_no_catalog_and_no_manifest() {
    let rig = Rig::new(ByteSize::mib(8));
    let _full = fill(&rig.store);
    let data = bytes(114, 1000);
    let hash = rig.put(&[("w", &data)], None);
    let catalog = serde_json::json!({"org": {"net": {"v1": {"hash": hash}}}});
    rig.memory.set_catalog(catalog.to_string().into_bytes());
    let source = rig.fetcher.sources().first();
    for _ in 0..3 {
        assert_eq!(source.catalog().await.expect("it came").len(), 1);
    }
    assert_eq!(rig.memory.counts().catalogs, 1, "and is not asked for at every turn");
    let file = rig.file(&hash, 0).await;
    assert!(rig.read(&file, 0, 1000).await.expect("reads") == data);
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_that_the_disk_cannot_read_are_fetched_again() {
    let faults = Faults::default();
    let dir = tempfile::tempdir().expect("a folder");
    let disk = FaultyDisk::new(RealDisk::new(dir.path()), faults.clone());
    let rig = Rig::with(BIG, options(), Some(Arc::new(disk)));
    let data = bytes(115, 2 * MIB);
    let hash = rig.put(&[("w", &data)], Some(HashAlgorithm::Blake3));
    let manifest = rig.manifest(&hash).await;
    rig.prefetch(&manifest).await.expect("fits");
    let file = rig.file(&hash, 0).await;
    let before = rig.objects();
    let bad = 5 * LEAF as u64 + 1000;
    faults.spoil(bad..bad + 512);
    assert!(rig.read(&file, 0, 2 << 20).await.expect("from the registry") == data);
    let asked: Vec<_> = rig.memory.counts().objects[before..].iter().map(|(_, r)| *r).collect();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!((asked[0].start(), asked[0].len()), (5 * LEAF as u64, LEAF as u64), "one leaf");
    until(|| rig.fetcher.in_flight().flights == 0).await;
    let cached = rig.cached(&file, 0, data.len() as u64).expect("and stored again");
    assert!(cached == data);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_does_not_sit_out_the_pause_of_a_readahead_that_failed() {
    let rig = Rig::with(BIG, FetchOptions::default(), None);
    let data = bytes(116, MIB);
    let hash = rig.put(&[("w", &data)], Some(HashAlgorithm::Blake3));
    let file = rig.file(&hash, 0).await;
    rig.faulty.on(Call::Object(None), When::First(4), Fault::CutOff(0));
    rig.read_ahead(&file, FileRange::new(0, 1 << 20));
    // Failed four times; the fifth attempt is a second or two away.
    until(|| rig.objects() == 4).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let started = std::time::Instant::now();
    assert!(rig.read(&file, 0, 1000).await.expect("it is well again") == data[..1000]);
    assert!(started.elapsed() < Duration::from_millis(500), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_through_a_cache_smaller_than_its_window_is_fetched_about_once() {
    let rig = Rig::new(ByteSize::mib(16));
    let files: Vec<Vec<u8>> = (0..16).map(|n| bytes(120 + n, 4 * MIB)).collect();
    let data = files.concat();
    let chunks: Vec<_> = files.iter().map(|f| rig.memory.insert(f.clone())).collect();
    let lists: Vec<_> = files
        .iter()
        .map(|f| f.chunks(LEAF).flat_map(|l| *HashAlgorithm::Blake3.hash(l).as_bytes()).collect())
        .map(|list: Vec<u8>| rig.memory.insert(list))
        .collect();
    let json = serde_json::json!({
        "total_size": data.len(), "chunk_size": 4 * MIB, "chunks": chunks,
        "files": [{"path": "w", "size": data.len()}],
        "leaf_size": LEAF, "leaf_digest": "blake3", "leaves": lists,
    });
    let hash = rig.memory.insert(json.to_string().into_bytes());
    let file = rig.file(&hash, 0).await;
    let reader = rig.reader(&file);
    for at in (0..data.len() as u64).step_by(128 << 10) {
        let range = FileRange::at(at, 128 << 10);
        let got = match reader.try_read(range).expect("the store can be read") {
            Some(got) => got,
            None => reader.read(range).await.expect("reads"),
        };
        assert!(got == data[at as usize..][..128 << 10]);
    }
    let came = rig.fetcher.traffic().bytes;
    assert!(came < data.len() as u64 * 11 / 10, "{came} bytes came for {}", data.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_readahead_is_reported_unless_another_flight_fetched_the_bytes() {
    let rig = Rig::new(BIG);
    let data = bytes(130, 2 * MIB);
    let hash = rig.put(&[("w", &data)], Some(HashAlgorithm::Blake3));
    let file = rig.file(&hash, 0).await;
    let what = || RegistryError::Missing { what: "it".to_owned() };
    rig.faulty.on(Call::Object(None), When::First(1), Fault::Fail(what()));
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let ended = Arc::new(move |range, ended| drop(tell.send((range, ended))));
    let reader = rig.fetcher.reader(&file, Readers::OfOneHandle, ended);
    let range = FileRange::new(0, 1 << 20);
    reader.read_ahead(range);
    let (of, ended) = told.recv().await.expect("it is told");
    let error = ended.expect_err("nobody brought it");
    assert_eq!(of, range);
    assert!(matches!(error, FetchError::Registry(RegistryError::Missing { .. })), "{error}");
    reader.read_ahead(range);
    assert!(matches!(told.recv().await, Some((_, Ok(())))), "it came");
    assert!(rig.read(&file, 0, 1 << 20).await.expect("there") == data[..1 << 20]);
}
