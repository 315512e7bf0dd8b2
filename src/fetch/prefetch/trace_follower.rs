//! Follows the trace of the previous load of a version, and says what to fetch ahead.
//!
//! Invariant: a load that follows the trace is prefetched at most one window ahead; one that deviates is
//! left alone. Pure: the caller fetches.

use std::collections::{BTreeMap, HashMap};

use crate::base::FileRange;
use crate::model::FileIx;
use crate::model::trace::Step;

/// Number of consecutive touches that the earlier load made much later or never, after which the load has
/// deviated: more than a program has threads that look around before they load.
const DEVIATIONS: u32 = 16;

/// Follows the trace of an earlier load. A *mark* is an offset in the concatenated steps.
#[derive(Debug)]
pub struct TraceFollower {
    steps: Vec<Step>,
    /// The mark at which each step begins.
    marks: Vec<u64>,
    /// By file: the start of each step's range, and the index of the step.
    places: HashMap<FileIx, BTreeMap<u64, usize>>,
    end: u64,
    /// The mark that the load has reached.
    at: u64,
    /// The mark up to which bytes were requested ahead.
    requested: u64,
    window: u64,
    deviations: u32,
    /// Mark of a touch far ahead: the load is there only if it continues from there.
    jump: Option<u64>,
}

impl TraceFollower {
    /// A follower along these steps, at most `window` bytes ahead.
    pub fn new(steps: Vec<Step>, window: u64) -> Self {
        let (mut marks, mut end) = (Vec::with_capacity(steps.len()), 0u64);
        let mut places: HashMap<FileIx, BTreeMap<u64, usize>> = HashMap::new();
        for (ix, step) in steps.iter().enumerate() {
            marks.push(end);
            end = end.saturating_add(step.range.len());
            places.entry(step.file).or_default().entry(step.range.start()).or_insert(ix);
        }
        Self { steps, marks, places, end, at: 0, requested: 0, window, deviations: 0, jump: None }
    }

    /// Bytes of the earlier load.
    pub fn bytes(&self) -> u64 {
        self.end
    }

    /// Whether the load has deviated from the trace.
    pub fn has_deviated(&self) -> bool {
        self.deviations >= DEVIATIONS
    }

    /// Reports a touch. Returns what to fetch now, in order.
    pub fn touch(&mut self, file: FileIx, range: FileRange) -> Vec<Step> {
        if self.has_deviated() {
            return Vec::new();
        }
        match self.mark(file, range) {
            // At most one window past the requested bytes: the load follows. It will not need what it
            // skipped.
            Some(mark) if mark <= self.requested.saturating_add(self.window) => {
                self.deviations = 0;
                self.at = self.at.max(mark);
            }
            // The earlier load went there later. One such touch is a look; if the load continues from
            // there, the follower goes on.
            Some(mark) => {
                let goes_on = |from: u64| mark > from && mark - from <= self.window;
                let begins = (self.at, self.requested) == (0, 0);
                if !begins && !self.jump.is_some_and(goes_on) {
                    (self.jump, self.deviations) = (Some(mark), self.deviations + 1);
                    return Vec::new();
                }
                self.jump = None;
                (self.at, self.requested) = (mark, mark);
            }
            None => {
                self.deviations += 1;
                return Vec::new();
            }
        }
        self.next()
    }

    /// The mark that this touch reaches, if the earlier load made it.
    fn mark(&self, file: FileIx, range: FileRange) -> Option<u64> {
        let (_, ix) = self.places.get(&file)?.range(..range.end()).next_back()?;
        let step = self.steps[*ix].range;
        let common = step.intersect(&range);
        (!common.is_empty()).then(|| self.marks[*ix] + (common.end() - step.start()))
    }

