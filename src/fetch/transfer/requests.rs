//! Requests of a flight to the registry of its source: with slots, retries, stall timeouts and leaf lists;
//! the answer goes on batch by batch.
//!
//! Invariant: a request that is silent or far too slow is given up and repeated; only leaves that are still
//! pending are requested again. Concurrency: shared by all flights; part of each flight's task. Hashing and
//! storing run on the blocking pool; the number of requests and the bytes in memory are bounded for all
//! flights together.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::deliver::Delivery;
use super::lists::LeafLists;
use crate::base::ObjectRange;
use crate::base::buffers::Buffers;
use crate::fetch::error::FetchError;
use crate::fetch::options::{FetchOptions, Traffic};
use crate::fetch::plan::Batches;
use crate::fetch::schedule::{DynamicPriority, Flight, Memory, Outcome, Slot, Slots};
use crate::fetch::source::Source;
use crate::model::{Leaves, Object};
use crate::registry::{Attempts, ObjectBody, Registry, RegistryError, Retry, RetryPolicy, Waiting};

/// Maximum number of batches of a flight being hashed or written while the next one arrives.
const BATCHES_AHEAD: usize = 3;
/// Time without an answer after which a request yields its slot: longer than a remote server needs to
/// answer, short compared with a deadline.
const YIELD_AFTER: Duration = Duration::from_secs(1);
/// Maximum duration of a batch, in read deadlines, estimated from its throughput so far. A slow line
/// delivers after some failed reads; a body that drips is abandoned, or it would block its leaves and
/// their readers long after the registry has recovered.
const MAX_DEADLINES_PER_BATCH: u32 = 4;
/// Number of mismatches after which a leaf fails: it is fetched once more, since the line or a cache on
/// the way may have corrupted it.
pub const MAX_MISMATCHES: u32 = 2;

/// What requests of all flights share.
pub struct Requests {
    slots: Arc<Slots>,
    memory: Arc<Memory>,
    buffers: Buffers,
    lists: Arc<LeafLists>,
    retry: RetryPolicy,
    deadline: Duration,
    /// Time without a byte after which a request is repeated. Half of a read deadline leaves as much for
    /// the second answer.
    stall_timeout: Duration,
    bytes: AtomicU64,
    requests: AtomicU64,
}

impl Requests {
    /// No requests yet.
    pub fn new(
        memory: Arc<Memory>,
        buffers: Buffers,
        lists: Arc<LeafLists>,
        options: &FetchOptions,
    ) -> Self {
        Self {
            slots: Slots::new(options.connections),
            memory,
            buffers,
            lists,
            retry: RetryPolicy::default(),
            deadline: options.read_deadline,
            stall_timeout: options.read_deadline / 2,
            bytes: AtomicU64::new(0),
            requests: AtomicU64::new(0),
        }
    }

    /// Number of requests under way.
    pub fn under_way(&self) -> usize {
        self.slots.taken()
    }

    /// Bytes and requests so far.
    pub fn traffic(&self) -> Traffic {
        Traffic {
            bytes: self.bytes.load(Ordering::Relaxed),
            requests: self.requests.load(Ordering::Relaxed),
        }
    }

    /// Fetches what is still pending, repeating failed requests as the retry policy and the deadline
    /// allow.
    pub async fn fetch(&self, source: &Source, delivery: &Arc<Delivery>) -> Result<(), FetchError> {
        let flight = delivery.flight();
        let mut mismatches: HashMap<u64, u32> = HashMap::new();
        let mut attempts = self.attempts();
        while let Some(run) = flight.pending().into_iter().next() {
            let mut slot = self.slot(flight.urgency()).await;
            // Listed only now: before it had a slot, it did not wait for the registry.
            let waiting = attempts.list_in(source.waits());
            let outcome = self
                .attempt(source, delivery, run.clone(), &mut mismatches, &mut slot, waiting)
                .await;
            drop(slot);
            if flight.pending().first().is_none_or(|next| next.start > run.start) {
                attempts.progressed();
            }
            if let Err(error) = outcome {
                wait_after(error, &mut attempts, flight).await?;
            }
        }
        Ok(())
    }

    /// The result of `work`, or a timeout after `stall_timeout`.
    async fn before_stall<T>(
        &self,
        work: impl Future<Output = Result<T, FetchError>>,
    ) -> Result<T, FetchError> {
        let stalled = FetchError::TimedOut {
            after: self.stall_timeout,
            last: "the registry is silent".to_owned(),
        };
        tokio::time::timeout(self.stall_timeout, work).await.unwrap_or(Err(stalled))
    }

