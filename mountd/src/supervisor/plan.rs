//! What a supervisor keeps up, made of the configuration. Plain values, any thread; every path is
//! absolute.

use std::path::PathBuf;
use std::time::Duration;

use modelfs::config::{Config, Setting};
use modelfs_platform::MountOptions;

use super::unit::Unit;
use crate::identity::Identity;
use crate::sources::SourcePlan;

/// The mount to supervise.
pub struct Plan {
    /// The whole configuration, for workers.
    pub config: Config,
    /// The mount options.
    pub mount: MountOptions,
    /// The cache folder.
    pub root: PathBuf,
    /// The sources, in order of priority.
    pub sources: Vec<SourcePlan>,
    /// The log file, if any.
    pub log_file: Option<PathBuf>,
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
    /// The same with the cache folder by another name: it may be found under a link once it exists.
    pub fn with_root(mut self, root: PathBuf) -> Self {
        let origin = self.config.cache_dir.map(|given| given.origin).unwrap_or_default();
        self.config.cache_dir = Some(Setting { value: root.clone(), origin });
        Self { root, ..self }
    }
}
