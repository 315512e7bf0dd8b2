//! The tree `/group/model/version/…` as every kernel adapter sees it: inodes, attributes, lists,
//! open files, extended attributes.
//!
//! Invariant: an inode and a handle mean the same to the next process (inode = row of the node in
//! the index and position in its tree; a handle holds nothing that cannot be made again from the
//! inode). Content behind an inode never changes: another manifest is another inode.
//! Concurrency: every method may be called from any thread; `Answer::Now` costs no network.
#![allow(missing_docs, clippy::todo, unused_variables)]

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

use crate::fetch::Fetcher;

/// An inode number. 1 is the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ino(pub u64);

/// An open file or folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle(pub u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Folder,
    File,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attr {
    pub ino: Ino,
    pub kind: Kind,
    /// Bytes; 0 for folders.
    pub size: u64,
    pub mtime: SystemTime,
    /// A folder's: 2 + its folders.
    pub links: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub name: Box<str>,
    pub attr: Attr,
}

/// What can go wrong, for adapters to turn into their kernel's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VfsError {
    #[error("not found")]
    NotFound,
    #[error("not a folder")]
    NotFolder,
    #[error("is a folder")]
    IsFolder,
    #[error("no such attribute")]
    NoAttribute,
    /// An inode that never was.
    #[error("stale")]
    Stale,
    /// The registry or the disk cannot deliver.
    #[error("{reason}")]
    Unavailable { reason: String },
    #[error("{reason}")]
    Corrupt { reason: String },
    #[error("{reason}")]
    TimedOut { reason: String },
}

pub type Later<T> = Pin<Box<dyn Future<Output = Result<T, VfsError>> + Send + 'static>>;

/// An answer on the spot, or one that has to wait for a network.
pub enum Answer<T> {
    Now(Result<T, VfsError>),
    Later(Later<T>),
}

/// A file just opened.
pub struct Opened {
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
    /// Versions in the catalog.
    pub files: u64,
}

/// What the kernel should forget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invalidation {
    /// A name in a folder that now means something else, or nothing.
    Entry { parent: Ino, name: Box<str> },
    /// A folder's cached list and attributes.
    Folder { ino: Ino },
}

pub struct VfsOptions {
    /// Whether the adapter can let the kernel read complete files by itself.
    pub passthrough: bool,
}

pub struct Vfs {}

impl Vfs {
    /// Loads the catalog (from the registry, else the index) and starts watching it every time to
    /// live. Must be called within a tokio runtime.
    pub async fn new(fetcher: Arc<Fetcher>, options: VfsOptions) -> Result<Arc<Self>, VfsError> {
        todo!()
    }
    pub fn set_passthrough(&self, on: bool) {
        todo!()
    }
    pub fn lookup(self: &Arc<Self>, parent: Ino, name: &str) -> Answer<Attr> {
        todo!()
    }
    pub fn attr(self: &Arc<Self>, ino: Ino) -> Answer<Attr> {
        todo!()
    }
    pub fn open_folder(self: &Arc<Self>, ino: Ino) -> Answer<Handle> {
        todo!()
    }
    /// The folder's entries without `.` and `..`, in one order for as long as the handle lives
    /// (and after a restart, as long as the catalog did not change).
    pub fn list(self: &Arc<Self>, ino: Ino, handle: Handle) -> Answer<Arc<[Entry]>> {
        todo!()
    }
    pub fn parent(&self, ino: Ino) -> Ino {
        todo!()
    }
    pub fn open(self: &Arc<Self>, ino: Ino) -> Answer<Opened> {
        todo!()
    }
    /// At most `size` bytes from `offset`; fewer only at the end of the file.
    pub fn read(
        self: &Arc<Self>,
        ino: Ino,
        handle: Handle,
        offset: u64,
        size: u32,
    ) -> Answer<Bytes> {
        todo!()
    }
    pub fn release(&self, ino: Ino, handle: Handle) {
        todo!()
    }
    pub fn attribute(self: &Arc<Self>, ino: Ino, name: &str) -> Answer<Vec<u8>> {
        todo!()
    }
    pub fn attributes(self: &Arc<Self>, ino: Ino) -> Answer<Vec<String>> {
        todo!()
    }
    pub fn space(&self) -> Space {
        todo!()
    }
    /// Every change of the catalog, from now on. One listener: the adapter.
    pub fn invalidations(&self) -> tokio::sync::mpsc::UnboundedReceiver<Invalidation> {
        todo!()
    }
    /// Stops the watcher and forgets open files.
    pub fn close(&self) {
        todo!()
    }
}
