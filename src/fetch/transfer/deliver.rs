//! What happens to the bytes of whole leaves once they are here: hashed, handed over, stored.
//!
//! Invariant: only leaves whose digest matched become `Ready` or reach the store; only what is in
//! every blob that it belongs to becomes `Stored`. Blocking: runs on the blocking pool, several at
//! once per flight.

use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use super::destination::Destination;
use crate::base::ObjectRange;
use crate::fetch::plan::runs;
use crate::fetch::schedule::{Flight, LeafBytes, Outcome};
use crate::model::{Digest, HashAlgorithm, Leaves, Object, Part, PartIx};
use crate::store::{LocalCopy, Reservation, Store, Written};

/// Whether there are blobs for a leaf and every one of them took it.
fn taken_by_all(taken: &[bool]) -> bool {
    !taken.is_empty() && taken.iter().all(|taken| *taken)
}

/// What a flight's deliveries have in common.
#[derive(Debug)]
pub struct Delivery {
    flight: Arc<Flight>,
    object: Object,
    /// What the leaves must match, once that is known.
    leaves: OnceLock<Leaves>,
    destinations: Vec<Destination>,
    /// The space for them; none: the leaves are only handed over.
    space: Mutex<Option<Reservation>>,
}

impl Delivery {
    /// Deliveries of a flight's leaves of an object to these destinations. Without `space` they are only
    /// handed over.
    pub fn new(
        flight: Arc<Flight>,
        object: Object,
        destinations: Vec<Destination>,
        space: Option<Reservation>,
    ) -> Self {
        let (leaves, space) = (OnceLock::new(), Mutex::new(space));
        Self { flight, object, leaves, destinations, space }
    }

    /// The flight.
    pub fn flight(&self) -> &Arc<Flight> {
        &self.flight
    }

    /// Whose bytes.
    pub fn object(&self) -> &Object {
        &self.object
    }

    /// Sets what the leaves must match. The first call counts.
    pub fn expect(&self, leaves: Leaves) {
        self.leaves.get_or_init(|| leaves);
    }

    /// What the leaves must match, if that is known.
    pub fn expected(&self) -> Option<Leaves> {
        self.leaves.get().cloned()
    }

    /// Whether these are the bytes of that leaf.
    fn matches(&self, leaf: u64, bytes: &[u8]) -> bool {
        self.leaves.get().is_some_and(|leaves| leaves.matches(leaf, bytes))
    }

    /// The BLAKE3 of a part that matched, where that is what it was checked by.
    fn blake3_of(&self, part: &Part) -> Option<Digest> {
        let leaves = self.leaves.get().filter(|_| part.is_whole_leaf())?;
        (leaves.algorithm() == HashAlgorithm::Blake3).then(|| leaves.digest(part.leaf)).flatten()
    }

    fn leaf_range(&self, leaf: u64) -> ObjectRange {
        self.object.check.leaf_range(leaf, self.object.len)
    }

    /// Verifies, hands over and stores the bytes of consecutive leaves from `first` on, which come
    /// from the network, or from `local` at the given offset of its blob. Returns the leaves that
    /// did not match.
    pub fn deliver(
        &self,
        first: u64,
        bytes: &Bytes,
        permit: OwnedSemaphorePermit,
        local: Option<(&LocalCopy, u64)>,
    ) -> Vec<u64> {
        let start = self.leaf_range(first).start();
        let permit = Arc::new(permit);
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        let mut leaf = first;
        let mut at = 0;
        while at < bytes.len() {
            let end = (self.leaf_range(leaf).end() - start) as usize;
            let leaf_bytes = bytes.slice(at..end);
            if self.matches(leaf, &leaf_bytes) {
                self.hand_over(leaf, leaf_bytes, &permit);
                good.push(leaf);
            } else {
                bad.push(leaf);
            }
            (at, leaf) = (end, leaf + 1);
        }
        self.keep(good, start, bytes, local);
        bad
    }

    /// Gives the bytes of a leaf that matched to those that wait for it.
    fn hand_over(&self, leaf: u64, bytes: Bytes, permit: &Arc<OwnedSemaphorePermit>) {
        let ready = LeafBytes::new(bytes, self.leaf_range(leaf).start(), Arc::clone(permit));
        self.flight.settle(leaf, Outcome::Ready(ready));
    }

