//! Objects that can be verified only as a whole and that are too large for memory: fetched into the store,
//! readable once all of them has matched.

use std::sync::Arc;
use std::time::{Duration, Instant};

use modelfs::base::units::ByteSize;
use modelfs::base::{FileRange, ObjectRange};
use modelfs::fetch::{CachedFile, FetchError, FetchOptions, PrefetchProgress};
use modelfs::model::hash::sha256;
use modelfs::model::{
    Check, Digest, HashAlgorithm, LARGE_PART, MAX_LEAF, Manifest, ManifestBuilder, Object, Slice,
};
use modelfs::registry::{Call, Fault, RegistryError, When};
use modelfs::store::StoreError;
use modelfs_test_support::bytes;

use crate::fetch_rig::{BIG, Rig, options};

/// More than memory holds, and no multiple of anything.
const LEN: u64 = MAX_LEAF + LARGE_PART + 7;

fn large(seed: u64) -> Vec<u8> {
    bytes(seed, LEN as usize)
}

/// A version of files of one object each.
fn version(objects: &[(Digest, u64)]) -> Arc<Manifest> {
    let mut manifest = ManifestBuilder::new(sha256(b"manifest"));
    for (i, (digest, len)) in objects.iter().enumerate() {
        let object = Object::new(*digest, *len, Check::of_whole(*len));
        let object = manifest.object(object).expect("an object");
        let slice = Slice { object, range: ObjectRange::new(0, *len) };
        manifest.file(&format!("f{i}"), None, [slice]).expect("a file");
    }
    Arc::new(manifest.build().expect("a manifest"))
}

/// A large file in the registry of a rig, and its bytes.
fn put(rig: &Rig, seed: u64) -> (Arc<CachedFile>, Vec<u8>) {
    let data = large(seed);
    let manifest = version(&[(rig.memory.insert(data.clone()), LEN)]);
    (rig.file_of(&manifest, 0), data)
}

/// What was asked for of objects, in order.
fn ranges(rig: &Rig) -> Vec<ObjectRange> {
    rig.memory.counts().objects.iter().map(|(_, range)| *range).collect()
}

/// Nothing comes beyond the first so many bytes, however often it is asked for.
fn stall_at(rig: &Rig, len: u64) {
    rig.faulty.on(Call::Object(None), When::First(1), Fault::Stall(len));
    rig.faulty.on(Call::Object(None), When::Always, Fault::Stall(0));
}

