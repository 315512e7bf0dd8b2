//! Flights: runs of leaves of one object being fetched, at most one for each leaf at a time.
//!
//! Invariant: while a flight is in the table, whoever wants one of its leaves joins it; when it
//! leaves the table every leaf of it has an outcome. Outcomes are final.
//! Concurrency: shared; locks are held for look-ups only, never across an await.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit};

use super::FetchError;
use super::urgency::{Priority, Urgency};
use crate::model::{Check, Digest, Object};

/// What makes two fetches the same: the digest that is checked, how, and over how many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ObjectKey {
    check: Check,
    /// The object's name when it is what is checked; else the leaf list's.
    digest: Digest,
    len: u64,
}

impl ObjectKey {
    /// Of an object.
    pub fn of(object: &Object) -> Self {
        let digest = match object.check {
            Check::Whole => object.digest,
            Check::Leaves { list, .. } => list,
        };
        Self { check: object.check, digest, len: object.len }
    }
}

/// Verified bytes of one leaf, with the memory they take from the budget.
#[derive(Debug, Clone)]
pub struct LeafBytes {
    /// The bytes.
    pub bytes: Bytes,
    /// Given back when the last reader has them.
    pub _permit: Arc<OwnedSemaphorePermit>,
}

/// What became of a leaf.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// Verified, in memory.
    Ready(LeafBytes),
    /// Verified and in the store.
    Stored,
    /// Not to be had.
    Failed(FetchError),
}

/// A run of leaves on its way.
#[derive(Debug)]
pub struct Flight {
    /// Of which object.
    pub key: ObjectKey,
    /// Which leaves.
    pub leaves: Range<u64>,
    /// How urgent it is.
    pub urgency: Urgency,
    outcomes: Mutex<Vec<Option<Outcome>>>,
    trouble: Mutex<Option<FetchError>>,
    ended: AtomicBool,
    news: Notify,
}

impl Flight {
    fn new(key: ObjectKey, leaves: Range<u64>, priority: Priority) -> Self {
        let count = (leaves.end - leaves.start) as usize;
        Self {
            key,
            leaves,
            urgency: Urgency::new(priority),
            outcomes: Mutex::new(vec![None; count]),
            trouble: Mutex::new(None),
            ended: AtomicBool::new(false),
            news: Notify::new(),
        }
    }

    /// Says what became of a leaf. `Ready` may become `Stored` later; nothing else changes.
    pub fn settle(&self, leaf: u64, outcome: Outcome) {
        let slot = &mut self.outcomes.lock().expect("holders do not panic")
            [(leaf - self.leaves.start) as usize];
        match (&*slot, &outcome) {
            (None, _) | (Some(Outcome::Ready(_)), Outcome::Stored) => *slot = Some(outcome),
            _ => return,
        }
        self.news.notify_waiters();
    }

    /// Notes what it is being held up by.
    pub fn trouble(&self, error: FetchError) {
        *self.trouble.lock().expect("holders do not panic") = Some(error);
    }

    /// What it was last held up by, for whoever stops waiting.
    pub fn last_trouble(&self) -> Option<FetchError> {
        self.trouble.lock().expect("holders do not panic").clone()
    }

    /// The leaves without an outcome, as runs.
    pub fn pending(&self) -> Vec<Range<u64>> {
        let outcomes = self.outcomes.lock().expect("holders do not panic");
        let open = outcomes.iter().enumerate().filter(|(_, o)| o.is_none());
        runs(open.map(|(i, _)| self.leaves.start + i as u64))
    }

    /// Waits for a leaf's outcome.
    pub async fn outcome(&self, leaf: u64) -> Outcome {
        loop {
            let news = self.news.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            let at = (leaf - self.leaves.start) as usize;
            if let Some(outcome) = &self.outcomes.lock().expect("holders do not panic")[at] {
                return outcome.clone();
            }
            news.await;
        }
    }

    /// Says that nothing more will happen: what could be stored is stored.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.news.notify_waiters();
    }

    /// Waits for the end; the first failure, if there is one.
    pub async fn landed(&self) -> Result<(), FetchError> {
        loop {
            let news = self.news.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            if self.ended.load(Ordering::Acquire) {
                break;
            }
            news.await;
        }
        let outcomes = self.outcomes.lock().expect("holders do not panic");
        let failed = outcomes.iter().find_map(|o| match o {
            Some(Outcome::Failed(e)) => Some(e.clone()),
            _ => None,
        });
        failed.map_or(Ok(()), Err)
    }
}

