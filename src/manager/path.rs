//! `path`: where a version is mounted.
//!
//! Invariant: a path is given only for a version that is in the tree.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::error::ManagerError;
use super::lookup::{Lookup, find};
use super::manager::{Command, Manager};
use super::progress::ProgressSink;
use super::reference::Ref;

/// Asks where a version is mounted.
#[derive(Debug, Serialize, Deserialize)]
pub struct GetPath {
    /// Which.
    pub reference: Ref,
}

/// Where a version is mounted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MountedPath {
    /// Its folder.
    pub path: PathBuf,
}

impl Command for GetPath {
    type Answer = MountedPath;

    async fn run(self, manager: Manager, _: ProgressSink) -> Result<MountedPath, ManagerError> {
        let version = self.reference.parse()?;
        let Some(daemon) = manager.daemon() else {
            return Err(ManagerError::VersionNotMounted { version });
        };
        let path = version.folder_in(&daemon.status().mountpoint);
        let found = find(&manager, &version, Lookup::Online).await?;
        match found.entry {
            Some(_) => Ok(MountedPath { path }),
            None => Err(ManagerError::NoLongerOffered { version }),
        }
    }
}
