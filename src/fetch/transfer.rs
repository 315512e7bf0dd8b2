//! A flight's way from take-off to landing: bytes from another blob or from the registry, verified
//! leaf by leaf on worker threads, handed to the waiting and written to the store.
//!
//! Invariant: space in the store is reserved before the first byte is asked for. When `fly` ends,
//! by whatever way, every leaf has an outcome and the flight is out of the table.
//! Concurrency: one task per flight; hashing and disk on the blocking pool; the number of requests
//! and the bytes in memory are bounded for all flights together.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::deliver::{Delivery, Target};
use super::flight::{Flight, FlightTable, Outcome};
use super::lists::{LeafList, LeafLists};
use super::memory::Memory;
use super::slots::Slots;
use super::urgency::Priority;
use super::{FetchError, FetchOptions, Traffic};
use crate::base::ObjectRange;
use crate::model::{Check, MAX_LEAF, Object};
use crate::registry::{Registry, RegistryError, RetryPolicy, random};
use crate::store::{LocalSource, Reservation, Store, StoreError};

/// The most bytes verified and written in one go: large enough that system calls do not matter,
/// small enough that readers do not wait for it.
const BATCH: u64 = 1 << 20;
/// How many batches of a flight may be hashed or written while its next one arrives.
const BATCHES_AHEAD: usize = 3;
/// How often a digest may fail to match before the leaf is given up: once more, since a wire or a
/// cache on the way may have been at fault.
const MISMATCHES: u32 = 2;

/// What all flights share.
pub struct Transfers {
    pub(super) store: Store,
    pub(super) registry: Option<Arc<dyn Registry>>,
    pub(super) table: FlightTable,
    lists: LeafLists,
    memory: Memory,
    slots: Arc<Slots>,
    retry: RetryPolicy,
    deadline: Duration,
    bytes: AtomicU64,
    requests: AtomicU64,
}

/// Settles what is left and frees the table, even if the task is dropped or panics.
struct Landing<'a> {
    transfers: &'a Transfers,
    flight: &'a Arc<Flight>,
}

