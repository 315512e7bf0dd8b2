//! Commands that take away: evict, and verify, which drops what does not match.
//!
//! Invariant: what somebody pinned is given back only by force, and that is logged.

use std::collections::HashSet;
use std::sync::Arc;

use modelfs::model::ContentKey;
use modelfs::store::Pin;

use super::answers::{Checked, DamagedFile, Freed, PinInfo};
use super::ops::{Ask, Known, Ops, Run, blocking, pin_info};
use super::types::{Evict, Progress, ProgressSink, Ref, Verify};
use crate::error::{Failure, Kind};

/// The blobs that hold something: of a version, every manifest of it that was used here, at least one;
/// without a version all of them, perhaps none.
async fn blobs(ops: &Arc<Ops>, reference: &Option<Ref>) -> Result<Vec<ContentKey>, Failure> {
    let holds_data = |key: &ContentKey| ops.store.presence(key).0.0 > 0;
    let Some(reference) = reference else {
        return Ok(ops.store.blobs().into_iter().filter(holds_data).collect());
    };
    let version = reference.parse()?;
    let found = ops.find_known(&version, Ask::Memory).await?;
    let all = ops.known_everywhere().await?;
    let same = |k: &&Known| {
        k.found.version == version && k.found.source.name() == found.found.source.name()
    };
    let keys: HashSet<_> = all.iter().filter(same).flat_map(Known::blobs).collect();
    match keys.into_iter().filter(holds_data).collect::<Vec<_>>() {
        none if none.is_empty() => Err(nothing_cached(&format!("nothing of {reference}"))),
        some => Ok(some),
    }
}

fn nothing_cached(what: &str) -> Failure {
    Failure::new(Kind::NotCached, format!("{what} is cached")).hint("`modelfs list` shows what is")
}

/// The pins that keep one of these blobs.
fn keepers(pins: &[Pin], known: &[Known], blobs: &HashSet<ContentKey>) -> Vec<PinInfo> {
    let keeps = |pin: &&Pin| {
        known.iter().any(|k| {
            k.found.hash == pin.hash
                && k.found.version == pin.version
                && k.files().any(|(_, key)| key.is_some_and(|key| blobs.contains(&key)))
        })
    };
    pins.iter().filter(keeps).map(pin_info).collect()
}

impl Run for Evict {
    async fn run(self, ops: Arc<Ops>, _: ProgressSink) -> Result<Freed, Failure> {
        let blobs = blobs(&ops, &self.reference).await?;
        if blobs.is_empty() {
            return Err(Failure::new(Kind::NotCached, "nothing is cached"));
        }
        let known = ops.known_everywhere().await?;
        blocking(move || {
            let evicted = ops.store.evict(&blobs, self.force)?;
            let pins = ops.store.pins()?;
            let keepers = keepers(&pins, &known, &blobs.into_iter().collect());
            // For the log of a daemon: a command's own answer says it.
            if self.force && ops.daemon.is_some() {
                for pin in &keepers {
                    tracing::warn!(version = %pin.reference, owner = %pin.owner,
                        "evicted by force although pinned");
                }
            }
            let kept = evicted.kept_pinned.0 > 0;
            Ok(Freed {
                freed: evicted.freed,
                kept_pinned: evicted.kept_pinned,
                kept_busy: evicted.kept_busy,
                pins: if kept { keepers } else { Vec::new() },
            })
        })
        .await
    }
}

impl Run for Verify {
    async fn run(self, ops: Arc<Ops>, progress: ProgressSink) -> Result<Checked, Failure> {
        let blobs = blobs(&ops, &self.reference).await?;
        let worker = ops.clone();
        let verified = blocking(move || {
            let report = |done, total| {
                progress(Progress { total, done, at_start: 0 });
                true
            };
            Ok(worker.store.verify(&blobs, &report)?)
        })
        .await?;
        let mut damaged = Vec::new();
        let mut unknown: HashSet<_> = verified.damaged.iter().copied().collect();
        if !unknown.is_empty() {
            let lost = unknown.clone();
            for known in ops.known_everywhere().await? {
                for (ix, key) in known.files() {
                    if let Some(key) = key.filter(|key| lost.contains(key)) {
                        unknown.remove(&key);
                        damaged.push(DamagedFile {
                            reference: (&known.found.version).into(),
                            path: known.manifest.file(ix).path.as_str().to_owned(),
                        });
                    }
                }
            }
            damaged.sort_unstable();
            damaged.dedup();
        }
        for file in damaged.iter().filter(|_| ops.daemon.is_some()) {
            tracing::warn!(version = %file.reference, file = %file.path,
                "dropped cached bytes that did not match");
        }
        Ok(Checked {
            checked: verified.checked.0,
            dropped: verified.dropped.0,
            damaged,
            damaged_unknown: unknown.len(),
        })
    }
}
