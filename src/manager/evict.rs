//! `evict`: remove versions from the cache.
//!
//! Invariant: what is pinned is evicted only by force, which a daemon logs.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::error::ManagerError;
use super::lookup::{ResolvedVersion, all_resolved};
use super::manager::{Command, Manager};
use super::pin_info::PinInfo;
use super::progress::ProgressSink;
use super::reference::Ref;
use super::selection;
use crate::base::blocking::blocking;
use crate::base::units::ByteSize;
use crate::model::ContentKey;
use crate::store::Pin;

/// Removes versions from the cache.
#[derive(Debug, Serialize, Deserialize)]
pub struct Evict {
    /// Which version; none: all.
    pub reference: Option<Ref>,
    /// Also what is pinned.
    #[serde(default)]
    pub force: bool,
}

/// What an eviction did. Bytes on disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Evicted {
    /// Freed.
    pub freed: ByteSize,
    /// Kept: pinned.
    pub kept_pinned: ByteSize,
    /// Kept: being read.
    pub kept_busy: ByteSize,
    /// The pins that kept it.
    pub pins: Vec<PinInfo>,
}

/// The pins that keep one of these blobs.
fn keeping(
    pins: &[Pin],
    versions: &[ResolvedVersion],
    blobs: &HashSet<ContentKey>,
) -> Vec<PinInfo> {
    let keeps = |pin: &&Pin| {
        versions.iter().any(|v| {
            v.found.hash == pin.hash
                && v.found.version == pin.version
                && v.files().any(|(_, key)| key.is_some_and(|key| blobs.contains(&key)))
        })
    };
    pins.iter().filter(keeps).map(PinInfo::from).collect()
}

impl Command for Evict {
    type Answer = Evicted;

    async fn run(self, manager: Manager, _: ProgressSink) -> Result<Evicted, ManagerError> {
        let blobs = selection::blobs(&manager, &self.reference).await?;
        if blobs.is_empty() {
            return Err(ManagerError::EmptyCache);
        }
        let versions = all_resolved(&manager).await?;
        blocking(move || {
            let evicted = manager.store().evict(&blobs, self.force)?;
            let pins = manager.store().pins()?;
            let pins = keeping(&pins, &versions, &blobs.into_iter().collect());
            // For a daemon's log; without a daemon the answer itself says it.
            if self.force && manager.daemon().is_some() {
                for pin in &pins {
                    tracing::warn!(version = %pin.reference, owner = %pin.owner,
                        "evicted by force although pinned");
                }
            }
            let kept = evicted.kept_pinned.0 > 0;
            Ok(Evicted {
                freed: evicted.freed,
                kept_pinned: evicted.kept_pinned,
                kept_busy: evicted.kept_busy,
                pins: if kept { pins } else { Vec::new() },
            })
        })
        .await?
    }
}
