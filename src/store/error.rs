//! What can go wrong in the store, by kind. Plain values.

use std::io;
use std::path::{Path, PathBuf};

use super::types::Holder;
use crate::base::units::ByteSize;

/// Why the store could not.
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
    #[error("the cache is full: {wanted} more needed, everything else is pinned or in use")]
    NoSpace {
        /// How much was asked for.
        wanted: ByteSize,
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
    /// The disk failed.
    pub(super) fn disk(
        path: &Path,
        action: &'static str,
    ) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Disk { path, action, source }
    }
}
