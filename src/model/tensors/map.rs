//! The map of a file's tensors.
//!
//! Invariant: extents are sorted, disjoint, not empty and lie in the file, whatever the header says.
//! Immutable values.

use crate::base::FileRange;

/// The extents of a file's tensors, in file order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorMap(Box<[FileRange]>);

impl TensorMap {
    /// A map of extents in any order; those that overlap others, are empty or reach beyond the file are
    /// dropped.
    pub(super) fn new(mut extents: Vec<FileRange>, len: u64) -> Self {
        extents.retain(|e| !e.is_empty() && e.end() <= len);
        extents.sort_unstable_by_key(|e| (e.start(), e.end()));
        let mut end = 0;
        extents.retain(|e| {
            let apart = e.start() >= end;
            if apart {
                end = e.end();
            }
            apart
        });
        Self(extents.into())
    }

    /// All extents.
    pub fn extents(&self) -> &[FileRange] {
        &self.0
    }

    /// The tensor that begins in this range and extends beyond it, if any, and its index.
    pub fn begun_in(&self, range: FileRange) -> Option<(usize, FileRange)> {
        let behind = self.0.partition_point(|e| e.start() < range.end());
        let ix = behind.checked_sub(1)?;
        let extent = self.0[ix];
        (extent.start() >= range.start() && extent.end() > range.end()).then_some((ix, extent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(pairs: &[(u64, u64)]) -> Vec<FileRange> {
        pairs.iter().map(|(a, b)| FileRange::new(*a, *b)).collect()
    }

    #[test]
    fn any_tensor_map_keeps_its_invariants() {
        let map = TensorMap::new(ranges(&[(50, 60), (10, 20), (15, 30), (20, 20), (90, 200)]), 100);
        assert_eq!(map.extents(), ranges(&[(10, 20), (50, 60)]));
    }

    #[test]
    fn a_tensor_that_starts_in_a_read_and_continues_is_found() {
        let map = TensorMap::new(ranges(&[(10, 20), (20, 500), (500, 900)]), 1000);
        let begun = |a, b| map.begun_in(FileRange::new(a, b)).map(|(ix, _)| ix);
        assert_eq!(begun(0, 15), Some(0));
        assert_eq!(begun(10, 100), Some(1), "the short one is in the read already");
        assert_eq!(begun(20, 100), Some(1));
        assert_eq!(begun(30, 100), None, "its middle");
        assert_eq!(begun(0, 500), None, "up to its end");
        assert_eq!(begun(900, 1000), None);
        assert_eq!(begun(0, 5), None);
    }
}
