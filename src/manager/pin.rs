//! `pin` and `unpin`: promise an owner that a version is not evicted, and release that promise.
//!
//! Invariant: a pin names the manifest that it keeps. Unpinning never asks a registry.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::error::ManagerError;
use super::lookup::{Lookup, remember, resolve};
use super::manager::{Command, Manager};
use super::pin_info::pins_of;
use super::progress::ProgressSink;
use super::reference::Ref;
use crate::base::blocking::blocking;
use crate::model::Digest;
use crate::store;

/// The longest name of an owner in bytes: several fit a line.
const MAX_OWNER: usize = 64;

/// Keeps a version from eviction.
#[derive(Debug, Serialize, Deserialize)]
pub struct Pin {
    /// Which.
    pub reference: Ref,
    /// For whom.
    pub owner: String,
}

/// A version that is pinned now.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Pinned {
    /// Which version.
    #[serde(flatten)]
    pub reference: Ref,
    /// For whom.
    pub owner: String,
    /// Its manifest.
    pub hash: Digest,
    /// Bytes of all files.
    pub total: u64,
    /// Of them, cached.
    pub cached: u64,
    /// All owners of pins on it.
    pub pinned_by: Vec<String>,
}

/// Removes a pin.
#[derive(Debug, Serialize, Deserialize)]
pub struct Unpin {
    /// Which version.
    pub reference: Ref,
    /// Whose pin.
    pub owner: String,
}

/// A version whose pin was removed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Unpinned {
    /// Which version.
    #[serde(flatten)]
    pub reference: Ref,
    /// Whose pin it was.
    pub owner: String,
    /// Who else pins it.
    pub pinned_by: Vec<String>,
}

/// Owners are names, not texts: they are listed with commas and shown on terminals.
fn check_owner(owner: &str) -> Result<(), ManagerError> {
    let odd = |c: char| c.is_control() || c == ',';
    match owner.is_empty() || owner.len() > MAX_OWNER || owner.chars().any(odd) {
        true => Err(ManagerError::InvalidOwner { owner: owner.to_owned() }),
        false => Ok(()),
    }
}

impl Command for Pin {
    type Answer = Pinned;

    async fn run(self, manager: Manager, _: ProgressSink) -> Result<Pinned, ManagerError> {
        check_owner(&self.owner)?;
        let reference = self.reference.parse()?;
        let version = resolve(&manager, &reference, Lookup::Online).await?;
        blocking(move || {
            let store = manager.store();
            remember(store, &version.found)?;
            let blobs = version.blobs();
            let pin = store::Pin {
                source: version.found.source.name().clone(),
                version: reference,
                hash: version.found.hash,
                owner: self.owner.clone(),
                since: SystemTime::now(),
            };
            store.pin(&pin, &blobs)?;
            tracing::info!(version = %pin.version, owner = %pin.owner, "pinned");
            Ok(Pinned {
                reference: self.reference,
                owner: self.owner,
                hash: pin.hash,
                total: version.manifest.total(),
                cached: version.cached(store).iter().sum(),
                pinned_by: pins_of(store, &version.found)?.into_iter().map(|p| p.owner).collect(),
            })
        })
        .await?
    }
}

impl Command for Unpin {
    type Answer = Unpinned;

    async fn run(self, manager: Manager, _: ProgressSink) -> Result<Unpinned, ManagerError> {
        let version = self.reference.parse()?;
        blocking(move || {
            let store = manager.store();
            // A pin remembers its registry, so none has to be asked.
            let configured = manager.sources();
            let ours = |p: &store::Pin| {
                let known = configured.is_none_or(|sources| sources.named(&p.source).is_some());
                p.version == version && known
            };
            let (mine, others): (Vec<_>, Vec<_>) =
                store.pins()?.into_iter().filter(ours).partition(|p| p.owner == self.owner);
            let mut pinned_by: Vec<_> = others.into_iter().map(|p| p.owner).collect();
            pinned_by.sort_unstable();
            pinned_by.dedup();
            if mine.is_empty() {
                return Err(ManagerError::NotPinned { version, owner: self.owner, pinned_by });
            }
            for pin in mine {
                store.unpin(&pin.source, &version, &self.owner)?;
            }
            tracing::info!(%version, owner = %self.owner, "unpinned");
            Ok(Unpinned { reference: self.reference, owner: self.owner, pinned_by })
        })
        .await?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::ErrorKind;

    #[test]
    fn owner_names_are_validated() {
        for good in ["alice", "batch-7", "uid:0", "ünï"] {
            assert!(check_owner(good).is_ok(), "{good}");
        }
        for bad in ["", "a,b", "a\u{1b}[2J", &"x".repeat(65)] {
            let error = check_owner(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{bad:?}");
        }
    }
}
