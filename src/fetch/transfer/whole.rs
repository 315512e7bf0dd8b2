//! Fetches objects that can be verified only when all of them is here, and that are too large for memory.
//!
//! The bytes of such an object go into the store as they arrive and are hashed on the way, in order. They
//! become readable together, once the digest over all of them has matched. What is in the store already is
//! hashed again, not fetched again: after a cut, an error, a restart, or when nothing waited any more.
//!
//! Invariant: nothing is accepted before the digest has matched; of one object, three batches at most are in
//! memory, and none of that is memory or slots for demand reads, since one object may take an hour.
//! Concurrency: part of each flight's task. A batch is hashed and written at the same time, on the blocking
//! pool, while the next one arrives.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::destination::Destination;
use super::requests::{MAX_MISMATCHES, Requests, wait_after};
use crate::base::ObjectRange;
use crate::base::blocking::blocking;
use crate::base::buffers::Buffers;
use crate::base::units::ByteSize;
use crate::fetch::error::FetchError;
use crate::fetch::plan::BATCH;
use crate::fetch::schedule::{DynamicPriority, Flight, FlightKey, Memory, Priority, Slot};
use crate::fetch::source::Source;
use crate::model::Object;
use crate::model::hash::Hasher;
use crate::registry::Waiting;
use crate::store::{StoreError, UnverifiedWriter};

/// Batches that are read back and hashed between two reports of progress.
const READ_BACK_AT_ONCE: usize = 16;
/// Interval of looking again whether another writer of the same bytes has ended, or space became free.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// For how long wrong bytes are remembered: without that, each read of a program that tries again would
/// fetch all of a large object. A registry that was repaired is believed after that time.
const WRONG_FOR: Duration = Duration::from_secs(600);
/// Interval of messages about one object that is under way.
const TOLD_EVERY: Duration = Duration::from_secs(30);

/// What flights of such objects share.
pub struct WholeObjects {
    requests: Arc<Requests>,
    memory: Arc<Memory>,
    buffers: Buffers,
    /// How long a flight goes on that nothing waits for: as long as a read would wait for it.
    unwanted: Duration,
    /// Bytes of some object came, or one of them ended.
    moved: Notify,
    /// Number of objects that have space.
    under_way: AtomicUsize,
    wrong: Mutex<HashMap<FlightKey, (Instant, FetchError)>>,
}

/// Counts an object that has space.
struct UnderWay<'a>(&'a WholeObjects);

impl<'a> UnderWay<'a> {
    fn new(all: &'a WholeObjects) -> Self {
        all.under_way.fetch_add(1, Ordering::AcqRel);
        Self(all)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::AcqRel);
        self.0.moved.notify_waiters();
    }
}

/// An object so far: in the store, and hashed.
struct SoFar {
    writer: UnverifiedWriter,
    hasher: Hasher,
}

/// Takes the bytes of an object in order; while one batch is being taken, the next can arrive.
struct Taker {
    taking: JoinHandle<Result<SoFar, FetchError>>,
    /// Bytes that were given to it.
    len: u64,
}

impl Taker {
    fn new(so_far: SoFar) -> Self {
        let len = so_far.writer.len();
        Self { taking: tokio::spawn(std::future::ready(Ok(so_far))), len }
    }

    /// Waits for the batch before, and begins with these bytes.
    async fn take(&mut self, bytes: Bytes, permit: OwnedSemaphorePermit) -> Result<(), FetchError> {
        let so_far = self.taken().await?;
        self.len += bytes.len() as u64;
        self.taking = tokio::spawn(take(so_far, bytes, permit));
        Ok(())
    }

    async fn taken(&mut self) -> Result<SoFar, FetchError> {
        (&mut self.taking).await.map_err(|_| FetchError::Stopped)?
    }
}

/// Hashes and writes the next bytes, both at the same time.
async fn take(
    so_far: SoFar,
    bytes: Bytes,
    permit: OwnedSemaphorePermit,
) -> Result<SoFar, FetchError> {
    let SoFar { mut writer, mut hasher } = so_far;
    let same = bytes.clone();
    let hashed = blocking(move || {
        hasher.update(&same);
        hasher
    });
    let written = blocking(move || writer.append(&bytes).map(|()| writer));
    let (hashed, written) = tokio::join!(hashed, written);
    drop(permit);
    Ok(SoFar { writer: written??, hasher: hashed? })
}

