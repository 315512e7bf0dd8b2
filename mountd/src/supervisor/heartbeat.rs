//! Whether a worker still runs: it is pinged at intervals and answers from where its work is scheduled.
//!
//! Invariant: only silence to several questions in a row counts, so neither a machine that slept nor
//! a supervisor that was stopped takes its worker for hung. Pure: the caller brings the ticks.

use std::time::Duration;

/// How many questions go unanswered before the worker is taken to hang.
const QUESTIONS: u32 = 3;

/// What to do at a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// Ask.
    Ask,
    /// Nothing was answered for as long as is tolerated.
    Hangs,
}

/// The questions to one worker.
#[derive(Debug, Default)]
pub struct Heartbeat {
    unanswered: u32,
}

impl Heartbeat {
    /// How long after one tick the next is due if silence may last `most`; none: it may last.
    pub fn every(most: Duration) -> Option<Duration> {
        (most > Duration::ZERO).then(|| most / QUESTIONS)
    }

    /// It answered.
    pub fn answered(&mut self) {
        self.unanswered = 0;
    }

    /// Time has passed.
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
    fn only_silence_to_several_questions_counts() {
        let mut heartbeat = Heartbeat::default();
        for _ in 0..10 {
            assert_eq!([heartbeat.tick(), heartbeat.tick(), heartbeat.tick()], [Beat::Ask; 3]);
            heartbeat.answered();
        }
        assert_eq!([heartbeat.tick(), heartbeat.tick(), heartbeat.tick()], [Beat::Ask; 3]);
        assert_eq!(heartbeat.tick(), Beat::Hangs);
    }

    #[test]
    fn silence_may_be_allowed_to_last() {
        assert_eq!(Heartbeat::every(Duration::ZERO), None);
        assert_eq!(Heartbeat::every(Duration::from_secs(30)), Some(Duration::from_secs(10)));
    }
}
