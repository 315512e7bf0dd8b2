//! `unmount`: have the daemon unmount and end.
//!
//! Invariant: the answer leaves before the daemon does.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::error::ManagerError;
use super::manager::{Command, Manager};
use super::progress::ProgressSink;

/// Asks the daemon to unmount and end.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Unmount {}

/// The daemon is about to end.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Unmounting {
    /// The process that will end.
    pub pid: u32,
    /// What is being unmounted.
    pub mountpoint: PathBuf,
}

impl Command for Unmount {
    type Answer = Unmounting;

    async fn run(self, manager: Manager, _: ProgressSink) -> Result<Unmounting, ManagerError> {
        let daemon = manager.daemon().ok_or(ManagerError::NotMounted)?;
        daemon.unmount();
        let status = daemon.status();
        Ok(Unmounting { pid: status.pid, mountpoint: status.mountpoint })
    }
}
