//! Reads of one open file: from the store at once, else by flights, until the deadline.
//!
//! Invariant: a read returns all bytes of the range, each verified, or an error; never fewer. A read copies
//! bytes out of a flight as they arrive and holds none of its memory, so reads never wait for each other.
//! Readahead starts only after the requests of the read itself.
//! Concurrency: shared by all threads that read the file; `try_read` waits for nothing but the disk.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use super::cached_file::CachedFile;
use super::error::FetchError;
use super::prefetch::{FileReadahead, ModelLoads, Next};
use super::schedule::{Outcome, Priority, Reader};
use super::transfer::{Gather, Transfers};
use crate::base::FileRange;
use crate::base::blocking::blocking;
use crate::base::buffers::Buffers;
use crate::model::PartIx;
use crate::store::{Blob, StoreError};

/// Maximum number of consecutive rounds without progress before a read fails. A round makes none if what
/// it waited for was evicted, or if its flights ended for reasons of their own.
const ROUNDS: u32 = 16;

/// Reads one open file, or a file that is read without being opened. It records the reads and fetches
/// ahead what they make likely.
pub struct FileReader {
    file: Arc<CachedFile>,
    readahead: Arc<FileReadahead>,
    loads: Arc<ModelLoads>,
    transfers: Arc<Transfers>,
    buffers: Buffers,
    deadline: Duration,
}

/// A part that a read waits for.
struct Awaited {
    part: PartIx,
    /// Whether the flight was already under way: its failure may be old.
    joined: bool,
    reader: Reader,
}

impl FileReader {
    pub(super) fn new(
        file: Arc<CachedFile>,
        readahead: FileReadahead,
        loads: Arc<ModelLoads>,
        transfers: Arc<Transfers>,
        buffers: Buffers,
        deadline: Duration,
    ) -> Arc<Self> {
        let readahead = Arc::new(readahead);
        Arc::new(Self { file, readahead, loads, transfers, buffers, deadline })
    }

    /// Reads a range that lies in the file, if the store has all of it; never waits for a network. `None`:
    /// a part is missing, or must be verified against its checksum first, which may take long. Then, and
    /// after an error, `read` gets the bytes.
    pub fn try_read(&self, range: FileRange) -> Result<Option<Bytes>, FetchError> {
        let mut buffer = self.buffers.take(range.len() as usize);
        if !self.file.read_cached(range.start(), buffer.bytes_mut())? {
            return Ok(None);
        }
        let complete = self.file.is_complete();
        let next = self.record(range, complete);
        if !complete {
            self.readahead.start(range, next);
        }
        Ok(Some(buffer.freeze()))
    }

    /// Reads a range that lies in the file, fetching as needed, within the read deadline. The read counts
    /// from this call on, the deadline from the first poll, or from when bytes last came of an object that
    /// is verified as a whole.
    pub fn read(
        self: &Arc<Self>,
        range: FileRange,
    ) -> impl Future<Output = Result<Bytes, FetchError>> + Send + use<> {
        let mut next = Some(self.record(range, self.file.is_complete()));
        let this = Arc::clone(self);
        async move {
            let mut read = pin!(this.fetch(range));
            poll_fn(|cx| {
                // The first poll makes the requests of the read itself.
                let answer = read.as_mut().poll(cx);
                if let Some(next) = next.take() {
                    this.readahead.start(range, next);
                }
                answer
            })
            .await
        }
    }

    /// Starts fetching a range that will probably be read; returns at once.
    pub fn read_ahead(&self, range: FileRange) {
        self.readahead.fetch(range);
    }

    fn record(&self, range: FileRange, complete: bool) -> Next {
        if !complete {
            self.loads.touch(&self.file, range);
        }
        self.readahead.on_read(range)
    }

