//! How far to read ahead of a reader: decided from the reads of one open file.
//!
//! Invariant: a reader that jumps about causes no readahead at all, unless it jumps to the beginning
//! of a tensor: then it gets the tensor, and what is likely the next one. One that goes on where it
//! stopped gets a window that grows; so do a few that read at different places through one handle, as
//! threads do with one descriptor or one map, or without any. Pure: one value per handle, or per inode
//! that is read without one; no I/O.

use crate::base::FileRange;
use crate::model::tensors::TensorMap;

/// The first window, in requests: the kernel asks for more the longer it believes in a reader. So
/// who reads a header in small pieces gets a leaf or two, and who reads a file a MiB at a time
/// needs few round trips until the line is full.
const FIRST_REQUESTS: u64 = 8;
/// The least that a first window has: the usual leaf.
const FIRST_WINDOW: u64 = 128 << 10;
/// How much larger a window is than the one before it, at most: a line of 1 Gbit/s and 50 ms is
/// full after the third.
const GROWTH: u64 = 4;
/// The largest window: twice what 1 Gbit/s holds in flight at 250 ms, since requests that share a line
/// tend to end together, and the line is not to be empty until the next ones answer.
const MAX_WINDOW: u64 = 64 << 20;
/// How far a large window may lag behind its reader before it is moved on. Requests side by side
/// share the line and end together: who asked again only then would leave it empty for a round trip.
const STEP: u64 = 8 << 20;
/// Places of one file that are remembered as being read on from: the threads that tools load one file
/// with. More would only make it likelier that a read at random looks like going on.
const STREAMS: usize = 4;
/// The same of a file that several processes read, and that cannot be told apart: eight with two each.
const SHARED_STREAMS: usize = 16;
/// What the kernel reads at least.
const PAGE: u64 = 4096;
/// Requests of one sequential reader may come in another order when several threads take them
/// from the kernel: this far from the expected place still counts as going on.
const SLACK: u64 = 2 << 20;

/// The reads of one open file so far.
#[derive(Debug, Clone)]
pub struct Readahead {
    /// The largest window.
    most: u64,
    /// Where somebody may read on, the latest first.
    streams: Vec<Stream>,
    /// How many of them.
    places: usize,
    /// The last tensor that was begun, and how far from the one before.
    last: Option<(usize, isize)>,
}

/// One who reads on from where it stopped, or has read once.
#[derive(Debug, Clone)]
struct Stream {
    /// Where the next sequential read would start.
    next: u64,
    /// The current window; 0 until it has read on.
    window: u64,
    /// Everything before this was already asked for.
    asked: u64,
    /// Where reading on is not likely any more: the end of a tensor from which the reader will jump.
    bound: u64,
}

impl Stream {
    fn goes_on(&self, range: FileRange) -> bool {
        // Who has read but once is believed less: a read at random may fall anywhere.
        let back = if self.window > 0 { SLACK } else { range.len() };
        let farthest = self.next + SLACK.min(self.window);
        range.start() + back >= self.next && range.start() <= farthest
    }
}

/// What a read tells about those that follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Course {
    /// It goes on where another stopped: this should be fetched ahead now, if anything.
    On(Option<FileRange>),
    /// It is elsewhere. A map of the file's tensors may tell why.
    Jump,
}

impl Default for Readahead {
    fn default() -> Self {
        Self { most: MAX_WINDOW, streams: Vec::new(), places: STREAMS, last: None }
    }
}

impl Readahead {
    /// Within a cache that has room for so many bytes, by its limit and its disk: an eighth of it at
    /// most, or what was fetched ahead would push itself out before it is read.
    pub fn within(room: u64) -> Self {
        Self { most: (room / 8).clamp(FIRST_WINDOW, MAX_WINDOW), ..Self::default() }
    }

    /// The same for all readers of a file together.
    pub fn shared_within(room: u64) -> Self {
        Self { places: SHARED_STREAMS, ..Self::within(room) }
    }

    /// A read of `range` in a file of `len` bytes.
    pub fn on_read(&mut self, range: FileRange, len: u64) -> Course {
        let end = range.end().min(len);
        // who has come to the end of the file reads on no more, and takes nothing of the window
        self.streams.retain(|stream| stream.next < len);
        let Some(ix) = self.streams.iter().position(|stream| stream.goes_on(range)) else {
            self.streams.truncate(self.places - 1);
            let stream = Stream { next: end, window: 0, asked: end, bound: u64::MAX };
            self.streams.insert(0, stream);
            return Course::Jump;
        };
        self.streams[..=ix].rotate_right(1);
        // All of them together get what one would.
        let others = self.streams[1..].iter().filter(|other| other.window > 0).count() as u64;
        let most = (self.most / (1 + others)).max(FIRST_WINDOW);
        let stream = &mut self.streams[0];
        if range.end() > stream.bound {
            stream.bound = u64::MAX;
        }
        stream.next = stream.next.max(end);
        let behind_window = stream.asked + (stream.window / 2).min(STEP) < end + stream.window;
        if !behind_window {
            return Course::On(None);
        }
        let first = (range.len() * FIRST_REQUESTS).max(FIRST_WINDOW);
        stream.window = (stream.window * GROWTH).clamp(first.min(most), most);
        let start = stream.asked.max(end);
        let stop = (end + stream.window).min(len).min(stream.bound);
        stream.asked = stream.asked.max(stop);
        Course::On((start < stop).then(|| FileRange::new(start, stop)))
    }

