//! Readahead windows: how far to read ahead, decided from the reads of one open file.
//!
//! Invariant: random reads cause no readahead, except a jump to the beginning of a tensor: that fetches
//! the tensor and its likely successor. A sequential reader gets a window that grows. So do a few readers
//! at different places through one handle, as threads with one descriptor or map, or without a handle.
//! Pure: one value per handle, or per inode that is read without one; no I/O.

use crate::base::FileRange;
use crate::model::tensors::TensorMap;

/// The first window, in requests. The kernel sends larger requests the longer a reader is sequential: a
/// reader of a header in small pieces gets a leaf or two, a reader of a MiB at a time needs few round
/// trips until the line is full.
const FIRST_REQUESTS: u64 = 8;
/// Minimum size of the first window: the usual leaf.
const FIRST_WINDOW: u64 = 128 << 10;
/// Maximum growth factor of a window: a line of 1 Gbit/s and 50 ms is full after the third.
const GROWTH: u64 = 4;
/// Maximum window: twice what 1 Gbit/s holds in flight at 250 ms, since requests that share a line tend
/// to end together, and the line should not idle until the next ones are answered.
const MAX_WINDOW: u64 = 64 << 20;
/// Maximum lag of a large window before it is extended. Concurrent requests share the line and end
/// together: extending it only then would leave the line idle for a round trip.
const STEP: u64 = 8 << 20;
/// Maximum number of streams of one handle: the threads with which tools load one file. More would make a
/// random read more likely to look sequential.
const STREAMS: usize = 4;
/// Maximum number of streams of a file that several processes read, which cannot be told apart: eight
/// with two each.
const SHARED_STREAMS: usize = 16;
/// Minimum size of a kernel read.
const PAGE: u64 = 4096;
/// Requests of one sequential reader may arrive out of order when several threads take them from the
/// kernel: within this distance of the expected offset a read still counts as sequential.
const SLACK: u64 = 2 << 20;

/// The reads of one open file so far.
#[derive(Debug, Clone)]
pub struct Readahead {
    /// Maximum window.
    most: u64,
    /// Streams, most recently used first.
    streams: Vec<Stream>,
    /// Maximum number of streams.
    places: usize,
    /// Index of the last tensor that a jump began, and its distance from the one before.
    last: Option<(usize, isize)>,
}

/// A sequential reader, or a single read that may become one.
#[derive(Debug, Clone)]
struct Stream {
    /// Where the next sequential read would start.
    next: u64,
    /// The current window; 0 until the stream is sequential.
    window: u64,
    /// Everything before this offset was already requested.
    asked: u64,
    /// Readahead limit: the end of a tensor from which the reader will probably jump.
    bound: u64,
}

impl Stream {
    fn goes_on(&self, range: FileRange) -> bool {
        // A stream of one read gets less slack: a random read may fall anywhere.
        let back = if self.window > 0 { SLACK } else { range.len() };
        let farthest = self.next + SLACK.min(self.window);
        range.start() + back >= self.next && range.start() <= farthest
    }
}

/// The pattern that a read belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessPattern {
    /// Sequential: the read continues a stream. The range, if any, should be fetched ahead now.
    On(Option<FileRange>),
    /// Not sequential. A map of the tensors may explain it.
    Jump,
}

impl Default for Readahead {
    fn default() -> Self {
        Self { most: MAX_WINDOW, streams: Vec::new(), places: STREAMS, last: None }
    }
}

impl Readahead {
    /// For a cache with `room` bytes, by its limit and its disk. A window is at most an eighth of it, or
    /// readahead would evict itself before it is read.
    pub fn within(room: u64) -> Self {
        Self { most: (room / 8).clamp(FIRST_WINDOW, MAX_WINDOW), ..Self::default() }
    }

    /// The same, shared by all readers of a file.
    pub fn shared_within(room: u64) -> Self {
        Self { places: SHARED_STREAMS, ..Self::within(room) }
    }

    /// Records a read of `range` in a file of `len` bytes.
    pub fn on_read(&mut self, range: FileRange, len: u64) -> AccessPattern {
        let end = range.end().min(len);
        // a stream at the end of the file reads no more and takes no share of the window
        self.streams.retain(|stream| stream.next < len);
        let Some(ix) = self.streams.iter().position(|stream| stream.goes_on(range)) else {
            self.streams.truncate(self.places - 1);
            let stream = Stream { next: end, window: 0, asked: end, bound: u64::MAX };
            self.streams.insert(0, stream);
            return AccessPattern::Jump;
        };
        self.streams[..=ix].rotate_right(1);
        // All streams share the window of one.
        let others = self.streams[1..].iter().filter(|other| other.window > 0).count() as u64;
        let most = (self.most / (1 + others)).max(FIRST_WINDOW);
        let stream = &mut self.streams[0];
        if range.end() > stream.bound {
            stream.bound = u64::MAX;
        }
        stream.next = stream.next.max(end);
        let behind_window = stream.asked + (stream.window / 2).min(STEP) < end + stream.window;
        if !behind_window {
            return AccessPattern::On(None);
        }
        let first = (range.len() * FIRST_REQUESTS).max(FIRST_WINDOW);
        stream.window = (stream.window * GROWTH).clamp(first.min(most), most);
        let start = stream.asked.max(end);
        let stop = (end + stream.window).min(len).min(stream.bound);
        stream.asked = stream.asked.max(stop);
        AccessPattern::On((start < stop).then(|| FileRange::new(start, stop)))
    }

