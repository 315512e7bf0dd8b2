//! Mount errors: kinds with their causes. Plain values: no state, no invariant, any thread.

use std::path::PathBuf;

/// Why a mount failed, with what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The mount point is unsuitable, or this user may not mount there.
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
        /// The error that it returned.
        source: std::io::Error,
    },
}
