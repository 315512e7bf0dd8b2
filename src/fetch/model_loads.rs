//! Loads of models under way: the touches of each version's readers, saved as a trace for the next load and
//! compared with the trace of the previous one.
//!
//! Invariant: a trace is a hint: no read waits for it or fails because of it. One load per version at a
//! time, however many programs take part; it ends when nothing was touched for a while.
//! Concurrency: shared; the lock is held for look-ups, disk I/O happens outside of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::trace_follower::{TraceFollower, TraceRecorder};
use crate::model::trace::{MAX_DOCUMENT, TraceDoc};
use crate::model::{Digest, Manifest};
use crate::store::Store;

/// Minimum size of a load worth a trace: a smaller one needs only a handful of round trips.
const LEAST: u64 = 1 << 20;

/// The loads under way.
#[derive(Default)]
pub struct ModelLoads(Mutex<HashMap<Digest, Load>>);

/// A version being loaded by one program or several.
pub(super) struct Load {
    pub(super) manifest: Arc<Manifest>,
    pub(super) recording: TraceRecorder,
    /// Follows the trace of the previous load, once it was read.
    pub(super) follower: Option<TraceFollower>,
    /// Whether the index was asked for that trace.
    pub(super) begun: bool,
    pub(super) touched: Instant,
    /// Whether anything was recorded since the trace was last saved.
    pub(super) changed: bool,
}

impl Load {
    /// Whether to save the trace: of the first load, of one that touched more, or of one that deviated.
    fn worth_keeping(&self) -> bool {
        let bytes = self.recording.bytes();
        let better = match &self.follower {
            None => true,
            Some(follower) if follower.has_strayed() => bytes >= follower.bytes() / 2,
            Some(follower) => bytes > follower.bytes(),
        };
        self.begun && self.changed && bytes >= LEAST && better
    }
}

impl ModelLoads {
    pub(super) fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Load>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Saves the traces worth keeping. Writes the index.
    pub(super) fn keep(&self, store: &Store) {
        let due: Vec<_> = {
            let mut loads = self.lock();
            let due = loads.values_mut().filter(|load| load.worth_keeping());
            let taken = |load: &mut Load| {
                load.changed = false;
                (load.manifest.clone(), load.recording.steps().to_vec())
            };
            due.map(taken).collect()
        };
        for (manifest, steps) in due {
            let body = TraceDoc::new(&manifest, &steps).to_json();
            // Larger than the reader accepts: many files with very long paths.
            if body.len() > MAX_DOCUMENT {
                continue;
            }
            if let Err(error) = store.save_trace(&manifest.hash(), &body) {
                tracing::debug!(%error, "a load's trace could not be kept");
            }
        }
    }
}
