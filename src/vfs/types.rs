//! Types shared by the tree and all kernel adapters.
//!
//! Invariant: no errno and no wire format; kinds of error only. Plain values.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// An inode number. 1 is the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ino(pub u64);

impl Ino {
    /// The root of the mount.
    pub const ROOT: Self = Self(1);
}

/// An open file or folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle(pub u64);

impl Handle {
    /// The handle of reads without an open: the inode alone names the file.
    pub const NONE: Self = Self(0);
}

/// The type of an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A folder.
    Folder,
    /// A regular file.
    File,
}

/// The attributes of an inode, for `stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attr {
    /// Its number.
    pub ino: Ino,
    /// The type.
    pub kind: Kind,
    /// Bytes; 0 for folders.
    pub size: u64,
    /// When its version was published; [`stable_time`] if unknown.
    pub mtime: SystemTime,
    /// Link count. 1 for a file, 2 + its folders for a folder. 1 for a version, which tools read as "not
    /// counted": counting would fetch the manifest of every listed version.
    pub links: u32,
}

/// What a lookup found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The attributes of the inode.
    pub attr: Attr,
    /// Whether the kernel may keep the name: changes of names that it keeps are announced.
    pub keeps: bool,
}

/// An entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name within the folder.
    pub name: Box<str>,
    /// The attributes of the inode.
    pub attr: Attr,
    /// Whether the kernel may keep the name. Not where it is not known yet which inode the name leads to:
    /// the next lookup says.
    pub keeps: bool,
}

/// The position of a reader in a folder's list: the edition of the list, and the number of entries read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListPlace(u64);

impl ListPlace {
    /// The start, in the current edition.
    pub const START: Self = Self(0);
    /// Bits for the entry count: no catalog or manifest has as many names in a folder.
    const BITS: u32 = 24;
    /// Limit of edition numbers: the remaining bits of a positive 64-bit number.
    pub(super) const EDITIONS: u64 = 1 << (63 - Self::BITS);

    /// After the entry at `index` of an edition.
    pub fn after(edition: u64, index: usize) -> Self {
        Self(edition << Self::BITS | (index as u64 + 1))
    }

    /// Decodes a number that the kernel kept; every number is valid.
    pub fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// The number for the kernel to keep: at most `i64::MAX`, 0 only at the start.
    pub fn number(self) -> u64 {
        self.0
    }

    /// Number of entries before this position.
    pub fn index(self) -> usize {
        (self.0 & ((1 << Self::BITS) - 1)) as usize
    }

    /// The edition; `None` at the start.
    pub(super) fn edition(self) -> Option<u64> {
        (self.index() > 0).then_some(self.0 >> Self::BITS)
    }
}

/// A folder's list in one edition, without `.` and `..`.
#[derive(Debug, Clone)]
pub struct Listing {
    /// The edition, for [`ListPlace::after`].
    pub edition: u64,
    /// All entries.
    pub entries: Arc<[Entry]>,
}

/// Errors of the tree, for adapters to translate for their kernel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VfsError {
    /// The catalog or the manifest was read and has no such name.
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
    /// An inode that does not exist.
    #[error("stale")]
    Stale,
    /// The registry or the disk cannot deliver.
    #[error("{reason}")]
    Unavailable {
        /// One line.
        reason: String,
    },
    /// The received data does not match its digest, or is malformed.
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

/// An immediate answer, or one that has to wait.
pub enum Answer<T> {
    /// Known without a network.
    Now(Result<T, VfsError>),
    /// To be awaited on the runtime, not on the kernel's thread.
    Later(Later<T>),
}

/// A newly opened file.
#[derive(Debug)]
pub struct Opened {
    /// The handle for reads and the release.
    pub handle: Handle,
    /// The backing file of a complete file. While an inode has handles, either all of them have a backing
    /// or none has. The descriptor stays valid while the handle is open.
    pub backing: Option<Arc<std::fs::File>>,
}

/// Cache space for `statfs`, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// The cache's limit.
    pub total: u64,
    /// Unused bytes within the limit.
    pub free: u64,
}

/// What the kernel has to invalidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invalidation {
    /// A name in a folder that is gone or names another inode.
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

/// Options of the tree.
#[derive(Debug, Clone)]
pub struct VfsOptions {
    /// Whether the adapter can pass backing files to the kernel.
    pub passthrough: bool,
}

/// The attributes of a folder that no version has. Its folders are not counted.
pub(super) fn stable_folder(ino: Ino) -> Attr {
    Attr { ino, kind: Kind::Folder, size: 0, mtime: stable_time(), links: 1 }
}

/// The timestamp of everything undated: 1980-01-01T00:00:00Z, the earliest that zip tools accept. Fixed,
/// so that two listings and two machines agree.
pub fn stable_time() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(315_532_800)
}
