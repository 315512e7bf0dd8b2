//! Cuts a run of leaves into batches. A batch is verified and written in one go. Pure.

use std::ops::Range;

use crate::model::Object;

/// Maximum number of bytes verified and written in one go: large enough that system calls do not matter,
/// small enough that readers do not wait for it.
pub const BATCH: u64 = 1 << 20;

/// Cuts a run of leaves into batches. The first batch is one leaf, for the reader that waits for it; each
/// further batch doubles, up to [`BATCH`].
pub struct Batches {
    rest: Range<u64>,
    next: u64,
    most: u64,
}

impl Batches {
    /// The batches of a run of leaves of an object.
    pub fn new(object: &Object, run: Range<u64>) -> Self {
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
    use crate::model::{Check, Digest, HashAlgorithm};

    #[test]
    fn batches_grow_and_cover_the_run() {
        let d = Digest::from_bytes([0; 32]);
        let check = Check::Leaves { size: 128 << 10, digest: HashAlgorithm::Blake3, list: d };
        let object = Object::new(d, 10 << 20, check);
        let batches: Vec<_> = Batches::new(&object, 5..40).collect();
        assert_eq!(batches[..4], [5..6, 6..8, 8..12, 12..20]);
        assert!(batches.windows(2).all(|w| w[0].end == w[1].start));
        assert_eq!(batches.last().unwrap().end, 40);
        let whole = Object { check: Check::Whole, ..object };
        assert!(Batches::new(&whole, 0..1).eq(std::iter::once(0..1)));
    }
}
