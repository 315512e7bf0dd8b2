//! The options and results of an adapter. Plain values: no state, no invariant, any thread.

use std::path::PathBuf;

/// How to mount.
#[derive(Debug, Clone)]
pub struct MountOptions {
    /// The mount point.
    pub mountpoint: PathBuf,
    /// Other users may read too (needs root, or user_allow_other in /etc/fuse.conf).
    pub allow_other: bool,
    /// Mount even if the folder is not empty, which hides its content.
    pub allow_non_empty: bool,
    /// Folders that the mount must not hide.
    pub protected: Vec<Protected>,
    /// Threads that take requests from the kernel.
    pub threads: usize,
    /// Try passthrough (needs privileges and kernel support).
    pub passthrough: bool,
}

/// A folder that must stay visible: a mount point may neither be it nor contain it.
#[derive(Debug, Clone)]
pub struct Protected {
    /// Its name in messages: "the cache folder".
    pub what: &'static str,
    /// Its absolute path; the folder need not exist yet.
    pub path: PathBuf,
    /// Whether the mount point may not be inside it either.
    pub inside_too: bool,
}

/// What the kernel agreed to, for `status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreed {
    /// Whether the kernel reads complete files itself.
    pub passthrough: bool,
    /// If not, the reason as text.
    pub why_not: Option<String>,
    /// Maximum read request size in bytes.
    pub max_read: u32,
}

/// A modelfs mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountPoint {
    /// Its path.
    pub path: PathBuf,
    /// The user who mounted it, if the system reports it.
    pub user: Option<u32>,
}
