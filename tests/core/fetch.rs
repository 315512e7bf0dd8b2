//! Fetching against registries in memory that can be made to fail: one flight, priorities, no
//! poisoning, memory alone when the store is full.

use std::sync::Arc;
use std::time::Duration;

use modelfs::base::FileRange;
use modelfs::base::units::ByteSize;
use modelfs::fetch::{FetchError, Source};
use modelfs::model::hash::sha256;
use modelfs::model::{Digest, FileIx, HashAlgorithm, SourceName};
use modelfs::registry::{Call, Fault, Registry, RegistryError, When};
use modelfs::store::{Pin, StoreError};
use modelfs_test_support::bytes;

use crate::fetch_rig::{BIG, LEAF, Rig, options};

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_readers_of_a_leaf_share_one_flight() {
    let rig = Rig::new(BIG);
    let data = bytes(1, 8 << 20);
    let hash = rig.put(&[("w", &data)], Some(HashAlgorithm::Blake3));
    let file = rig.file(&hash, 0).await;
    rig.faulty.on(Call::Object(None), When::Always, Fault::Delay(Duration::from_millis(100)));
    let reads =
        (0..16).map(|_| tokio::spawn(rig.reader(&file).read(FileRange::at(3_000_000, 500_000))));
    for read in reads.collect::<Vec<_>>() {
        assert!(read.await.expect("no panic").expect("reads") == data[3_000_000..3_500_000]);
    }
    assert_eq!(rig.objects(), 1);
    let leaves = rig.memory.counts().objects[0].1.len();
    assert!(leaves <= 500_000 + 2 * LEAF as u64, "{leaves} bytes for 500,000");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_check_reads_right_at_odd_offsets() {
    for kind in [None, Some(HashAlgorithm::Sha256), Some(HashAlgorithm::Blake3)] {
        let rig = Rig::new(BIG);
        let (a, b) = (bytes(2, 1_000_003), bytes(3, 70_000));
        let hash = rig.put(&[("a", &a), ("b", &b)], kind);
        for (ix, data) in [(0, &a), (1, &b)] {
            let file = rig.file(&hash, ix).await;
            for (at, len) in
                [(0, 1), (LEAF - 1, 2), (12_345, 40_000), (data.len() - 1, 1), (0, data.len())]
            {
                let got = rig.read(&file, at as u64, len as u64).await.expect("reads");
                assert!(got == data[at..at + len], "{kind:?} {at} {len}");
            }
        }
    }
}

/// A part's checksum is lent by its leaf only where the two are the same bytes, of the same hash.
#[tokio::test(flavor = "multi_thread")]
async fn checksums_that_leaves_lend_are_those_of_the_stored_parts() {
    for kind in [HashAlgorithm::Sha256, HashAlgorithm::Blake3] {
        let rig = Rig::new(BIG);
        let chunk = bytes(12, 5 * LEAF + 777);
        // Two files cut out of one chunk in the middle of a leaf.
        let (a, b) = chunk.split_at(2 * LEAF + 999);
        let digest = rig.memory.insert(chunk.clone());
        let list: Vec<u8> = chunk.chunks(LEAF).flat_map(|l| *kind.hash(l).as_bytes()).collect();
        let json = serde_json::json!({
            "total_size": chunk.len(), "chunk_size": chunk.len(),
            "chunk_sizes": [chunk.len()], "chunks": [digest],
            "files": [{"path": "a", "size": a.len()}, {"path": "b", "size": b.len()}],
            "leaf_size": LEAF, "leaf_digest": kind, "leaves": [rig.memory.insert(list)],
        });
        let hash = rig.memory.insert(json.to_string().into_bytes());
        // A read may be answered before its bytes are stored.
        rig.prefetch(&rig.manifest(&hash).await).await.expect("fits");
        for (ix, data) in [(0, a), (1, b)] {
            let file = rig.file(&hash, ix).await;
            assert!(rig.read(&file, 0, data.len() as u64).await.expect("reads") == data);
        }
        let found = rig.store.verify(&rig.store.blobs(), &|_, _| true).expect("a healthy disk");
        assert_eq!(found.checked.0, chunk.len() as u64, "{kind:?}");
        assert_eq!((found.dropped.0, found.damaged.len()), (0, 0), "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_another_file_has_is_never_downloaded_twice() {
    let rig = Rig::new(BIG);
    let (shared, one, two) = (bytes(4, 3 << 20), bytes(5, 100_000), bytes(6, 100_000));
    let joined = |other: &[u8]| [&shared[..], other].concat();
    let first = rig.put(&[("s", &shared), ("x", &one)], Some(HashAlgorithm::Blake3));
    let manifest = rig.manifest(&first).await;
    rig.prefetch(&manifest).await.expect("fits");
    // In the second version the same chunk is the beginning of a longer file: another blob.
    let chunks = [sha256(&shared), rig.memory.insert(two.clone())];
    let list = |b: &[u8]| -> Digest {
        rig.memory.insert(
            b.chunks(LEAF)
                .flat_map(|l| *HashAlgorithm::Blake3.hash(l).as_bytes())
                .collect::<Vec<u8>>(),
        )
    };
    let json = serde_json::json!({
        "total_size": shared.len() + two.len(), "chunk_size": shared.len(),
        "chunk_sizes": [shared.len(), two.len()], "chunks": chunks,
        "files": [{"path": "j", "size": shared.len() + two.len()}],
        "leaf_size": LEAF, "leaf_digest": "blake3", "leaves": [list(&shared), list(&two)],
    });
    let second = rig.memory.insert(json.to_string().into_bytes());
    let before = rig.objects();
    let file = rig.file(&second, 0).await;
    let got = rig.read(&file, 0, (shared.len() + two.len()) as u64).await.expect("reads");
    assert!(got == joined(&two));
    let new = &rig.memory.counts().objects[before..];
    assert!(new.iter().all(|(digest, _)| *digest == chunks[1]), "{new:?}");
    assert!(rig.dir.path().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_serves_wrong_bytes_does_not_affect_other_registries() {
    for kind in [None, Some(HashAlgorithm::Sha256), Some(HashAlgorithm::Blake3)] {
        let honest = Rig::new(BIG);
        let liar = honest.beside("memory://liar");
        let (right, evil) = (bytes(7, 300_000), bytes(8, 300_000));
        // The liar gives its own bytes under the name of the honest chunk, with leaves that fit
        // what it serves, so that its own readers get what it publishes.
        let list: Vec<u8> =
            evil.chunks(LEAF).flat_map(|l| *HashAlgorithm::Blake3.hash(l).as_bytes()).collect();
        let list = liar.memory.insert(list);
        liar.memory.insert_as(sha256(&right), evil.clone());
        let lie = liar.put_manifest(
            &[("w", &evil)],
            &[sha256(&right)],
            &[list],
            Some(HashAlgorithm::Blake3),
        );
        let file = liar.file(&lie, 0).await;
        assert!(liar.read(&file, 0, 300_000).await.expect("its own content") == evil);

        let hash = honest.put(&[("w", &right)], kind);
        let file = honest.file(&hash, 0).await;
        assert!(honest.read(&file, 0, 300_000).await.expect("reads") == right, "{kind:?}");
        let again = liar.file(&lie, 0).await;
        assert!(liar.read(&again, 0, 300_000).await.expect("reads") == evil);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_leaf_is_requested_once_more_and_other_leaves_are_unharmed() {
    let rig = Rig::new(BIG);
    let data = bytes(9, 2 << 20);
    let hash = rig.put(&[("w", &data)], Some(HashAlgorithm::Blake3));
    let file = rig.file(&hash, 0).await;
    let at = 10 * LEAF as u64 + 5;
    rig.faulty.on(Call::Object(None), When::Always, Fault::FlipBit(at));
    let error = rig.read(&file, at, 1).await.expect_err("a wrong byte is never served");
    assert!(matches!(error, FetchError::Corrupt { .. }), "{error}");
    assert_eq!(rig.objects(), 2, "once more, and no more");
    let before = rig.read(&file, 0, at - 5).await.expect("the leaves before it");
    assert!(before == data[..at as usize - 5]);
    let after = 11 * LEAF as u64;
    let rest = rig.read(&file, after, data.len() as u64 - after).await.expect("and after it");
    assert!(rest == data[after as usize..]);
    rig.faulty.heal();
    assert!(rig.read(&file, 0, data.len() as u64).await.expect("healed") == data);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_leaf_list_is_never_believed() {
    let rig = Rig::new(BIG);
    let data = bytes(10, 300_000);
    let evil: Vec<u8> =
        bytes(11, 300_000).chunks(LEAF).flat_map(|l| *sha256(l).as_bytes()).collect();
    let list: Vec<u8> = data.chunks(LEAF).flat_map(|l| *sha256(l).as_bytes()).collect();
    let hash = rig.put(&[("w", &data)], Some(HashAlgorithm::Sha256));
    rig.memory.insert_as(sha256(&list), evil);
    let file = rig.file(&hash, 0).await;
    let error = rig.read(&file, 0, 10).await.expect_err("the list does not match its name");
    let wrong = matches!(error, FetchError::Registry(RegistryError::WrongBytes { .. }));
    assert!(wrong, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_cut_off_is_resumed() {
    let rig = Rig::new(BIG);
    let data = bytes(12, 4 << 20);
    let hash = rig.put(&[("w", &data)], Some(HashAlgorithm::Blake3));
    let file = rig.file(&hash, 0).await;
    rig.faulty.on(Call::Object(None), When::First(1), Fault::CutOff(3 << 20));
    assert!(rig.read(&file, 0, data.len() as u64).await.expect("reads") == data);
    let asked: Vec<_> = rig.memory.counts().objects.iter().map(|(_, r)| *r).collect();
    assert_eq!(asked.len(), 2);
    assert!(asked[1].start() >= (3 << 20) - LEAF as u64, "{asked:?}: it went on where it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_ends_at_the_deadline() {
    let rig = Rig::new(BIG);
    let data = bytes(13, 1 << 20);
    let hash = rig.put(&[("w", &data)], Some(HashAlgorithm::Blake3));
    let file = rig.file(&hash, 0).await;
    rig.faulty.on(Call::Object(None), When::Always, Fault::Stall(0));
    let error = rig.read(&file, 0, 10).await.expect_err("nothing came");
    assert!(matches!(error, FetchError::TimedOut { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_prefetch_does_not_block_reads() {
    let rig = Rig::new(BIG);
    let files: Vec<Vec<u8>> = (0..40).map(|n| bytes(20 + n, 2 << 20)).collect();
    let names: Vec<String> = (0..40).map(|n| format!("f{n}")).collect();
    let list: Vec<_> = names.iter().zip(&files).map(|(n, b)| (&n[..], &b[..])).collect();
    let hash = rig.put(&list, Some(HashAlgorithm::Blake3));
    let last = sha256(&files[39]);
    for data in &files[..39] {
        let call = Call::Object(Some(sha256(data)));
        rig.faulty.on(call, When::Always, Fault::Stall(1_000_000));
    }
    let manifest = rig.manifest(&hash).await;
    let prefetch = tokio::spawn({
        let (fetcher, manifest) = (rig.fetcher.clone(), manifest.clone());
        async move { fetcher.prefetch(fetcher.sources().first(), &manifest, &|_| {}).await }
    });
    while rig.objects() < 4 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let file = rig.file(&hash, 39).await;
    assert!(rig.read(&file, 0, 2 << 20).await.expect("it has room") == files[39]);
    assert!(rig.memory.counts().objects.iter().any(|(d, _)| *d == last));
    prefetch.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn with_everything_pinned_reads_go_through_memory() {
    let limit = ByteSize::mib(24);
    let rig = Rig::new(limit);
    let (kept, other) = (bytes(14, 10 << 20), bytes(15, 12 << 20));
    let hash = rig.put(&[("kept", &kept)], Some(HashAlgorithm::Blake3));
    let manifest = rig.manifest(&hash).await;
    rig.prefetch(&manifest).await.expect("fits");
    let pin = Pin {
        source: SourceName::of_address("memory://a"),
        version: "org/net@v1".parse().expect("a reference"),
        hash,
        owner: "test".to_owned(),
        since: std::time::SystemTime::UNIX_EPOCH,
    };
    rig.store.pin(&pin, &[manifest.layout(FileIx(0)).key()]).expect("pins");

    let second = rig.put(&[("other", &other)], Some(HashAlgorithm::Blake3));
    let file = rig.file(&second, 0).await;
    for at in (0..other.len() as u64).step_by(1 << 20) {
        let got = rig.read(&file, at, 1 << 20).await.expect("through memory if need be");
        assert!(got == other[at as usize..][..1 << 20]);
        let usage = rig.store.usage();
        assert!(usage.used <= usage.limit, "{usage:?}");
    }
    let all = rig.read(&file, 0, other.len() as u64).await.expect("more at once than has room");
    assert!(all == other);
    let kept_file = rig.file(&hash, 0).await;
    let cached = rig.cached(&kept_file, 0, kept.len() as u64).expect("still there");
    assert!(cached == kept);

    let error = rig.prefetch(&rig.manifest(&second).await).await;
    let full =
        matches!(&error, Err(FetchError::Store(e)) if matches!(**e, StoreError::NoSpace { .. }));
    assert!(full, "a prefetch that cannot fit says so: {error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalog_is_asked_for_once_per_time_to_live_and_kept_when_the_registry_is_gone() {
    let rig = Rig::new(BIG);
    let data = bytes(16, 1000);
    let hash = rig.put(&[("w", &data)], None);
    rig.memory.set_catalog(
        serde_json::json!({"org": {"net": {"v1": {"hash": hash}}}}).to_string().into_bytes(),
    );
    let source = rig.fetcher.sources().first();
    for _ in 0..5 {
        assert_eq!(source.catalog().await.expect("a catalog").len(), 1);
    }
    assert_eq!(rig.memory.counts().catalogs, 1);
    assert!(source.refresh().await.expect("asked").is_none(), "unchanged");

    let gone = RegistryError::Unreachable { what: "models.json".into(), why: "refused".into() };
    rig.faulty.on(Call::Catalog, When::Always, Fault::Fail(gone));
    assert!(source.refresh().await.is_err());
    assert!(source.trouble().is_some());
    // The next run starts without the registry, on what the index kept.
    let next = Source::new(
        SourceName::of_address("memory://a"),
        Some(rig.faulty.clone() as Arc<dyn Registry>),
        rig.store.clone(),
        &options(),
    );
    assert!(
        next.catalog().await.expect("offline").find(&"org/net@v1".parse().expect("one")).is_some()
    );
    let manifest =
        Arc::new(next).manifest(&hash).await.expect("the manifest was kept too, or is asked for");
    assert_eq!(manifest.total(), 1000);
    let nobody =
        Source::new(SourceName::of_address("memory://b"), None, rig.store.clone(), &options());
    assert!(matches!(nobody.catalog().await, Err(FetchError::NotKnown { .. })));
}

/// A file of chunks that all have the same bytes, as the padding of a model has them.
fn put_repeated(rig: &Rig, chunk: &[u8], times: usize, leaf: bool) -> Digest {
    let digest = rig.memory.insert(chunk.to_vec());
    let list: Vec<u8> =
        chunk.chunks(LEAF).flat_map(|l| *HashAlgorithm::Blake3.hash(l).as_bytes()).collect();
    let list = rig.memory.insert(list);
    let size = chunk.len() * times;
    let mut json = serde_json::json!({
        "total_size": size, "chunk_size": chunk.len(), "chunks": vec![digest; times],
        "files": [{"path": "w", "size": size}],
    });
    if leaf {
        json["leaf_size"] = LEAF.into();
        json["leaf_digest"] = "blake3".into();
        json["leaves"] = serde_json::to_value(vec![list; times]).expect("digests");
    }
    rig.memory.insert(json.to_string().into_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_of_repeated_chunks_is_prefetched_whole_and_fetched_once() {
    for leaf in [true, false] {
        for times in [9, 100] {
            let rig = Rig::new(BIG);
            let chunk = vec![0; 4 * LEAF];
            let manifest = rig.manifest(&put_repeated(&rig, &chunk, times, leaf)).await;
            let done = rig.prefetch(&manifest).await;
            let done = done.unwrap_or_else(|e| panic!("{times} chunks, leaves: {leaf}: {e}"));
            assert_eq!(done.present, (chunk.len() * times) as u64);
            assert_eq!(rig.objects(), 1, "{times} chunks, leaves: {leaf}");
        }
    }
}