/// Joins ascending numbers into runs.
pub fn runs(numbers: impl Iterator<Item = u64>) -> Vec<Range<u64>> {
    let mut out: Vec<Range<u64>> = Vec::new();
    for n in numbers {
        match out.last_mut() {
            Some(last) if last.end == n => last.end += 1,
            _ => out.push(n..n + 1),
        }
    }
    out
}

/// The flights under way.
#[derive(Debug, Default)]
pub struct FlightTable {
    flights: Mutex<HashMap<ObjectKey, Vec<Arc<Flight>>>>,
}

/// The flights that bring a run of leaves together: some may be new, to be started by the caller.
#[derive(Debug, Default)]
pub struct Claim {
    /// Under way already.
    pub joined: Vec<Arc<Flight>>,
    /// Entered in the table now; the caller must run them to their end and then `remove` them.
    pub new: Vec<Arc<Flight>>,
}

impl FlightTable {
    /// Flights for these leaves of an object. Those under way become at least that urgent.
    pub fn claim(&self, key: ObjectKey, wanted: Range<u64>, priority: Priority) -> Claim {
        let mut table = self.flights.lock().expect("holders do not panic");
        let flying = table.entry(key).or_default();
        let mut claim = Claim::default();
        let mut at = wanted.start;
        flying.sort_by_key(|f| f.leaves.start);
        let mut gaps = Vec::new();
        for flight in flying.iter() {
            if flight.leaves.end <= at || flight.leaves.start >= wanted.end {
                continue;
            }
            if at < flight.leaves.start {
                gaps.push(at..flight.leaves.start);
            }
            flight.urgency.raise(priority);
            claim.joined.push(flight.clone());
            at = flight.leaves.end;
        }
        if at < wanted.end {
            gaps.push(at..wanted.end);
        }
        for gap in gaps {
            let flight = Arc::new(Flight::new(key, gap, priority));
            flying.push(flight.clone());
            claim.new.push(flight);
        }
        claim
    }

    /// Takes a flight that has landed out of the table.
    pub fn remove(&self, flight: &Arc<Flight>) {
        let mut table = self.flights.lock().expect("holders do not panic");
        if let Some(flying) = table.get_mut(&flight.key) {
            flying.retain(|f| !Arc::ptr_eq(f, flight));
            if flying.is_empty() {
                table.remove(&flight.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> ObjectKey {
        let digest = Digest::from_bytes([1; 32]);
        ObjectKey::of(&Object { digest, len: 1000, check: Check::Whole })
    }

    #[tokio::test]
    async fn outcomes_are_final_and_reach_every_waiter() {
        let table = FlightTable::default();
        let flight = table.claim(key(), 0..2, Priority::Prefetch).new.remove(0);
        let waiter = tokio::spawn({
            let flight = flight.clone();
            async move { (flight.outcome(1).await, flight.landed().await) }
        });
        tokio::task::yield_now().await;
        flight.settle(1, Outcome::Stored);
        let error = FetchError::Corrupt { what: "x".into(), why: "y".into() };
        flight.settle(1, Outcome::Failed(error.clone()));
        assert!(flight.pending().into_iter().eq(std::iter::once(0..1)));
        flight.settle(0, Outcome::Failed(error));
        assert!(!waiter.is_finished(), "it has not landed yet");
        flight.end();
        let (one, all) = waiter.await.unwrap();
        assert!(matches!(one, Outcome::Stored));
        assert!(all.is_err());
    }

    proptest! {
        #[test]
        fn every_leaf_flies_once(wants in proptest::collection::vec((0u64..40, 1u64..20, any::<bool>()), 1..20)) {
            let table = FlightTable::default();
            let mut flying: Vec<Arc<Flight>> = Vec::new();
            for (start, len, land) in wants {
                let claim = table.claim(key(), start..start + len, Priority::Demand);
                for new in &claim.new {
                    for old in &flying {
                        prop_assert!(new.leaves.end <= old.leaves.start || old.leaves.end <= new.leaves.start);
                    }
                    flying.push(new.clone());
                }
                let covered = |leaf: u64| claim.joined.iter().chain(&claim.new).any(|f| f.leaves.contains(&leaf));
                prop_assert!((start..start + len).all(covered));
                if land {
                    let first = flying.remove(0);
                    table.remove(&first);
                }
            }
        }
    }
}
