//! The store's promises, each by name: never a wrong byte, an index that claims nothing that is
//! not durable, never more than the limit, and a crash that costs at most the last group.

mod basics;
mod catalogs;
mod collected;
mod crash;
mod operations;
mod pressure;
mod room;
mod sequences;
mod sources;
mod steps;
mod tampered;
mod trusted;
mod unverified;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use modelfs::base::units::ByteSize;
use modelfs::base::{ObjectRange, SystemClock};
use modelfs::model::{
    BlobLayout, Check, ContentKey, Digest, HashAlgorithm, PartIx, PartRange, SourceName,
};
use modelfs::store::{Blob, Disk, ReadState, Store, StoreError, StoreOptions, Written};

/// A source that is known by its address.
pub fn source(address: &str) -> SourceName {
    SourceName::of_address(address)
}

/// A file of one object of `len` bytes in leaves of `leaf`, told apart by `n`.
pub fn layout(n: u32, len: u64, leaf: u64) -> BlobLayout {
    let mut list = [7; 32];
    list[..4].copy_from_slice(&n.to_le_bytes());
    let mut name = list;
    name[31] = 9;
    let check =
        Check::Leaves { size: leaf, digest: HashAlgorithm::Blake3, list: Digest::from_bytes(list) };
    BlobLayout::new([(check, Digest::from_bytes(name), len, ObjectRange::new(0, len))]).unwrap()
}

/// Like `layout`, of several objects of odd lengths: each its own segment, sharing edge blocks.
pub fn pieces(n: u32, len: u64, leaf: u64) -> BlobLayout {
    let each = 5 * leaf + 777;
    BlobLayout::new((0..len.div_ceil(each)).map(|i| {
        let len = each.min(len - i * each);
        let p = layout(n * 1000 + i as u32, len, leaf).pieces()[0].clone();
        (p.check, p.object, len, ObjectRange::new(0, len))
    }))
    .unwrap()
}

/// The byte of file `n` at an offset: never 0, so that a hole shows.
pub fn byte(n: u32, at: u64) -> u8 {
    let x = (at ^ u64::from(n) << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    (x % 255) as u8 + 1
}

pub fn pattern(n: u32, start: u64, len: u64) -> Vec<u8> {
    (start..start + len).map(|at| byte(n, at)).collect()
}

pub fn bytes_of(n: u32, layout: &BlobLayout, parts: PartRange) -> Vec<u8> {
    let r = layout.file_range(parts);
    pattern(n, r.start(), r.len())
}

pub fn parts(start: u32, end: u32) -> PartRange {
    PartRange { start, end }
}

/// Commits only when told to.
pub fn options(root: &Path, limit: ByteSize) -> StoreOptions {
    StoreOptions {
        limit: Some(limit),
        commit_bytes: ByteSize::gib(100),
        commit_after: Duration::from_secs(1000),
        ..StoreOptions::at(root)
    }
}

pub fn open_on(root: &Path, limit: ByteSize, disk: Arc<dyn Disk>) -> Store {
    Store::open_with(options(root, limit), disk, Arc::new(SystemClock)).unwrap()
}

/// Reserves and writes.
pub fn put(store: &Store, blob: &Blob, n: u32, p: PartRange) -> Result<Written, StoreError> {
    let mut space = store.reserve(blob.cost(p))?;
    blob.write(PartIx(p.start), &bytes_of(n, blob.layout(), p), &[], &mut space)
}

/// Reads parts and checks every byte; whether they were there.
pub fn check(blob: &Blob, n: u32, p: PartRange) -> bool {
    let r = blob.layout().file_range(p);
    let mut buf = vec![0; r.len() as usize];
    match blob.read(r.start(), &mut buf).unwrap() {
        ReadState::Miss => false,
        ReadState::Hit => {
            assert!(buf == pattern(n, r.start(), r.len()), "a wrong byte in file {n}, parts {p:?}");
            true
        }
    }
}

/// Where a blob lies.
pub fn blob_path(root: &Path, key: &ContentKey) -> PathBuf {
    let hex = key.to_string();
    root.join("blobs").join(&hex[..2]).join(hex)
}

/// What everything below a folder takes on disk.
pub fn du(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let own = std::fs::symlink_metadata(path).map_or(0, |m| m.blocks() * 512);
    let below = std::fs::read_dir(path).into_iter().flatten().filter_map(Result::ok);
    own + below.map(|e| du(&e.path())).sum::<u64>()
}
