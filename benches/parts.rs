//! Criterion benches for the parts: what one step costs without kernel and network.
//!
//! Each bench builds what it needs once and measures one thing. `cargo bench -p modelfs-benches`.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use modelfs::base::{FileRange, ObjectRange};
use modelfs::fetch::Readahead;
use modelfs::model::{BlobLayout, Check, Digest, LeafDigest};
use modelfs::registry::xprim;
use modelfs_test_support::bytes;

/// Ten GiB in chunks of 10 MiB with leaves of 128 KiB, as `publish` cuts it.
fn layout() -> BlobLayout {
    let check = |n: u32| {
        let list = modelfs::base::hash::sha256(&n.to_le_bytes());
        Check::Leaves { size: 128 << 10, digest: LeafDigest::Blake3, list }
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
    for kind in [LeafDigest::Blake3, LeafDigest::Sha256] {
        group.bench_function(format!("{kind:?}"), |b| b.iter(|| kind.hash(&leaf)));
    }
}

fn layouts(c: &mut Criterion) {
    let layout = layout();
    let mut at = 0u64;
    c.bench_function("parts of a 128 KiB read in 10 GiB", |b| {
        b.iter(|| {
            at = (at + 7_654_321) % (layout.len() - (128 << 10));
            layout.parts_in(FileRange::at(at, 128 << 10))
        });
    });
}

fn readahead(c: &mut Criterion) {
    c.bench_function("readahead decision", |b| {
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

criterion_group!(parts, hashes, layouts, readahead, catalogs);
criterion_main!(parts);
