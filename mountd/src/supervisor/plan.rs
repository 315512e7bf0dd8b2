//! What a supervisor keeps up, as the command line has it. Plain values; every path is absolute.

use std::path::PathBuf;
use std::time::Duration;

use modelfs_platform::MountOptions;

use super::messages::Locations;
use super::unit::Unit;
use crate::identity::Identity;

/// What to keep up.
pub struct Plan {
    /// How to mount.
    pub mount: MountOptions,
    /// The cache folder.
    pub root: PathBuf,
    /// The registry: a URL, or an absolute folder.
    pub registry: String,
    /// The registry's folder, if it is one.
    pub registry_folder: Option<PathBuf>,
    /// The file that the log goes to, if it does.
    pub log: Option<PathBuf>,
    /// As whom workers run.
    pub identity: Identity,
    /// Quick deaths in a row after which reads fail; 0: never.
    pub quick_deaths: u32,
    /// How long a worker may be silent before it is taken to hang; zero: for ever.
    pub hang_timeout: Duration,
    /// Whether losing the terminal ends it; else it asks for another worker.
    pub ends_with_terminal: bool,
    /// As which unit of a service manager we run: its restart keeps the mount.
    pub unit: Option<Unit>,
}

impl Plan {
    /// Where things are, for a worker.
    pub fn locations(&self) -> Locations {
        Locations {
            mountpoint: self.mount.mountpoint.clone(),
            cache: self.root.clone(),
            registry: self.registry.clone(),
            log: self.log.clone(),
        }
    }
}
