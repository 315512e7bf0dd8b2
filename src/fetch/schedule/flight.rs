//! Flights: runs of leaves of one object being fetched, and the outcome of each leaf.
//!
//! Invariant: outcomes are final. Bytes stay in memory only while they are being stored, or until every
//! reader that waited for them has taken them, so that no flight waits for memory that its own leaves
//! hold. A flight knows whether anything still waits for it, and when it last moved: one that lasts for
//! minutes can be given up, and its readers wait for as long as it moves.
//! Concurrency: shared; locks are held for look-ups only, never across an await.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::Instant;

use super::dynamic_priority::{DynamicPriority, Priority};
use crate::fetch::error::FetchError;
use crate::fetch::plan::{ObjectKey, runs};
use crate::model::SourceName;

/// Identity of a fetch. The source is part of it: an error of one registry never fails a reader of
/// another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FlightKey {
    /// The name of the source.
    pub source: SourceName,
    /// The object.
    pub object: ObjectKey,
}

/// Verified bytes of one leaf, with the memory permit they hold.
#[derive(Debug, Clone)]
pub struct LeafBytes {
    bytes: Bytes,
    /// Where the leaf begins in its object.
    start: u64,
    /// Released when the last reader has taken the bytes.
    _permit: Arc<OwnedSemaphorePermit>,
}

impl LeafBytes {
    /// Bytes that begin there in their object, with the memory that they are counted against.
    pub fn new(bytes: Bytes, start: u64, permit: Arc<OwnedSemaphorePermit>) -> Self {
        Self { bytes, start, _permit: permit }
    }

    /// Where the leaf begins in its object.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// The bytes of the whole leaf.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// The outcome of a leaf.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// Verified, in memory.
    Ready(LeafBytes),
    /// Verified and in the store.
    Stored,
    /// Verified and handed to the waiting readers, but not stored.
    HandedOver,
    /// The fetch failed.
    Failed(FetchError),
}

/// A leaf of a flight.
#[derive(Debug, Default)]
struct Leaf {
    outcome: Option<Outcome>,
    /// The outcome once its last reader has gone.
    after: Option<Outcome>,
    readers: u32,
}

impl Leaf {
    /// Whether a reader that begins to wait now will get the leaf.
    fn is_coming(&self) -> bool {
        matches!(self.outcome, None | Some(Outcome::Ready(_)))
    }
}

/// A run of leaves being fetched.
#[derive(Debug)]
pub struct Flight {
    key: FlightKey,
    leaves: Range<u64>,
    urgency: DynamicPriority,
    states: Mutex<Vec<Leaf>>,
    trouble: Mutex<Option<FetchError>>,
    /// When bytes last came for a leaf that takes many requests.
    moved: Mutex<Option<Instant>>,
    interest: Mutex<Interest>,
    finished: AtomicBool,
    news: Notify,
}

/// What waits for a flight.
#[derive(Debug)]
struct Interest {
    waiting: usize,
    /// When the last one stopped waiting, or when the flight began.
    since: Instant,
}

/// Something that waits for a flight, for as long as this lives.
#[derive(Debug)]
pub struct Wanted(Arc<Flight>);

impl Drop for Wanted {
    fn drop(&mut self) {
        let mut interest = self.0.interest();
        interest.waiting -= 1;
        interest.since = Instant::now();
    }
}

/// A reader that waits for a leaf. The bytes stay in memory while it exists.
#[derive(Debug)]
pub struct Reader {
    flight: Arc<Flight>,
    leaf: u64,
    _wanted: Wanted,
}

impl Reader {
    /// The flight that fetches the leaf.
    pub fn flight(&self) -> &Arc<Flight> {
        &self.flight
    }

    /// Waits for the outcome.
    pub async fn outcome(&self) -> Outcome {
        self.flight.outcome(self.leaf).await
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut states = self.flight.states();
        let leaf = &mut states[self.flight.at(self.leaf)];
        leaf.readers -= 1;
        if leaf.readers == 0
            && let Some(after) = leaf.after.take()
        {
            leaf.outcome = Some(after);
        }
    }
}

