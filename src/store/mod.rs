//! The store: verified bytes of model files on disk, bounded, indexed, shared by all versions.
//!
//! On disk, below one folder of mode 0700:
//! `index.db` (SQLite, WAL) · `blobs/<2 hex>/<content key>` (sparse, one per distinct file) ·
//! `blobs/<2 hex>/<content key>.sums` (what each part hashed to) · `lock` (one writer process).
//!
//! Invariants: (1) a part is readable here only after its bytes were verified; (2) the index never
//! claims what is not durable: data is synced before the transaction that marks it, and the mark is
//! gone durably before its bytes are; (3) `used <= limit` at every instant: space is reserved first.
//!
//! Concurrency: every method may be called from any thread and may block on the disk; none waits
//! for a network. No lock is held across I/O on blobs.
#![allow(missing_docs, clippy::todo, unused_variables)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::base::units::ByteSize;
use crate::base::{Clock, FileRange, ObjectRange};
use crate::model::{BlobLayout, ContentKey, Digest, PartIx, PartRange, VersionRef};

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Its folder, made if it is not there.
    pub root: PathBuf,
    /// The most bytes that it takes on disk, index included. None: what it was last opened with,
    /// else the default of 50 GiB (for commands that only look).
    pub limit: Option<ByteSize>,
    /// Written bytes after which a group is committed even if `commit_after` has not passed.
    pub commit_bytes: ByteSize,
    /// The longest time that a written part waits for its commit.
    pub commit_after: Duration,
}

/// Who holds a store, as its lock file says (JSON).
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Holder {
    /// The process.
    pub pid: u32,
    /// Where it is mounted, if it is a daemon.
    pub mountpoint: Option<PathBuf>,
    /// Where it listens for commands, if it is a daemon.
    pub socket: Option<PathBuf>,
}

/// The row of a group, model or version (with its hash) in the index: stable for the life of the
/// index, never used again for something else. Inodes are made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

/// What a [`NodeId`] stands for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum NodeKey {
    Group {
        group: Box<str>,
    },
    Model {
        group: Box<str>,
        model: Box<str>,
    },
    /// A version with a given manifest: another manifest is another node.
    Version {
        group: Box<str>,
        model: Box<str>,
        version: Box<str>,
        hash: Digest,
    },
}

/// A catalog as last seen.
#[derive(Debug, Clone)]
pub struct SavedCatalog {
    pub body: Vec<u8>,
    pub etag: Option<String>,
    pub last_modified: Option<String>,
    /// When the registry last said that this is it.
    pub checked: SystemTime,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    pub source: String,
    pub version: VersionRef,
    pub hash: Digest,
    pub owner: String,
    pub since: SystemTime,
}

/// How full the store is. All in bytes on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    pub limit: ByteSize,
    /// Blobs, reserved space, index and allowances: what counts against the limit.
    pub used: ByteSize,
    /// Of it: cannot be evicted because somebody pinned it.
    pub pinned: ByteSize,
    /// Of it: promised to fetches under way.
    pub reserved: ByteSize,
    /// Bytes of model data present.
    pub data: ByteSize,
    pub blobs: u64,
    pub complete_blobs: u64,
    /// Free on the file system.
    pub disk_free: ByteSize,
}

/// What [`Store::evict`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Evicted {
    /// Freed on disk.
    pub freed: ByteSize,
    /// Kept because somebody pinned it.
    pub kept_pinned: ByteSize,
    /// Kept because it is being read or open by passthrough.
    pub kept_busy: ByteSize,
}

/// What [`Store::verify`] found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verified {
    /// Data bytes that were re-hashed.
    pub checked: ByteSize,
    /// Data bytes that did not match or were gone, and were dropped.
    pub dropped: ByteSize,
    /// Blobs that lost something.
    pub damaged: Vec<ContentKey>,
}

/// Space promised to a fetch; what was not used is given back when it is dropped.
#[derive(Debug)]
pub struct Reservation {}

/// What became of a written part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It can be read now and will be committed.
    Stored,
    /// It was there already.
    Present,
    /// Its place is just being evicted: serve it from memory.
    Skipped,
}

/// What became of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadState {
    /// The buffer is filled.
    Hit,
    /// At least one part is not present; the buffer's content means nothing.
    Miss,
}

