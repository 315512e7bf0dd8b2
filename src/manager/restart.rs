//! `restart`: have the daemon replace its worker.
//!
//! Invariant: the answer leaves before the worker does.

use serde::{Deserialize, Serialize};

use super::error::ManagerError;
use super::manager::{Command, Manager};
use super::progress::ProgressSink;

/// Asks for another worker, of the program that is now installed.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Restart {}

/// The worker that answered is being replaced.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Restarting {
    /// The process that ends.
    pub worker: u32,
}

impl Command for Restart {
    type Answer = Restarting;

    async fn run(self, manager: Manager, _: ProgressSink) -> Result<Restarting, ManagerError> {
        let daemon = manager.daemon().ok_or(ManagerError::NotMounted)?;
        let failed = |reason| ManagerError::RestartFailed { reason };
        daemon.restart().await.map_err(failed)?;
        Ok(Restarting { worker: daemon.status().worker })
    }
}
