//! What happens to the bytes of whole leaves once they are here: hashed, handed over, stored.
//!
//! Invariant: only leaves whose digest matched become `Ready` or reach the store; only what is in
//! every blob that it belongs to becomes `Stored`. Blocking: runs on the blocking pool, several at
//! once per flight.

use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use super::flight::{Flight, LeafBytes, Outcome, runs};
use crate::base::ObjectRange;
use crate::model::{Digest, HashAlgorithm, Leaves, Object, Part, PartIx, PartRange};
use crate::store::{Blob, LocalCopy, Reservation, Written};

/// A place in a blob where an object's bytes belong.
#[derive(Debug, Clone)]
pub struct Target {
    /// The blob.
    pub blob: Arc<Blob>,
    /// Which piece of it.
    pub piece: usize,
}

impl Target {
    /// The parts of the blob that these leaves fill.
    pub fn parts(&self, leaves: &Range<u64>) -> PartRange {
        let layout = self.blob.layout();
        let mut parts = leaves.clone().filter_map(|l| layout.part_of_leaf(self.piece, l));
        match (parts.next(), parts.next_back()) {
            (Some(first), last) => PartRange { start: first.0, end: last.unwrap_or(first).0 + 1 },
            (None, _) => PartRange { start: 0, end: 0 },
        }
    }
}

/// Whether there are blobs for a leaf and every one of them took it.
fn taken_by_all(taken: &[bool]) -> bool {
    !taken.is_empty() && taken.iter().all(|taken| *taken)
}

/// What a flight's deliveries have in common.
#[derive(Debug)]
pub struct Delivery {
    /// The flight.
    pub flight: Arc<Flight>,
    /// Whose bytes.
    pub object: Object,
    /// What its leaves must match, once that is known.
    pub leaves: OnceLock<Leaves>,
    /// Where they are stored.
    pub targets: Vec<Target>,
    /// Where the space for that comes from; none: they are only handed over.
    pub space: Mutex<Option<Reservation>>,
}

impl Delivery {
    /// Whether these are the bytes of that leaf.
    pub fn matches(&self, leaf: u64, bytes: &[u8]) -> bool {
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
                let ready = LeafBytes { bytes: leaf_bytes, _permit: permit.clone() };
                self.flight.settle(leaf, Outcome::Ready(ready));
                good.push(leaf);
            } else {
                bad.push(leaf);
            }
            (at, leaf) = (end, leaf + 1);
        }
        for run in runs(good.into_iter()) {
            // Every blob gets what it can take, even if another one cannot.
            let store = |target| self.store(target, &run, start, bytes, local);
            let taken: Vec<bool> = self.targets.iter().map(store).collect();
            let end = if taken_by_all(&taken) { Outcome::Stored } else { Outcome::HandedOver };
            run.for_each(|leaf| self.flight.settle(leaf, end.clone()));
        }
        bad
    }

    /// Writes a run of verified leaves to one blob. `false`: they can be had from memory only.
    fn store(
        &self,
        target: &Target,
        run: &Range<u64>,
        start: u64,
        bytes: &Bytes,
        local: Option<(&LocalCopy, u64)>,
    ) -> bool {
        let parts = target.parts(run);
        if parts.is_empty() {
            return true;
        }
        let layout = target.blob.layout();
        let (first, last) = (PartIx(parts.start), PartIx(parts.end - 1));
        let object =
            ObjectRange::new(layout.part(first).object.start(), layout.part(last).object.end());
        let from = (object.start() - start) as usize;
        let slice = &bytes[from..from + object.len() as usize];
        let sums: Vec<_> = parts.iter().map(|part| self.blake3_of(&layout.part(part))).collect();
        let mut space = self.space.lock().expect("holders do not panic");
        let Some(space) = space.as_mut() else { return false };
        let written = match local {
            Some((source, offset)) => {
                let at = (source, offset + from as u64);
                target.blob.write_shared(first, slice, &sums, at, space)
            }
            None => target.blob.write(first, slice, &sums, space),
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