/// Present bytes of an object in some blob, kept from eviction while this lives.
#[derive(Debug)]
pub struct LocalSource {
    pub blob: Arc<Blob>,
    /// Where in the object.
    pub object: ObjectRange,
    /// Where in the blob.
    pub file: FileRange,
    pub hold: Hold,
}

/// Keeps parts of a blob from being evicted while it lives.
#[derive(Debug)]
pub struct Hold {}

/// The store. Cheap to clone; the last clone's drop commits and closes.
#[derive(Debug, Clone)]
pub struct Store {}

/// A blob in use: at most one value per content key lives at a time, shared.
#[derive(Debug)]
pub struct Blob {}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has the store.
    #[error("{root}: the store is in use by process {}{}", holder.pid, holder.mountpoint.as_ref().map(|m| format!(" (mounted at {})", m.display())).unwrap_or_default())]
    Locked { root: PathBuf, holder: Holder },
    /// The index was made by a newer modelfs.
    #[error(
        "{path}: the index has version {found}, this modelfs knows up to {known}: use a newer modelfs or another cache folder"
    )]
    Newer { path: PathBuf, found: u32, known: u32 },
    /// Nothing more can be evicted.
    #[error("the cache is full: {wanted} more needed, everything else is pinned or in use")]
    NoSpace { wanted: ByteSize },
    /// The disk failed.
    #[error("{path}: {action}: {source}")]
    Disk { path: PathBuf, action: &'static str, source: std::io::Error },
    /// The index failed.
    #[error("the index: {0}")]
    Index(String),
}

impl Holder {
    /// Who holds the store at `root` now; `None` if nobody does (asked by trying the lock).
    pub fn of(root: &std::path::Path) -> Option<Holder> {
        todo!()
    }
}

impl Store {
    /// Opens or makes a store with the real disk and clock.
    pub fn open(options: StoreOptions) -> Result<Self, StoreError> {
        todo!()
    }

    /// Opens or makes a store on a given disk and clock.
    pub fn open_with(
        options: StoreOptions,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StoreError> {
        todo!()
    }

    /// Writes into the lock file who this is, for commands that look for the daemon.
    pub fn announce(&self, holder: &Holder) -> Result<(), StoreError> {
        todo!()
    }

    pub fn root(&self) -> &std::path::Path {
        todo!()
    }

    /// The blob of a file, empty if nothing of it was ever fetched. Touches no disk file before
    /// the first write. The layout must not be empty.
    pub fn blob(&self, layout: BlobLayout) -> Result<Arc<Blob>, StoreError> {
        todo!()
    }

    /// What is present of a blob, without opening it: (data bytes present, complete?).
    pub fn presence(&self, key: &ContentKey) -> (ByteSize, bool) {
        todo!()
    }

    /// Promises space, evicting the oldest if need be.
    pub fn reserve(&self, bytes: u64) -> Result<Reservation, StoreError> {
        todo!()
    }

    /// Where other blobs have bytes of an object that fall into `range`: by the digest that is
    /// checked or the claimed name of the object. The caller verifies what it reads there.
    /// At most a few, longest first, disjoint or not.
    pub fn local_sources(
        &self,
        object: &[Digest],
        range: ObjectRange,
    ) -> Result<Vec<LocalSource>, StoreError> {
        todo!()
    }

    /// Makes everything written so far durable and marked. Returns after the transaction.
    pub fn commit(&self) -> Result<(), StoreError> {
        todo!()
    }

    pub fn usage(&self) -> Usage {
        todo!()
    }

    /// Pins the blobs of a version for an owner; again: no change.
    pub fn pin(&self, pin: &Pin, blobs: &[ContentKey]) -> Result<(), StoreError> {
        todo!()
    }

    /// Lets go. Returns whether the owner had pinned it (any hash) and who else still does.
    pub fn unpin(
        &self,
        source: &str,
        version: &VersionRef,
        owner: &str,
    ) -> Result<(bool, Vec<String>), StoreError> {
        todo!()
    }

    pub fn pins(&self) -> Result<Vec<Pin>, StoreError> {
        todo!()
    }

    /// Whether somebody pinned this blob.
    pub fn is_pinned(&self, key: &ContentKey) -> bool {
        todo!()
    }

    /// Gives back the space of these blobs. With `force`, of pinned ones too (they stay pinned).
    pub fn evict(&self, blobs: &[ContentKey], force: bool) -> Result<Evicted, StoreError> {
        todo!()
    }

    /// Every blob that has something present.
    pub fn blobs(&self) -> Vec<ContentKey> {
        todo!()
    }

    /// Re-hashes what is present of these blobs against the sums; drops what does not match.
    /// `progress` gets (bytes done, bytes in all).
    pub fn verify(
        &self,
        blobs: &[ContentKey],
        progress: &dyn Fn(u64, u64),
    ) -> Result<Verified, StoreError> {
        todo!()
    }

    pub fn saved_catalog(&self, source: &str) -> Result<Option<SavedCatalog>, StoreError> {
        todo!()
    }

    pub fn save_catalog(&self, source: &str, catalog: &SavedCatalog) -> Result<(), StoreError> {
        todo!()
    }

    /// Notes that the saved catalog is still right.
    pub fn catalog_checked(&self, source: &str, at: SystemTime) -> Result<(), StoreError> {
        todo!()
    }

    pub fn saved_manifest(&self, hash: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        todo!()
    }

    pub fn save_manifest(&self, hash: &Digest, body: &[u8]) -> Result<(), StoreError> {
        todo!()
    }

    /// The ids of these, in order; made if new, all in one transaction.
    pub fn nodes(&self, source: &str, keys: &[NodeKey]) -> Result<Vec<NodeId>, StoreError> {
        todo!()
    }

    /// What an id stands for, and in which source.
    pub fn node(&self, id: NodeId) -> Result<Option<(String, NodeKey)>, StoreError> {
        todo!()
    }

    /// Versions of a source that the index has nodes for: what may be cached.
    pub fn known_versions(&self, source: &str) -> Result<Vec<(VersionRef, Digest)>, StoreError> {
        todo!()
    }
}

impl Reservation {
    /// Bytes left of the promise.
    pub fn left(&self) -> u64 {
        todo!()
    }
}

impl Blob {
    pub fn layout(&self) -> &BlobLayout {
        todo!()
    }

