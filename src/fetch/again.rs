//! How often the registry may be asked again out of turn: because its catalog lacks a name that is
//! wanted, or because a user asks what there is.
//!
//! A pure function of times. A few questions are asked at once, as a user's are; a program that looks
//! for a missing name again and again has one asked every two seconds.

use std::time::{Duration, Instant};

/// Questions that may be asked at once.
const AT_ONCE: u32 = 5;

/// What each takes of that, for so long. A conditional request every two seconds is little for a
/// registry, and a version that was just published is missed for no longer than that.
const EACH: Duration = Duration::from_secs(2);

/// What may still be asked.
#[derive(Debug, Default)]
pub(super) struct Allowance {
    /// Until when what was asked counts.
    spent: Option<Instant>,
}

impl Allowance {
    /// Whether a question may be asked now.
    pub(super) fn has_one(&self, now: Instant) -> bool {
        let counts = self.spent.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        counts <= EACH * (AT_ONCE - 1)
    }

    /// Takes one, if there is one.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let has = self.has_one(now);
        if has {
            self.spent = Some(self.spent.map_or(now, |at| at.max(now)) + EACH);
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
        let (mut allowance, start) = (Allowance::default(), Instant::now());
        for _ in 0..AT_ONCE {
            assert!(allowance.take(start));
        }
        assert!(!allowance.take(start) && !allowance.has_one(start));
        assert!(!allowance.take(start + EACH - Duration::from_millis(1)));
        assert!(allowance.take(start + EACH) && !allowance.take(start + EACH));
        let later = start + EACH * 60;
        assert_eq!((0..99).filter(|_| allowance.take(later)).count(), AT_ONCE as usize);
    }

    proptest! {
        #[test]
        fn never_more_than_the_few_and_one_for_each_pause(
            pauses in proptest::collection::vec(0u64..3000, 1..300),
        ) {
            let (mut allowance, start) = (Allowance::default(), Instant::now());
            let (mut now, mut taken) = (start, 0);
            for pause in pauses {
                now += Duration::from_millis(pause);
                taken += u32::from(allowance.take(now));
                let most = AT_ONCE + ((now - start).as_millis() / EACH.as_millis()) as u32;
                prop_assert!(taken <= most, "{taken} in {:?}", now - start);
            }
        }
    }
}
