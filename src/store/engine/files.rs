//! Blob files that are kept open.
//!
//! Invariant: at most [`OPEN_FILES`] are kept; what a user of one holds stays open until it is done. What
//! is opened here has the blob's full length and lies in the folder that we have the lock of.
//! Concurrency: one lock, for reading on each read of a blob; never held across I/O.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::RwLock;

use crate::store::disk::lock::StoreLock;
use crate::store::disk::{Access, Disk, DiskFile};
use crate::store::state::entry::BlobEntry;

/// Blob files kept open at most: half of the usual limit of 1024 descriptors per process. Each read of
/// one more blob costs an `open`.
const OPEN_FILES: usize = 512;

/// An open blob file.
#[derive(Debug, Clone)]
pub struct OpenFile {
    /// The file.
    pub file: Arc<dyn DiskFile>,
    /// Whether it may be written.
    pub writable: bool,
}

/// The files that are open.
#[derive(Debug)]
pub struct OpenFiles {
    disk: Arc<dyn Disk>,
    lock: Arc<StoreLock>,
    kept: RwLock<Kept>,
}

/// Files by their blobs' numbers, and these numbers, the file opened longest ago first.
#[derive(Debug, Default)]
struct Kept {
    files: HashMap<u32, OpenFile>,
    order: VecDeque<u32>,
}

impl OpenFiles {
    /// None yet.
    pub fn new(disk: Arc<dyn Disk>, lock: Arc<StoreLock>) -> Self {
        Self { disk, lock, kept: RwLock::default() }
    }

    /// A blob's file, if it is open.
    pub fn get(&self, entry: &BlobEntry) -> Option<OpenFile> {
        self.kept.read().files.get(&entry.id).cloned()
    }

    /// A blob's file, opened if need be. The blob must have files.
    pub fn open(&self, entry: &BlobEntry, writable: bool) -> io::Result<OpenFile> {
        let usable = |open: &OpenFile| open.writable || !writable;
        if let Some(open) = self.get(entry).filter(usable) {
            return Ok(open);
        }
        let access = if writable { Access::Write } else { Access::Read };
        let file = self.disk.open(&entry.path(), access)?;
        if !self.lock.still_ours() {
            return Err(io::ErrorKind::NotFound.into());
        }
        if file.stat()?.len != entry.layout.len() {
            // another program truncated it: what lay beyond is gone
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // A file that another thread opened or made meanwhile counts: ours may have been removed.
        if let Some(theirs) = self.get(entry).filter(usable) {
            return Ok(theirs);
        }
        let open = OpenFile { file, writable };
        self.keep(entry, open.clone());
        // removed meanwhile: nothing would close it (a removal closes it once more after this is so)
        self.close_if_removed(entry);
        Ok(open)
    }

    /// Keeps a file open, and closes the one opened longest ago if there are too many.
    pub fn keep(&self, entry: &BlobEntry, open: OpenFile) {
        let mut kept = self.kept.write();
        let mut closed = kept.files.insert(entry.id, open);
        if closed.is_none() {
            kept.order.push_back(entry.id);
            if kept.order.len() > OPEN_FILES {
                let oldest = kept.order.pop_front();
                closed = oldest.and_then(|id| kept.files.remove(&id));
            }
        }
        drop(kept);
        // closing is I/O: after the lock
        drop(closed);
    }

    /// Closes a blob's file, if it is open.
    pub fn close(&self, entry: &BlobEntry) {
        let mut kept = self.kept.write();
        let closed = kept.files.remove(&entry.id);
        if closed.is_some() {
            kept.order.retain(|id| *id != entry.id);
        }
        drop(kept);
        drop(closed);
    }

    /// Closes a blob's file if the blob has no files any more.
    pub fn close_if_removed(&self, entry: &BlobEntry) {
        if entry.state().row.is_none() {
            self.close(entry);
        }
    }

    /// Whether a process may read a blob's file through the kernel: by a handle that a process which
    /// died left behind, or by a map, which outlives its handle.
    pub fn is_shared(&self, entry: &BlobEntry) -> bool {
        // our own would count; a read that is under way makes it look shared for a moment
        self.close(entry);
        let shared = self.disk.is_shared(&entry.path());
        let mut s = entry.state();
        s.passed_to_kernel = shared;
        s.found_shared = shared.then(Instant::now);
        shared
    }
}
