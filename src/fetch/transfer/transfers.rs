//! Starts flights and runs each to its end: space, local copies, requests.
//!
//! Invariant: one flight per leaf, however many readers wait for it. Space in the store is reserved before
//! the first byte is requested. However a flight ends, every leaf has an outcome and the flight is out of
//! the table. A flight asks the registry of its own source.
//! Concurrency: one task per flight; the number of requests and the bytes in memory are bounded for all
//! flights together. An object that is verified as a whole and too large for memory goes through `whole`.

use std::ops::Range;
use std::sync::Arc;

use super::deliver::Delivery;
use super::destination::{Destination, is_learned};
use super::lists::LeafLists;
use super::local_copies::LocalCopies;
use super::proven::ProvenRanges;
use super::requests::Requests;
use super::whole::WholeObjects;
use super::whole_checks::WholeChecks;
use crate::base::blocking::blocking;
use crate::base::buffers::Buffers;
use crate::base::units::ByteSize;
use crate::fetch::cached_file::{CachedFile, has_matched};
use crate::fetch::error::FetchError;
use crate::fetch::options::{FetchOptions, InFlight, Traffic};
use crate::fetch::plan::{ObjectKey, by_parts, leaf_runs};
use crate::fetch::schedule::{Claim, Flight, FlightKey, FlightTable, Memory, Outcome, Priority};
use crate::fetch::source::Source;
use crate::model::{Check, HashAlgorithm, Leaves, Manifest, Object, ObjectIx, PartIx, PartRange};
use crate::registry::RegistryError;
use crate::store::{Blob, Reservation, Store};

/// All flights. Shared; serves files of any number of sources.
pub struct Transfers {
    store: Store,
    flights: FlightTable,
    memory: Arc<Memory>,
    local: LocalCopies,
    requests: Arc<Requests>,
    whole: WholeObjects,
    proven: ProvenRanges,
    checks: Arc<WholeChecks>,
    runtime: tokio::runtime::Handle,
}

/// Fails the pending leaves and removes the flight from the table, even if the task is dropped or panics.
struct FinishGuard<'a> {
    flights: &'a FlightTable,
    flight: &'a Arc<Flight>,
}

impl Drop for FinishGuard<'_> {
    fn drop(&mut self) {
        fail_rest(self.flight, &FetchError::Stopped);
        self.flights.remove(self.flight);
        self.flight.end();
    }
}

fn fail_rest(flight: &Flight, error: &FetchError) {
    for leaf in flight.pending().into_iter().flatten() {
        flight.settle(leaf, Outcome::Failed(error.clone()));
    }
}

impl Transfers {
    /// No flights. Must be called within the tokio runtime that flights are to run on.
    pub fn new(store: Store, buffers: Buffers, options: &FetchOptions) -> Arc<Self> {
        let memory = Arc::new(Memory::new(options.memory));
        let lists = Arc::new(LeafLists::new());
        let requests =
            Requests::new(Arc::clone(&memory), buffers.clone(), Arc::clone(&lists), options);
        let requests = Arc::new(requests);
        let whole = WholeObjects::new(
            Arc::clone(&requests),
            Arc::clone(&memory),
            buffers.clone(),
            options.read_deadline,
        );
        let proven = ProvenRanges::new(
            Arc::clone(&requests),
            Arc::clone(&memory),
            buffers.clone(),
            store.clone(),
        );
        let checks = WholeChecks::new(store.clone());
        let local = LocalCopies::new(
            store.clone(),
            Arc::clone(&memory),
            buffers,
            lists,
            Arc::clone(&requests),
        );
        let runtime = tokio::runtime::Handle::current();
        let flights = FlightTable::default();
        Arc::new(Self { store, flights, memory, local, requests, whole, proven, checks, runtime })
    }

    /// What is under way.
    pub fn in_flight(&self) -> InFlight {
        InFlight {
            flights: self.flights.len() as u64,
            memory: self.memory.taken(),
            requests: self.requests.under_way() as u64,
        }
    }