    /// The same for a request that holds a slot, which it yields if the answer is late.
    async fn before_stall_in<T>(
        &self,
        slot: &mut Slot,
        work: impl Future<Output = Result<T, FetchError>>,
    ) -> Result<T, FetchError> {
        let mut work = std::pin::pin!(work);
        let soon = YIELD_AFTER.min(self.stall_timeout / 2);
        let yielding = async {
            tokio::time::sleep(soon).await;
            slot.yield_slot();
            std::future::pending().await
        };
        let answer = async {
            // Biased: an answer that has already arrived needs no timer.
            tokio::select! {
                biased;
                answer = &mut work => answer,
                never = yielding => never,
            }
        };
        self.before_stall(answer).await
    }

    /// Whether a batch arrives so slowly that repeating the request is better than waiting.
    fn is_too_slow(&self, since: Duration, got: usize, wanted: usize) -> bool {
        let in_all = since.as_secs_f64() * wanted as f64;
        let allowed = f64::from(MAX_DEADLINES_PER_BATCH) * self.deadline.as_secs_f64();
        since >= self.stall_timeout && in_all > allowed * got as f64
    }

    /// The digests of the leaves of a flight.
    pub async fn leaves(
        &self,
        source: &Source,
        flight: &Flight,
        object: &Object,
    ) -> Result<Leaves, FetchError> {
        if let Some(known) = self.lists.known(object, flight.leaves()) {
            return Ok(known);
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        let registry = registry(source)?;
        let list = self.lists.get(&*registry, flight.key(), object, flight.leaves());
        self.before_stall(list).await
    }

    /// A request for a range of an object: its body, once the answer begins.
    pub async fn open<'a>(
        &'a self,
        source: &Source,
        object: &'a Object,
        range: ObjectRange,
        slot: &mut Slot,
    ) -> Result<Incoming<'a>, FetchError> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let registry = registry(source)?;
        let body = registry.read(object, range);
        let body = self.before_stall_in(slot, async { Ok(body.await?) }).await?;
        Ok(Incoming { requests: self, what: (object, range), body, pending: Bytes::new() })
    }

    /// A request for a range of an object that a proof verifies: the range that it became, and its body,
    /// once the answer begins.
    pub async fn open_proven<'a>(
        &'a self,
        source: &Source,
        object: &'a Object,
        range: ObjectRange,
        slot: &mut Slot,
    ) -> Result<(ObjectRange, Incoming<'a>), FetchError> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let registry = registry(source)?;
        let proven = registry.read_proven(object, range);
        let proven = self.before_stall_in(slot, async { Ok(proven.await?) }).await?;
        let what = (object, proven.range);
        let incoming = Incoming { requests: self, what, body: proven.bytes, pending: Bytes::new() };
        Ok((proven.range, incoming))
    }

    /// Waits for a request slot.
    pub async fn slot(&self, urgency: &DynamicPriority) -> Slot {
        self.slots.acquire(urgency).await
    }

    /// Attempts at one piece of work, none so far.
    pub fn attempts(&self) -> Attempts {
        Attempts::new(self.retry, self.deadline)
    }

    /// When work that progressed now gives up.
    pub fn deadline_from_now(&self) -> Instant {
        Instant::now() + self.deadline
    }

    /// Makes one request for a run of leaves, and delivers the answer batch by batch as it arrives.
    async fn attempt(
        &self,
        source: &Source,
        delivery: &Arc<Delivery>,
        run: Range<u64>,
        mismatches: &mut HashMap<u64, u32>,
        slot: &mut Slot,
        waiting: &Waiting,
    ) -> Result<(), FetchError> {
        let (flight, object) = (delivery.flight(), delivery.object());
        let range = object.leaves_range(&run);
        let leaves = async {
            match delivery.expected() {
                Some(known) => Ok(known),
                None => self.leaves(source, flight, object).await,
            }
        };
        let (leaves, mut incoming) =
            tokio::try_join!(leaves, self.open(source, object, range, slot))?;
        delivery.expect(leaves);
        let mut jobs: JoinSet<Vec<u64>> = JoinSet::new();
        let mut failed = Ok(());
        for batch in Batches::new(object, run) {
            let wanted = object.leaves_range(&batch).len() as usize;
            let permit = self.memory.take(wanted as u64, flight.urgency()).await;
            let mut buffer = self.buffers.take(wanted);
            let (_, filled) = incoming.fill(buffer.bytes_mut(), slot, waiting).await;
            if let Err(error) = filled {
                failed = Err(error);
                break;
            }
            if jobs.len() >= BATCHES_AHEAD {
                note(jobs.join_next().await, mismatches)?;
            }
            let (delivery, bytes) = (delivery.clone(), buffer.freeze());
            jobs.spawn_blocking(move || delivery.deliver(batch.start, &bytes, permit, None));
        }
        while let Some(done) = jobs.join_next().await {
            note(Some(done), mismatches)?;
        }
        for (leaf, times) in mismatches.iter() {
            // Leaves of earlier attempts were already settled and logged.
            if *times >= MAX_MISMATCHES && flight.is_pending(*leaf) {
                let error = mismatch(object, *leaf, registry(source)?.name());
                tracing::error!(%error, "a registry served wrong bytes");
                flight.settle(*leaf, Outcome::Failed(error));
            }
        }
        failed
    }
}

