//! Kernel adapters: they mount a [`modelfs::vfs::Vfs`] and speak the kernel's protocol.
//!
//! Invariant: errno exists only here; nothing here knows registries or the store. Each adapter is
//! a module for its system; this file holds what they share. See each adapter for its threads.
#![warn(missing_docs)]

pub mod allocator;
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

pub use error::MountError;
#[cfg(target_os = "linux")]
pub use fuse::{
    BackingNumber, Connection, GRACE, Kept, Mount, MountBroker, Mounted, Open, RequestNumber,
    Serving, Task, serve,
};
#[cfg(not(target_os = "linux"))]
pub use none::Mount;
pub use options::{Agreed, MountOptions, MountPoint, Protected};

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
