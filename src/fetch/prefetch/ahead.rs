//! Starts fetches of ranges that no read waits for yet.
//!
//! Invariant: returns at once; a fetch that fails is no error of any read. Concurrency: shared; the outcome
//! is reported from a task of the runtime.

use std::sync::Arc;

use crate::base::FileRange;
use crate::fetch::cached_file::CachedFile;
use crate::fetch::error::FetchError;
use crate::fetch::schedule::{Flight, Priority};
use crate::fetch::transfer::Transfers;

/// Starts fetches ahead of reads. Clones share the flights.
#[derive(Clone)]
pub struct Ahead {
    transfers: Arc<Transfers>,
    runtime: tokio::runtime::Handle,
}

impl Ahead {
    /// Must be called within the tokio runtime that outcomes are to be reported from.
    pub fn new(transfers: Arc<Transfers>) -> Self {
        Self { transfers, runtime: tokio::runtime::Handle::current() }
    }

    /// The runtime of its tasks.
    pub fn runtime(&self) -> &tokio::runtime::Handle {
        &self.runtime
    }

    /// Starts fetching a range that will probably be read; returns at once. The read that needs it, if
    /// any, retries what fails. `ended` is called with success, or with the error of bytes that are still
    /// missing when their flight ends.
    pub fn start(
        &self,
        file: &CachedFile,
        range: FileRange,
        ended: impl FnOnce(Result<(), FetchError>) + Send + 'static,
    ) {
        let Some(blob) = file.blob() else { return };
        let wanted = blob.layout().parts_in(range);
        let claims = self
            .transfers
            .claim_parts(file, &blob.missing(wanted), Priority::Readahead)
            .into_iter();
        let started = claims.filter(|(_, claim)| claim.new).map(|(_, claim)| claim.flight);
        let flights: Vec<_> = started.collect();
        if flights.is_empty() {
            return;
        }
        let blob = Arc::clone(blob);
        self.runtime.spawn(async move {
            let mut all = true;
            let _wanted: Vec<_> = flights.iter().map(Flight::want).collect();
            for flight in flights {
                match flight.finished().await {
                    Ok(()) => {}
                    // No space in the store: only the readahead is lost.
                    Err(error) if error.is_of_the_flight() => all = false,
                    Err(_) if blob.missing(wanted).is_empty() => {}
                    Err(error) => return ended(Err(error)),
                }
            }
            if all {
                ended(Ok(()));
            }
        });
    }
}
