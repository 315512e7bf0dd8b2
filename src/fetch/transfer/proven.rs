//! Fetches ranges of objects that are verified by proofs.
//!
//! A registry answers with a range that covers what was asked for and is verified together. All parts that
//! lie in it whole become readable, also those that no flight asked for.
//!
//! Invariant: nothing is handed over or stored before the whole range was verified. Concurrency: part of
//! each flight's task; the bytes of a range are in memory until it is verified, within the budget. Of the
//! flights of one object that no read waits for, one at a time asks: what it learns and stores beyond its own
//! parts is what the next one would have asked for.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::OwnedMutexGuard;

use super::deliver::Delivery;
use super::requests::{Requests, wait_after};
use crate::base::blocking::blocking;
use crate::base::buffers::Buffers;
use crate::fetch::error::FetchError;
use crate::fetch::schedule::{Flight, FlightKey, Memory, Priority, Slot};
use crate::fetch::source::Source;
use crate::model::LARGE_PART;
use crate::registry::{RegistryError, Waiting};
use crate::store::Store;

/// Parts that are asked for at once. 8 MiB are few enough that a reader does not wait long for the last
/// of them, and many enough that the requests before them do not matter.
const PARTS_AT_ONCE: u64 = (8 << 20) / LARGE_PART;

/// Fetches of such ranges.
pub struct ProvenRanges {
    requests: Arc<Requests>,
    memory: Arc<Memory>,
    buffers: Buffers,
    store: Store,
    /// Of each object, whose turn it is.
    turns: Mutex<HashMap<FlightKey, Weak<Turn>>>,
}

type Turn = tokio::sync::Mutex<()>;

impl ProvenRanges {
    /// None so far.
    pub fn new(
        requests: Arc<Requests>,
        memory: Arc<Memory>,
        buffers: Buffers,
        store: Store,
    ) -> Self {
        Self { requests, memory, buffers, store, turns: Mutex::default() }
    }

    /// Fetches what is still pending, repeating failed requests as the retry policy and the deadline
    /// allow.
    pub async fn fetch(&self, source: &Source, delivery: &Arc<Delivery>) -> Result<(), FetchError> {
        let flight = delivery.flight();
        let mut attempts = self.requests.attempts();
        loop {
            let _turn = self.turn(flight).await;
            let Some(run) = flight.pending().into_iter().next() else { return Ok(()) };
            let step = run.start..run.end.min(run.start + PARTS_AT_ONCE);
            if delivery.settle_present(step.clone()) {
                continue;
            }
            let mut slot = self.requests.slot(flight.urgency()).await;
            let waiting = attempts.list_in(source.waits());
            let outcome = self.attempt(source, delivery, step, &mut slot, waiting).await;
            drop(slot);
            let Err(error) = outcome else {
                attempts.progressed();
                continue;
            };
            wait_after(error, &mut attempts, flight).await?;
        }
    }

    /// Waits until no other flight of the object asks, unless a read waits for this one.
    async fn turn(&self, flight: &Flight) -> Option<OwnedMutexGuard<()>> {
        if flight.urgency().get() == Priority::Demand {
            return None;
        }
        let turn = {
            let mut turns = self.turns.lock().expect("holders do not panic");
            turns.retain(|_, turn| turn.strong_count() > 0);
            let known = turns.get(flight.key()).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let new = Arc::new(Turn::default());
                turns.insert(flight.key().clone(), Arc::downgrade(&new));
                new
            })
        };
        tokio::select! {
            biased;
            turn = turn.lock_owned() => Some(turn),
            () = flight.urgency().rises_above(Priority::Readahead) => None,
        }
    }

    /// Makes the requests for a run of parts.
    async fn attempt(
        &self,
        source: &Source,
        delivery: &Arc<Delivery>,
        run: Range<u64>,
        slot: &mut Slot,
        waiting: &Waiting,
    ) -> Result<(), FetchError> {
        let (flight, object) = (delivery.flight(), delivery.object());
        let asked = object.leaves_range(&run);
        let (range, mut incoming) = self.requests.open_proven(source, object, asked, slot).await?;
        if !range.contains(&asked) || range.end() > object.len {
            let (what, why) = (object.to_string(), format!("another range than {asked}: {range}"));
            return Err(RegistryError::Invalid { what, why }.into());
        }
        let permit = self.memory.take(range.len(), flight.urgency()).await;
        let mut buffer = self.buffers.take(range.len() as usize);
        incoming.fill(buffer.bytes_mut(), slot, waiting).await.1?;
        // Only the end says that what came was right.
        incoming.end(slot).await?;
        let (delivery, bytes, store) = (Arc::clone(delivery), buffer.freeze(), self.store.clone());
        blocking(move || delivery.deliver_proven(range, &bytes, permit, &store)).await?;
        Ok(())
    }
}
