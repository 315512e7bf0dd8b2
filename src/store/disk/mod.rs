//! `trait Disk`: where blob files lie. The one place for holes, shared blocks and syncing. Beside it the
//! other files of the store's folder: `lock`, `epoch`, `headroom`.
//!
//! Paths are relative to the store's folder. Contract: what was written is lost or kept at random
//! by a crash until `sync` returned; a new file's name until its folder's `sync_folder` did.
//! Implementations are used from any thread; a file's own calls may run at the same time.

pub(super) mod epoch;
mod faulty;
pub(super) mod headroom;
#[cfg(target_os = "linux")]
mod lease;
pub(super) mod lock;
mod memory;
mod real;

use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::evidence::Stamp;

pub use faulty::{Faults, FaultyDisk};
pub use memory::MemoryDisk;
pub use real::RealDisk;

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading.
    Read,
    /// Reading and writing; it must exist.
    Write,
    /// Reading and writing; made if it does not exist, with mode 0400.
    Create,
}

/// What a file takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStat {
    /// Its length in bytes.
    pub len: u64,
    /// What it takes on disk.
    pub allocated: u64,
    /// When its content, length or mode last changed, in nanoseconds since 1970. Programs cannot set
    /// it; it may be as coarse as the system's clock tick.
    pub changed: i64,
}

impl FileStat {
    /// What is remembered of it to see whether another program changed the file.
    pub(super) fn stamp(&self) -> Stamp {
        Stamp { allocated: self.allocated, changed: self.changed }
    }
}

/// Files below the store's folder. What is there under a name but is no ordinary file does not exist
/// for a disk: it is neither opened nor followed nor removed.
pub trait Disk: Send + Sync + Debug {
    /// Opens a file.
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>>;
    /// A descriptor for the kernel to read by itself, marked as shared for as long as it is open
    /// anywhere, by whatever process. `None` if this disk has no such thing.
    fn open_shared(&self, path: &Path) -> io::Result<Option<File>>;
    /// Whether a descriptor of [`Disk::open_shared`] is open anywhere, or a map made of it lives,
    /// which outlives the descriptor. Where that can be told, any open descriptor counts, ours too.
    fn is_shared(&self, path: &Path) -> bool;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes a folder with mode 0700, and those above it; no error if it is there.
    fn make_folder(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;
    /// The names in a folder; none if there is no such folder.
    fn list(&self, folder: &Path) -> io::Result<Vec<String>>;
    /// What a file takes.
    fn stat(&self, path: &Path) -> io::Result<FileStat>;
    /// Bytes free for us on the file system.
    fn free(&self) -> io::Result<u64>;
    /// Names the time between two losses of what was not synced: the machine's boot. `None`: not known.
    fn boot(&self) -> Option<i64>;
    /// Whether holes can be punched. If not, space comes back only with a whole file.
    fn holes(&self) -> bool;
    /// Told before each change of the index, which is none of this disk's files: an error fails the
    /// change. So a disk that stops can stop between any two steps of the store.
    fn index_changes(&self, _durably: bool) -> io::Result<()> {
        Ok(())
    }
}

/// An open file.
pub trait DiskFile: Send + Sync + Debug {
    /// Reads until the buffer is full or the file ends; how much was read.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of it.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Sets the length; new bytes are a hole.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes a range of whole blocks a hole; the length stays.
    fn punch(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Copies from another file of this disk, sharing blocks where it can. `false`, with nothing
    /// done or only part of it, where it cannot.
    fn copy_from(&self, source: &dyn DiskFile, from: u64, to: u64, len: u64) -> io::Result<bool>;
    /// Whether no byte of a range lies in a hole, as far as this disk can tell.
    fn is_solid(&self, offset: u64, len: u64) -> io::Result<bool>;
    /// Makes its bytes durable.
    fn sync(&self) -> io::Result<()>;
    /// What it takes.
    fn stat(&self) -> io::Result<FileStat>;
    /// The file of the operating system, if there is one.
    fn as_file(&self) -> Option<&File> {
        None
    }
    /// Reads through without keeping it in the page cache from now on (scrubbing).
    fn forget(&self, _offset: u64, _len: u64) {}
}
