//! Heartbeat: detects a hung worker, which is pinged at intervals and answers on its runtime.
//!
//! Invariant: only several unanswered pings in a row count, so neither a suspended machine nor a
//! stopped supervisor makes a worker look hung. Pure: the caller brings the ticks.

use std::time::Duration;

/// Number of unanswered pings after which the worker counts as hung.
const QUESTIONS: u32 = 3;

/// What to do at a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// Send a ping.
    Ask,
    /// The worker was silent for the whole timeout.
    Hangs,
}

/// The pings to one worker.
#[derive(Debug, Default)]
pub struct Heartbeat {
    unanswered: u32,
}

impl Heartbeat {
    /// The interval between ticks for a hang timeout of `most`; none: no timeout.
    pub fn every(most: Duration) -> Option<Duration> {
        (most > Duration::ZERO).then(|| most / QUESTIONS)
    }

    /// The worker answered.
    pub fn answered(&mut self) {
        self.unanswered = 0;
    }

    /// An interval has passed.
    pub fn tick(&mut self) -> Beat {
        if self.unanswered >= QUESTIONS {
            return Beat::Hangs;
        }
        self.unanswered += 1;
        Beat::Ask
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_several_missed_pings_count_as_a_hang() {
        let mut heartbeat = Heartbeat::default();
        for _ in 0..10 {
            assert_eq!([heartbeat.tick(), heartbeat.tick(), heartbeat.tick()], [Beat::Ask; 3]);
            heartbeat.answered();
        }
        assert_eq!([heartbeat.tick(), heartbeat.tick(), heartbeat.tick()], [Beat::Ask; 3]);
        assert_eq!(heartbeat.tick(), Beat::Hangs);
    }

    #[test]
    fn a_hang_timeout_of_zero_disables_the_heartbeat() {
        assert_eq!(Heartbeat::every(Duration::ZERO), None);
        assert_eq!(Heartbeat::every(Duration::from_secs(30)), Some(Duration::from_secs(10)));
    }
}
