//! The words that the tree and every kernel adapter share.
//!
//! Invariant: no errno, no wire format; kinds of error only. Plain values.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// An inode number. 1 is the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ino(pub u64);

impl Ino {
    /// The folder that is mounted.
    pub const ROOT: Self = Self(1);
}

/// An open file or folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle(pub u64);

impl Handle {
    /// Of a kernel that opens no files: it names the inode, and that says it all.
    pub const NONE: Self = Self(0);
}

/// What an inode is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A folder.
    Folder,
    /// A regular file.
    File,
}

/// What `stat` tells of an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attr {
    /// Its number.
    pub ino: Ino,
    /// What it is.
    pub kind: Kind,
    /// Bytes; 0 for folders.
    pub size: u64,
    /// When its version was published; [`stable_time`] where nobody says.
    pub mtime: SystemTime,
    /// A file's: 1. A folder's: 2 + its folders; a version's: 1, which tools read as "not
    /// counted", because counting would fetch the manifest of everything that is listed.
    pub links: u32,
}

/// One line of a folder's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name within the folder.
    pub name: Box<str>,
    /// What it names.
    pub attr: Attr,
}

/// Where the reader of a folder's list is: in which edition of the list, after how many entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListPlace(u64);

impl ListPlace {
    /// At the beginning, of whatever the list is then.
    pub const START: Self = Self(0);
    /// Bits for entries: no catalog or manifest has as many names in a folder.
    const BITS: u32 = 24;
    /// Editions have numbers below this: what is left of a positive 64-bit number.
    pub(super) const EDITIONS: u64 = 1 << (63 - Self::BITS);

    /// After the entry at `index` of an edition.
    pub fn after(edition: u64, index: usize) -> Self {
        Self(edition << Self::BITS | (index as u64 + 1))
    }

    /// From a number that a kernel kept; any number is one.
    pub fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// For a kernel to keep: at most `i64::MAX`, 0 only at the beginning.
    pub fn number(self) -> u64 {
        self.0
    }

    /// How many entries lie before it.
    pub fn index(self) -> usize {
        (self.0 & ((1 << Self::BITS) - 1)) as usize
    }

    /// The edition; none at the beginning.
    pub(super) fn edition(self) -> Option<u64> {
        (self.index() > 0).then_some(self.0 >> Self::BITS)
    }
}

/// A folder's list in one edition, without `.` and `..`.
#[derive(Debug, Clone)]
pub struct Listing {
    /// Which one, for [`ListPlace::after`].
    pub edition: u64,
    /// All of it.
    pub entries: Arc<[Entry]>,
}

/// What can go wrong, for adapters to turn into their kernel's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VfsError {
    /// The catalog or the manifest was asked and has no such name.
    #[error("not found")]
    NotFound,
    /// A folder is needed.
    #[error("not a folder")]
    NotFolder,
    /// A file is needed.
    #[error("is a folder")]
    IsFolder,
    /// No such extended attribute.
    #[error("no such attribute")]
    NoAttribute,
    /// No attribute of that kind on any inode.
    #[error("attributes of that kind are not kept")]
    NoAttributes,
    /// An inode that never was.
    #[error("stale")]
    Stale,
    /// The registry or the disk cannot deliver.
    #[error("{reason}")]
    Unavailable {
        /// One line.
        reason: String,
    },
    /// What came does not match its digest, or makes no sense.
    #[error("{reason}")]
    Corrupt {
        /// One line.
        reason: String,
    },
    /// The deadline passed.
    #[error("{reason}")]
    TimedOut {
        /// One line.
        reason: String,
    },
}

/// An answer that has to wait for a network.
pub type Later<T> = Pin<Box<dyn Future<Output = Result<T, VfsError>> + Send + 'static>>;

/// An answer on the spot, or one that has to wait.
pub enum Answer<T> {
    /// Known without a network.
    Now(Result<T, VfsError>),
    /// To be awaited on the runtime, not on the kernel's thread.
    Later(Later<T>),
}

/// A file just opened.
#[derive(Debug)]
pub struct Opened {
    /// For reads and the release.
    pub handle: Handle,
    /// The complete file for the kernel to read by itself. While an inode has handles, either all
    /// of them have a backing or none has. The descriptor stays good while the handle is open.
    pub backing: Option<Arc<std::fs::File>>,
}

/// What statfs tells. Bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// The cache's limit.
    pub total: u64,
    /// Not used of it.
    pub free: u64,
}

/// What the kernel should forget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invalidation {
    /// A name in a folder that now means something else, or nothing.
    Entry {
        /// The folder.
        parent: Ino,
        /// The name in it.
        name: Box<str>,
    },
    /// A folder's cached list and attributes.
    Folder {
        /// The folder.
        ino: Ino,
    },
}

/// How the tree behaves.
#[derive(Debug, Clone)]
pub struct VfsOptions {
    /// Whether the adapter can let the kernel read complete files by itself.
    pub passthrough: bool,
}

/// The time of everything that nobody dated: 1980-01-01T00:00:00Z, the earliest that zip tools
/// take. Fixed, so that two listings and two machines agree.
pub fn stable_time() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(315_532_800)
}
