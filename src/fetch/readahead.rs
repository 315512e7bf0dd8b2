//! How far to read ahead of a reader: decided from the reads of one open file.
//!
//! Invariant: a reader that jumps about causes no readahead at all; one that goes on where it
//! stopped gets a window that doubles. Pure: one value per handle, no I/O.

use crate::base::FileRange;

/// The first window. The kernel asks in pieces of 128 KiB, so this keeps eight ahead.
const FIRST_WINDOW: u64 = 1 << 20;
/// The largest window: what 1 Gbit/s holds in flight at 250 ms; also within the memory for
/// fetches that nobody waits for.
const MAX_WINDOW: u64 = 32 << 20;
/// Requests of one sequential reader may come in another order when several threads take them
/// from the kernel: this far from the expected place still counts as going on.
const SLACK: u64 = 2 << 20;

/// The reads of one open file so far.
#[derive(Debug, Clone)]
pub struct Readahead {
    /// The largest window.
    most: u64,
    /// Where the next sequential read would start; none before the first.
    next: Option<u64>,
    /// The current window; 0 while reads are random.
    window: u64,
    /// Everything before this was already asked for.
    asked: u64,
}

impl Default for Readahead {
    fn default() -> Self {
        Self { most: MAX_WINDOW, next: None, window: 0, asked: 0 }
    }
}

impl Readahead {
    /// Within a cache of `limit` bytes: an eighth of it at most, or what was fetched ahead would
    /// push itself out before it is read.
    pub fn within(limit: u64) -> Self {
        Self { most: (limit / 8).clamp(FIRST_WINDOW, MAX_WINDOW), ..Self::default() }
    }

    /// A read of `range` in a file of `len` bytes: what should be fetched ahead now, if anything.
    pub fn on_read(&mut self, range: FileRange, len: u64) -> Option<FileRange> {
        let expected = self.next;
        let goes_on = expected.is_some_and(|at| {
            range.start() + SLACK >= at && range.start() <= at + SLACK.min(self.window)
        });
        let end = range.end().min(len);
        if !goes_on {
            self.next = Some(end);
            self.window = 0;
            self.asked = end;
            return None;
        }
        self.next = expected.map(|at| at.max(end));
        let behind_window = self.asked < end + self.window / 2;
        if !behind_window {
            return None;
        }
        self.window = (self.window * 2).clamp(FIRST_WINDOW, self.most);
        let start = self.asked.max(end);
        let stop = (end + self.window).min(len);
        self.asked = self.asked.max(stop);
        (start < stop).then(|| FileRange::new(start, stop))
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
            assert_eq!(r.on_read(FileRange::at(at, KERNEL), len), None);
        }
    }

    #[test]
    fn a_sequential_reader_gets_a_growing_window_without_overlap() {
        let mut r = Readahead::default();
        let len = 256 << 20;
        let (mut largest, mut covered) = (0, 0);
        for at in (0..len).step_by(KERNEL as usize) {
            if let Some(ahead) = r.on_read(FileRange::at(at, KERNEL), len) {
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
        assert_eq!(r.on_read(FileRange::at(500 << 20, KERNEL), len), None);
        let next = r.on_read(FileRange::at((500 << 20) + KERNEL, KERNEL), len).unwrap();
        assert_eq!(next.len(), FIRST_WINDOW);
    }

    proptest! {
        #[test]
        fn never_beyond_the_file(len in 1u64..1 << 32, reads in proptest::collection::vec((0u64..1 << 32, 1u64..1 << 21), 1..50)) {
            let mut r = Readahead::default();
            for (at, n) in reads {
                let range = FileRange::at(at % len, n);
                if let Some(ahead) = r.on_read(range, len) {
                    prop_assert!(ahead.end() <= len && !ahead.is_empty());
                    prop_assert!(ahead.len() <= MAX_WINDOW);
                }
            }
        }
    }
}
