//! The values that go in and out of the store. Plain values.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use crate::base::units::ByteSize;
use crate::model::{ContentKey, Digest, SourceName, VersionRef};

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Its folder, made if it is not there.
    pub root: PathBuf,
    /// Maximum bytes on disk, index included. `None`: the limit that it was last opened with, or the
    /// default of 50 GiB (for commands that only look).
    pub limit: Option<ByteSize>,
    /// Written bytes after which a group is committed even if `commit_after` has not passed.
    pub commit_bytes: ByteSize,
    /// Maximum time that a written part waits for its commit.
    pub commit_after: Duration,
}

impl StoreOptions {
    /// The defaults: the limit of last time; a commit after 256 MiB, which a fast link brings in a
    /// second or two, or after 2 s, which is what a crash may cost.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            limit: None,
            commit_bytes: ByteSize::mib(256),
            commit_after: Duration::from_secs(2),
        }
    }
}

/// Who holds a store, as its lock file says (JSON).
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Holder {
    /// The process.
    pub pid: u32,
    /// Where it is mounted, if it is a daemon.
    pub mountpoint: Option<PathBuf>,
    /// Where it listens for commands, if it is a daemon.
    pub socket: Option<PathBuf>,
    /// Why no daemon answers there, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// The row of a group, model or version (with its hash) in the index: stable for the life of the
/// index, never used again for something else. Inodes are made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

/// What a [`NodeId`] stands for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum NodeKey {
    /// A group.
    Group {
        /// Its name.
        group: Box<str>,
    },
    /// A model.
    Model {
        /// Its group.
        group: Box<str>,
        /// Its name.
        model: Box<str>,
    },
    /// A version with a given manifest: another manifest is another node.
    Version {
        /// Its group.
        group: Box<str>,
        /// Its model.
        model: Box<str>,
        /// Its name.
        version: Box<str>,
        /// The SHA-256 of its manifest.
        hash: Digest,
    },
}

/// A catalog as last seen.
#[derive(Debug, Clone)]
pub struct SavedCatalog {
    /// The document.
    pub body: Vec<u8>,
    /// The `ETag` that came with it.
    pub etag: Option<String>,
    /// The `Last-Modified` that came with it.
    pub last_modified: Option<String>,
    /// When the registry last said that this is it.
    pub checked: SystemTime,
}

/// A promise not to evict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// The source of the version.
    pub source: SourceName,
    /// What is pinned.
    pub version: VersionRef,
    /// The SHA-256 of its manifest when it was pinned.
    pub hash: Digest,
    /// Whose pin it is.
    pub owner: String,
    /// Since when.
    pub since: SystemTime,
}

/// How full the store is. All in bytes on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Usage {
    /// The limit.
    pub limit: ByteSize,
    /// Blobs, reserved space, index and allowances: what counts against the limit.
    pub used: ByteSize,
    /// Of `used`: pinned, so not evicted.
    pub pinned: ByteSize,
    /// Of `used`: promised to fetches under way.
    pub reserved: ByteSize,
    /// Bytes of model data present.
    pub data: ByteSize,
    /// Bytes that were fetched of objects which can be verified only when they are complete.
    #[serde(default)]
    pub unverified: ByteSize,
    /// Blobs that have something present.
    pub blobs: u64,
    /// Of them: those that have everything.
    pub complete_blobs: u64,
    /// Free on the file system.
    pub disk_free: ByteSize,
}

/// What [`Store::evict`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Evicted {
    /// Freed on disk.
    pub freed: ByteSize,
    /// Kept because it is pinned.
    pub kept_pinned: ByteSize,
    /// Kept because it is being read or open by passthrough.
    pub kept_busy: ByteSize,
}

/// What [`Store::verify`] found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verified {
    /// Data bytes that were compared with their checksums.
    pub checked: ByteSize,
    /// Data bytes that did not match or were gone, and were dropped.
    pub dropped: ByteSize,
    /// Blobs that lost something.
    pub damaged: Vec<ContentKey>,
}

/// The result of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It can be read now and will be committed.
    Stored,
    /// It was there already.
    Present,
    /// Its place is being evicted: serve it from memory.
    Skipped,
}

/// The result of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadState {
    /// The buffer is filled.
    Hit,
    /// At least one part is not present; the buffer's content means nothing.
    Miss,
}
