//! A network line as arithmetic: when what is sent now arrives, and who has to wait before sending.
//!
//! Invariant: what one lane carries arrives in the order in which it was sent, never faster than
//! the line's bandwidth, never sooner than its delay. Pure values of times that the caller gives;
//! whoever shares a lane keeps it behind a lock.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What may wait in the line's own queue, as in a router that is sized well: more would only delay
/// small answers behind large ones, and less would let the line idle between two looks at a clock
/// of milliseconds.
const QUEUE: Duration = Duration::from_millis(20);
/// The window of a connection whose line has no bandwidth to make one of: Linux's usual largest.
const LARGEST_WINDOW: u64 = 6 << 20;
/// The least window: short lines must not stand still between two blocks.
const LEAST_WINDOW: u64 = 512 << 10;

/// A line between two machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// There and back.
    pub round_trip: Duration,
    /// In each direction, all connections together; none: no limit.
    pub bits_per_second: Option<u64>,
}

impl Line {
    /// One way.
    pub fn delay(&self) -> Duration {
        self.round_trip / 2
    }

    /// How long bytes take to get onto the line.
    pub fn takes(&self, bytes: u64) -> Duration {
        self.bits_per_second.map_or(Duration::ZERO, |bits| {
            Duration::from_nanos((u128::from(bytes) * 8_000_000_000 / u128::from(bits)) as u64)
        })
    }

    /// What one connection may have under way: enough to fill the line with its queue, and a
    /// quarter more, so that no connection is what limits.
    pub fn window(&self) -> u64 {
        self.bits_per_second.map_or(LARGEST_WINDOW, |bits| {
            let seconds = (self.round_trip + QUEUE).as_secs_f64();
            ((bits as f64 / 8.0 * seconds * 1.25) as u64).max(LEAST_WINDOW)
        })
    }
}

/// One direction of a line, which all connections share.
#[derive(Debug)]
pub struct Lane {
    line: Line,
    free: Instant,
}

impl Lane {
    /// An idle one.
    pub fn new(line: Line, now: Instant) -> Self {
        Self { line, free: now }
    }

    /// When somebody may send: as soon as the queue is short enough.
    pub fn open_at(&self, now: Instant) -> Instant {
        self.free.checked_sub(QUEUE).map_or(now, |at| at.max(now))
    }

    /// Sends; when the last byte arrives. A line that was idle has saved nothing up.
    pub fn send(&mut self, now: Instant, bytes: u64) -> Instant {
        self.free = self.free.max(now) + self.line.takes(bytes);
        self.free + self.line.delay()
    }
}

/// What one connection has under way: sent and not yet acknowledged.
#[derive(Debug)]
pub struct Window {
    limit: u64,
    under_way: VecDeque<(Instant, u64)>,
    bytes: u64,
}

impl Window {
    /// With nothing under way.
    pub fn new(limit: u64) -> Self {
        Self { limit, under_way: VecDeque::new(), bytes: 0 }
    }

    /// When somebody may send: as soon as less than the limit is under way.
    pub fn open_at(&mut self, now: Instant) -> Instant {
        while let Some((at, bytes)) = self.under_way.front().copied() {
            if at > now {
                return if self.bytes < self.limit { now } else { at };
            }
            self.bytes -= bytes;
            self.under_way.pop_front();
        }
        now
    }

    /// Notes what was sent and when its acknowledgement comes.
    pub fn sent(&mut self, bytes: u64, acknowledged: Instant) {
        self.under_way.push_back((acknowledged, bytes));
        self.bytes += bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// 1 MB/s, 50 ms there and back.
    fn slow() -> Line {
        Line { round_trip: 50 * MS, bits_per_second: Some(8_000_000) }
    }

    #[test]
    fn bytes_arrive_one_after_another_at_the_lines_pace() {
        let start = Instant::now();
        let mut lane = Lane::new(slow(), start);
        assert_eq!(lane.send(start, 1000), start + 26 * MS, "1 ms onto the line, 25 under way");
        assert_eq!(lane.send(start, 2000), start + 28 * MS, "behind the first");
        assert_eq!(lane.send(start + 10 * MS, 1000), start + 36 * MS, "idle time is lost");
    }

    #[test]
    fn any_number_of_senders_get_the_bandwidth_and_no_more() {
        let start = Instant::now();
        let mut lane = Lane::new(slow(), start);
        let mut now = start;
        let mut last = start;
        for _ in 0..1000 {
            now = lane.open_at(now);
            last = lane.send(now, 1000);
        }
        assert_eq!(last, start + 1000 * MS + 25 * MS);
        assert!(now + QUEUE >= start + 998 * MS, "no sooner than the queue allows: {now:?}");
    }

    #[test]
    fn a_line_without_limit_only_delays() {
        let start = Instant::now();
        let line = Line { round_trip: 10 * MS, bits_per_second: None };
        let mut lane = Lane::new(line, start);
        assert_eq!(lane.send(start, u64::MAX / 16), start + 5 * MS);
        assert_eq!(lane.open_at(start), start);
        assert_eq!(line.window(), LARGEST_WINDOW);
    }

    #[test]
    fn a_window_opens_with_the_acknowledgements() {
        let start = Instant::now();
        let mut window = Window::new(10);
        assert_eq!(window.open_at(start), start);
        window.sent(6, start + 50 * MS);
        assert_eq!(window.open_at(start), start, "room for one more");
        window.sent(6, start + 60 * MS);
        assert_eq!(window.open_at(start), start + 50 * MS);
        assert_eq!(window.open_at(start + 50 * MS), start + 50 * MS, "the first is acknowledged");
        window.sent(6, start + 99 * MS);
        assert_eq!(window.open_at(start + 51 * MS), start + 60 * MS);
        assert_eq!(window.open_at(start + 100 * MS), start + 100 * MS);
    }

    #[test]
    fn a_window_fills_its_line() {
        let line = Line { round_trip: 50 * MS, bits_per_second: Some(1_000_000_000) };
        assert!(line.takes(line.window()) >= line.round_trip + QUEUE);
    }
}