    /// After a jump to `range`, in a file with these tensors: what should be fetched ahead now, the
    /// most urgent first. Nothing if no tensor begins there.
    pub fn on_jump(&mut self, range: FileRange, tensors: &TensorMap) -> Vec<FileRange> {
        // A program's read begins where the tensor does, the kernel's with the page.
        let page = FileRange::new(range.start().saturating_sub(PAGE), range.end());
        let Some((ix, tensor)) = tensors.begun_in(page) else { return Vec::new() };
        // Who has read on meanwhile, or jumped again and again, is past being helped.
        let jumped = |s: &&mut Stream| s.window == 0 && s.next == range.end();
        let Some(stream) = self.streams.iter_mut().find(jumped) else { return Vec::new() };
        let step = self.last.map_or(1, |(last, _)| ix as isize - last as isize);
        // Once is chance, twice is a habit; the file's own order is one from the beginning.
        let usual = step == 1 || self.last.is_some_and(|(_, before)| before == step);
        self.last = Some((ix, step));
        stream.window = tensor.len().clamp(FIRST_WINDOW, self.most);
        stream.asked = tensor.end().min(range.end() + self.most);
        stream.bound = if step == 1 { u64::MAX } else { tensor.end() };
        let mut ahead = vec![FileRange::new(range.end(), stream.asked)];
        let next = ix.checked_add_signed(step).and_then(|ix| tensors.extents().get(ix));
        if let Some(next) = next.filter(|_| usual && step != 0) {
            let room = self.most.saturating_sub(ahead[0].len()).min(self.most / 2);
            let likely = FileRange::new(next.start(), next.end().min(next.start() + room));
            if step == 1 {
                stream.asked = stream.asked.max(likely.end());
            }
            ahead.push(likely);
        }
        ahead.retain(|range| !range.is_empty());
        ahead
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KERNEL: u64 = 128 << 10;

    #[test]
    fn random_reads_cause_none() {
        let mut r = Readahead::default();
        let len = 1 << 30;
        for at in [500 << 20, 3 << 20, 900 << 20, 100 << 20] {
            assert_eq!(r.on_read(FileRange::at(at, KERNEL), len), Course::Jump);
        }
    }

    #[test]
    fn a_sequential_reader_gets_a_growing_window_without_overlap() {
        let mut r = Readahead::default();
        let len = 256 << 20;
        let (mut largest, mut covered) = (0, 0);
        for at in (0..len).step_by(KERNEL as usize) {
            if let Course::On(Some(ahead)) = r.on_read(FileRange::at(at, KERNEL), len) {
                assert!(ahead.start() >= covered && ahead.end() <= len);
                covered = ahead.end();
                largest = largest.max(ahead.end() - (at + KERNEL));
            }
        }
        assert_eq!((largest, covered), (MAX_WINDOW, len));
    }

    #[test]
    fn a_jump_starts_again() {
        let mut r = Readahead::default();
        let len = 1 << 30;
        for at in (0..8 << 20).step_by(KERNEL as usize) {
            r.on_read(FileRange::at(at, KERNEL), len);
        }
        assert_eq!(r.on_read(FileRange::at(500 << 20, KERNEL), len), Course::Jump);
        let next = r.on_read(FileRange::at((500 << 20) + KERNEL, KERNEL), len);
        assert!(matches!(next, Course::On(Some(next)) if next.len() == FIRST_REQUESTS * KERNEL));
    }

    #[test]
    fn threads_that_share_a_handle_get_a_window_each() {
        let mut r = Readahead::default();
        let (len, share) = (1 << 30, 256 << 20);
        let mut ahead = [0; STREAMS];
        for at in (0..64 << 20).step_by(KERNEL as usize) {
            for thread in [2, 0, 3, 1] {
                let range = FileRange::at(thread * share + at, KERNEL);
                match r.on_read(range, len) {
                    Course::Jump => assert_eq!(at, 0),
                    Course::On(Some(more)) => {
                        assert!(more.start() >= range.end() && more.end() <= (thread + 1) * share);
                        ahead[thread as usize] = more.end() - range.end();
                    }
                    Course::On(None) => {}
                }
            }
        }
        assert_eq!(ahead, [MAX_WINDOW / STREAMS as u64; STREAMS]);
        // One more takes the place of the one that was idle longest.
        assert_eq!(r.on_read(FileRange::at(200 << 20, KERNEL), len), Course::Jump);
        assert_eq!(r.on_read(FileRange::at(2 * share + (64 << 20), KERNEL), len), Course::Jump);
    }

    #[test]
    fn a_map_that_comes_too_late_leads_nobody_astray() {
        let (map, len) = tensors(&[40, 60]);
        let mut r = Readahead::default();
        let range = FileRange::at(map.extents()[1].start(), KERNEL);
        assert_eq!(r.on_read(range, len), Course::Jump);
        let next = FileRange::at(range.end(), KERNEL);
        assert!(matches!(r.on_read(next, len), Course::On(Some(_))));
        assert_eq!(r.on_jump(range, &map), [], "it reads on already");
    }

    /// Tensors of so many MiB, one after another behind a header of one.
    fn tensors(mib: &[u64]) -> (TensorMap, u64) {
        let mut end = 0;
        let entries = mib.iter().enumerate().map(|(n, m)| {
            let start = end;
            end += m << 20;
            format!(r#""{n:05}":{{"data_offsets":[{start},{end}]}}"#)
        });
        let json = format!("{{{}}}", entries.collect::<Vec<_>>().join(","));
        let json = json.clone() + &" ".repeat((1 << 20) - 8 - json.len());
        let first = [&(json.len() as u64).to_le_bytes()[..], json.as_bytes()].concat();
        let len = (1 << 20) + end;
        match crate::model::tensors::header(&first, len) {
            crate::model::tensors::Header::Known(map) => (map, len),
            other => panic!("{other:?}"),
        }
    }

    fn jump(r: &mut Readahead, map: &TensorMap, len: u64, at: u64) -> Vec<FileRange> {
        let range = FileRange::at(at, KERNEL);
        assert_eq!(r.on_read(range, len), Course::Jump);
        r.on_jump(range, map)
    }

    #[test]
    fn a_jump_to_a_tensor_fetches_it_and_the_likely_next() {
        let (map, len) = tensors(&[4, 6, 8, 10, 2, 12]);
        let at = |ix: usize| map.extents()[ix];
        let rest = |ix: usize| FileRange::new(at(ix).start() + KERNEL, at(ix).end());
        let with = |last| Readahead { last, ..Readahead::default() };
        let mut r = with(None);
        assert_eq!(jump(&mut r, &map, len, at(0).start()), [rest(0), at(1)], "the file's order");
        assert_eq!(jump(&mut r, &map, len, at(3).start()), [rest(3)], "somewhere: no habit");
        let mut r = with(Some((5, 2)));
        assert_eq!(jump(&mut r, &map, len, at(3).start()), [rest(3)], "backwards, the first time");
        assert_eq!(jump(&mut r, &map, len, at(1).start()), [rest(1)], "again, but none is left");
        let mut r = with(Some((5, -1)));
        assert_eq!(jump(&mut r, &map, len, at(4).start()), [rest(4), at(3)], "a habit");
    }

    #[test]
    fn the_middle_of_a_tensor_fetches_nothing_more() {
        let (map, len) = tensors(&[40, 60]);
        let mut r = Readahead::default();
        assert_eq!(jump(&mut r, &map, len, 20 << 20), []);
        assert_eq!(jump(&mut r, &map, len, 70 << 20), []);
    }

    #[test]
    fn who_jumps_from_tensor_to_tensor_gets_nothing_behind_them() {
        let (map, len) = tensors(&[8, 8, 8, 8]);
        let mut r = Readahead { last: Some((3, 5)), ..Readahead::default() };
        let tensor = map.extents()[0];
        let first = jump(&mut r, &map, len, tensor.start());
        assert_eq!(first.len(), 1);
        for at in (tensor.start() + KERNEL..tensor.end()).step_by(KERNEL as usize) {
            let on = r.on_read(FileRange::at(at, KERNEL), len);
            assert_eq!(on, Course::On(None), "all of it is asked for already");
        }
        // But one that then goes on gets on.
        let on = r.on_read(FileRange::at(tensor.end(), KERNEL), len);
        assert!(matches!(on, Course::On(Some(_))), "{on:?}");
    }

    proptest! {
        #[test]
        fn never_beyond_the_file(len in 1u64..1 << 32, reads in proptest::collection::vec((0u64..1 << 32, 1u64..1 << 21), 1..50)) {
            let mut r = Readahead::default();
            for (at, n) in reads {
                let range = FileRange::at(at % len, n);
                if let Course::On(Some(ahead)) = r.on_read(range, len) {
                    prop_assert!(ahead.end() <= len && !ahead.is_empty());
                    prop_assert!(ahead.len() <= MAX_WINDOW);
                }
            }
        }
    }
}