    /// Stores leaves that were handed over, and settles them. `start` is the first of the bytes in the
    /// object.
    fn keep(&self, leaves: Vec<u64>, start: u64, bytes: &Bytes, local: Option<(&LocalCopy, u64)>) {
        for run in runs(leaves.into_iter()) {
            // Every blob gets what it can take, even if another one cannot.
            let store = |to| self.store(to, &run, start, bytes, local);
            let taken: Vec<bool> = self.destinations.iter().map(store).collect();
            let end = if taken_by_all(&taken) { Outcome::Stored } else { Outcome::HandedOver };
            run.for_each(|leaf| self.flight.settle(leaf, end.clone()));
        }
    }

    /// Settles those of these leaves that came into the store by another flight; whether there were any.
    pub fn settle_present(&self, leaves: Range<u64>) -> bool {
        let present = |leaf: u64| {
            let has = |to: &Destination| to.blob().missing(to.parts(&(leaf..leaf + 1))).is_empty();
            !self.destinations.is_empty() && self.destinations.iter().all(has)
        };
        let present: Vec<u64> = leaves.filter(|leaf| present(*leaf)).collect();
        present.iter().for_each(|leaf| self.flight.settle(*leaf, Outcome::Stored));
        !present.is_empty()
    }

    /// Takes the bytes of a range of the object that a proof verified: those of the leaves that lie in it
    /// whole are handed over and stored, also of leaves that the flight does not fetch if there
    /// is space for them.
    pub fn deliver_proven(
        &self,
        range: ObjectRange,
        bytes: &Bytes,
        permit: OwnedSemaphorePermit,
        store: &Store,
    ) {
        let permit = Arc::new(permit);
        let size = self.object.check.leaf_size(self.object.len);
        let all = self.object.leaf_count();
        let last = if range.end() == self.object.len { all } else { range.end() / size };
        let inside = range.start().div_ceil(size)..last;
        let of_flight = self.flight.leaves();
        let wanted = inside.start.max(of_flight.start)..inside.end.min(of_flight.end);
        let pending: Vec<u64> =
            wanted.clone().filter(|leaf| self.flight.is_pending(*leaf)).collect();
        for leaf in &pending {
            let leaf_range = self.leaf_range(*leaf);
            let from = (leaf_range.start() - range.start()) as usize;
            let leaf_bytes = bytes.slice(from..from + leaf_range.len() as usize);
            self.hand_over(*leaf, leaf_bytes, &permit);
        }
        self.keep(pending, range.start(), bytes, None);
        for more in [inside.start..wanted.start, wanted.end..inside.end] {
            for to in self.destinations.iter().filter(|_| more.start < more.end) {
                // Without space for them they are fetched again when they are needed.
                if let Ok(mut space) = store.reserve(to.cost(&more)) {
                    self.write(to, &more, range.start(), bytes, None, &mut space);
                }
            }
        }
    }

    /// Writes a run of verified leaves to one blob. `false`: they can be had from memory only.
    fn store(
        &self,
        to: &Destination,
        run: &Range<u64>,
        start: u64,
        bytes: &Bytes,
        local: Option<(&LocalCopy, u64)>,
    ) -> bool {
        let mut space = self.space.lock().expect("holders do not panic");
        match space.as_mut() {
            Some(space) => self.write(to, run, start, bytes, local, space),
            None => to.parts(run).is_empty(),
        }
    }

    /// The same with this space. `start` is the first of the bytes in the object.
    fn write(
        &self,
        to: &Destination,
        run: &Range<u64>,
        start: u64,
        bytes: &Bytes,
        local: Option<(&LocalCopy, u64)>,
        space: &mut Reservation,
    ) -> bool {
        let parts = to.parts(run);
        if parts.is_empty() {
            return true;
        }
        let layout = to.blob().layout();
        let (first, last) = (PartIx(parts.start), PartIx(parts.end - 1));
        let object =
            ObjectRange::new(layout.part(first).object.start(), layout.part(last).object.end());
        let from = (object.start() - start) as usize;
        let slice = &bytes[from..from + object.len() as usize];
        let sums: Vec<_> = parts.iter().map(|part| self.blake3_of(&layout.part(part))).collect();
        let written = match local {
            Some((source, offset)) => {
                let at = (source, offset + from as u64);
                to.blob().write_shared(first, slice, &sums, at, space)
            }
            None => to.blob().write(first, slice, &sums, space),
        };
        match written {
            Ok(Written::Stored | Written::Present) => true,
            Ok(Written::Skipped) => false,
            Err(error) => {
                tracing::warn!(%error, "verified bytes could not be stored and are served from memory");
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leaf_is_stored_only_if_every_blob_of_it_took_it() {
        assert!(taken_by_all(&[true]) && taken_by_all(&[true, true]));
        for not in [&[][..], &[false], &[true, false], &[false, true]] {
            assert!(!taken_by_all(not), "{not:?}");
        }
    }
}
