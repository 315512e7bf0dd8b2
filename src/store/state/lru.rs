//! Which segments were used longest ago.
//!
//! Invariant: every segment listed has exactly one stamp, and stamps are distinct. A segment is
//! listed iff it has something present and its blob is not pinned. Pure values; `recency` guards them.

use std::collections::{BTreeMap, HashMap, HashSet};

/// A segment of a blob, by the blob's number in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId {
    /// The blob.
    pub blob: u32,
    /// The segment in it.
    pub segment: u32,
}

/// When, in seconds, and a count that keeps the order within a second.
pub type LastUse = (u32, u64);

/// Segments by last use. (Not the `lru` crate: after a restart or an unpin, segments come back
/// with the last use that they had, which is not the front of the list.)
#[derive(Debug, Default)]
pub struct Lru {
    order: BTreeMap<LastUse, SegmentId>,
    stamps: HashMap<u32, Stamps>,
    /// Used since the last [`Lru::take_touched`].
    touched: HashSet<SegmentId>,
    count: u64,
}

/// The stamps of one blob's segments, by segment. A store starts with a million of them.
#[derive(Debug, Default)]
struct Stamps {
    /// A count of 0: not listed.
    all: Vec<LastUse>,
    listed: u32,
}

impl Stamps {
    fn get(&self, segment: u32) -> Option<LastUse> {
        self.all.get(segment as usize).copied().filter(|stamp| stamp.1 > 0)
    }

    /// The stamp that it replaces.
    fn set(&mut self, segment: u32, stamp: LastUse) -> Option<LastUse> {
        let old = self.get(segment);
        let at = segment as usize;
        if self.all.len() <= at {
            self.all.resize(at + 1, (0, 0));
        }
        self.all[at] = stamp;
        self.listed = self.listed + u32::from(stamp.1 > 0) - u32::from(old.is_some());
        old
    }
}

impl Lru {
    /// Lists many at once, in the order of their last uses.
    pub fn load(&mut self, mut segments: Vec<(u32, SegmentId)>) {
        segments.sort_unstable();
        for ((at, segment), count) in segments.iter().zip(self.count + 1..) {
            let stamps = self.stamps.entry(segment.blob).or_default();
            stamps.set(segment.segment, (*at, count));
        }
        let stamped = segments.iter().zip(self.count + 1..);
        // built as a whole: a third of what it takes one by one
        let mut order = stamped.map(|((at, segment), count)| ((*at, count), *segment)).collect();
        self.order.append(&mut order);
        self.count += segments.len() as u64;
    }

    /// Lists a segment, or moves it, with this last use.
    pub fn insert(&mut self, segment: SegmentId, at: u32) {
        self.count += 1;
        let stamp = (at, self.count);
        let stamps = self.stamps.entry(segment.blob).or_default();
        if let Some(old) = stamps.set(segment.segment, stamp) {
            self.order.remove(&old);
        }
        self.order.insert(stamp, segment);
    }

    /// Notes a use: moves the segment if it is listed, and remembers to record it.
    pub fn touch(&mut self, segment: SegmentId, at: u32) {
        self.touched.insert(segment);
        let stamps = self.stamps.get(&segment.blob);
        if stamps.is_some_and(|stamps| stamps.get(segment.segment).is_some()) {
            self.insert(segment, at);
        }
    }

    /// Takes a segment off the list.
    pub fn remove(&mut self, segment: SegmentId) {
        let Some(stamps) = self.stamps.get_mut(&segment.blob) else { return };
        if let Some(old) = stamps.set(segment.segment, (0, 0)) {
            self.order.remove(&old);
        }
        if stamps.listed == 0 {
            self.stamps.remove(&segment.blob);
        }
    }

    /// Up to `n` segments, oldest first, from just after `after` on.
    pub fn oldest(&self, after: Option<LastUse>, n: usize) -> Vec<(LastUse, SegmentId)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        self.order.range((from, Unbounded)).take(n).map(|(k, v)| (*k, *v)).collect()
    }

    /// What was used since this was last asked.
    pub fn take_touched(&mut self) -> HashSet<SegmentId> {
        std::mem::take(&mut self.touched)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(segment: u32) -> SegmentId {
        SegmentId { blob: 1, segment }
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
        assert_eq!(order(&l), [3, 2, 1], "returns to its place");
        assert_eq!(l.take_touched().len(), 2);
        assert!(l.take_touched().is_empty());
        let first = l.oldest(None, 1)[0].0;
        assert_eq!(l.oldest(Some(first), 9).len(), 2);
        (1..=3).for_each(|n| l.remove(s(n)));
        assert!(order(&l).is_empty() && l.stamps.is_empty(), "nothing is kept of what went");
    }
}
