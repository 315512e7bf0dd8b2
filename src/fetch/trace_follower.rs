//! What a load does, seen from its first touches: recorded, and compared with a load of before.
//!
//! Invariant: a recording has every byte at most once, in the order of first touches. A load that
//! goes where the one before it went is led ahead by at most a window; one that goes another way is
//! left alone. Pure: the caller brings touches and does what is said.

use std::collections::{BTreeMap, HashMap};

use crate::base::FileRange;
use crate::model::FileIx;
use crate::model::trace::{MAX_STEPS, Step};

/// How many touches in a row that the earlier load did not make, or made long after, mean that this
/// one goes another way: more than a program has threads that look around before they load.
const STRAYS: u32 = 16;

/// Readers of one load who read side by side: a few more than a machine has accelerators. What each
/// reads on is one step, up to a length that is an order of magnitude below the window, or the order
/// between them would be lost.
const SIDE_BY_SIDE: usize = 32;
const LONGEST: u64 = 4 << 20;

/// What was touched first, in order.
#[derive(Debug, Default)]
pub struct Recording {
    steps: Vec<Step>,
    /// By file: disjoint ranges, start to end.
    seen: HashMap<FileIx, BTreeMap<u64, u64>>,
    bytes: u64,
}

impl Recording {
    /// Notes a touch. Whether any of it was new.
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
        // Joined with its neighbours, so that there are as many as there are gaps.
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

/// Goes along with a load of before. Its steps are one line of bytes; a *mark* is a place on it.
#[derive(Debug)]
pub struct Guide {
    steps: Vec<Step>,
    /// The mark at which each step begins.
    marks: Vec<u64>,
    /// By file: the start of each step's range, and which step.
    places: HashMap<FileIx, BTreeMap<u64, usize>>,
    end: u64,
    /// How far the load has come.
    at: u64,
    /// How far it was led.
    led: u64,
    window: u64,
    strays: u32,
    /// Where a touch far ahead was: the load is there only if it goes on from there.
    jump: Option<u64>,
}

impl Guide {
    /// Along these steps, at most `window` bytes ahead.
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

    /// Whether the load goes another way.
    pub fn has_lost(&self) -> bool {
        self.strays >= STRAYS
    }

    /// A touch: what should be fetched now, in order.
    pub fn touch(&mut self, file: FileIx, range: FileRange) -> Vec<Step> {
        if self.has_lost() {
            return Vec::new();
        }
        match self.mark(file, range) {
            // Where it was led, or a bit farther: it follows. What it left out it will not need.
            Some(mark) if mark <= self.led.saturating_add(self.window) => {
                self.strays = 0;
                self.at = self.at.max(mark);
            }
            // It went there later, last time. Once is a look around; if it goes on from there, so
            // do we.
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
        // In portions worth a request, not a page at each touch.
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

    fn record(touches: &[Step]) -> Recording {
        let mut recording = Recording::default();
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
        let mut guide = Guide::new(line, 120);
        assert_eq!(
            guide.touch(FileIx(0), FileRange::new(0, 10)),
            [step(0, 10, 100), step(1, 500, 530)]
        );
        assert_eq!(guide.touch(FileIx(0), FileRange::new(10, 20)), [], "not for so little");
        assert_eq!(
            guide.touch(FileIx(1), FileRange::new(500, 510)),
            [step(1, 530, 600), step(0, 300, 330)]
        );
        assert_eq!(
            guide.touch(FileIx(0), FileRange::new(0, 10)),
            [],
            "again: it stays where it is"
        );
        assert_eq!(
            guide.touch(FileIx(1), FileRange::new(590, 600)),
            [step(0, 330, 400)],
            "the rest"
        );
        assert!(!guide.has_lost());
    }

    #[test]
    fn who_goes_another_way_is_left_alone() {
        let mut guide = Guide::new(vec![step(0, 0, 1000)], 100);
        guide.touch(FileIx(0), FileRange::new(0, 10));
        for n in 0..u64::from(STRAYS) {
            guide.touch(FileIx(5), FileRange::at(n * 10, 10));
        }
        assert!(guide.has_lost());
        assert_eq!(guide.touch(FileIx(0), FileRange::new(500, 510)), []);
    }

    #[test]
    fn a_look_far_ahead_changes_nothing_until_it_goes_on_there() {
        let mut guide = Guide::new(vec![step(0, 0, 1000), step(1, 0, 1000)], 100);
        assert_eq!(guide.touch(FileIx(0), FileRange::new(0, 50)), [step(0, 50, 150)]);
        assert_eq!(guide.touch(FileIx(1), FileRange::new(0, 10)), [], "a header");
        assert_eq!(guide.touch(FileIx(0), FileRange::new(50, 100)), [step(0, 150, 200)]);
        assert_eq!(guide.touch(FileIx(1), FileRange::new(500, 510)), [], "far from there, too");
        assert_eq!(guide.touch(FileIx(1), FileRange::new(510, 550)), [step(1, 550, 650)]);
        assert!(!guide.has_lost());
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
        let mut guide = Guide::new(vec![step(0, 0, 1000), step(1, 0, 1000)], 100);
        assert_eq!(guide.touch(FileIx(1), FileRange::new(0, 50)), [step(1, 50, 150)]);
        assert!(!guide.has_lost());
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
            // The same load again: it is led to every byte once, in the order in which it needs them.
            let mut guide = Guide::new(recording.steps().to_vec(), window);
            let mut led = Vec::new();
            for t in &touches {
                led.extend(guide.touch(t.file, t.range));
            }
            let led = bytes(&led);
            let mut at = line.iter();
            prop_assert!(led.iter().all(|byte| at.any(|l| l == byte)), "in order, nothing twice");
        }
    }
}