    async fn fetch(&self, range: FileRange) -> Result<Bytes, FetchError> {
        let Some(blob) = self.file.blob().filter(|_| !range.is_empty()) else {
            return Ok(Bytes::new());
        };
        let mut deadline = Instant::now() + self.deadline;
        let mut gather = Gather::new(blob.clone(), range, self.buffers.clone());
        let (mut idle, mut last, mut unreadable) = (0, None, false);
        while gather.count() > 0 && idle < ROUNDS {
            let before = gather.count();
            let awaited = self.claim(blob, &gather, unreadable);
            if let Some(error) = self.collect(&mut gather, awaited, &mut deadline).await? {
                last = Some(error);
            }
            if gather.count() > 0 {
                let (filled, trouble) = fill(gather).await?;
                gather = filled;
                // If the disk fails, the registry can supply the bytes.
                if let Some(error) = trouble {
                    tracing::warn!(%error, "the cache could not be read; fetched again");
                    (last, unreadable) = (Some(FetchError::Store(error)), true);
                }
            }
            idle = if gather.count() < before { 0 } else { idle + 1 };
        }
        if gather.count() == 0 {
            return Ok(gather.into_bytes());
        }
        Err(last.unwrap_or(FetchError::TimedOut {
            after: self.deadline,
            last: "what arrives is evicted before it can be read".to_owned(),
        }))
    }

    /// Joins or starts flights for the missing parts that the store lacks, or for all missing parts if
    /// the store is unreadable.
    fn claim(&self, blob: &Blob, gather: &Gather, unreadable: bool) -> Vec<Awaited> {
        let rest = gather.missing().iter().copied();
        let runs: Vec<_> = match unreadable {
            true => rest.collect(),
            false => rest.flat_map(|run| blob.missing(run)).collect(),
        };
        let mut out = Vec::new();
        for (first, claim) in self.transfers.claim_parts(&self.file, &runs, Priority::Demand) {
            for (part, leaf) in (first.0..).zip(claim.leaves) {
                let reader = claim.flight.reader(leaf);
                out.push(Awaited { part: PartIx(part), joined: !claim.new, reader });
            }
        }
        out
    }

    /// Copies parts as they arrive. Progress of a flight extends the deadline. Returns the error of a flight
    /// that says nothing about what another flight would get, if any; any other error fails the read.
    async fn collect(
        &self,
        gather: &mut Gather,
        awaited: Vec<Awaited>,
        deadline: &mut Instant,
    ) -> Result<Option<FetchError>, FetchError> {
        let mut of_a_flight = None;
        let flights: Vec<_> = awaited.iter().map(|a| a.reader.flight().clone()).collect();
        let outcome = |a: Awaited| async move { (a.reader.outcome().await, a.part, a.joined) };
        let mut coming: FuturesUnordered<_> = awaited.into_iter().map(outcome).collect();
        loop {
            let arrived = tokio::time::timeout_at(*deadline, coming.next()).await;
            let moved = flights.iter().filter_map(|f| f.last_moved()).max();
            *deadline = moved.map_or(*deadline, |at| (at + self.deadline).max(*deadline));
            let Ok(next) = arrived else {
                if Instant::now() < *deadline {
                    continue;
                }
                let trouble = flights.iter().find_map(|f| f.last_trouble());
                return Err(trouble.unwrap_or_else(|| FetchError::TimedOut {
                    after: self.deadline,
                    last: "the registry is silent".to_owned(),
                }));
            };
            match next {
                None => return Ok(of_a_flight),
                Some((Outcome::Ready(leaf), part, _)) => gather.put(part, &leaf),
                // In the store, or no longer in memory when the read began to wait.
                Some((Outcome::Stored | Outcome::HandedOver, ..)) => {}
                // A flight started for less than a demand read, cut short, or started long before says
                // nothing about what a flight of this read would get.
                Some((Outcome::Failed(error), _, joined))
                    if error.is_of_the_flight() || joined && error.is_transient() =>
                {
                    of_a_flight = Some(error);
                }
                Some((Outcome::Failed(error), ..)) => return Err(error),
            }
        }
    }
}

/// Fills in what the store has. Also returns the store's error, if any.
async fn fill(mut gather: Gather) -> Result<(Gather, Option<Arc<StoreError>>), FetchError> {
    blocking(move || match gather.fill() {
        Ok(()) => Ok((gather, None)),
        Err(FetchError::Store(error)) => Ok((gather, Some(error))),
        Err(error) => Err(error),
    })
    .await?
}
