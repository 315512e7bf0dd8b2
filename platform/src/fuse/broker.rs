//! What the worker asks of the process that outlives it. It owns no state.
//!
//! Invariant: it records an open before the kernel gets the reply. Concurrency: shared between the
//! threads that serve; all methods but `serves` may block.

use std::fs::File;
use std::io;

use modelfs::vfs::{Handle, Ino};

use super::modes::{BackingNumber, Open};

/// The process that outlives the worker: it makes the privileged requests to the kernel and records
/// which files are open.
pub trait MountBroker: Send + Sync {
    /// Takes the reply to FUSE_INIT. When it returns, the kernel has a reply.
    fn answered(&self, reply: &[u8]) -> io::Result<()>;
    /// Registers a file for passthrough.
    fn register(&self, ino: Ino, file: &File) -> io::Result<BackingNumber>;
    /// Records an open file, before the open is answered.
    fn opened(&self, open: Open);
    /// Records a release; the last one of an inode drops its backing id.
    fn released(&self, ino: Ino, handle: Handle);
    /// Records that the first requests were answered. Must not block.
    fn serves(&self) {}
}