    pub fn key(&self) -> ContentKey {
        todo!()
    }

    /// Whether every part is present.
    pub fn is_complete(&self) -> bool {
        todo!()
    }

    /// Data bytes present.
    pub fn present_bytes(&self) -> u64 {
        todo!()
    }

    pub fn is_present(&self, part: PartIx) -> bool {
        todo!()
    }

    /// The runs of parts of `parts` that are not present.
    pub fn missing(&self, parts: PartRange) -> Vec<PartRange> {
        todo!()
    }

    /// The most space that storing these parts can take on disk: whole blocks.
    pub fn cost(&self, parts: PartRange) -> u64 {
        todo!()
    }

    /// Fills `buf` from `offset` if every part of it is present, in one `pread`. The range must lie
    /// in the file. A blob that turns out cut short on disk loses the parts and is a miss.
    pub fn read(&self, offset: u64, buf: &mut [u8]) -> Result<ReadState, StoreError> {
        todo!()
    }

    /// Stores consecutive parts from `first` on, whose verified bytes are `bytes`, taking their
    /// cost from the reservation. One `pwrite`; readable when it returns, durable after the commit.
    pub fn write(
        &self,
        first: PartIx,
        bytes: &[u8],
        space: &mut Reservation,
    ) -> Result<Written, StoreError> {
        todo!()
    }

    /// Like `write` of bytes that `source` has on disk: shares the blocks where the disk can
    /// (`bytes` are what was just read from there and verified), else writes them.
    pub fn write_shared(
        &self,
        first: PartIx,
        bytes: &[u8],
        source: &LocalSource,
        source_offset: u64,
        space: &mut Reservation,
    ) -> Result<Written, StoreError> {
        todo!()
    }

    /// Keeps what is present of these parts from eviction, and counts as their use.
    pub fn hold(self: &Arc<Self>, parts: PartRange) -> Hold {
        todo!()
    }

    /// A read-only descriptor of the complete file, for the kernel to read by itself; the hold
    /// keeps all of it and touches it now and when dropped. `None` while something is missing.
    pub fn complete_file(self: &Arc<Self>) -> Result<Option<(std::fs::File, Hold)>, StoreError> {
        todo!()
    }
}

/// stub, the store's owner moves it to disk.rs
pub trait Disk: Send + Sync {}
