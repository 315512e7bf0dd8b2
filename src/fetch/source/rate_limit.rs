//! Rate limit of catalog requests before the time to live has elapsed: because the catalog lacks a name
//! that is looked up, or because a user lists it.
//!
//! A token bucket; pure. It allows a burst, for a user; a program that looks up a missing name repeatedly
//! causes one request every two seconds.

use std::time::{Duration, Instant};

/// Requests that may be made at once.
const BURST: u32 = 5;

/// Time to regain one request. A conditional request every two seconds is little load for a registry, and
/// a version just published is missed for no longer than that.
const INTERVAL: Duration = Duration::from_secs(2);

/// The bucket.
#[derive(Debug, Default)]
pub(super) struct RateLimit {
    /// When all past requests will have been regained.
    spent: Option<Instant>,
}

impl RateLimit {
    /// Whether a request is allowed now.
    pub(super) fn allows(&self, now: Instant) -> bool {
        let counts = self.spent.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        counts <= INTERVAL * (BURST - 1)
    }

    /// Counts a request, if it is allowed.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let has = self.allows(now);
        if has {
            self.spent = Some(self.spent.map_or(now, |at| at.max(now)) + INTERVAL);
        }
        has
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_few_at_once_and_then_one_at_a_time() {
        let (mut limit, start) = (RateLimit::default(), Instant::now());
        for _ in 0..BURST {
            assert!(limit.take(start));
        }
        assert!(!limit.take(start) && !limit.allows(start));
        assert!(!limit.take(start + INTERVAL - Duration::from_millis(1)));
        assert!(limit.take(start + INTERVAL) && !limit.take(start + INTERVAL));
        let later = start + INTERVAL * 60;
        assert_eq!((0..99).filter(|_| limit.take(later)).count(), BURST as usize);
    }

    proptest! {
        #[test]
        fn never_more_than_the_few_and_one_for_each_pause(
            pauses in proptest::collection::vec(0u64..3000, 1..300),
        ) {
            let (mut limit, start) = (RateLimit::default(), Instant::now());
            let (mut now, mut taken) = (start, 0);
            for pause in pauses {
                now += Duration::from_millis(pause);
                taken += u32::from(limit.take(now));
                let most = BURST + ((now - start).as_millis() / INTERVAL.as_millis()) as u32;
                prop_assert!(taken <= most, "{taken} in {:?}", now - start);
            }
        }
    }
}