    /// Bytes and requests over the network so far.
    pub fn traffic(&self) -> Traffic {
        self.requests.traffic()
    }

    /// Joins or starts flights for these parts of a file. Returns each claim with its first part.
    pub fn claim_parts(
        self: &Arc<Self>,
        file: &CachedFile,
        parts: &[PartRange],
        priority: Priority,
    ) -> Vec<(PartIx, Claim)> {
        let Some(blob) = file.blob() else { return Vec::new() };
        let mut out = Vec::new();
        let learned = |piece| is_learned(blob, piece);
        for run in leaf_runs(file.manifest(), file.index(), blob.layout(), parts, learned) {
            let (source, manifest, leaves) = (file.source(), file.manifest(), run.leaves.clone());
            for claim in self.claim(source, manifest, run.object, leaves, run.learned, priority) {
                out.push((run.part_of(claim.leaves.start), claim));
            }
        }
        out
    }

    /// Joins or starts flights for these leaves of an object of a version of this source. `learned`: each
    /// leaf is a part of the object, whose checksum was learned when all of it was verified.
    pub fn claim(
        self: &Arc<Self>,
        source: &Arc<Source>,
        manifest: &Arc<Manifest>,
        object: ObjectIx,
        leaves: Range<u64>,
        learned: bool,
        priority: Priority,
    ) -> Vec<Claim> {
        let what = manifest.object(object);
        let object_key = if learned { ObjectKey::learned(what) } else { ObjectKey::of(what) };
        let key = FlightKey { source: source.name().clone(), object: object_key };
        let claims = self.flights.claim(key, leaves, priority);
        for claim in claims.iter().filter(|claim| claim.new) {
            let (this, source) = (Arc::clone(self), Arc::clone(source));
            let (flight, manifest) = (Arc::clone(&claim.flight), Arc::clone(manifest));
            self.runtime.spawn(async move { this.run(flight, &source, manifest, object).await });
        }
        claims
    }

    /// Runs a flight to its end.
    async fn run(
        &self,
        flight: Arc<Flight>,
        source: &Source,
        manifest: Arc<Manifest>,
        object: ObjectIx,
    ) {
        let _guard = FinishGuard { flights: &self.flights, flight: &flight };
        if let Err(error) = self.transfer(&flight, source, manifest, object).await {
            fail_rest(&flight, &error);
        }
    }

    async fn transfer(
        &self,
        flight: &Arc<Flight>,
        source: &Source,
        manifest: Arc<Manifest>,
        object: ObjectIx,
    ) -> Result<(), FetchError> {
        let learned = flight.key().object.is_learned();
        let what = match learned {
            true => by_parts(manifest.object(object)),
            false => manifest.object(object).clone(),
        };
        let (store, range) = (self.store.clone(), what.leaves_range(flight.leaves()));
        let destinations = blocking(move || {
            let found = Destination::of_leaves(&store, &manifest, object, range, learned);
            found.iter().try_for_each(|to| has_matched(&store, to.blob()).map(drop))?;
            Ok::<_, FetchError>(found)
        });
        let destinations = destinations.await??;
        match what.check {
            Check::WholeLarge => {
                return self.transfer_whole(flight, source, &what, destinations).await;
            }
            Check::Proof { .. } => {
                return self.transfer_proven(flight, source, what, destinations).await;
            }
            Check::Whole | Check::GitBlob | Check::Leaves { .. } => {}
        }
        let expected = match learned {
            true => Some(self.learned(flight, &destinations).await?),
            false => None,
        };
        let space = self.reserve(flight, &destinations).await?;
        let delivery = Arc::new(Delivery::new(Arc::clone(flight), what, destinations, space));
        if let Some(expected) = expected {
            delivery.expect(expected);
        }
        if let Err(error) = self.local.copy(source, &delivery).await {
            tracing::debug!(%error, "a local copy failed; the registry is asked instead");
        }
        self.requests.fetch(source, &delivery).await
    }