impl Flight {
    /// A flight of these leaves, all without an outcome.
    pub fn new(key: FlightKey, leaves: Range<u64>, priority: Priority) -> Self {
        let count = (leaves.end - leaves.start) as usize;
        Self {
            key,
            leaves,
            urgency: DynamicPriority::new(priority),
            states: Mutex::new(std::iter::repeat_with(Leaf::default).take(count).collect()),
            trouble: Mutex::new(None),
            moved: Mutex::new(None),
            interest: Mutex::new(Interest { waiting: 0, since: Instant::now() }),
            finished: false.into(),
            news: Notify::new(),
        }
    }

    /// The object and the source.
    pub fn key(&self) -> &FlightKey {
        &self.key
    }

    /// The leaves of the flight.
    pub fn leaves(&self) -> &Range<u64> {
        &self.leaves
    }

    /// The urgency of the fetch.
    pub fn urgency(&self) -> &DynamicPriority {
        &self.urgency
    }

    fn states(&self) -> MutexGuard<'_, Vec<Leaf>> {
        self.states.lock().expect("holders do not panic")
    }

    fn at(&self, leaf: u64) -> usize {
        (leaf - self.leaves.start) as usize
    }

    /// Sets the outcome of a leaf. `Ready` becomes `Stored` or `HandedOver` once no reader waits for the
    /// bytes any more; no other outcome changes.
    pub fn settle(&self, leaf: u64, outcome: Outcome) {
        let mut states = self.states();
        let state = &mut states[self.at(leaf)];
        match (&state.outcome, &outcome) {
            (None, _) => state.outcome = Some(outcome),
            (Some(Outcome::Ready(_)), Outcome::Stored | Outcome::HandedOver) => {
                if state.readers > 0 {
                    state.after = Some(outcome);
                } else {
                    state.outcome = Some(outcome);
                }
                return;
            }
            _ => return,
        }
        drop(states);
        self.news.notify_waiters();
    }

    /// Registers a reader of a leaf.
    pub fn reader(self: &Arc<Self>, leaf: u64) -> Reader {
        self.states()[self.at(leaf)].readers += 1;
        Reader { flight: self.clone(), leaf, _wanted: self.want() }
    }

    fn interest(&self) -> MutexGuard<'_, Interest> {
        self.interest.lock().expect("holders do not panic")
    }

    /// Waits for the flight without reading any of its leaves.
    pub fn want(self: &Arc<Self>) -> Wanted {
        self.interest().waiting += 1;
        Wanted(Arc::clone(self))
    }

    /// For how long nothing has waited for the flight.
    pub fn unwanted_for(&self) -> Duration {
        let interest = self.interest();
        if interest.waiting > 0 { Duration::ZERO } else { interest.since.elapsed() }
    }

    /// Bytes came that are not enough for a leaf yet.
    pub fn moved(&self) {
        *self.moved.lock().expect("holders do not panic") = Some(Instant::now());
    }

    /// When bytes last came that were not enough for a leaf yet.
    pub fn last_moved(&self) -> Option<Instant> {
        *self.moved.lock().expect("holders do not panic")
    }

    /// Records the error that delays the flight.
    pub fn trouble(&self, error: FetchError) {
        *self.trouble.lock().expect("holders do not panic") = Some(error);
    }

    /// The last error that delayed it, for readers that stop waiting.
    pub fn last_trouble(&self) -> Option<FetchError> {
        self.trouble.lock().expect("holders do not panic").clone()
    }

    /// The leaves without an outcome, as runs.
    pub fn pending(&self) -> Vec<Range<u64>> {
        let states = self.states();
        let open = states.iter().enumerate().filter(|(_, s)| s.outcome.is_none());
        runs(open.map(|(i, _)| self.leaves.start + i as u64))
    }

    /// Whether a leaf has no outcome yet.
    pub fn is_pending(&self, leaf: u64) -> bool {
        self.states()[self.at(leaf)].outcome.is_none()
    }

    /// The runs of these leaves that a reader that begins to wait now will get.
    pub fn coming(&self, wanted: &Range<u64>) -> Vec<Range<u64>> {
        let start = wanted.start.max(self.leaves.start);
        let end = wanted.end.min(self.leaves.end);
        let states = self.states();
        runs((start..end).filter(|leaf| states[self.at(*leaf)].is_coming()))
    }

    async fn outcome(&self, leaf: u64) -> Outcome {
        loop {
            let news = self.news.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            if let Some(outcome) = &self.states()[self.at(leaf)].outcome {
                return outcome.clone();
            }
            news.await;
        }
    }

    /// Waits until the flight has ended and everything that can be stored is stored. Returns the first
    /// failure, if any.
    pub async fn finished(&self) -> Result<(), FetchError> {
        loop {
            let news = self.news.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            if self.finished.load(Ordering::Acquire) {
                break;
            }
            news.await;
        }
        let failed = self.states().iter().find_map(|leaf| match &leaf.outcome {
            Some(Outcome::Failed(error)) => Some(error.clone()),
            _ => None,
        });
        failed.map_or(Ok(()), Err)
    }

    /// Marks the flight as ended: what could be stored is stored.
    pub fn end(&self) {
        self.finished.store(true, Ordering::Release);
        self.news.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Check, Digest, Object};

    fn flight(leaves: Range<u64>) -> Arc<Flight> {
        let digest = Digest::from_bytes([1; 32]);
        let object = ObjectKey::of(&Object::new(digest, 1000, Check::Whole));
        let key = FlightKey { source: SourceName::of_address("a"), object };
        Arc::new(Flight::new(key, leaves, Priority::Prefetch))
    }

    fn ready() -> Outcome {
        let room = Arc::new(tokio::sync::Semaphore::new(1)).try_acquire_owned().unwrap();
        Outcome::Ready(LeafBytes::new(Bytes::from_static(b"x"), 0, Arc::new(room)))
    }

    #[tokio::test]
    async fn outcomes_are_final_and_reach_every_waiter() {
        let flight = flight(0..2);
        let waiter = tokio::spawn({
            let flight = flight.clone();
            async move { (flight.outcome(1).await, flight.finished().await) }
        });
        tokio::task::yield_now().await;
        flight.settle(1, Outcome::Stored);
        let error = FetchError::Corrupt { what: "x".into(), why: "y".into() };
        flight.settle(1, Outcome::Failed(error.clone()));
        assert!(flight.pending().into_iter().eq(std::iter::once(0..1)));
        flight.settle(0, Outcome::Failed(error));
        flight.end();
        let (one, all) = waiter.await.unwrap();
        assert!(matches!(one, Outcome::Stored));
        assert!(all.is_err());
    }

    #[tokio::test]
    async fn bytes_are_kept_while_a_reader_waits_and_no_longer() {
        let flight = flight(0..2);
        let (one, two) = (flight.reader(0), flight.reader(0));
        for leaf in 0..2 {
            flight.settle(leaf, ready());
            flight.settle(leaf, Outcome::HandedOver);
        }
        assert!(matches!(flight.outcome(1).await, Outcome::HandedOver), "no reader waits for it");
        assert!(matches!(one.outcome().await, Outcome::Ready(_)));
        drop(one);
        assert!(matches!(two.outcome().await, Outcome::Ready(_)), "another still waits");
        drop(two);
        assert!(matches!(flight.outcome(0).await, Outcome::HandedOver));
        flight.end();
        assert!(flight.finished().await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_flight_knows_for_how_long_nothing_has_waited_for_it_and_when_it_moved() {
        let (flight, second) = (flight(0..2), Duration::from_secs(1));
        tokio::time::advance(second).await;
        assert_eq!((flight.unwanted_for(), flight.last_moved()), (second, None));
        let (reader, wanted) = (flight.reader(0), flight.want());
        drop(reader);
        tokio::time::advance(second).await;
        assert_eq!(flight.unwanted_for(), Duration::ZERO, "a prefetch still waits");
        drop(wanted);
        flight.moved();
        tokio::time::advance(second).await;
        assert_eq!(flight.unwanted_for(), second);
        assert_eq!(flight.last_moved(), Some(Instant::now() - second));
    }
}
