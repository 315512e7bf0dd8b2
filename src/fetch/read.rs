//! Reads that may wait: for flights, until the deadline.
//!
//! Invariant: all bytes of the range, each verified, or an error; never fewer. A reader takes bytes
//! out of a flight as they come and keeps none of its memory, so readers never wait for each other.
//! Concurrency: part of the caller's task; the disk is read on the blocking pool.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use super::blocking::blocking;
use super::cached_file::CachedFile;
use super::error::FetchError;
use super::fetcher::Fetcher;
use super::flight::{Outcome, Reader};
use super::gather::Gather;
use super::urgency::Priority;
use crate::base::FileRange;
use crate::model::PartIx;
use crate::store::{Blob, StoreError};

/// How often a read starts over without having got on, because what it waited for was evicted or
/// ended for a reason that was not its own, before it fails.
const ROUNDS: u32 = 16;

/// A part that is waited for.
struct Awaited {
    part: PartIx,
    /// Whether the flight was under way already: then it may have failed long ago, so to speak.
    joined: bool,
    reader: Reader,
}

impl Fetcher {
    /// The bytes of a range that lies in the file, fetched as needed, within the read deadline.
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
                // What the disk cannot give, the registry can.
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

    /// Waits for what the store lacks of the rest, or, if it cannot be read, for all of the rest.
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
        for (first, ride) in self.rides(file, blob, runs, Priority::Demand) {
            for (part, leaf) in (first.0..).zip(ride.leaves) {
                let reader = ride.flight.reader(leaf);
                out.push(Awaited { part: PartIx(part), joined: !ride.new, reader });
            }
        }
        out
    }

    /// Takes what is waited for as it comes. Why a flight failed that says nothing about what
    /// another would bring, if one did; else its error is the read's.
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
                // In the store, or gone before we waited for it.
                Some((Outcome::Stored | Outcome::Passed, ..)) => {}
                // A flight that was begun for less than a read, cut short, or begun long before
                // says nothing about what a read of its own would get.
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

/// Adds what is in the store; why it could not be read, if so.
async fn fill(mut gather: Gather) -> Result<(Gather, Option<Arc<StoreError>>), FetchError> {
    blocking(move || match gather.fill() {
        Ok(()) => Ok((gather, None)),
        Err(FetchError::Store(error)) => Ok((gather, Some(error))),
        Err(error) => Err(error),
    })
    .await?
}