impl WholeObjects {
    /// None so far.
    pub fn new(
        requests: Arc<Requests>,
        memory: Arc<Memory>,
        buffers: Buffers,
        unwanted: Duration,
    ) -> Self {
        let (moved, under_way, wrong) = (Notify::new(), AtomicUsize::new(0), Mutex::default());
        Self { requests, memory, buffers, unwanted, moved, under_way, wrong }
    }

    /// Fetches an object into a place that has room for all of it. `false`: all of it came there by
    /// another flight, so nothing was compared here.
    pub async fn fetch(
        &self,
        source: &Source,
        flight: &Flight,
        object: &Object,
        place: &Destination,
    ) -> Result<bool, FetchError> {
        if let Some(error) = self.known_wrong(flight.key()) {
            return Err(error);
        }
        let mut mismatches = 0;
        while mismatches < MAX_MISMATCHES {
            let Some(writer) = self.begin(flight, place).await? else { return Ok(false) };
            let _under_way = UnderWay::new(self);
            let (kept, len) = (ByteSize(writer.len()), ByteSize(object.len));
            tracing::info!(%object, %len, %kept, source = %source.name(), "fetching all of an object; it can be read once its digest has matched");
            let hasher = Hasher::new(object.algorithm);
            let Some(so_far) = self.read_back(flight, SoFar { writer, hasher }).await? else {
                continue;
            };
            let mut taker = Taker::new(so_far);
            self.receive(source, flight, object, &mut taker).await?;
            let SoFar { writer, hasher } = taker.taken().await?;
            if hasher.finish() == object.digest {
                blocking(move || writer.accept()).await??;
                tracing::info!(%object, %len, "the digest of all of an object has matched");
                return Ok(true);
            }
            mismatches += 1;
            tracing::warn!(%object, %len, %kept, source = %source.name(), "the digest of all of an object does not match; its bytes are dropped");
            blocking(move || writer.discard()).await?;
        }
        let error = FetchError::Corrupt {
            what: format!(
                "object {} of {} from {}",
                object.digest,
                ByteSize(object.len),
                source.name()
            ),
            why: "the bytes do not match their digest, twice".to_owned(),
        };
        tracing::error!(%error, "a registry served wrong bytes");
        self.wrong().insert(flight.key().clone(), (Instant::now(), error.clone()));
        Err(error)
    }

