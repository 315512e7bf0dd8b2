//! Runs flights: gets bytes from another blob or the registry, has them verified leaf by leaf on the
//! blocking pool, handed to waiting readers and written to the store.
//!
//! Invariant: space in the store is reserved before the first byte is requested. However `fly` ends,
//! every leaf has an outcome and the flight is out of the table.
//! Concurrency: one task per flight; hashing and disk on the blocking pool; the number of requests and
//! the bytes in memory are bounded for all flights together.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::batches::Batches;
use super::blocking::blocking;
use super::deliver::{Delivery, Target};
use super::dynamic_priority::Priority;
use super::error::FetchError;
use super::flight::{Flight, Outcome};
use super::lists::LeafLists;
use super::memory::Memory;
use super::options::{FetchOptions, Load, Traffic};
use super::slots::{Slot, Slots};
use super::table::FlightTable;
use crate::base::ObjectRange;
use crate::base::buffers::Buffers;
use crate::model::{Leaves, Object};
use crate::registry::{Attempts, Registry, RegistryError, Retry, RetryPolicy, Waiting, Waits};
use crate::store::{Reservation, Store};

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
const MAX_MISMATCHES: u32 = 2;

/// State shared by all flights.
pub struct Transfers {
    pub(super) store: Store,
    pub(super) registry: Option<Arc<dyn Registry>>,
    pub(super) table: FlightTable,
    pub(super) lists: Arc<LeafLists>,
    pub(super) memory: Memory,
    pub(super) buffers: Buffers,
    slots: Arc<Slots>,
    waits: Arc<Waits>,
    retry: RetryPolicy,
    deadline: Duration,
    /// Time without a byte after which a request is repeated. Half of a read deadline leaves as much for
    /// the second answer.
    stall_timeout: Duration,
    bytes: AtomicU64,
    requests: AtomicU64,
}

/// Fails the pending leaves and removes the flight from the table, even if the task is dropped or panics.
struct FinishGuard<'a> {
    transfers: &'a Transfers,
    flight: &'a Arc<Flight>,
}

impl Drop for FinishGuard<'_> {
    fn drop(&mut self) {
        fail_rest(self.flight, &FetchError::Stopped);
        self.transfers.table.remove(self.flight);
        self.flight.end();
    }
}

fn fail_rest(flight: &Flight, error: &FetchError) {
    for leaf in flight.pending().into_iter().flatten() {
        flight.settle(leaf, Outcome::Failed(error.clone()));
    }
}

impl Transfers {
    pub(super) fn new(
        store: Store,
        registry: Option<Arc<dyn Registry>>,
        waits: Arc<Waits>,
        options: &FetchOptions,
    ) -> Self {
        Self {
            store,
            registry,
            table: FlightTable::default(),
            lists: Arc::new(LeafLists::new()),
            memory: Memory::new(options.memory),
            buffers: Buffers::default(),
            slots: Slots::new(options.connections),
            waits,
            retry: RetryPolicy::default(),
            deadline: options.read_deadline,
            stall_timeout: options.read_deadline / 2,
            bytes: AtomicU64::new(0),
            requests: AtomicU64::new(0),
        }
    }

    pub(super) fn load(&self) -> Load {
        Load {
            flights: self.table.len() as u64,
            memory: self.memory.taken(),
            requests: self.slots.taken() as u64,
        }
    }

    pub(super) fn traffic(&self) -> Traffic {
        Traffic {
            bytes: self.bytes.load(Ordering::Relaxed),
            requests: self.requests.load(Ordering::Relaxed),
        }
    }

    /// Runs a flight to its end. `targets` returns where its bytes belong; it may block.
    pub(super) async fn fly(
        &self,
        flight: Arc<Flight>,
        object: Object,
        targets: impl FnOnce() -> Vec<Target> + Send + 'static,
    ) {
        let _landing = FinishGuard { transfers: self, flight: &flight };
        let targets = match blocking(targets).await {
            Ok(targets) => targets,
            Err(error) => return fail_rest(&flight, &error),
        };
        let space = match self.reserve(&flight, &targets).await {
            Ok(space) => Mutex::new(space),
            Err(error) => return fail_rest(&flight, &error),
        };
        let leaves = OnceLock::new();
        let delivery =
            Arc::new(Delivery { flight: flight.clone(), object, leaves, targets, space });
        if let Err(error) = self.copy_from_other_blobs(&delivery).await {
            tracing::debug!(%error, "a local copy failed; the registry is asked instead");
        }
        if let Err(error) = self.fetch_rest(&delivery).await {
            fail_rest(&flight, &error);
        }
    }

