//! Commands that bring or keep: prefetch, pin, unpin.
//!
//! Invariant: what a stopped prefetch has brought stays; a pin names the manifest it keeps.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::answers::{Pinned, Prefetched, Unpinned};
use super::ops::{Ask, Ops, Run, blocking};
use super::types::{Pin, Prefetch, Progress, ProgressSink, Unpin};
use crate::error::{Failure, Kind};

impl Run for Prefetch {
    async fn run(self, ops: Arc<Ops>, progress: ProgressSink) -> Result<Prefetched, Failure> {
        let version = self.reference.parse()?;
        let fetcher = ops.fetcher.clone().ok_or_else(|| Failure::no_registry("prefetch"))?;
        let known = ops.find_known(&version, Ask::Registry).await?;
        let started = Instant::now();
        ops.remember(&known.found)?;
        let report = |p: modelfs::fetch::PrefetchProgress| {
            progress(Progress { total: p.total, done: p.present, at_start: p.at_start });
        };
        let end = fetcher.prefetch(&known.manifest, &report).await?;
        let store = ops.store.clone();
        blocking(move || Ok(store.commit()?)).await?;
        Ok(Prefetched {
            reference: self.reference,
            hash: known.found.hash,
            total: end.total,
            present: end.present,
            fetched: end.present.saturating_sub(end.at_start),
            seconds: started.elapsed().as_secs_f64(),
        })
    }
}

/// Owners are names, not texts: they are listed with commas and shown on terminals.
fn check_owner(owner: &str) -> Result<(), Failure> {
    match owner.is_empty() || owner.len() > 64 || owner.chars().any(|c| c.is_control() || c == ',')
    {
        true => Err(Failure::usage(format!("'{}' is no owner", owner.escape_debug()))
            .hint("write a name of at most 64 bytes, without commas")),
        false => Ok(()),
    }
}

impl Run for Pin {
    async fn run(self, ops: Arc<Ops>, _: ProgressSink) -> Result<Pinned, Failure> {
        check_owner(&self.owner)?;
        let version = self.reference.parse()?;
        let known = ops.find_known(&version, Ask::Registry).await?;
        blocking(move || {
            ops.remember(&known.found)?;
            let blobs = known.blobs();
            let pin = modelfs::store::Pin {
                source: known.found.source.name().to_owned(),
                version,
                hash: known.found.hash,
                owner: self.owner.clone(),
                since: SystemTime::now(),
            };
            ops.store.pin(&pin, &blobs)?;
            tracing::info!(version = %pin.version, owner = %pin.owner, "pinned");
            Ok(Pinned {
                reference: self.reference,
                owner: self.owner,
                hash: pin.hash,
                total: known.manifest.total(),
                cached: blobs.iter().map(|key| ops.store.presence(key).0.0).sum(),
                pinned_by: ops.pins_of(&known.found)?.into_iter().map(|p| p.owner).collect(),
            })
        })
        .await
    }
}

impl Run for Unpin {
    async fn run(self, ops: Arc<Ops>, _: ProgressSink) -> Result<Unpinned, Failure> {
        let version = self.reference.parse()?;
        blocking(move || {
            // The pins say where it came from: to let go, nobody has to be asked.
            let configured = ops.source.as_ref().map(|s| s.name());
            let pins = ops.store.pins()?.into_iter().filter(|p| p.version == version);
            let pins: Vec<_> =
                pins.filter(|p| configured.is_none_or(|name| p.source == name)).collect();
            let (ours, others): (Vec<_>, Vec<_>) =
                pins.into_iter().partition(|p| p.owner == self.owner);
            let mut pinned_by: Vec<_> = others.into_iter().map(|p| p.owner).collect();
            pinned_by.sort_unstable();
            pinned_by.dedup();
            if ours.is_empty() {
                let failure = Failure::new(
                    Kind::NotCached,
                    format!("{version} is not pinned by {}", self.owner.escape_debug()),
                );
                return Err(match pinned_by.is_empty() {
                    true => failure,
                    false => failure.hint(format!(
                        "it is pinned by {}: say whose pin with --owner",
                        pinned_by.join(", ")
                    )),
                });
            }
            for pin in ours {
                ops.store.unpin(&pin.source, &version, &self.owner)?;
            }
            tracing::info!(%version, owner = %self.owner, "unpinned");
            Ok(Unpinned { reference: self.reference, owner: self.owner, pinned_by })
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_names() {
        for good in ["alice", "batch-7", "uid:0", "ünï"] {
            assert!(check_owner(good).is_ok(), "{good}");
        }
        for bad in ["", "a,b", "a\u{1b}[2J", &"x".repeat(65)] {
            assert_eq!(check_owner(bad).unwrap_err().kind, Kind::Usage, "{bad:?}");
        }
    }
}
