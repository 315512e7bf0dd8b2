//! Loads under way: what each version's readers touch, kept for the next load and led by the last.
//!
//! Invariant: a trace is a hint: reads neither wait for it nor fail by it. One load per version at a
//! time, however many programs take part; it is over when nothing was touched for a while.
//! Concurrency: shared; the lock is held for a look-up, the disk is read and written elsewhere.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::course::{Guide, Recording};
use crate::model::trace::{MAX_DOCUMENT, TraceDoc};
use crate::model::{Digest, Manifest};
use crate::store::Store;

/// A load of less is not worth a trace: its round trips can be counted on one hand.
const LEAST: u64 = 1 << 20;

/// The loads under way.
#[derive(Default)]
pub struct Loads(Mutex<HashMap<Digest, Load>>);

/// A version being loaded by one program or several.
pub(super) struct Load {
    pub(super) manifest: Arc<Manifest>,
    pub(super) recording: Recording,
    /// The trace of the load before, once it was read.
    pub(super) guide: Option<Guide>,
    /// Whether the index was asked for that trace.
    pub(super) begun: bool,
    pub(super) touched: Instant,
    /// Whether something was recorded since the trace was last saved.
    pub(super) changed: bool,
}

impl Load {
    /// What is worth keeping: the first load, one that saw more, or one that went another way.
    fn worth_keeping(&self) -> bool {
        let bytes = self.recording.bytes();
        let better = match &self.guide {
            None => true,
            Some(guide) if guide.has_lost() => bytes >= guide.bytes() / 2,
            Some(guide) => bytes > guide.bytes(),
        };
        self.begun && self.changed && bytes >= LEAST && better
    }
}

impl Loads {
    pub(super) fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Load>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Saves the traces that are worth it. Writes the index.
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
            // More than could be read again: paths of many files that are all very long.
            if body.len() > MAX_DOCUMENT {
                continue;
            }
            if let Err(error) = store.save_trace(&manifest.hash(), &body) {
                tracing::debug!(%error, "a load's trace could not be kept");
            }
        }
    }
}