    /// Reserves space for what the targets lack. `None`: there is none, but a demand read waits for the
    /// bytes.
    async fn reserve(
        &self,
        flight: &Flight,
        targets: &[Target],
    ) -> Result<Option<Reservation>, FetchError> {
        let mut cost = 0u64;
        for target in targets {
            for run in target.blob.missing(target.parts(&flight.leaves)) {
                cost = cost.saturating_add(target.blob.cost(run));
            }
        }
        let store = self.store.clone();
        match blocking(move || store.reserve(cost)).await? {
            Ok(space) => Ok(Some(space)),
            Err(error) if flight.urgency.get() == Priority::Demand => {
                tracing::debug!(%error, "no space; the bytes are only handed over");
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Fetches what is still pending, repeating failed requests as the retry policy and the deadline
    /// allow.
    async fn fetch_rest(&self, delivery: &Arc<Delivery>) -> Result<(), FetchError> {
        let flight = delivery.flight.clone();
        let mut mismatches: HashMap<u64, u32> = HashMap::new();
        let mut attempts = Attempts::new(self.retry, self.deadline);
        while let Some(run) = flight.pending().into_iter().next() {
            let mut slot = self.slots.acquire(&flight.urgency).await;
            // Listed only now: before it had a slot, it did not wait for the registry.
            let waiting = attempts.list_in(&self.waits);
            let outcome =
                self.attempt(delivery, run.clone(), &mut mismatches, &mut slot, waiting).await;
            drop(slot);
            if flight.pending().first().is_none_or(|next| next.start > run.start) {
                attempts.progressed();
            }
            let Err(error) = outcome else { continue };
            let retry = error.retry();
            let Some(delay) = attempts.failed(retry, &error) else { return Err(error) };
            tracing::debug!(%error, ?delay, "trying again");
            flight.trouble(error);
            // A more urgent read that joins the flight ends the delay, unless the registry asked for it.
            let now = flight.urgency.get();
            let _ = match retry {
                Retry::Later { not_before: Some(_) } => {
                    tokio::time::timeout(delay, std::future::pending()).await
                }
                _ => tokio::time::timeout(delay, flight.urgency.rises_above(now)).await,
            };
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
    pub(super) async fn fetch_leaves(
        &self,
        flight: &Flight,
        object: &Object,
    ) -> Result<Leaves, FetchError> {
        if let Some(known) = self.lists.known(object, &flight.leaves) {
            return Ok(known);
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        let registry = self.registry()?;
        self.before_stall(self.lists.get(registry, &flight.key, object, &flight.leaves)).await
    }

    fn registry(&self) -> Result<&dyn Registry, FetchError> {
        self.registry
            .as_deref()
            .ok_or_else(|| FetchError::NotKnown { what: "what is missing".to_owned() })
    }

    /// Makes one request for a run of leaves, and delivers the answer batch by batch as it arrives.
    async fn attempt(
        &self,
        delivery: &Arc<Delivery>,
        run: Range<u64>,
        mismatches: &mut HashMap<u64, u32>,
        slot: &mut Slot,
        waiting: &Waiting,
    ) -> Result<(), FetchError> {
        let (flight, object) = (&delivery.flight, &delivery.object);
        let range = object.leaves_range(&run);
        self.requests.fetch_add(1, Ordering::Relaxed);
        let registry = self.registry()?;
        let (leaves, mut body) = tokio::try_join!(self.fetch_leaves(flight, object), async {
            let body = registry.read(object, range);
            self.before_stall_in(slot, async { Ok(body.await?) }).await
        })?;
        delivery.leaves.get_or_init(|| leaves);
        let mut jobs: JoinSet<Vec<u64>> = JoinSet::new();
        let mut failed = Ok(());
        let mut pending = Bytes::new();
        'batches: for batch in Batches::new(object, run) {
            let wanted = object.leaves_range(&batch).len() as usize;
            let permit = self.memory.take(wanted as u64, &flight.urgency).await;
            let mut buffer = self.buffers.take(wanted);
            let (mut filled, begun) = (0, Instant::now());
            while filled < wanted {
                if self.is_too_slow(begun.elapsed(), filled, wanted) {
                    let ms = begun.elapsed().as_millis();
                    let why = format!("too slow: {filled} of {wanted} bytes in {ms} ms");
                    failed = Err(broken_off(object, range, why));
                    break 'batches;
                }
                if pending.is_empty() {
                    let next = async { body.next().await.transpose().map_err(Into::into) };
                    pending = match self.before_stall_in(slot, next).await {
                        Ok(Some(bytes)) => bytes,
                        Ok(None) => {
                            failed = Err(broken_off(object, range, "the body was cut off".into()));
                            break 'batches;
                        }
                        Err(error) => {
                            failed = Err(error);
                            break 'batches;
                        }
                    };
                    waiting.answered();
                    self.bytes.fetch_add(pending.len() as u64, Ordering::Relaxed);
                }
                let take = pending.len().min(wanted - filled);
                buffer.bytes_mut()[filled..filled + take].copy_from_slice(&pending.split_to(take));
                filled += take;
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
                let error = mismatch(object, *leaf, registry.name());
                tracing::error!(%error, "a registry served wrong bytes");
                flight.settle(*leaf, Outcome::Failed(error));
            }
        }
        failed
    }
}

fn note(
    done: Option<Result<Vec<u64>, tokio::task::JoinError>>,
    mismatches: &mut HashMap<u64, u32>,
) -> Result<(), FetchError> {
    for leaf in done.transpose().map_err(|_| FetchError::Stopped)?.into_iter().flatten() {
        *mismatches.entry(leaf).or_default() += 1;
    }
    Ok(())
}

/// The error of a body that ended early or arrives too slowly.
fn broken_off(object: &Object, range: ObjectRange, why: String) -> FetchError {
    let what = format!("{object} bytes {range}");
    RegistryError::Unreachable { what, why }.into()
}

fn mismatch(object: &Object, leaf: u64, registry: &str) -> FetchError {
    let range = object.check.leaf_range(leaf, object.len);
    FetchError::Corrupt {
        what: format!("object {} bytes {range} from {registry}", object.digest),
        why: "the bytes do not match their digest, twice".to_owned(),
    }
}