    fn wrong(&self) -> MutexGuard<'_, HashMap<FlightKey, (Instant, FetchError)>> {
        self.wrong.lock().expect("holders do not panic")
    }

    fn known_wrong(&self, key: &FlightKey) -> Option<FetchError> {
        let mut wrong = self.wrong();
        wrong.retain(|_, (at, _)| at.elapsed() < WRONG_FOR);
        wrong.get(key).map(|(_, error)| error.clone())
    }

    /// Begins to write, once no other flight writes the same bytes and there is space. `None`: all of it is
    /// there by now.
    async fn begin(
        &self,
        flight: &Flight,
        place: &Destination,
    ) -> Result<Option<UnverifiedWriter>, FetchError> {
        loop {
            let (blob, piece) = (Arc::clone(place.blob()), place.piece());
            match blocking(move || blob.begin_unverified(piece)).await? {
                Ok(Some(writer)) => return Ok(Some(writer)),
                Ok(None) if place.is_present() => return Ok(None),
                // Another flight claimed what is missing, part by part.
                Ok(None) if place.has_some() => return Err(FetchError::Stopped),
                // Another flight writes it, or it is being removed.
                Ok(None) => {}
                // Objects under way keep their space until they end.
                Err(StoreError::NoSpace { .. }) if self.under_way.load(Ordering::Acquire) > 0 => {}
                Err(error) => return Err(error.into()),
            }
            if tokio::time::timeout(LOOK_AGAIN, self.moved.notified()).await.is_ok() {
                flight.moved();
            }
            self.stop_if_unwanted(flight)?;
        }
    }

    /// Hashes what an earlier writer left. `None`: it could not be read and was discarded.
    async fn read_back(
        &self,
        flight: &Flight,
        mut so_far: SoFar,
    ) -> Result<Option<SoFar>, FetchError> {
        loop {
            let mut buffer = self.buffers.take(BATCH as usize);
            let read = blocking(move || {
                let SoFar { writer, hasher } = &mut so_far;
                for _ in 0..READ_BACK_AT_ONCE {
                    match writer.read_back(buffer.bytes_mut()) {
                        Ok(0) => return (so_far, Ok(true)),
                        Ok(n) => hasher.update(&buffer.bytes_mut()[..n]),
                        Err(error) => return (so_far, Err(error)),
                    }
                }
                (so_far, Ok(false))
            });
            match read.await? {
                (all, Ok(true)) => return Ok(Some(all)),
                (some, Ok(false)) => so_far = some,
                (lost, Err(error)) => {
                    tracing::warn!(%error, "what is there of an object cannot be read; it is fetched from its beginning");
                    blocking(move || lost.writer.discard()).await?;
                    return Ok(None);
                }
            }
            self.note_progress(flight);
            self.stop_if_unwanted(flight)?;
        }
    }

    /// Fetches what is lacking, repeating failed requests as the retry policy and the deadline allow.
    async fn receive(
        &self,
        source: &Source,
        flight: &Flight,
        object: &Object,
        taker: &mut Taker,
    ) -> Result<(), FetchError> {
        let mut attempts = self.requests.attempts();
        while taker.len < object.len {
            let mut slot = self.slot(flight).await;
            let before = taker.len;
            let waiting = attempts.list_in(source.waits());
            let outcome = self.attempt(source, flight, object, taker, &mut slot, waiting).await;
            drop(slot);
            if taker.len > before {
                attempts.progressed();
            }
            if let Err(error) = outcome {
                wait_after(error, &mut attempts, flight).await?;
            }
        }
        Ok(())
    }

    /// Makes one request for all that is lacking, and takes the answer as it arrives.
    async fn attempt(
        &self,
        source: &Source,
        flight: &Flight,
        object: &Object,
        taker: &mut Taker,
        slot: &mut Slot,
        waiting: &Waiting,
    ) -> Result<(), FetchError> {
        let range = ObjectRange::new(taker.len, object.len);
        let mut incoming = self.requests.open(source, object, range, slot).await?;
        let mut told = Instant::now();
        while taker.len < object.len {
            self.stop_if_unwanted(flight)?;
            let wanted = BATCH.min(object.len - taker.len);
            let permit = self.memory.take(wanted, &background(flight)).await;
            let mut buffer = self.buffers.take(wanted as usize);
            let (came, filled) = incoming.fill(buffer.bytes_mut(), slot, waiting).await;
            // A body that was cut off goes on where it was.
            if came > 0 {
                taker.take(buffer.freeze().slice(..came), permit).await?;
                self.note_progress(flight);
                waiting.extend(self.requests.deadline_from_now());
            }
            filled?;
            if told.elapsed() >= TOLD_EVERY {
                told = Instant::now();
                let (have, len) = (ByteSize(taker.len), ByteSize(object.len));
                tracing::info!(%object, %have, %len, "an object is under way");
            }
        }
        Ok(())
    }

    /// Waits for a slot; while the objects that have one move, this flight moves too.
    async fn slot(&self, flight: &Flight) -> Slot {
        loop {
            let (now, urgency) = (flight.urgency().get(), background(flight));
            let mut acquired = pin!(self.requests.slot(&urgency));
            loop {
                tokio::select! {
                    biased;
                    slot = &mut acquired => return slot,
                    () = flight.urgency().rises_above(now) => break,
                    () = self.moved.notified() => flight.moved(),
                }
            }
        }
    }

    fn note_progress(&self, flight: &Flight) {
        flight.moved();
        self.moved.notify_waiters();
    }

    /// Ends a flight that nothing has waited for for a while. What is here is kept.
    fn stop_if_unwanted(&self, flight: &Flight) -> Result<(), FetchError> {
        match flight.unwanted_for() > self.unwanted {
            true => Err(FetchError::Stopped),
            false => Ok(()),
        }
    }
}

/// The urgency for slots and memory: never that of a demand read, which a small file may need meanwhile.
fn background(flight: &Flight) -> DynamicPriority {
    DynamicPriority::new(flight.urgency().get().max(Priority::Readahead))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::plan::ObjectKey;
    use crate::model::{Check, Digest, SourceName};

    #[test]
    fn an_object_that_takes_an_hour_never_has_slots_or_memory_of_demand_reads() {
        let object = Object::new(Digest::from_bytes([1; 32]), 1 << 30, Check::of_whole(1 << 30));
        let key = FlightKey { source: SourceName::of_address("a"), object: ObjectKey::of(&object) };
        for (priority, background_priority) in [
            (Priority::Demand, Priority::Readahead),
            (Priority::Readahead, Priority::Readahead),
            (Priority::Prefetch, Priority::Prefetch),
        ] {
            let flight = Flight::new(key.clone(), 0..1, priority);
            assert_eq!(background(&flight).get(), background_priority);
        }
    }
}
