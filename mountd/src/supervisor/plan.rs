//! A supervisor's configuration from the command line. Plain values, any thread; every path is
//! absolute.

use std::path::PathBuf;
use std::time::Duration;

use modelfs_platform::MountOptions;

use super::messages::Locations;
use super::unit::Unit;
use crate::identity::Identity;

/// The mount to supervise.
pub struct Plan {
    /// The mount options.
    pub mount: MountOptions,
    /// The cache folder.
    pub root: PathBuf,
    /// The registry: a URL, or an absolute folder.
    pub registry: String,
    /// The registry's folder, if it is one.
    pub registry_folder: Option<PathBuf>,
    /// The log file, if any.
    pub log: Option<PathBuf>,
    /// The identity of workers.
    pub identity: Identity,
    /// Number of quick deaths in a row after which reads fail; 0: no limit.
    pub quick_deaths: u32,
    /// How long a worker may be silent before it counts as hung; zero: no limit.
    pub hang_timeout: Duration,
    /// Whether losing the terminal ends the mount; else it requests a restart.
    pub ends_with_terminal: bool,
    /// The service manager's unit that we run as: its restart keeps the mount.
    pub unit: Option<Unit>,
}

impl Plan {
    /// The locations, for a worker.
    pub fn locations(&self) -> Locations {
        Locations {
            mountpoint: self.mount.mountpoint.clone(),
            cache: self.root.clone(),
            registry: self.registry.clone(),
            log: self.log.clone(),
        }
    }
}
