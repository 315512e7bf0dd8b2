//! Access traces: records the first touches of a load.
//!
//! Invariant: a recording holds each byte at most once, in order of first touch. Pure.

use std::collections::{BTreeMap, HashMap};

use crate::base::FileRange;
use crate::model::FileIx;
use crate::model::trace::{MAX_STEPS, Step};

/// Number of recent steps that a touch may extend, one per concurrent reader: a few more than a machine
/// has accelerators.
const SIDE_BY_SIDE: usize = 32;
/// Maximum length of an extended step, an order of magnitude below the window: longer steps lose the
/// order between readers.
const LONGEST: u64 = 4 << 20;

/// First touches, in order.
#[derive(Debug, Default)]
pub struct TraceRecorder {
    steps: Vec<Step>,
    /// Touched ranges by file: disjoint, start to end.
    seen: HashMap<FileIx, BTreeMap<u64, u64>>,
    bytes: u64,
}

impl TraceRecorder {
    /// Records a touch. Returns whether any of it was new.
    pub fn touch(&mut self, file: FileIx, range: FileRange) -> bool {
        if range.is_empty() {
            return false;
        }
        let seen = self.seen.entry(file).or_default();
        let mut fresh = Vec::new();
        let mut at = range.start();
        let before = seen.range(..=at).next_back().filter(|(_, end)| **end > at);
        let overlapping: Vec<_> = before
            .into_iter()
            .chain(seen.range(at + 1..range.end()))
            .map(|(start, end)| (*start, *end))
            .collect();
        for (start, end) in overlapping {
            if start > at {
                fresh.push(FileRange::new(at, start));
            }
            at = at.max(end);
        }
        if at < range.end() {
            fresh.push(FileRange::new(at, range.end()));
        }
        fresh.into_iter().fold(false, |noted, new| self.note(file, new) | noted)
    }

    fn note(&mut self, file: FileIx, new: FileRange) -> bool {
        let goes_on = |s: &&mut Step| {
            s.file == file && s.range.end() == new.start() && s.range.len() < LONGEST
        };
        let recent = self.steps.len().saturating_sub(SIDE_BY_SIDE);
        let full = self.steps.len() >= MAX_STEPS;
        match self.steps[recent..].iter_mut().rev().find(goes_on) {
            Some(step) => step.range = FileRange::new(step.range.start(), new.end()),
            None if full => return false,
            None => self.steps.push(Step { file, range: new }),
        }
        self.bytes += new.len();
        let seen = self.seen.entry(file).or_default();
        // Merged with its neighbours, so that there are only as many ranges as gaps.
        let end = seen.remove(&new.end()).unwrap_or(new.end());
        match seen.range_mut(..new.start()).next_back().filter(|(_, e)| **e == new.start()) {
            Some((_, before)) => *before = end,
            None => drop(seen.insert(new.start(), end)),
        }
        true
    }

    /// The steps so far.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Bytes touched.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::fetch::prefetch) fn step(file: u32, start: u64, end: u64) -> Step {
        Step { file: FileIx(file), range: FileRange::new(start, end) }
    }

    pub(in crate::fetch::prefetch) fn record(touches: &[Step]) -> TraceRecorder {
        let mut recording = TraceRecorder::default();
        for t in touches {
            recording.touch(t.file, t.range);
        }
        recording
    }

    #[test]
    fn first_touches_are_kept_in_order_and_joined() {
        let all = record(&[
            step(0, 0, 10),
            step(0, 10, 20),
            step(1, 0, 5),
            step(0, 15, 30),
            step(1, 0, 5),
            step(0, 50, 60),
            step(0, 40, 70),
        ]);
        let want = [step(0, 0, 30), step(1, 0, 5), step(0, 50, 70), step(0, 40, 50)];
        assert_eq!((all.steps(), all.bytes()), (&want[..], 65));
    }

    #[test]
    fn concurrent_readers_make_a_step_each() {
        let touches: Vec<_> =
            (0..100).flat_map(|n| (0..8).map(move |f| step(f, n * 10, n * 10 + 10))).collect();
        let all = record(&touches);
        assert_eq!((all.steps().len(), all.bytes()), (8, 8000));
    }
}