    /// The checksums of the parts of a flight, from a blob that has them all. If none has, what is left of
    /// the object cannot be completed: it is dropped, and the next flight fetches all of it.
    async fn learned(&self, flight: &Flight, places: &[Destination]) -> Result<Leaves, FetchError> {
        let (store, leaves, places) =
            (self.store.clone(), flight.leaves().clone(), places.to_vec());
        let found = blocking(move || {
            for place in &places {
                let known = place.blob().learned(place.parts(&leaves))?;
                let known: Option<Vec<_>> = known.into_iter().collect();
                if let Some(known) = known {
                    return Ok(Some(Leaves::new(
                        HashAlgorithm::Blake3,
                        leaves.start,
                        known.into(),
                    )));
                }
            }
            let keys: Vec<_> = places.iter().map(|place| place.blob().key()).collect();
            tracing::warn!(blobs = ?keys, "checksums of evicted parts are lost; the rest is dropped and fetched again");
            store.evict(&keys, true).map(|_| None)
        });
        found.await??.ok_or(FetchError::Stopped)
    }

    /// Fetches ranges that proofs verify, or the whole object where there is no proof. A file that is
    /// complete then is compared with the digest of the whole.
    async fn transfer_proven(
        &self,
        flight: &Arc<Flight>,
        source: &Source,
        what: Object,
        destinations: Vec<Destination>,
    ) -> Result<(), FetchError> {
        let space = self.reserve(flight, &destinations).await?;
        let (flight_of, places) = (Arc::clone(flight), destinations.clone());
        let delivery = Arc::new(Delivery::new(flight_of, what.clone(), destinations, space));
        let proven = self.proven.fetch(source, &delivery).await;
        drop(delivery);
        match proven {
            Ok(()) => {
                for to in &places {
                    self.checks.consider(to.blob());
                }
                Ok(())
            }
            Err(FetchError::Registry(error @ RegistryError::Unproven { .. })) => {
                tracing::debug!(%error, "all of an object is fetched");
                for place in places.iter().filter(|place| place.has_some() && !place.is_present()) {
                    // Parts that were proved are in the way of a writer of the whole.
                    let (store, key) = (self.store.clone(), place.blob().key());
                    blocking(move || store.evict(&[key], true)).await??;
                }
                self.transfer_whole(flight, source, &what, places).await
            }
            Err(error) => Err(error),
        }
    }

    /// Fetches all of an object that is too large to be held in memory until it matched.
    async fn transfer_whole(
        &self,
        flight: &Arc<Flight>,
        source: &Source,
        what: &Object,
        mut places: Vec<Destination>,
    ) -> Result<(), FetchError> {
        places.retain(Destination::is_whole_large);
        if places.is_empty() {
            let (what, len) = (what.to_string(), ByteSize(what.len));
            return Err(FetchError::TooLargeToVerify { what, len });
        }
        for place in &places {
            if self.whole.fetch(source, flight, what, place).await? {
                let (checks, blob) = (Arc::clone(&self.checks), Arc::clone(place.blob()));
                blocking(move || checks.matched(&blob)).await??;
            } else {
                self.checks.consider(place.blob());
            }
        }
        for leaf in flight.leaves().clone() {
            flight.settle(leaf, Outcome::Stored);
        }
        Ok(())
    }

    /// Compares a file that is complete with the digest of the whole, if its ranges were proved and that was
    /// not done before. In the background.
    pub fn check_whole(&self, blob: &Arc<Blob>) {
        self.checks.consider(blob);
    }

    /// Reserves space for what the destinations lack. `None`: there is none, but a demand read waits for
    /// the bytes.
    async fn reserve(
        &self,
        flight: &Flight,
        destinations: &[Destination],
    ) -> Result<Option<Reservation>, FetchError> {
        let costs = destinations.iter().map(|destination| destination.cost(flight.leaves()));
        let cost = costs.fold(0, u64::saturating_add);
        let store = self.store.clone();
        match blocking(move || store.reserve(cost)).await? {
            Ok(space) => Ok(Some(space)),
            Err(error) if flight.urgency().get() == Priority::Demand => {
                tracing::debug!(%error, "no space; the bytes are only handed over");
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}
