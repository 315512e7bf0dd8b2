//! The LRU list behind its lock, as the engine uses it.
//!
//! Invariant: a segment is listed iff it has something present and its blob is not pinned; code that
//! changes either calls this. Concurrency: one lock, inside which nothing else is taken; readers take
//! it at most once a second per segment.

use std::collections::HashSet;

use parking_lot::Mutex;

use super::entry::BlobEntry;
use super::lru::{LastUse, Lru, SegmentId};

/// Segments by last use.
#[derive(Debug)]
pub struct Recency {
    lru: Mutex<Lru>,
}

impl Recency {
    /// With what is listed already.
    pub fn new(lru: Lru) -> Self {
        Self { lru: Mutex::new(lru) }
    }

    /// Lists segments `(segment, last use)`, unless their blob is pinned: then they are taken off.
    pub fn list(&self, entry: &BlobEntry, segments: impl IntoIterator<Item = (u32, u32)>) {
        let mut lru = self.lru.lock();
        for (segment, used) in segments {
            if entry.is_pinned() {
                lru.remove(entry.segment_id(segment));
            } else {
                lru.insert(entry.segment_id(segment), used);
            }
        }
    }

    /// Takes segments off the list.
    pub fn unlist(&self, entry: &BlobEntry, segments: impl IntoIterator<Item = u32>) {
        let mut lru = self.lru.lock();
        for segment in segments {
            lru.remove(entry.segment_id(segment));
        }
    }

    /// Notes a use of segments.
    pub fn touch(&self, entry: &BlobEntry, segments: impl Iterator<Item = u32>, now: u32) {
        let mut lru = self.lru.lock();
        for segment in segments {
            lru.touch(entry.segment_id(segment), now);
        }
    }

    /// Up to `n` segments, oldest first, from just after `after` on.
    pub fn oldest(&self, after: Option<LastUse>, n: usize) -> Vec<(LastUse, SegmentId)> {
        self.lru.lock().oldest(after, n)
    }

    /// What was used since this was last asked.
    pub fn take_touched(&self) -> HashSet<SegmentId> {
        self.lru.lock().take_touched()
    }
}