async fn until(mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(20), "it never happens");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_readers_wait_until_all_of_it_has_matched_and_it_is_requested_once() {
    let rig = Rig::new(BIG);
    let (file, data) = put(&rig, 1);
    rig.faulty.on(Call::Object(None), When::Always, Fault::Delay(Duration::from_millis(200)));
    let at = [0, 5, LEN / 2, LEN - 10];
    let reads = at.map(|at| tokio::spawn(rig.reader(&file).read(FileRange::at(at, 10))));
    assert_eq!(rig.cached(&file, 0, 10), None);
    for (at, read) in at.into_iter().zip(reads) {
        let got = read.await.expect("no panic").expect("reads");
        assert!(got == data[at as usize..][..10], "at {at}");
    }
    assert_eq!(ranges(&rig), [ObjectRange::new(0, LEN)]);
    assert!(rig.cached(&file, 0, LEN).expect("all of it is readable") == data);
    assert_eq!(rig.fetcher.traffic().bytes, LEN);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_it_is_readable_before_its_last_byte() {
    let rig = Rig::new(BIG);
    let (file, _) = put(&rig, 2);
    stall_at(&rig, LEN - 1);
    let read = tokio::spawn(rig.reader(&file).read(FileRange::at(0, 10)));
    until(|| rig.fetcher.traffic().bytes == LEN - 1).await;
    assert_eq!(rig.cached(&file, 0, 10), None);
    let error = read.await.expect("no panic").expect_err("the last byte never comes");
    assert!(matches!(error, FetchError::TimedOut { .. }), "{error}");
    assert_eq!(rig.cached(&file, 0, 10), None);
    assert_eq!(rig.store.presence(&file.blob().expect("not empty").key()).0, ByteSize(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_breaks_off_again_and_again_goes_on_where_it_was_and_no_deadline_passes() {
    let options = FetchOptions { read_deadline: Duration::from_secs(1), ..options() };
    let rig = Rig::with(BIG, options, None);
    let (file, data) = put(&rig, 3);
    rig.faulty.on(Call::Object(None), When::Always, Fault::CutOff((5 << 20) + 3));
    let begun = Instant::now();
    assert!(rig.read(&file, LEN - 9, 9).await.expect("it arrives") == data[LEN as usize - 9..]);
    assert!(begun.elapsed() > Duration::from_secs(1), "longer than a read may wait for nothing");
    let asked = ranges(&rig);
    assert!(asked.len() >= 13, "{asked:?}");
    assert!(asked.windows(2).all(|two| two[1].start() == two[0].start() + (5 << 20) + 3));
    assert_eq!(rig.fetcher.traffic().bytes, LEN, "nothing came twice");
    assert!(rig.cached(&file, 0, LEN).expect("all of it") == data);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_here_before_a_restart_is_hashed_again_and_not_fetched_again() {
    let options = FetchOptions { read_deadline: Duration::from_secs(1), ..options() };
    let rig = Rig::with(BIG, options, None);
    let (file, data) = put(&rig, 4);
    stall_at(&rig, 50 << 20);
    let read = tokio::spawn(rig.reader(&file).read(FileRange::at(0, 10)));
    until(|| rig.store.usage().unverified.0 == 50 << 20).await;
    read.await.expect("no panic").expect_err("no more comes");
    until(|| rig.fetcher.in_flight().flights == 0).await;
    drop(file);
    let rig = rig.restarted(BIG).await;
    let manifest = version(&[(rig.memory.insert(data.clone()), LEN)]);
    let file = rig.file_of(&manifest, 0);
    assert!(rig.read(&file, 7, 10).await.expect("the rest arrives") == data[7..17]);
    assert_eq!(ranges(&rig), [ObjectRange::new(50 << 20, LEN)]);
    assert!(rig.cached(&file, 0, LEN).expect("all of it") == data);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_are_fetched_once_more_then_dropped_and_not_fetched_for_each_read() {
    let rig = Rig::new(BIG);
    let (file, _) = put(&rig, 5);
    rig.faulty.on(Call::Object(None), When::Always, Fault::FlipBit(LEN - 1));
    let error = rig.read(&file, 0, 10).await.expect_err("a wrong byte is never served");
    assert!(matches!(error, FetchError::Corrupt { .. }), "{error}");
    let all = ObjectRange::new(0, LEN);
    assert_eq!(ranges(&rig), [all, all]);
    assert_eq!(rig.cached(&file, 0, 10), None);
    let usage = rig.store.usage();
    assert_eq!((usage.unverified.0, usage.reserved.0), (0, 0), "nothing of it is kept");
    for at in [0, LEN - 10] {
        let again = rig.read(&file, at, 10).await.expect_err("it is known to be wrong");
        assert_eq!(again.to_string(), error.to_string());
    }
    assert_eq!(rig.objects(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_were_wrong_once_are_right_the_second_time() {
    let rig = Rig::new(BIG);
    let (file, data) = put(&rig, 6);
    rig.faulty.on(Call::Object(None), When::First(1), Fault::FlipBit(12_345));
    assert!(rig.read(&file, 12_345, 10).await.expect("right") == data[12_345..12_355]);
    assert_eq!(rig.objects(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_file_is_readable_at_once_while_many_large_ones_are_under_way() {
    let rig = Rig::new(ByteSize::gib(3));
    let small = bytes(7, 100_000);
    let mut objects = vec![(rig.memory.insert(small.clone()), 100_000)];
    objects.extend((0..24u8).map(|n| (Digest::from_bytes([n; 32]), LEN)));
    let shared = bytes::Bytes::from(large(8));
    for (digest, _) in &objects[1..] {
        rig.memory.insert_as(*digest, shared.clone());
        rig.faulty.on(Call::Object(Some(*digest)), When::Always, Fault::Stall(3 << 20));
    }
    let manifest = version(&objects);
    let read =
        |ix| tokio::spawn(rig.reader(&rig.file_of(&manifest, ix)).read(FileRange::at(0, 10)));
    let reads: Vec<_> = (1..25).map(read).collect();
    until(|| rig.objects() >= 12).await;
    let begun = Instant::now();
    let got = rig.read(&rig.file_of(&manifest, 0), 0, 100_000).await.expect("reads");
    assert!(got == small && begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert!(reads.iter().all(|read| !read.is_finished()), "the large ones still wait");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_one_object_two_batches_and_no_more_are_in_memory() {
    let rig = Rig::new(BIG);
    let (file, _) = put(&rig, 9);
    let read = tokio::spawn(rig.reader(&file).read(FileRange::at(0, 10)));
    let mut most = 0;
    while !read.is_finished() {
        most = most.max(rig.fetcher.in_flight().memory);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    read.await.expect("no panic").expect("reads");
    assert!((1..=3 << 20).contains(&most), "{most}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_can_never_fit_is_an_error_at_once_and_not_requested() {
    const LEN: u64 = 50 << 30;
    let rig = Rig::new(ByteSize::mib(64));
    let file = rig.file_of(&version(&[(sha256(b"object"), LEN)]), 0);
    let begun = Instant::now();
    match rig.read(&file, LEN / 2, 4096).await {
        Err(FetchError::Store(error)) if matches!(*error, StoreError::TooLarge { .. }) => {
            let text = error.to_string();
            assert!(text.contains("50.0 GiB needed, and a limit of 64.0 MiB"), "{text}");
        }
        other => panic!("{other:?}"),
    }
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert_eq!((rig.objects(), rig.store.usage().reserved.0), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_waits_for_the_space_of_one_that_is_under_way() {
    let rig = Rig::new(ByteSize::mib(100));
    let (first, second) = (large(10), large(11));
    let manifest = version(&[
        (rig.memory.insert(first.clone()), LEN),
        (rig.memory.insert(second.clone()), LEN),
    ]);
    rig.faulty.on(Call::Object(None), When::First(1), Fault::Delay(Duration::from_millis(500)));
    let read =
        |ix| tokio::spawn(rig.reader(&rig.file_of(&manifest, ix)).read(FileRange::at(0, 10)));
    let one = read(0);
    until(|| rig.store.usage().reserved.0 > LEN).await;
    let two = read(1);
    assert!(one.await.expect("no panic").expect("reads") == first[..10]);
    assert!(two.await.expect("no panic").expect("reads") == second[..10]);
    assert_eq!(rig.objects(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_object_of_two_sources_is_fetched_once() {
    let rig = Rig::new(BIG);
    let other = rig.beside("memory://b");
    let (file, data) = put(&rig, 12);
    let (same, _) = put(&other, 12);
    rig.faulty.on(Call::Object(None), When::Always, Fault::Delay(Duration::from_millis(300)));
    let first = tokio::spawn(rig.reader(&file).read(FileRange::at(0, 10)));
    until(|| rig.store.usage().reserved.0 > LEN).await;
    assert!(other.read(&same, 5, 10).await.expect("reads") == data[5..15]);
    assert!(first.await.expect("no panic").expect("reads") == data[..10]);
    assert_eq!((rig.objects(), other.objects()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_nothing_waits_for_any_more_stops_and_goes_on_when_it_is_read() {
    let options = FetchOptions { read_deadline: Duration::from_secs(1), ..options() };
    let rig = Rig::with(BIG, options, None);
    let (file, data) = put(&rig, 13);
    rig.faulty.on(Call::Object(None), When::Always, Fault::CutOff(4 << 20));
    let read = tokio::spawn(rig.reader(&file).read(FileRange::at(0, 10)));
    until(|| rig.objects() >= 2).await;
    read.abort();
    until(|| rig.fetcher.in_flight().flights == 0).await;
    let before = rig.store.usage().unverified.0;
    assert!((4 << 20..LEN).contains(&before), "{before}");
    rig.faulty.heal();
    assert!(rig.read(&file, 0, 10).await.expect("it goes on") == data[..10]);
    assert_eq!(ranges(&rig).last(), Some(&ObjectRange::new(before, LEN)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_with_large_objects_is_prefetched_whole_and_reports_what_came() {
    let rig = Rig::new(ByteSize::mib(512));
    let objects = [14, 15].map(|seed| (rig.memory.insert(large(seed)), LEN));
    let manifest = version(&objects);
    // Long enough that it is reported in between.
    rig.faulty.on(Call::Object(Some(objects[1].0)), When::Always, Fault::CutOff(16 << 20));
    let seen = std::sync::Mutex::new(Vec::new());
    let note = |progress: PrefetchProgress| seen.lock().expect("a list").push(progress.present);
    let source = rig.fetcher.sources().first();
    let done = rig.fetcher.prefetch(source, &manifest, &note).await.expect("fits");
    assert_eq!((done.present, done.total), (2 * LEN, 2 * LEN));
    let seen = seen.into_inner().expect("a list");
    assert!(seen.iter().any(|present| (LEN + 1..2 * LEN).contains(present)), "{seen:?}");
    for (ix, seed) in [(0, 14), (1, 15)] {
        let file = rig.file_of(&manifest, ix);
        assert!(rig.cached(&file, 0, LEN).expect("it is there") == large(seed));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_evicted_of_a_verified_object_is_fetched_part_by_part_and_verified() {
    let rig = Rig::new(ByteSize::mib(96));
    let (file, data) = put(&rig, 17);
    assert!(rig.read(&file, 0, 10).await.expect("reads") == data[..10]);
    let other = bytes(18, 32 << 20);
    let hash = rig.put(&[("other", &other)], Some(HashAlgorithm::Blake3));
    rig.prefetch(&rig.manifest(&hash).await).await.expect("fits");
    let blob = file.blob().expect("not empty").clone();
    let missing = blob.missing(blob.layout().all_parts());
    let lacking = missing.first().expect("something of it was evicted");
    assert!(u64::from(lacking.len()) < LEN / LARGE_PART, "and something was not");
    let at = blob.layout().file_range(*lacking).start();
    rig.memory.reset_counts();
    rig.faulty.on(Call::Object(None), When::Always, Fault::FlipBit(at + 3));
    let error = rig.read(&file, at, 10).await.expect_err("a wrong byte is never served");
    assert!(matches!(error, FetchError::Corrupt { .. }), "{error}");
    rig.faulty.heal();
    assert!(rig.read(&file, at, 10).await.expect("reads") == data[at as usize..][..10]);
    let asked = ranges(&rig);
    assert!(asked.iter().all(|range| *range == ObjectRange::at(at, LARGE_PART)), "{asked:?}");
    rig.prefetch(&version(&[(sha256(&data), LEN)])).await.expect("the rest of it");
    assert!(rig.cached(&file, 0, LEN).expect("all of it") == data);
    let fetched: u64 = ranges(&rig).iter().map(|range| range.len()).sum();
    assert!(fetched < LEN, "only what was missing: {fetched}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_read_of_a_shard_brings_the_next_two_and_no_others() {
    let rig = Rig::new(ByteSize::gib(1));
    let shared = bytes::Bytes::from(large(19));
    let objects = [1, 2, 3, 4].map(|n| (Digest::from_bytes([n; 32]), LEN));
    for (digest, _) in &objects {
        rig.memory.insert_as(*digest, shared.clone());
    }
    rig.faulty.on(Call::Object(None), When::Always, Fault::Stall(3 << 20));
    let read =
        tokio::spawn(rig.reader(&rig.file_of(&version(&objects), 0)).read(FileRange::at(0, 10)));
    until(|| rig.objects() >= 3).await;
    let asked: std::collections::BTreeSet<_> =
        rig.memory.counts().objects.iter().map(|(digest, _)| *digest).collect();
    assert!(asked == objects[..3].iter().map(|(digest, _)| *digest).collect(), "{asked:?}");
    assert!(!read.is_finished());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_lacks_the_object_is_an_error_at_once() {
    let rig = Rig::new(BIG);
    let file = rig.file_of(&version(&[(sha256(b"none"), LEN)]), 0);
    let error = rig.read(&file, 0, 1).await.expect_err("it is not there");
    assert!(matches!(error, FetchError::Registry(RegistryError::Missing { .. })), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_a_part_of_such_an_object_is_a_clear_error() {
    let rig = Rig::new(BIG);
    let mut manifest = ManifestBuilder::new(sha256(b"manifest"));
    let object = Object::new(rig.memory.insert(large(16)), LEN, Check::of_whole(LEN));
    let object = manifest.object(object).expect("an object");
    manifest.file("f", None, [Slice { object, range: ObjectRange::new(5, 15) }]).expect("a file");
    let manifest = Arc::new(manifest.build().expect("a manifest"));
    match rig.read(&rig.file_of(&manifest, 0), 0, 10).await {
        Err(error @ FetchError::TooLargeToVerify { .. }) => {
            let text = error.to_string();
            assert!(text.contains("only one digest"), "{text}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(rig.objects(), 0);
}