    /// After a jump to `range` in a file with these tensors: what to fetch ahead now, most urgent first.
    /// Empty if no tensor begins there.
    pub fn on_jump(&mut self, range: FileRange, tensors: &TensorMap) -> Vec<FileRange> {
        // A read of a program begins at the tensor, a read of the kernel at its page boundary.
        let page = FileRange::new(range.start().saturating_sub(PAGE), range.end());
        let Some((ix, tensor)) = tensors.begun_in(page) else { return Vec::new() };
        // If the stream has read on or was dropped meanwhile, this readahead is too late.
        let jumped = |s: &&mut Stream| s.window == 0 && s.next == range.end();
        let Some(stream) = self.streams.iter_mut().find(jumped) else { return Vec::new() };
        let step = self.last.map_or(1, |(last, _)| ix as isize - last as isize);
        // A step counts as usual when it repeats; file order counts at once.
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
    fn random_reads_cause_no_readahead() {
        let mut r = Readahead::default();
        let len = 1 << 30;
        for at in [500 << 20, 3 << 20, 900 << 20, 100 << 20] {
            assert_eq!(r.on_read(FileRange::at(at, KERNEL), len), AccessPattern::Jump);
        }
    }

    #[test]
    fn a_sequential_reader_gets_a_growing_window_without_overlap() {
        let mut r = Readahead::default();
        let len = 256 << 20;
        let (mut largest, mut covered) = (0, 0);
        for at in (0..len).step_by(KERNEL as usize) {
            if let AccessPattern::On(Some(ahead)) = r.on_read(FileRange::at(at, KERNEL), len) {
                assert!(ahead.start() >= covered && ahead.end() <= len);
                covered = ahead.end();
                largest = largest.max(ahead.end() - (at + KERNEL));
            }
        }
        assert_eq!((largest, covered), (MAX_WINDOW, len));
    }

    #[test]
    fn a_jump_starts_again_with_the_first_window() {
        let mut r = Readahead::default();
        let len = 1 << 30;
        for at in (0..8 << 20).step_by(KERNEL as usize) {
            r.on_read(FileRange::at(at, KERNEL), len);
        }
        assert_eq!(r.on_read(FileRange::at(500 << 20, KERNEL), len), AccessPattern::Jump);
        let next = r.on_read(FileRange::at((500 << 20) + KERNEL, KERNEL), len);
        assert!(
            matches!(next, AccessPattern::On(Some(next)) if next.len() == FIRST_REQUESTS * KERNEL)
        );
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
                    AccessPattern::Jump => assert_eq!(at, 0),
                    AccessPattern::On(Some(more)) => {
                        assert!(more.start() >= range.end() && more.end() <= (thread + 1) * share);
                        ahead[thread as usize] = more.end() - range.end();
                    }
                    AccessPattern::On(None) => {}
                }
            }
        }
        assert_eq!(ahead, [MAX_WINDOW / STREAMS as u64; STREAMS]);
        // Another stream replaces the one that was idle longest.
        assert_eq!(r.on_read(FileRange::at(200 << 20, KERNEL), len), AccessPattern::Jump);
        assert_eq!(
            r.on_read(FileRange::at(2 * share + (64 << 20), KERNEL), len),
            AccessPattern::Jump
        );
    }

    #[test]
    fn a_tensor_map_that_comes_after_the_stream_read_on_causes_nothing() {
        let (map, len) = tensors(&[40, 60]);
        let mut r = Readahead::default();
        let range = FileRange::at(map.extents()[1].start(), KERNEL);
        assert_eq!(r.on_read(range, len), AccessPattern::Jump);
        let next = FileRange::at(range.end(), KERNEL);
        assert!(matches!(r.on_read(next, len), AccessPattern::On(Some(_))));
        assert_eq!(r.on_jump(range, &map), [], "it reads on already");
    }

    /// Consecutive tensors of these sizes in MiB, after a header of 1 MiB.
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
        assert_eq!(r.on_read(range, len), AccessPattern::Jump);
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
    fn a_reader_that_jumps_from_tensor_to_tensor_gets_nothing_beyond_each_tensor() {
        let (map, len) = tensors(&[8, 8, 8, 8]);
        let mut r = Readahead { last: Some((3, 5)), ..Readahead::default() };
        let tensor = map.extents()[0];
        let first = jump(&mut r, &map, len, tensor.start());
        assert_eq!(first.len(), 1);
        for at in (tensor.start() + KERNEL..tensor.end()).step_by(KERNEL as usize) {
            let on = r.on_read(FileRange::at(at, KERNEL), len);
            assert_eq!(on, AccessPattern::On(None), "all of it is asked for already");
        }
        // A reader that continues past the tensor gets readahead again.
        let on = r.on_read(FileRange::at(tensor.end(), KERNEL), len);
        assert!(matches!(on, AccessPattern::On(Some(_))), "{on:?}");
    }

    proptest! {
        #[test]
        fn readahead_never_goes_beyond_the_file(len in 1u64..1 << 32, reads in proptest::collection::vec((0u64..1 << 32, 1u64..1 << 21), 1..50)) {
            let mut r = Readahead::default();
            for (at, n) in reads {
                let range = FileRange::at(at % len, n);
                if let AccessPattern::On(Some(ahead)) = r.on_read(range, len) {
                    prop_assert!(ahead.end() <= len && !ahead.is_empty());
                    prop_assert!(ahead.len() <= MAX_WINDOW);
                }
            }
        }
    }
}
