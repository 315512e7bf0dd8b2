//! Criterion benches for the parts: what one step costs without kernel and network.
//!
//! Each bench builds what it needs once and measures one thing. `cargo bench -p modelfs-benches`.

#[path = "side_by_side/million.rs"]
mod million;

use std::path::PathBuf;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use modelfs::base::{FileRange, ObjectRange};
use modelfs::fetch::Readahead;
use modelfs::model::{BlobLayout, Check, Digest, HashAlgorithm, PartIx};
use modelfs::registry::xprim;
use modelfs::store::Store;
use modelfs_test_support::bytes;
use tempfile::TempDir;

/// A folder beside the build, not in /tmp, which may be memory.
fn folder() -> TempDir {
    let base = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let base = base.unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/../target").into());
    tempfile::Builder::new().prefix("bench.").tempdir_in(base).expect("a folder")
}

/// Ten GiB in chunks of 10 MiB with leaves of 128 KiB, as `publish` cuts it.
fn layout() -> BlobLayout {
    let check = |n: u32| {
        let list = modelfs::model::hash::sha256(&n.to_le_bytes());
        Check::Leaves { size: 128 << 10, digest: HashAlgorithm::Blake3, list }
    };
    let chunk = 10u64 << 20;
    BlobLayout::new(
        (0..1024)
            .map(|n| (check(n), Digest::from_bytes([1; 32]), chunk, ObjectRange::new(0, chunk))),
    )
    .expect("a valid layout")
}

fn hashes(c: &mut Criterion) {
    let leaf = bytes(1, 128 << 10);
    let mut group = c.benchmark_group("hash a leaf of 128 KiB");
    group.throughput(Throughput::Bytes(leaf.len() as u64));
    for kind in [HashAlgorithm::Blake3, HashAlgorithm::Sha256] {
        group.bench_function(format!("{kind:?}"), |b| b.iter(|| kind.hash(&leaf)));
    }
}

fn layouts(c: &mut Criterion) {
    let layout = layout();
    let mut at = 0u64;
    c.bench_function("leaf look-up: parts of a 128 KiB read in 10 GiB", |b| {
        b.iter(|| {
            at = (at + 7_654_321) % (layout.len() - (128 << 10));
            layout.parts_in(FileRange::at(at, 128 << 10))
        });
    });
}

/// Writing 8 MiB in parts of 128 KiB and making them durable: what a group of writes costs.
fn commits(c: &mut Criterion) {
    const PARTS: u64 = 64;
    const LEN: u64 = PARTS * (128 << 10);
    let dir = folder();
    let store = Store::open(million::options(dir.path(), 1 << 30)).expect("a new store");
    let data = bytes(1, LEN as usize);
    let mut number = 0u32;
    let mut group = c.benchmark_group("store");
    group.sample_size(10).throughput(Throughput::Bytes(LEN));
    group.bench_function("write and commit 8 MiB", |b| {
        let fresh = || {
            number += 1;
            let list = modelfs::model::hash::sha256(&number.to_le_bytes());
            let check = Check::Leaves { size: 128 << 10, digest: HashAlgorithm::Blake3, list };
            let piece = (check, list, LEN, ObjectRange::new(0, LEN));
            let blob = store.blob(BlobLayout::new([piece]).expect("a valid layout"));
            let blob = blob.expect("a blob");
            let space = store.reserve(blob.cost(blob.layout().all_parts())).expect("room");
            (blob, space)
        };
        let write = |(blob, mut space): (std::sync::Arc<modelfs::store::Blob>, _)| {
            blob.write(PartIx(0), &data, &[None; PARTS as usize], &mut space).expect("written");
            store.commit().expect("durable");
        };
        b.iter_batched(fresh, write, BatchSize::PerIteration);
    });
}

/// The index of a store of a million objects: finding one, and making room for a thousand.
fn large_index(c: &mut Criterion) {
    const OBJECTS: usize = 1_000_000;
    let dir = folder();
    million::fill(dir.path(), OBJECTS).expect("an index");
    let open = |limit| Store::open(million::options(dir.path(), limit)).expect("it opens");
    let store = open(million::ROOM);
    let mut group = c.benchmark_group("a million objects");
    group.sample_size(10).warm_up_time(Duration::from_millis(500));
    let mut number = 0;
    group.bench_function("look-up", |b| {
        let all = ObjectRange::new(0, million::OBJECT_BYTES);
        b.iter(|| {
            number = (number + 7_654_321) % OBJECTS;
            store.local_copies(&[million::object(number)], all)
        });
    });
    let used = store.usage().used.0;
    drop(store);
    let store = open(used);
    // Kept, so that each reservation has to evict.
    let mut kept = Vec::new();
    group.bench_function("eviction of 1,000", |b| {
        let bytes = million::PER_BLOB as u64 * million::OBJECT_BYTES;
        b.iter(|| kept.push(store.reserve(bytes).expect("room")));
    });
}

fn readahead(c: &mut Criterion) {
    c.bench_function("plan: readahead decision", |b| {
        let mut state = Readahead::default();
        let mut at = 0;
        b.iter(|| {
            at += 128 << 10;
            state.on_read(FileRange::at(at, 128 << 10), u64::MAX >> 1)
        });
    });
}

fn catalogs(c: &mut Criterion) {
    let entry = format!("{{\"hash\":\"{}\"}}", Digest::from_bytes([7; 32]));
    let models: Vec<String> = (0..10_000)
        .map(|m| {
            let versions: Vec<String> = (0..10).map(|v| format!("\"v{v}\":{entry}")).collect();
            format!("\"model-{m}\":{{{}}}", versions.join(","))
        })
        .collect();
    let body = format!("{{\"org\":{{{}}}}}", models.join(",")).into_bytes();
    let mut group = c.benchmark_group("catalog");
    group.sample_size(10);
    group.bench_function("parse 100,000 versions", |b| {
        b.iter_batched(|| &body, |body| xprim::parse_catalog(body), BatchSize::PerIteration);
    });
}

criterion_group!(parts, hashes, layouts, readahead, catalogs, commits, large_index);
criterion_main!(parts);