impl Drop for Landing<'_> {
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
        options: &FetchOptions,
    ) -> Self {
        Self {
            store,
            registry,
            table: FlightTable::default(),
            lists: LeafLists::new(),
            memory: Memory::new(options.memory),
            slots: Slots::new(options.connections),
            retry: RetryPolicy::default(),
            deadline: options.read_deadline,
            bytes: AtomicU64::new(0),
            requests: AtomicU64::new(0),
        }
    }

    pub(super) fn traffic(&self) -> Traffic {
        Traffic {
            bytes: self.bytes.load(Ordering::Relaxed),
            requests: self.requests.load(Ordering::Relaxed),
        }
    }

    /// Brings a flight to its end.
    pub(super) async fn fly(&self, flight: Arc<Flight>, object: Object, targets: Vec<Target>) {
        let _landing = Landing { transfers: self, flight: &flight };
        let space = match self.reserve(&flight, &targets).await {
            Ok(space) => Mutex::new(space),
            Err(error) => return fail_rest(&flight, &error),
        };
        let list = OnceLock::new();
        let delivery = Arc::new(Delivery { flight: flight.clone(), object, list, targets, space });
        if let Err(error) = self.copy_from_other_blobs(&delivery).await {
            tracing::debug!(%error, "a local copy failed; the registry is asked instead");
        }
        if let Err(error) = self.fetch_rest(&delivery).await {
            fail_rest(&flight, &error);
        }
    }

    /// Space for what the targets lack. `None`: there is none, and somebody waits for the bytes.
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
            Err(StoreError::NoSpace { .. } | StoreError::Disk { .. })
                if flight.urgency.get() == Priority::Demand =>
            {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Takes leaves from blobs that hold them for other files.
    async fn copy_from_other_blobs(&self, delivery: &Arc<Delivery>) -> Result<(), FetchError> {
        let (object, flight) = (delivery.object, delivery.flight.clone());
        let names = match object.check {
            Check::Whole => vec![object.digest],
            Check::Leaves { list, .. } => vec![list, object.digest],
        };
        let range = leaves_range(&object, &flight.leaves);
        let store = self.store.clone();
        let sources = blocking(move || store.local_sources(&names, range)).await??;
        if sources.is_empty() {
            return Ok(());
        }
        if matches!(object.check, Check::Leaves { .. }) {
            let list = self.list_from(&object, &sources).await?;
            delivery.list.get_or_init(|| list);
        }
        for source in sources.into_iter().map(Arc::new) {
            for run in flight.pending() {
                self.copy_run(delivery, &source, run).await?;
            }
        }
        Ok(())
    }

    /// The leaf list of an object of which other blobs have bytes: made from them when they are
    /// all of it, so that no network is needed; else fetched.
    async fn list_from(
        &self,
        object: &Object,
        sources: &[LocalSource],
    ) -> Result<LeafList, FetchError> {
        let all = ObjectRange::new(0, object.len);
        let whole = sources.iter().find(|s| s.object.contains(&all));
        // Held in memory while it is hashed, so only objects of the usual size.
        if let Some(source) = whole.filter(|_| object.len <= MAX_LEAF) {
            let _room = self.memory.take(object.len, Priority::Prefetch).await;
            let (blob, at) = (source.blob.clone(), source.file.start());
            let len = object.len as usize;
            let bytes = blocking(move || read_blob(&blob, at, len)).await??;
            if let Some(bytes) = bytes
                && let Some(list) = self.lists.rebuild(&object.check, &bytes)
            {
                return Ok(list);
            }
        }
        self.fetch_list(object).await
    }

    async fn copy_run(
        &self,
        delivery: &Arc<Delivery>,
        source: &Arc<LocalSource>,
        run: Range<u64>,
    ) -> Result<(), FetchError> {
        let object = &delivery.object;
        let inside =
            |leaf: &u64| source.object.contains(&object.check.leaf_range(*leaf, object.len));
        let leaf_size = object.check.leaf_size(object.len);
        let step = (BATCH / leaf_size).max(1);
        for run in super::flight::runs(run.filter(inside)) {
            let mut first = run.start;
            while first < run.end {
                let leaves = first..(first + step).min(run.end);
                first = leaves.end;
                let range = leaves_range(object, &leaves);
                let at = source.file.start() + (range.start() - source.object.start());
                let permit = self.memory.take(range.len(), delivery.flight.urgency.get()).await;
                let (delivery, source) = (delivery.clone(), source.clone());
                let bad = blocking(move || {
                    let bytes = read_blob(&source.blob, at, range.len() as usize)?;
                    Ok::<_, FetchError>(bytes.map(|bytes| {
                        delivery.deliver(leaves.start, &bytes, permit, Some((&source, at)))
                    }))
                })
                .await??;
                // What another file's blob holds may be another file's lie: then it is fetched.
                if bad.is_none_or(|bad| !bad.is_empty()) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Fetches what is still pending, again and again while there is hope and time.
    async fn fetch_rest(&self, delivery: &Arc<Delivery>) -> Result<(), FetchError> {
        let flight = delivery.flight.clone();
        let mut mismatches: HashMap<u64, u32> = HashMap::new();
        let mut failures = 0;
        let mut give_up = Instant::now() + self.deadline;
        while let Some(run) = flight.pending().into_iter().next() {
            let slot = self.slots.acquire(&flight.urgency).await;
            let outcome = self.attempt(delivery, run.clone(), &mut mismatches).await;
            drop(slot);
            if flight.pending().first().is_none_or(|next| next.start > run.start) {
                failures = 0;
                give_up = Instant::now() + self.deadline;
            }
            let Err(error) = outcome else { continue };
            let Some(delay) = self.delay(&error, failures, give_up) else { return Err(error) };
            tracing::debug!(%error, ?delay, "trying again");
            failures += 1;
            flight.trouble(error);
            tokio::time::sleep(delay).await;
        }
        Ok(())
    }

    fn delay(&self, error: &FetchError, failures: u32, give_up: Instant) -> Option<Duration> {
        match error {
            // A leaf list may have been spoilt on the way, like any bytes: once more.
            FetchError::Registry(RegistryError::WrongBytes { .. }) if failures == 0 => {
                Some(Duration::ZERO)
            }
            FetchError::Registry(e) if e.is_transient() => {
                let left = give_up.saturating_duration_since(Instant::now());
                let retry_after = match e {
                    RegistryError::Busy { retry_after, .. } => *retry_after,
                    _ => None,
                };
                self.retry.delay(failures + 1, random(), retry_after, left)
            }
            _ => None,
        }
    }

    async fn fetch_list(&self, object: &Object) -> Result<LeafList, FetchError> {
        let Check::Leaves { list, .. } = object.check else { return Ok(Arc::from([])) };
        if let Some(found) = self.lists.kept(&list) {
            return Ok(found);
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        let leaves = object.check.leaf_count(object.len);
        self.lists.get(self.registry()?, &list, leaves).await
    }

    fn registry(&self) -> Result<&dyn Registry, FetchError> {
        self.registry
            .as_deref()
            .ok_or_else(|| FetchError::NotKnown { what: "what is missing".to_owned() })
    }

    /// One request for a run of leaves, delivered batch by batch as it comes.
    async fn attempt(
        &self,
        delivery: &Arc<Delivery>,
        run: Range<u64>,
        mismatches: &mut HashMap<u64, u32>,
    ) -> Result<(), FetchError> {
        let object = delivery.object;
        let range = leaves_range(&object, &run);
        self.requests.fetch_add(1, Ordering::Relaxed);
        let registry = self.registry()?;
        let (list, mut body) = tokio::try_join!(self.fetch_list(&object), async {
            Ok(registry.object(&object.digest, object.len, range).await?)
        })?;
        delivery.list.get_or_init(|| list);
        let mut jobs: JoinSet<Vec<u64>> = JoinSet::new();
        let mut failed = Ok(());
        let mut pending = Bytes::new();
        'batches: for batch in Batches::new(&object, run) {
            let wanted = leaves_range(&object, &batch).len() as usize;
            let permit = self.memory.take(wanted as u64, delivery.flight.urgency.get()).await;
            let mut buffer = BytesMut::with_capacity(wanted);
            while buffer.len() < wanted {
                if pending.is_empty() {
                    pending = match body.next().await {
                        Some(Ok(bytes)) => bytes,
                        Some(Err(error)) => {
                            failed = Err(error.into());
                            break 'batches;
                        }
                        None => {
                            failed = Err(cut_off(&object, range));
                            break 'batches;
                        }
                    };
                    self.bytes.fetch_add(pending.len() as u64, Ordering::Relaxed);
                }
                let take = pending.len().min(wanted - buffer.len());
                buffer.extend_from_slice(&pending.split_to(take));
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
            if *times >= MISMATCHES {
                let error = mismatch(&object, *leaf, registry.name());
                tracing::error!(%error, "a registry served wrong bytes");
                delivery.flight.settle(*leaf, Outcome::Failed(error));
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

fn cut_off(object: &Object, range: ObjectRange) -> FetchError {
    let what = format!("data/{} bytes {range}", object.digest);
    RegistryError::Unreachable { what, why: "the body was cut off".to_owned() }.into()
}

fn mismatch(object: &Object, leaf: u64, registry: &str) -> FetchError {
    let range = object.check.leaf_range(leaf, object.len);
    FetchError::Corrupt {
        what: format!("data/{} bytes {range} from {registry}", object.digest),
        why: "the bytes do not match their digest, twice".to_owned(),
    }
}

/// The object's bytes that a run of leaves covers.
fn leaves_range(object: &Object, leaves: &Range<u64>) -> ObjectRange {
    let of = |leaf| object.check.leaf_range(leaf, object.len);
    ObjectRange::new(of(leaves.start).start(), of(leaves.end - 1).end())
}

fn read_blob(blob: &crate::store::Blob, at: u64, len: usize) -> Result<Option<Bytes>, FetchError> {
    let mut buffer = vec![0; len];
    match blob.read(at, &mut buffer)? {
        crate::store::ReadState::Hit => Ok(Some(buffer.into())),
        crate::store::ReadState::Miss => Ok(None),
    }
}

/// Runs what blocks on the disk off the runtime's threads.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, FetchError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| FetchError::Stopped)
}

/// Cuts a run of leaves into batches: one leaf first, for whoever waits for it, then twice as many
/// each time up to [`BATCH`].
struct Batches {
    rest: Range<u64>,
    next: u64,
    most: u64,
}

impl Batches {
    fn new(object: &Object, run: Range<u64>) -> Self {
        let most = (BATCH / object.check.leaf_size(object.len)).max(1);
        Self { rest: run, next: 1, most }
    }
}

impl Iterator for Batches {
    type Item = Range<u64>;

    fn next(&mut self) -> Option<Range<u64>> {
        let batch = self.rest.start..(self.rest.start + self.next).min(self.rest.end);
        self.rest.start = batch.end;
        self.next = (self.next * 2).min(self.most);
        (!batch.is_empty()).then_some(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Digest, LeafDigest};

    #[test]
    fn batches_grow_and_cover_the_run() {
        let d = Digest::from_bytes([0; 32]);
        let check = Check::Leaves { size: 128 << 10, digest: LeafDigest::Blake3, list: d };
        let object = Object { digest: d, len: 10 << 20, check };
        let batches: Vec<_> = Batches::new(&object, 5..40).collect();
        assert_eq!(batches[..4], [5..6, 6..8, 8..12, 12..20]);
        assert!(batches.windows(2).all(|w| w[0].end == w[1].start));
        assert_eq!(batches.last().unwrap().end, 40);
        let whole = Object { check: Check::Whole, ..object };
        assert!(Batches::new(&whole, 0..1).eq(std::iter::once(0..1)));
    }
}
