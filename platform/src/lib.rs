//! Kernel adapters: they mount a [`modelfs::vfs::Vfs`] and speak the kernel's protocol.
//!
//! Invariant: errno exists only here; nothing here knows registries or the store. Each adapter is
//! a module for its system; this file holds what they share. See each adapter for its threads.
#![warn(missing_docs)]

pub mod allocator;
#[cfg(target_os = "linux")]
mod fuse;
#[cfg(target_os = "linux")]
pub mod inherited;
#[cfg(not(target_os = "linux"))]
mod none;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use modelfs::vfs::Vfs;

#[cfg(target_os = "linux")]
pub use fuse::{
    BackingNumber, Connection, GRACE, Keeper, Kept, Mount, Mounted, Open, RequestNumber, Serving,
    Task, serve,
};
#[cfg(not(target_os = "linux"))]
pub use none::Mount;

/// How to mount.
#[derive(Debug, Clone)]
pub struct MountOptions {
    /// The folder to mount at.
    pub mountpoint: PathBuf,
    /// Other users may read too (needs root, or user_allow_other in /etc/fuse.conf).
    pub allow_other: bool,
    /// Mount although the folder is not empty, which hides what is in it.
    pub allow_non_empty: bool,
    /// Folders that the mount must not hide.
    pub protected: Vec<Protected>,
    /// Threads that take requests from the kernel.
    pub threads: usize,
    /// Try passthrough (it needs privileges and a kernel that has it).
    pub passthrough: bool,
}

/// A folder that is needed: a mount point may neither be it nor contain it.
#[derive(Debug, Clone)]
pub struct Protected {
    /// What it is, for messages: "the cache folder".
    pub what: &'static str,
    /// Where it is, or is to be. Absolute.
    pub path: PathBuf,
    /// Whether the mount point may not lie in it either.
    pub inside_too: bool,
}

/// Why a mount failed, each with what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// Something about the mount point, or about who may mount there.
    #[error("{}: {why}", path.display())]
    Mountpoint {
        /// The mount point.
        path: PathBuf,
        /// What is wrong, and what to do.
        why: String,
    },
    /// The mount point has content, which the mount would hide.
    #[error("{}: is not empty, and a mount would hide what is in it", path.display())]
    NotEmpty {
        /// The mount point.
        path: PathBuf,
    },
    /// This machine cannot mount; the text says what to do.
    #[error("{0}")]
    NoFuse(String),
    /// The system call or the helper failed.
    #[error("mounting at {}: {source}", path.display())]
    Failed {
        /// The mount point.
        path: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
}

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

/// Whether it makes sense to mount there: what can be said before anything is changed. What is mounted
/// there already is not asked; mounting does that.
pub fn check(options: &MountOptions) -> Result<(), MountError> {
    #[cfg(target_os = "linux")]
    return fuse::check(options);
    #[cfg(not(target_os = "linux"))]
    return none::check(options);
}

/// Mounts and serves until [`Mount::unmount`], an unmount from outside, or drop. Call it within
/// the tokio runtime whose tasks answer what has to wait.
pub fn mount(vfs: Arc<Vfs>, options: &MountOptions) -> Result<Mount, MountError> {
    #[cfg(target_os = "linux")]
    return fuse::mount(vfs, options);
    #[cfg(not(target_os = "linux"))]
    return none::mount(vfs, options);
}

/// A mount of modelfs's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountPoint {
    /// Where.
    pub path: PathBuf,
    /// The user who mounted it, if the system says so.
    pub user: Option<u32>,
}

/// Every mount of modelfs's that this process sees, dead or alive: none is touched.
pub fn mounts() -> Vec<MountPoint> {
    #[cfg(target_os = "linux")]
    return fuse::mounts();
    #[cfg(not(target_os = "linux"))]
    return none::mounts();
}

/// Unmounts whatever modelfs mounted there, dead or alive: plainly, else lazily, by itself or with
/// `fusermount3`. Refuses mounts that are not modelfs's.
pub fn unmount(mountpoint: &Path) -> Result<(), MountError> {
    #[cfg(target_os = "linux")]
    return fuse::unmount(mountpoint);
    #[cfg(not(target_os = "linux"))]
    return none::unmount(mountpoint);
}
