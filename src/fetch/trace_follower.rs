//! Access traces: records the first touches of a load and compares them with the trace of the previous
//! one.
//!
//! Invariant: a recording holds each byte at most once, in order of first touch. A load that follows the
//! trace is prefetched at most one window ahead; one that deviates is left alone. Pure: the caller
//! fetches.

use std::collections::{BTreeMap, HashMap};

use crate::base::FileRange;
use crate::model::FileIx;
use crate::model::trace::{MAX_STEPS, Step};

/// Number of consecutive touches that the earlier load made much later or never, after which the load has
/// deviated: more than a program has threads that look around before they load.
const STRAYS: u32 = 16;

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
    led: u64,
    window: u64,
    strays: u32,
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
        Self { steps, marks, places, end, at: 0, led: 0, window, strays: 0, jump: None }
    }

    /// Bytes of the earlier load.
    pub fn bytes(&self) -> u64 {
        self.end
    }

    /// Whether the load has deviated from the trace.
    pub fn has_strayed(&self) -> bool {
        self.strays >= STRAYS
    }

    /// Reports a touch. Returns what to fetch now, in order.
    pub fn touch(&mut self, file: FileIx, range: FileRange) -> Vec<Step> {
        if self.has_strayed() {
            return Vec::new();
        }
        match self.mark(file, range) {
            // At most one window past the requested bytes: the load follows. It will not need what it
            // skipped.
            Some(mark) if mark <= self.led.saturating_add(self.window) => {
                self.strays = 0;
                self.at = self.at.max(mark);
            }
            // The earlier load went there later. One such touch is a look; if the load continues from
            // there, the follower goes on.
            Some(mark) => {
                let goes_on = |from: u64| mark > from && mark - from <= self.window;
                let begins = (self.at, self.led) == (0, 0);
                if !begins && !self.jump.is_some_and(goes_on) {
                    (self.jump, self.strays) = (Some(mark), self.strays + 1);
                    return Vec::new();
                }
                self.jump = None;
                (self.at, self.led) = (mark, mark);
            }
            None => {
                self.strays += 1;
                return Vec::new();
            }
        }
        self.lead()
    }

    /// The mark that this touch reaches, if the earlier load made it.
    fn mark(&self, file: FileIx, range: FileRange) -> Option<u64> {
        let (_, ix) = self.places.get(&file)?.range(..range.end()).next_back()?;
        let step = self.steps[*ix].range;
        let common = step.intersect(&range);
        (!common.is_empty()).then(|| self.marks[*ix] + (common.end() - step.start()))
    }

    fn lead(&mut self) -> Vec<Step> {
        let to = self.at.saturating_add(self.window).min(self.end);
        let from = self.led.max(self.at);
        // In portions large enough for a request, not a page per touch.
        if from >= to || (to < self.end && to - from < self.window / 4) {
            return Vec::new();
        }
        self.led = to;
        let first = self.marks.partition_point(|mark| *mark <= from).saturating_sub(1);
        let led = self.steps[first..].iter().zip(&self.marks[first..]);
        led.take_while(|(_, mark)| **mark < to)
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
    use super::*;
    use proptest::prelude::*;

    fn step(file: u32, start: u64, end: u64) -> Step {
        Step { file: FileIx(file), range: FileRange::new(start, end) }
    }

    fn record(touches: &[Step]) -> TraceRecorder {
        let mut recording = TraceRecorder::default();
        for t in touches {
            recording.touch(t.file, t.range);
        }
        recording
    }

    #[test]
    fn first_touches_in_order_and_joined() {
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
    fn who_goes_the_same_way_is_led_a_window_ahead() {
        let line = vec![step(0, 0, 100), step(1, 500, 600), step(0, 300, 400)];
        let mut follower = TraceFollower::new(line, 120);
        assert_eq!(
            follower.touch(FileIx(0), FileRange::new(0, 10)),
            [step(0, 10, 100), step(1, 500, 530)]
        );
        assert_eq!(follower.touch(FileIx(0), FileRange::new(10, 20)), [], "not for so little");
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
        assert!(!follower.has_strayed());
    }

    #[test]
    fn who_goes_another_way_is_left_alone() {
        let mut follower = TraceFollower::new(vec![step(0, 0, 1000)], 100);
        follower.touch(FileIx(0), FileRange::new(0, 10));
        for n in 0..u64::from(STRAYS) {
            follower.touch(FileIx(5), FileRange::at(n * 10, 10));
        }
        assert!(follower.has_strayed());
        assert_eq!(follower.touch(FileIx(0), FileRange::new(500, 510)), []);
    }

    #[test]
    fn a_look_far_ahead_changes_nothing_until_it_goes_on_there() {
        let mut follower = TraceFollower::new(vec![step(0, 0, 1000), step(1, 0, 1000)], 100);
        assert_eq!(follower.touch(FileIx(0), FileRange::new(0, 50)), [step(0, 50, 150)]);
        assert_eq!(follower.touch(FileIx(1), FileRange::new(0, 10)), [], "a header");
        assert_eq!(follower.touch(FileIx(0), FileRange::new(50, 100)), [step(0, 150, 200)]);
        assert_eq!(follower.touch(FileIx(1), FileRange::new(500, 510)), [], "far from there, too");
        assert_eq!(follower.touch(FileIx(1), FileRange::new(510, 550)), [step(1, 550, 650)]);
        assert!(!follower.has_strayed());
    }

    #[test]
    fn readers_side_by_side_make_a_step_each() {
        let touches: Vec<_> =
            (0..100).flat_map(|n| (0..8).map(move |f| step(f, n * 10, n * 10 + 10))).collect();
        let all = record(&touches);
        assert_eq!((all.steps().len(), all.bytes()), (8, 8000));
    }

    #[test]
    fn who_begins_elsewhere_is_led_from_there() {
        let mut follower = TraceFollower::new(vec![step(0, 0, 1000), step(1, 0, 1000)], 100);
        assert_eq!(follower.touch(FileIx(1), FileRange::new(0, 50)), [step(1, 50, 150)]);
        assert!(!follower.has_strayed());
    }

    proptest! {
        #[test]
        fn every_byte_once_and_none_before_its_turn(
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
            let mut led = Vec::new();
            for t in &touches {
                led.extend(follower.touch(t.file, t.range));
            }
            let led = bytes(&led);
            let mut at = line.iter();
            prop_assert!(led.iter().all(|byte| at.any(|l| l == byte)), "in order, nothing twice");
        }
    }
}
