//! What all parts of the engine share: the disk, the index, the table of blobs, the accounting.
//!
//! Concurrency: every lock guards one thing and is held briefly, without I/O (but the index's).
//! Order, where two are held: `collector` → a blob's `proof_lock` → `eviction_lock` → `commit_lock` →
//! a blob's `write_lock` → index → `table` → a blob's state; `headroom` inside any of them. `recency`,
//! `idle_prefixes`, `accounting`, `dirty`, `manifest_uses` and `files` are leaves: nothing is taken inside them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use rusqlite::Transaction;

use super::clock::UseClock;
use super::files::OpenFiles;
use crate::base::units::ByteSize;
use crate::model::Digest;
use crate::store::disk::Disk;
use crate::store::disk::headroom::Headroom;
use crate::store::disk::lock::StoreLock;
use crate::store::error::StoreError;
use crate::store::index::{Durability, Index};
use crate::store::state::accounting::Accounting;
use crate::store::state::collector::Collector;
use crate::store::state::dirty::DirtyQueue;
use crate::store::state::entry::BlobEntry;
use crate::store::state::prefixes::IdlePrefixes;
use crate::store::state::recency::Recency;
use crate::store::state::table::Table;
use crate::store::types::Usage;

/// The shared parts.
#[derive(Debug)]
pub struct Core {
    /// The folder.
    pub root: PathBuf,
    /// Blob files.
    pub disk: Arc<dyn Disk>,
    /// Those of them that are open.
    pub files: OpenFiles,
    /// The index.
    pub index: Index,
    /// The blobs that have something present or are in use.
    pub table: Arc<Table>,
    /// Segments by last use.
    pub recency: Recency,
    /// Unverified bytes without a writer.
    pub idle_prefixes: IdlePrefixes,
    /// What everything takes.
    pub accounting: Mutex<Accounting>,
    /// Room on the disk that is kept for the index.
    pub headroom: Headroom,
    /// What waits for a commit.
    pub dirty: DirtyQueue,
    /// Who is asked before names and documents are deleted. Held during a collection.
    pub collector: Mutex<Collector>,
    /// How often nodes were deleted.
    pub collections: AtomicU64,
    /// When manifests were last used, as far as that is not recorded yet.
    pub manifest_uses: Mutex<HashMap<Digest, u32>>,
    /// Held during an eviction: other threads wait for the space that it frees.
    pub eviction_lock: Mutex<()>,
    /// Held during a commit.
    pub commit_lock: Mutex<()>,
    /// Set when the last `Store` is gone: nothing is written any more.
    pub closed: AtomicBool,
    /// The seconds of last uses.
    pub clock: UseClock,
    /// Released last, when no read or write can happen any more.
    pub lock: Arc<StoreLock>,
}

impl Core {
    /// Whether the last `Store` is gone.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Runs a transaction, and counts what the index takes after it. On a full disk the headroom is
    /// given up for it, and it is tried once more.
    pub fn write_index<T>(
        &self,
        durability: Durability,
        mut f: impl FnMut(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let mut out = self.index.write(durability, &mut f);
        if out.as_ref().is_err_and(StoreError::is_full) && self.headroom.change().give_up() {
            tracing::warn!("the disk is full: the room kept for the index is used");
            out = self.index.write(durability, &mut f);
        }
        self.measure_index();
        out
    }

    /// Counts what the index takes now.
    pub fn measure_index(&self) {
        let footprint = self.index.footprint();
        let unused = {
            let mut accounting = self.accounting.lock();
            accounting.measured = footprint;
            accounting.unused_headroom()
        };
        self.headroom.change().shrink_to(unused);
    }

    /// What the disk has for data: what is free on it, and what data there is.
    pub fn disk_room(&self) -> u64 {
        let free = self.disk.free().unwrap_or(u64::MAX);
        free.saturating_add(self.accounting.lock().data)
    }

    /// The most data that there can be, by the limit and by the disk.
    pub fn room(&self) -> u64 {
        let by_disk = self.disk_room();
        self.accounting.lock().room().min(by_disk)
    }

    /// How full the store is.
    pub fn usage(&self) -> Usage {
        let mut out = Usage::default();
        for entry in self.table.all() {
            let s = entry.state();
            out.data.0 += s.data;
            out.unverified.0 += s.prefixes.bytes();
            out.blobs += u64::from(s.data > 0);
            out.complete_blobs += u64::from(s.is_complete(&entry.layout));
            if entry.is_pinned() && s.cost > 0 {
                out.pinned.0 += s.cost + s.excess + entry.overhead.total();
            }
        }
        let accounting = self.accounting.lock().clone();
        out.limit = ByteSize(accounting.limit);
        out.used = ByteSize(accounting.used());
        out.reserved = ByteSize(accounting.reserved);
        out.disk_free = ByteSize(self.disk.free().unwrap_or(0));
        out
    }

    /// Why so much more cannot be stored.
    pub fn full(&self, bytes: u64) -> StoreError {
        let wanted = ByteSize(bytes);
        let usage = self.usage();
        let by_disk = self.disk_room();
        let (room, lacking) = {
            let accounting = self.accounting.lock();
            (ByteSize(accounting.room()), accounting.lacking(bytes))
        };
        if wanted > room {
            return StoreError::TooLarge { wanted, room, limit: usage.limit };
        }
        if lacking == 0 || bytes > by_disk {
            return self.disk_full(bytes);
        }
        let in_use = ByteSize(usage.used.0.saturating_sub(usage.pinned.0));
        StoreError::NoSpace { wanted, limit: usage.limit, pinned: usage.pinned, in_use }
    }

    /// The disk has no room for so much.
    pub fn disk_full(&self, wanted: u64) -> StoreError {
        let free = ByteSize(self.disk.free().unwrap_or(0));
        StoreError::DiskFull { path: self.root.clone(), wanted: ByteSize(wanted), free }
    }

    /// A full path, for messages.
    pub fn full_path(&self, path: &Path) -> PathBuf {
        self.root.join(path)
    }

    /// Notes a use of segments now.
    pub fn touch(&self, entry: &BlobEntry, segments: impl Iterator<Item = u32>) {
        self.recency.touch(entry, segments, self.clock.seconds());
    }
}
