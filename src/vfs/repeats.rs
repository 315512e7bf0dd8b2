//! Reads that have just failed after a long wait, so that a repeat fails at once.
//!
//! The kernel repeats at once a page read that failed in its readahead: a program would wait for two
//! deadlines. Invariant: an answer is repeated only for `MOMENT`, and only to a read within the one that
//! failed. Concurrency: one lock, for a look-up; usually nothing is kept.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::sync::lock;
use super::types::VfsError;
use crate::base::FileRange;
use crate::model::ContentKey;

/// How long an answer is repeated: the kernel needs microseconds, a loaded machine some more, and a user
/// does not notice.
const MOMENT: Duration = Duration::from_millis(250);

/// Recent failures.
#[derive(Default)]
pub(super) struct Repeats {
    recent: Mutex<Vec<Failed>>,
}

struct Failed {
    key: ContentKey,
    range: FileRange,
    at: Instant,
    error: VfsError,
}

impl Repeats {
    /// Records that a read begun at `begun` fails now. A read that failed quickly is not recorded and may
    /// be repeated.
    pub(super) fn failed(
        &self,
        key: ContentKey,
        range: FileRange,
        (begun, now): (Instant, Instant),
        error: &VfsError,
    ) {
        if now.duration_since(begun) >= MOMENT {
            let error = error.clone();
            lock(&self.recent).push(Failed { key, range, at: now, error });
        }
    }

    /// The error for a read that repeats one that just failed.
    pub(super) fn answer(
        &self,
        key: &ContentKey,
        range: FileRange,
        now: Instant,
    ) -> Option<VfsError> {
        let mut recent = lock(&self.recent);
        recent.retain(|failed| now.saturating_duration_since(failed.at) < MOMENT);
        let same = |f: &&Failed| f.key == *key && f.range.intersect(&range) == range;
        recent.iter().find(same).map(|failed| failed.error.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Digest;

    #[test]
    fn a_repeated_failing_read_gets_the_same_error_for_a_moment() {
        let (key, other) = (
            ContentKey::new(Digest::from_bytes([1; 32])),
            ContentKey::new(Digest::from_bytes([2; 32])),
        );
        let (repeats, begun) = (Repeats::default(), Instant::now());
        let now = begun + Duration::from_secs(60);
        let error = VfsError::TimedOut { reason: "silent".to_owned() };
        repeats.failed(key, FileRange::new(0, 100), (begun, now), &error);
        let page = FileRange::new(50, 60);
        assert_eq!(repeats.answer(&key, page, now), Some(error.clone()));
        assert_eq!(repeats.answer(&other, page, now), None);
        assert_eq!(repeats.answer(&key, FileRange::new(50, 101), now), None);
        assert_eq!(repeats.answer(&key, page, now + MOMENT), None);
        assert!(lock(&repeats.recent).is_empty(), "and then forgotten");
        repeats.failed(key, FileRange::new(0, 100), (now, now + MOMENT / 2), &error);
        assert_eq!(repeats.answer(&key, page, now + MOMENT / 2), None, "it failed quickly");
    }
}
