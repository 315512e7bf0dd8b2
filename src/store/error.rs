//! What can go wrong in the store, by kind. Plain values.

use std::io;
use std::path::{Path, PathBuf};

use crate::base::units::ByteSize;
use crate::store::types::Holder;

/// Why a store operation failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has the store.
    #[error("{root}: the store is in use by process {}{}", holder.pid, holder.mountpoint.as_ref().map(|m| format!(" (mounted at {})", m.display())).unwrap_or_default())]
    Locked {
        /// The store's folder.
        root: PathBuf,
        /// Who.
        holder: Holder,
    },
    /// The index was made by a newer modelfs.
    #[error(
        "{path}: the index has version {found}, this modelfs knows up to {known}: use a newer modelfs or another cache folder"
    )]
    Newer {
        /// The index.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest that this program knows.
        known: u32,
    },
    /// Nothing more can be evicted.
    #[error(
        "the cache is full: {wanted} needed, and of its limit of {limit}, {pinned} are pinned and {in_use} in use"
    )]
    NoSpace {
        /// How much was asked for.
        wanted: ByteSize,
        /// The limit.
        limit: ByteSize,
        /// What of it is pinned.
        pinned: ByteSize,
        /// What else of it cannot be evicted now.
        in_use: ByteSize,
    },
    /// It would not fit into an empty cache.
    #[error(
        "the cache's limit is too small: {wanted} needed, and a limit of {limit} has room for {room} of data"
    )]
    TooLarge {
        /// How much was asked for.
        wanted: ByteSize,
        /// The most data that there may be.
        room: ByteSize,
        /// The limit.
        limit: ByteSize,
    },
    /// The disk has less room than the limit allows.
    #[error(
        "{path}: the disk is full: {}{free} are free on it, and nothing of the cache can be evicted",
        if wanted.0 > 0 { format!("{wanted} needed, ") } else { String::new() }
    )]
    DiskFull {
        /// The cache's folder or the file.
        path: PathBuf,
        /// How much was asked for; 0 if that is not known.
        wanted: ByteSize,
        /// What is free on the disk.
        free: ByteSize,
    },
    /// The limit leaves no room for data.
    #[error("a cache limit of {given} is too small: at least {least} are needed")]
    Limit {
        /// What was asked for.
        given: ByteSize,
        /// The least.
        least: ByteSize,
    },
    /// The disk failed.
    #[error("{path}: {action}: {source}")]
    Disk {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The index failed.
    #[error("the index: {0}")]
    Index(String),
}

impl StoreError {
    /// Whether it says that there is no room for something.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::NoSpace { .. } | Self::TooLarge { .. } | Self::DiskFull { .. })
    }

    /// What can be done about it.
    pub fn next_step(&self) -> Option<&'static str> {
        Some(match self {
            Self::NoSpace { .. } => "unpin or evict something, or mount with a larger --cache-size",
            Self::TooLarge { .. } => "mount with a larger --cache-size",
            Self::DiskFull { .. } => {
                "free space on that disk, or use a cache folder on another one with --cache-dir"
            }
            Self::Limit { .. } => "give a larger --cache-size",
            Self::Locked { holder, .. } if holder.socket.is_none() => {
                "wait until that process has ended, or use another folder with --cache-dir"
            }
            Self::Locked { .. } => "unmount it first, or use another folder with --cache-dir",
            Self::Newer { .. } | Self::Disk { .. } | Self::Index(_) => return None,
        })
    }

    /// The disk failed.
    pub(super) fn disk(
        path: &Path,
        action: &'static str,
    ) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Disk { path, action, source }
    }
}
