//! What the users of an adapter tell it, and what they are told. Plain values.

use std::path::PathBuf;

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

/// A mount of modelfs's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountPoint {
    /// Where.
    pub path: PathBuf,
    /// The user who mounted it, if the system says so.
    pub user: Option<u32>,
}
