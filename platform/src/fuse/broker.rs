//! What the process that serves asks of the process that outlives it.
//!
//! Concurrency: shared between the threads that serve; only `serves` must not wait.

use std::fs::File;
use std::io;

use modelfs::vfs::{Handle, Ino};

use super::modes::{BackingNumber, Open};

/// The process that outlives the one that serves: it asks the kernel for what needs privileges and
/// remembers which files are open.
pub trait MountBroker: Send + Sync {
    /// Takes the answer to the first request. When it returns, the kernel has one.
    fn answered(&self, reply: &[u8]) -> io::Result<()>;
    /// Has the kernel read a file by itself.
    fn register(&self, ino: Ino, file: &File) -> io::Result<BackingNumber>;
    /// Notes an open file, before the kernel hears of it.
    fn opened(&self, open: Open);
    /// Notes a release; a backing goes with the last one.
    fn released(&self, ino: Ino, handle: Handle);
    /// Notes that the first requests were answered. Must not wait.
    fn serves(&self) {}
}
