//! The adapter of systems without one: it refuses every mount. No state; any thread.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use modelfs::vfs::Vfs;

use crate::error::MountError;
use crate::options::{Agreed, MountOptions};

/// A live mount: this system has none.
pub struct Mount(Infallible);

fn refused() -> MountError {
    MountError::NoFuse(format!("mounting is not there yet on {}", std::env::consts::OS))
}

pub(crate) fn check(_options: &MountOptions) -> Result<(), MountError> {
    Err(refused())
}

pub(crate) fn mount(_vfs: Arc<Vfs>, _options: &MountOptions) -> Result<Mount, MountError> {
    Err(refused())
}

pub(crate) fn unmount(_mountpoint: &Path) -> Result<(), MountError> {
    Err(refused())
}

pub(crate) fn mounts() -> Vec<crate::options::MountPoint> {
    Vec::new()
}

impl Mount {
    /// What the kernel agreed to.
    pub fn agreed(&self) -> Agreed {
        match self.0 {}
    }

    /// Unmounts.
    pub fn unmount(self) -> Result<(), MountError> {
        match self.0 {}
    }

    /// Resolves when the mount has ended.
    pub async fn ended(&self) {
        match self.0 {}
    }
}
