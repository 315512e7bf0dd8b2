//! The restart policy: when the next worker is started after a death.
//!
//! Invariant: only quick deaths count: those of workers that were never ready, or died before they
//! served. Pauses double from [`FIRST`] to [`LONGEST`] with each quick death in a row; the death of a
//! worker that served resets the count. Pure: the caller brings the time.

use std::time::{Duration, Instant};

/// The first pause: too short for a reader to notice.
const FIRST: Duration = Duration::from_millis(50);
/// The longest pause: a worker that cannot start then costs almost nothing.
const LONGEST: Duration = Duration::from_secs(10);
/// A worker that was ready for this long counts as having served, even if the kernel sent no requests:
/// one that dies of its first requests, or of its startup work, dies sooner.
const MIN_LIFETIME: Duration = Duration::from_secs(1);

/// What to do about a death.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Start another worker after this pause.
    After(Duration),
    /// Start none: this many have died in a row.
    GiveUp(u32),
}

/// The deaths so far.
#[derive(Debug, Clone)]
pub struct RestartPolicy {
    most: u32,
    deaths: u32,
    ready: Option<Instant>,
    served: bool,
}

impl RestartPolicy {
    /// Gives up after `most` quick deaths in a row; 0: never.
    pub fn new(most: u32) -> Self {
        Self { most, deaths: 0, ready: None, served: false }
    }

    /// A worker is ready for requests.
    pub fn ready(&mut self, now: Instant) {
        self.ready = Some(now);
    }

    /// A worker has answered its first requests.
    pub fn served(&mut self) {
        self.served = true;
    }

    /// A worker has died unexpectedly.
    pub fn died(&mut self, now: Instant) -> Next {
        let lived = self.ready.take().map(|ready| now.saturating_duration_since(ready));
        let served = std::mem::take(&mut self.served);
        if lived.is_some_and(|lived| served || lived >= MIN_LIFETIME) {
            self.deaths = 0;
            return Next::After(FIRST);
        }
        self.deaths += 1;
        if self.most > 0 && self.deaths >= self.most {
            return Next::GiveUp(self.deaths);
        }
        let doubled = FIRST.saturating_mul(1 << (self.deaths - 1).min(16));
        Next::After(doubled.min(LONGEST))
    }

    /// The worker was replaced on purpose, or died before it took over.
    pub fn replaced(&mut self) {
        (self.ready, self.served) = (None, false);
    }

    /// A restart was requested: resets the count.
    pub fn reset(&mut self) {
        self.deaths = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn millis(next: Next) -> Option<u128> {
        match next {
            Next::After(pause) => Some(pause.as_millis()),
            Next::GiveUp(_) => None,
        }
    }

    #[test]
    fn restart_pauses_double_up_to_a_maximum_and_reset_after_a_worker_that_served() {
        let start = Instant::now();
        let mut policy = RestartPolicy::new(0);
        let pauses: Vec<_> = (0..10).map(|_| millis(policy.died(start)).unwrap()).collect();
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        policy.ready(start);
        assert_eq!(millis(policy.died(start + MIN_LIFETIME)), Some(50));
        policy.ready(start);
        assert_eq!(millis(policy.died(start + MIN_LIFETIME / 2)), Some(50), "the first in a row");
        assert_eq!(
            millis(policy.died(start + MIN_LIFETIME)),
            Some(100),
            "one that was never ready"
        );
    }

    #[test]
    fn the_death_of_a_worker_that_was_ready_and_served_is_not_an_early_death() {
        let now = Instant::now();
        let mut policy = RestartPolicy::new(2);
        for _ in 0..100 {
            policy.ready(now);
            policy.served();
            assert_eq!(millis(policy.died(now)), Some(50));
        }
        assert_eq!(millis(policy.died(now)), Some(50), "what it served is not the next one's");
        assert_eq!(policy.died(now), Next::GiveUp(2));
    }

    #[test]
    fn too_many_early_deaths_stop_restarts_until_a_restart_is_requested() {
        let now = Instant::now();
        let mut policy = RestartPolicy::new(3);
        assert_eq!((0..2).filter_map(|_| millis(policy.died(now))).count(), 2);
        assert_eq!(policy.died(now), Next::GiveUp(3));
        policy.reset();
        assert_eq!(millis(policy.died(now)), Some(50));
    }

    proptest! {
        #[test]
        fn a_pause_is_never_longer_than_the_longest(deaths in 1u32..10_000) {
            let mut policy = RestartPolicy::new(0);
            policy.deaths = deaths;
            prop_assert!(millis(policy.died(Instant::now())).unwrap() <= LONGEST.as_millis());
        }
    }
}
