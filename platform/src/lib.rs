//! Kernel adapters: they mount a [`modelfs::vfs::Vfs`] and speak the kernel's protocol.
//!
//! Invariant: errno exists only here; nothing here knows registries or the store. Each adapter is the
//! module of one system; this file holds what they share. Concurrency: see each adapter.
#![warn(missing_docs)]

pub mod allocator;
#[cfg(target_os = "linux")]
mod child;
mod error;
#[cfg(target_os = "linux")]
mod fuse;
#[cfg(target_os = "linux")]
pub mod inherited;
#[cfg(not(target_os = "linux"))]
mod none;
mod options;

use std::path::Path;
use std::sync::Arc;

use modelfs::vfs::Vfs;

#[cfg(target_os = "linux")]
pub use child::end_with_parent;
pub use error::MountError;
#[cfg(target_os = "linux")]
pub use fuse::{
    BackingNumber, Connection, GRACE, Kept, Mount, MountBroker, Mounted, Open, RequestNumber,
    Serving, Task, serve,
};
#[cfg(not(target_os = "linux"))]
pub use none::Mount;
pub use options::{Agreed, MountOptions, MountPoint, Protected};

/// Checks whether this mount is possible, before anything is changed. It does not look at what is
/// already mounted there; mounting does.
pub fn check(options: &MountOptions) -> Result<(), MountError> {
    #[cfg(target_os = "linux")]
    return fuse::check(options);
    #[cfg(not(target_os = "linux"))]
    return none::check(options);
}

/// Mounts and serves until [`Mount::unmount`], an unmount from outside, or drop. Call it within the
/// tokio runtime that is to run the requests that have to wait.
pub fn mount(vfs: Arc<Vfs>, options: &MountOptions) -> Result<Mount, MountError> {
    #[cfg(target_os = "linux")]
    return fuse::mount(vfs, options);
    #[cfg(not(target_os = "linux"))]
    return none::mount(vfs, options);
}

/// Lists every modelfs mount that this process sees, live or dead. It touches none of them.
pub fn mounts() -> Vec<MountPoint> {
    #[cfg(target_os = "linux")]
    return fuse::mounts();
    #[cfg(not(target_os = "linux"))]
    return none::mounts();
}

/// Unmounts the modelfs mount there, live or dead: normally, else lazily, directly or with
/// `fusermount3`. Refuses mounts of other file systems.
pub fn unmount(mountpoint: &Path) -> Result<(), MountError> {
    #[cfg(target_os = "linux")]
    return fuse::unmount(mountpoint);
    #[cfg(not(target_os = "linux"))]
    return none::unmount(mountpoint);
}