/// The body of an answer to a request of these requests, as it arrives.
pub struct Incoming<'a> {
    requests: &'a Requests,
    /// Which bytes, for errors.
    what: (&'a Object, ObjectRange),
    body: ObjectBody,
    /// What came beyond the last buffer.
    pending: Bytes,
}

impl Incoming<'_> {
    /// Fills a buffer with the next bytes; how many came, also before an error.
    pub async fn fill(
        &mut self,
        buffer: &mut [u8],
        slot: &mut Slot,
        waiting: &Waiting,
    ) -> (usize, Result<(), FetchError>) {
        let (mut filled, wanted, begun) = (0, buffer.len(), Instant::now());
        while filled < wanted {
            if self.requests.is_too_slow(begun.elapsed(), filled, wanted) {
                let ms = begun.elapsed().as_millis();
                let why = format!("too slow: {filled} of {wanted} bytes in {ms} ms");
                return (filled, Err(self.broken_off(why)));
            }
            if self.pending.is_empty() {
                let next = async { self.body.next().await.transpose().map_err(Into::into) };
                self.pending = match self.requests.before_stall_in(slot, next).await {
                    Ok(Some(bytes)) => bytes,
                    Ok(None) => {
                        return (filled, Err(self.broken_off("the body was cut off".into())));
                    }
                    Err(error) => return (filled, Err(error)),
                };
                waiting.answered();
                self.requests.bytes.fetch_add(self.pending.len() as u64, Ordering::Relaxed);
            }
            let take = self.pending.len().min(wanted - filled);
            buffer[filled..filled + take].copy_from_slice(&self.pending.split_to(take));
            filled += take;
        }
        (filled, Ok(()))
    }

    /// Waits for the end of the body, which has nothing more.
    pub async fn end(&mut self, slot: &mut Slot) -> Result<(), FetchError> {
        let next = async { self.body.next().await.transpose().map_err(Into::into) };
        match self.requests.before_stall_in(slot, next).await? {
            None if self.pending.is_empty() => Ok(()),
            _ => Err(self.broken_off("the body has more than was announced".into())),
        }
    }

    /// The error of a body that ended early or arrives too slowly.
    fn broken_off(&self, why: String) -> FetchError {
        let (object, range) = self.what;
        RegistryError::Unreachable { what: format!("{object} bytes {range}"), why }.into()
    }
}

/// Waits before the next attempt after one that failed; the error, if there is to be none. A more urgent
/// read that joins the flight ends the wait, unless the registry asked for it.
pub async fn wait_after(
    error: FetchError,
    attempts: &mut Attempts,
    flight: &Flight,
) -> Result<(), FetchError> {
    let retry = error.retry();
    let Some(delay) = attempts.failed(retry, &error) else { return Err(error) };
    tracing::debug!(%error, ?delay, "trying again");
    flight.trouble(error);
    let now = flight.urgency().get();
    let _ = match retry {
        Retry::Later { not_before: Some(_) } => {
            tokio::time::timeout(delay, std::future::pending()).await
        }
        _ => tokio::time::timeout(delay, flight.urgency().rises_above(now)).await,
    };
    Ok(())
}

fn registry(source: &Source) -> Result<Arc<dyn Registry>, FetchError> {
    source.registry().ok_or_else(|| FetchError::NotKnown { what: "what is missing".to_owned() })
}

/// Counts the leaves of a batch that did not match.
fn note(
    done: Option<Result<Vec<u64>, tokio::task::JoinError>>,
    mismatches: &mut HashMap<u64, u32>,
) -> Result<(), FetchError> {
    for leaf in done.transpose().map_err(|_| FetchError::Stopped)?.into_iter().flatten() {
        *mismatches.entry(leaf).or_default() += 1;
    }
    Ok(())
}

fn mismatch(object: &Object, leaf: u64, registry: &str) -> FetchError {
    let range = object.check.leaf_range(leaf, object.len);
    FetchError::Corrupt {
        what: format!("object {} bytes {range} from {registry}", object.digest),
        why: "the bytes do not match their digest, twice".to_owned(),
    }
}
