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

use super::flight::{LeafBytes, Outcome, Reader};
use super::transfer::blocking;
use super::{CachedFile, FetchError, Fetcher, Priority};
use crate::base::FileRange;
use crate::model::{BlobLayout, PartIx};
use crate::store::{Blob, ReadState, StoreError};

/// How often a read starts over when what it waited for was evicted, or ended for a reason that
/// was not its own, before it fails.
const ROUNDS: u32 = 16;

/// A part that is waited for.
struct Awaited {
    part: PartIx,
    /// Whether the flight was under way already: then it may have failed long ago, so to speak.
    joined: bool,
    reader: Reader,
}

/// A range while it is put together.
struct Partial {
    range: FileRange,
    bytes: Vec<u8>,
    /// Which parts of it are there.
    there: Vec<PartIx>,
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
        let (mut last, mut unreadable) = (None, false);
        for _ in 0..ROUNDS {
            let awaited = self.claim(file, blob, range, unreadable);
            let partial = match self.collect(blob, range, awaited, deadline).await {
                Ok(partial) => partial,
                Err((error, true)) => {
                    last = Some(error);
                    continue;
                }
                Err((error, false)) => return Err(error),
            };
            match fill(blob, partial).await {
                Ok(Some(bytes)) => return Ok(bytes),
                Ok(None) => {}
                // What the disk cannot give, the registry can.
                Err(FetchError::Store(error)) if matches!(*error, StoreError::Disk { .. }) => {
                    tracing::warn!(%error, "the cache could not be read; fetched again");
                    (last, unreadable) = (Some(FetchError::Store(error)), true);
                }
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or(FetchError::TimedOut {
            after: self.deadline,
            last: "the cache is too small for what is being read at once".to_owned(),
        }))
    }

    /// Waits for what is missing of a range, or, if the store cannot be read, for all of it.
    fn claim(
        self: &Arc<Self>,
        file: &CachedFile,
        blob: &Blob,
        range: FileRange,
        unreadable: bool,
    ) -> Vec<Awaited> {
        let wanted = blob.layout().parts_in(range);
        let runs = if unreadable { vec![wanted] } else { blob.missing(wanted) };
        let mut out = Vec::new();
        for (first, ride) in self.rides(file, blob, runs, Priority::Demand) {
            for (part, leaf) in (first.0..).zip(ride.leaves) {
                let reader = ride.flight.reader(leaf);
                out.push(Awaited { part: PartIx(part), joined: !ride.new, reader });
            }
        }
        out
    }

    /// Takes what is waited for as it comes. An error comes with whether to start over.
    async fn collect(
        &self,
        blob: &Blob,
        range: FileRange,
        awaited: Vec<Awaited>,
        deadline: Instant,
    ) -> Result<Partial, (FetchError, bool)> {
        let bytes = vec![0; range.len() as usize];
        let mut partial = Partial { range, bytes, there: Vec::new() };
        let flights: Vec<_> = awaited.iter().map(|a| a.reader.flight().clone()).collect();
        let outcome = |a: Awaited| async move { (a.reader.outcome().await, a.part, a.joined) };
        let mut coming: FuturesUnordered<_> = awaited.into_iter().map(outcome).collect();
        loop {
            let Ok(next) = tokio::time::timeout_at(deadline, coming.next()).await else {
                let trouble = flights.iter().find_map(|f| f.last_trouble());
                let error = trouble.unwrap_or_else(|| FetchError::TimedOut {
                    after: self.deadline,
                    last: "the registry is silent".to_owned(),
                });
                return Err((error, false));
            };
            match next {
                None => return Ok(partial),
                Some((Outcome::Ready(leaf), part, _)) => partial.take(blob.layout(), part, &leaf),
                Some((Outcome::Stored, ..)) => {}
                // It came and went before we waited for it.
                Some((Outcome::Passed, ..)) => return Err((FetchError::Stopped, true)),
                Some((Outcome::Failed(error), _, joined)) => {
                    // A flight that was begun for less than a read, cut short, or begun long before
                    // says nothing about what a read of its own would get.
                    let again = error.is_of_the_flight() || joined && error.is_transient();
                    return Err((error, again && Instant::now() < deadline));
                }
            }
        }
    }
}

impl Partial {
    fn take(&mut self, layout: &BlobLayout, ix: PartIx, leaf: &LeafBytes) {
        let part = layout.part(ix);
        let wanted = part.file.intersect(&self.range);
        let in_object = part.object.start() + (wanted.start() - part.file.start());
        let from = (in_object - part.leaf_range.start()) as usize;
        let (at, len) = ((wanted.start() - self.range.start()) as usize, wanted.len() as usize);
        self.bytes[at..at + len].copy_from_slice(&leaf.bytes[from..from + len]);
        self.there.push(ix);
    }
}

/// Adds what is in the store. `None`: something was evicted meanwhile.
async fn fill(blob: &Arc<Blob>, mut partial: Partial) -> Result<Option<Bytes>, FetchError> {
    partial.there.sort_unstable();
    let parts = blob.layout().parts_in(partial.range);
    if partial.there.len() == parts.len() as usize {
        return Ok(Some(partial.bytes.into()));
    }
    let blob = blob.clone();
    blocking(move || {
        let Partial { range, mut bytes, there } = partial;
        let mut read = |wanted: FileRange| {
            let wanted = wanted.intersect(&range);
            let at = (wanted.start() - range.start()) as usize;
            let buffer = &mut bytes[at..at + wanted.len() as usize];
            Ok::<_, FetchError>(blob.read(wanted.start(), buffer)? == ReadState::Hit)
        };
        let mut from = parts.start;
        for end in there.iter().map(|part| part.0).chain([parts.end]) {
            let run = crate::model::PartRange { start: from, end };
            if !run.is_empty() && !read(blob.layout().file_range(run))? {
                return Ok(None);
            }
            from = end + 1;
        }
        Ok(Some(bytes.into()))
    })
    .await?
}