    fn next(&mut self) -> Vec<Step> {
        let to = self.at.saturating_add(self.window).min(self.end);
        let from = self.requested.max(self.at);
        // In portions large enough for a request, not a page per touch.
        if from >= to || (to < self.end && to - from < self.window / 4) {
            return Vec::new();
        }
        self.requested = to;
        let first = self.marks.partition_point(|mark| *mark <= from).saturating_sub(1);
        let steps = self.steps[first..].iter().zip(&self.marks[first..]);
        steps
            .take_while(|(_, mark)| **mark < to)
            .map(|(step, mark)| {
                let start = step.range.start() + from.saturating_sub(*mark);
                let end = step.range.end().min(step.range.start() + (to - mark));
                Step { file: step.file, range: FileRange::new(start, end) }
            })
            .filter(|step| !step.range.is_empty())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::trace_recorder::tests::{record, step};
    use super::*;

    #[test]
    fn a_load_that_follows_the_trace_is_fetched_a_window_ahead() {
        let line = vec![step(0, 0, 100), step(1, 500, 600), step(0, 300, 400)];
        let mut follower = TraceFollower::new(line, 120);
        assert_eq!(
            follower.touch(FileIx(0), FileRange::new(0, 10)),
            [step(0, 10, 100), step(1, 500, 530)]
        );
        assert_eq!(
            follower.touch(FileIx(0), FileRange::new(10, 20)),
            [],
            "too little for a request"
        );
        assert_eq!(
            follower.touch(FileIx(1), FileRange::new(500, 510)),
            [step(1, 530, 600), step(0, 300, 330)]
        );
        assert_eq!(
            follower.touch(FileIx(0), FileRange::new(0, 10)),
            [],
            "again: it stays where it is"
        );
        assert_eq!(
            follower.touch(FileIx(1), FileRange::new(590, 600)),
            [step(0, 330, 400)],
            "the rest"
        );
        assert!(!follower.has_deviated());
    }

    #[test]
    fn a_load_that_deviates_is_left_alone() {
        let mut follower = TraceFollower::new(vec![step(0, 0, 1000)], 100);
        follower.touch(FileIx(0), FileRange::new(0, 10));
        for n in 0..u64::from(DEVIATIONS) {
            follower.touch(FileIx(5), FileRange::at(n * 10, 10));
        }
        assert!(follower.has_deviated());
        assert_eq!(follower.touch(FileIx(0), FileRange::new(500, 510)), []);
    }

    #[test]
    fn one_touch_far_ahead_changes_nothing_until_the_load_continues_there() {
        let mut follower = TraceFollower::new(vec![step(0, 0, 1000), step(1, 0, 1000)], 100);
        assert_eq!(follower.touch(FileIx(0), FileRange::new(0, 50)), [step(0, 50, 150)]);
        assert_eq!(follower.touch(FileIx(1), FileRange::new(0, 10)), [], "a header");
        assert_eq!(follower.touch(FileIx(0), FileRange::new(50, 100)), [step(0, 150, 200)]);
        assert_eq!(follower.touch(FileIx(1), FileRange::new(500, 510)), [], "far from there, too");
        assert_eq!(follower.touch(FileIx(1), FileRange::new(510, 550)), [step(1, 550, 650)]);
        assert!(!follower.has_deviated());
    }

    #[test]
    fn a_load_that_begins_elsewhere_is_followed_from_there() {
        let mut follower = TraceFollower::new(vec![step(0, 0, 1000), step(1, 0, 1000)], 100);
        assert_eq!(follower.touch(FileIx(1), FileRange::new(0, 50)), [step(1, 50, 150)]);
        assert!(!follower.has_deviated());
    }

    proptest! {
        #[test]
        fn each_byte_is_fetched_once_in_the_order_of_the_trace(
            touches in prop::collection::vec((0u32..3, 0u64..200, 1u64..60), 1..80),
            window in 8u64..200,
        ) {
            let touches: Vec<_> = touches.into_iter().map(|(f, a, n)| step(f, a, a + n)).collect();
            let recording = record(&touches);
            let bytes = |steps: &[Step]| {
                let all = steps.iter().flat_map(|s| (s.range.start()..s.range.end()).map(|b| (s.file, b)));
                all.collect::<Vec<_>>()
            };
            let mut once = bytes(recording.steps());
            prop_assert_eq!(once.len() as u64, recording.bytes());
            let line = once.clone();
            once.sort();
            once.dedup();
            prop_assert_eq!(once.len(), line.len());
            // The same load again: every byte is requested once, in the order in which the load needs it.
            let mut follower = TraceFollower::new(recording.steps().to_vec(), window);
            let mut ahead = Vec::new();
            for t in &touches {
                ahead.extend(follower.touch(t.file, t.range));
            }
            let ahead = bytes(&ahead);
            let mut at = line.iter();
            prop_assert!(ahead.iter().all(|byte| at.any(|l| l == byte)), "in order, nothing twice");
        }
    }
}
