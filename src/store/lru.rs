//! Which segments were used longest ago.
//!
//! Invariant: every segment listed has exactly one stamp, and stamps are distinct. A segment is
//! listed iff it has something present and nobody pinned its blob. Pure values; the store keeps
//! one behind one lock, which readers take at most once a second per segment.

use std::collections::{BTreeMap, HashMap, HashSet};

/// A segment of a blob, by the blob's number in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegRef {
    /// The blob.
    pub blob: u32,
    /// The segment in it.
    pub segment: u32,
}

/// When, in seconds, and a count that keeps the order within a second.
pub type Stamp = (u32, u64);

/// Segments by last use. (Not the `lru` crate: after a restart or an unpin, segments come back
/// with the last use that they had, which is not the front of the list.)
#[derive(Debug, Default)]
pub struct Lru {
    order: BTreeMap<Stamp, SegRef>,
    stamps: HashMap<SegRef, Stamp>,
    /// Used since the last [`Lru::take_touched`].
    touched: HashSet<SegRef>,
    count: u64,
}

impl Lru {
    /// Lists many at once, in the order of their last uses.
    pub fn load(&mut self, mut segments: Vec<(u32, SegRef)>) {
        segments.sort_unstable();
        let first = self.count;
        self.count += segments.len() as u64;
        let stamped = || segments.iter().zip(first..).map(|((at, s), n)| ((*at, n), *s));
        // Two large tables of the same: for a million segments, it is worth a second thread.
        std::thread::scope(|scope| {
            scope.spawn(|| self.stamps = stamped().map(|(stamp, s)| (s, stamp)).collect());
            self.order = stamped().collect();
        });
    }

    /// Lists a segment, or moves it, with this last use.
    pub fn insert(&mut self, segment: SegRef, at: u32) {
        self.count += 1;
        let stamp = (at, self.count);
        if let Some(old) = self.stamps.insert(segment, stamp) {
            self.order.remove(&old);
        }
        self.order.insert(stamp, segment);
    }

    /// Notes a use: moves the segment if it is listed, and remembers to record it.
    pub fn touch(&mut self, segment: SegRef, at: u32) {
        self.touched.insert(segment);
        if self.stamps.contains_key(&segment) {
            self.insert(segment, at);
        }
    }

    /// Takes a segment off the list.
    pub fn remove(&mut self, segment: SegRef) {
        if let Some(old) = self.stamps.remove(&segment) {
            self.order.remove(&old);
        }
    }

    /// Up to `n` segments, oldest first, from just after `after` on.
    pub fn oldest(&self, after: Option<Stamp>, n: usize) -> Vec<(Stamp, SegRef)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        self.order.range((from, Unbounded)).take(n).map(|(k, v)| (*k, *v)).collect()
    }

    /// What was used since this was last asked.
    pub fn take_touched(&mut self) -> HashSet<SegRef> {
        std::mem::take(&mut self.touched)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(segment: u32) -> SegRef {
        SegRef { blob: 1, segment }
    }

    fn order(l: &Lru) -> Vec<u32> {
        l.oldest(None, 99).into_iter().map(|(_, s)| s.segment).collect()
    }

    #[test]
    fn oldest_first_and_uses_move_back() {
        let mut l = Lru::default();
        l.load(vec![(30, s(3)), (10, s(1)), (20, s(2))]);
        assert_eq!(order(&l), [1, 2, 3]);
        l.touch(s(1), 30);
        assert_eq!(order(&l), [2, 3, 1], "within a second, by order of use");
        l.remove(s(3));
        l.touch(s(3), 50);
        assert_eq!(order(&l), [2, 1], "what is not listed is not listed by a use");
        l.insert(s(3), 15);
        assert_eq!(order(&l), [3, 2, 1], "comes back where it was");
        assert_eq!(l.take_touched().len(), 2);
        assert!(l.take_touched().is_empty());
        let first = l.oldest(None, 1)[0].0;
        assert_eq!(l.oldest(Some(first), 9).len(), 2);
    }
}
