//! Kernel adapters: they mount a [`modelfs::vfs::Vfs`] and speak the kernel's protocol.
//!
//! errno exists only here. Each adapter is a module for its system.
#![allow(missing_docs, clippy::todo, unused_variables)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use modelfs::vfs::Vfs;

/// How to mount.
#[derive(Debug, Clone)]
pub struct MountOptions {
    pub mountpoint: PathBuf,
    /// Other users may read too (needs root, or user_allow_other in /etc/fuse.conf).
    pub allow_other: bool,
    /// Threads that take requests from the kernel.
    pub threads: usize,
    /// Try passthrough (it needs privileges and a kernel that has it).
    pub passthrough: bool,
}

/// Why a mount failed, each with what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    #[error("{}: {why}", path.display())]
    Mountpoint { path: PathBuf, why: String },
    #[error("{0}")]
    NoFuse(String),
    #[error("mounting at {}: {source}", path.display())]
    Failed { path: PathBuf, source: std::io::Error },
}

/// A live mount. Dropping it unmounts.
pub struct Mount {}

/// What the kernel agreed to, for `status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreed {
    /// Whether complete files are read by the kernel itself.
    pub passthrough: bool,
    /// Why not, in words, if not.
    pub why_not: Option<String>,
    /// The largest read request in bytes.
    pub max_read: u32,
}

/// Mounts and serves until [`Mount::unmount`], an unmount from outside, or drop. Call it within
/// the tokio runtime whose tasks answer what has to wait.
pub fn mount(vfs: Arc<Vfs>, options: &MountOptions) -> Result<Mount, MountError> {
    todo!()
}

impl Mount {
    pub fn agreed(&self) -> Agreed {
        todo!()
    }
    /// Unmounts, lazily if files are open; returns when the session has ended.
    pub fn unmount(self) -> Result<(), MountError> {
        todo!()
    }
    /// Resolves when the mount has ended, by whoever.
    pub async fn ended(&self) {
        todo!()
    }
}

/// Unmounts whatever modelfs mounted there, dead or alive (`umount`, else `fusermount3 -u`, else lazily).
pub fn unmount(mountpoint: &Path) -> Result<(), MountError> {
    todo!()
}
