//! Reads that may wait for flights, until the deadline.
//!
//! Invariant: a read returns all bytes of the range, each verified, or an error; never fewer. A reader
//! copies bytes out of a flight as they arrive and holds none of its memory, so readers never wait for
//! each other.
//! Concurrency: part of the caller's task; disk reads run on the blocking pool.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use super::blocking::blocking;
use super::cached_file::CachedFile;
use super::dynamic_priority::Priority;
use super::error::FetchError;
use super::fetcher::Fetcher;
use super::flight::{Outcome, Reader};
use super::gather::Gather;
use crate::base::FileRange;
use crate::model::PartIx;
use crate::store::{Blob, StoreError};

/// Maximum number of consecutive rounds without progress before a read fails. A round makes none if what
/// it waited for was evicted, or if its flights ended for reasons of their own.
const ROUNDS: u32 = 16;

/// A part that the read waits for.
struct Awaited {
    part: PartIx,
    /// Whether the flight was already under way: its failure may be old.
    joined: bool,
    reader: Reader,
}

impl Fetcher {
    /// Reads a range that lies in the file, fetching as needed, within the read deadline.
    pub async fn read(
        self: &Arc<Self>,
        file: &Arc<CachedFile>,
        range: FileRange,
    ) -> Result<Bytes, FetchError> {
        let Some(blob) = file.blob.as_ref().filter(|_| !range.is_empty()) else {
            return Ok(Bytes::new());
        };
        let deadline = Instant::now() + self.deadline;
        let mut gather = Gather::new(blob.clone(), range, self.transfers.buffers.clone());
        let (mut idle, mut last, mut unreadable) = (0, None, false);
        while gather.count() > 0 && idle < ROUNDS {
            let before = gather.count();
            let awaited = self.claim(file, blob, &gather, unreadable);
            if let Some(error) = self.collect(&mut gather, awaited, deadline).await? {
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
    fn claim(
        self: &Arc<Self>,
        file: &CachedFile,
        blob: &Blob,
        gather: &Gather,
        unreadable: bool,
    ) -> Vec<Awaited> {
        let rest = gather.missing().iter().copied();
        let runs = match unreadable {
            true => rest.collect(),
            false => rest.flat_map(|run| blob.missing(run)).collect(),
        };
        let mut out = Vec::new();
        for (first, claim) in self.claims(file, blob, runs, Priority::Demand) {
            for (part, leaf) in (first.0..).zip(claim.leaves) {
                let reader = claim.flight.reader(leaf);
                out.push(Awaited { part: PartIx(part), joined: !claim.new, reader });
            }
        }
        out
    }

    /// Copies parts as they arrive. Returns the error of a flight that says nothing about what another
    /// flight would get, if any; any other error fails the read.
    async fn collect(
        &self,
        gather: &mut Gather,
        awaited: Vec<Awaited>,
        deadline: Instant,
    ) -> Result<Option<FetchError>, FetchError> {
        let mut of_a_flight = None;
        let flights: Vec<_> = awaited.iter().map(|a| a.reader.flight().clone()).collect();
        let outcome = |a: Awaited| async move { (a.reader.outcome().await, a.part, a.joined) };
        let mut coming: FuturesUnordered<_> = awaited.into_iter().map(outcome).collect();
        loop {
            let Ok(next) = tokio::time::timeout_at(deadline, coming.next()).await else {
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
