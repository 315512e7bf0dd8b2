//! `prefetch`: fetch a whole version into the cache.
//!
//! Invariant: what a stopped prefetch has fetched stays.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::error::ManagerError;
use super::lookup::{Lookup, remember, resolve};
use super::manager::{Command, Manager};
use super::progress::{Progress, ProgressSink};
use super::reference::Ref;
use crate::fetch::PrefetchProgress;
use crate::model::Digest;

/// Fetches all of a version.
#[derive(Debug, Serialize, Deserialize)]
pub struct Prefetch {
    /// Which.
    pub reference: Ref,
}

/// What a prefetch did.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Prefetched {
    /// Which version.
    #[serde(flatten)]
    pub reference: Ref,
    /// Its manifest.
    pub hash: Digest,
    /// Bytes of all files.
    pub total: u64,
    /// Of them, present now.
    pub present: u64,
    /// Of them, added by this prefetch.
    pub fetched: u64,
    /// How long it took.
    pub seconds: f64,
}

impl Command for Prefetch {
    type Answer = Prefetched;

    async fn run(
        self,
        manager: Manager,
        progress: ProgressSink,
    ) -> Result<Prefetched, ManagerError> {
        let reference = self.reference.parse()?;
        let no_registry = || ManagerError::NoRegistry { action: "prefetch".to_owned() };
        let fetcher = manager.fetcher().ok_or_else(no_registry)?;
        let version = resolve(&manager, &reference, Lookup::Online).await?;
        let started = Instant::now();
        remember(manager.store(), &version.found)?;
        let report = |p: PrefetchProgress| {
            progress(Progress { total: p.total, done: p.present, at_start: p.at_start });
        };
        let end = fetcher.prefetch(&version.found.source, &version.manifest, &report).await?;
        manager.commit().await?;
        Ok(Prefetched {
            reference: self.reference,
            hash: version.found.hash,
            total: end.total,
            present: end.present,
            fetched: end.present.saturating_sub(end.at_start),
            seconds: started.elapsed().as_secs_f64(),
        })
    }
}
