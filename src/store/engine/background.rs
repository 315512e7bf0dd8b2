//! The commit thread, and the last commit of a store that is closed.
//!
//! Concurrency: one thread per store, which ends when the last `Store` is dropped.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::core::Core;
use super::{collection, commit, reserve};
use crate::store::error::StoreError;

/// Uses are recorded this often when nothing is written: what a crash may forget of them.
const RECORD_USES: Duration = Duration::from_secs(60);
/// How long a failed commit waits before it is tried again with the next group.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// The commit thread's life: commits when a group is full or old, until told to stop.
pub fn run(core: &Arc<Core>) {
    let mut recorded = Instant::now();
    while let Some(due) = core.dirty.wait(RECORD_USES.saturating_sub(recorded.elapsed())) {
        let record = recorded.elapsed() >= RECORD_USES;
        if (due.collect || record)
            && let Err(error) = collection::collect_if_due(core)
        {
            tracing::warn!(%error, "deleting unneeded names and documents");
        }
        if due.commit {
            if let Err(e) = reserve::commit(core) {
                tracing::error!(error = %e, "commit");
                std::thread::sleep(AFTER_FAILURE);
            }
        } else if record && let Err(e) = commit::record_uses(core) {
            tracing::warn!(error = %e, "recording uses");
        }
        if due.commit || record {
            recorded = Instant::now();
        }
    }
}

/// Commits for the last time; marks the index clean if nothing is under way any more.
pub fn close(core: &Arc<Core>) -> Result<(), StoreError> {
    reserve::commit(core)?;
    // the eviction at its end changed files: the last commit records what they look like
    if !core.dirty.is_empty() {
        reserve::commit(core)?;
    }
    let idle = core.table.all().iter().all(|entry| {
        let s = entry.state();
        let written = s.writing.is_empty() && s.dirty.is_empty() && s.syncing.is_empty();
        written && s.excess == 0 && s.prefixes.are_recorded()
    });
    if idle { core.index.close() } else { Ok(()) }
}
