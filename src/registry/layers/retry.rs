//! Whether and when to repeat a request: the one retry engine.
//!
//! [`RetryPolicy`] is a pure schedule. [`Attempts`] applies it to one piece of work, a call or a
//! flight, whose owner makes the requests and sleeps between them. Invariant: no pause ends after the
//! deadline. Owned by one task.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::waits::{Waiting, Waits};
use crate::registry::error::Retry;

/// When to repeat a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryPolicy {
    /// The pause after the first failure, doubled with each further one.
    pub base: Duration,
    /// Maximum pause, except where a server asks for a longer one.
    pub max: Duration,
    /// Maximum number of attempts, the first included.
    pub attempts: u32,
}

impl Default for RetryPolicy {
    /// A hiccup is bridged at once; after 0.25, 0.5, 1, 2, 4 s … the deadline decides, not the count.
    fn default() -> Self {
        Self { base: Duration::from_millis(250), max: Duration::from_secs(10), attempts: 12 }
    }
}

impl RetryPolicy {
    /// The pause before the next attempt, after `failed` have failed (at least 1), or none if there
    /// is to be no other: too many failed, or the pause would leave nothing of the `left` time.
    ///
    /// `random`, in `[0, 1)`, spreads clients that failed together over the upper half of the
    /// pause. The pause is never shorter than the server's `Retry-After`.
    pub fn delay(
        &self,
        failed: u32,
        random: f64,
        retry_after: Option<Duration>,
        left: Duration,
    ) -> Option<Duration> {
        if failed >= self.attempts {
            return None;
        }
        let doubled = 1u32.checked_shl(failed.saturating_sub(1)).unwrap_or(u32::MAX);
        let full = self.base.saturating_mul(doubled).min(self.max);
        let pause = full.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0);
        let pause = pause.max(retry_after.unwrap_or_default());
        (pause < left).then_some(pause)
    }
}

/// The attempts at one piece of work.
#[derive(Debug)]
pub struct Attempts {
    policy: RetryPolicy,
    deadline: Duration,
    end: Instant,
    /// How many failed in a row.
    failed: u32,
    /// Whether wrong bytes were asked for once more.
    repeated: bool,
    listed: Option<Waiting>,
}

impl Attempts {
    /// At work that may take as long as `deadline` from now on.
    pub fn new(policy: RetryPolicy, deadline: Duration) -> Self {
        let end = Instant::now() + deadline;
        Self { policy, deadline, end, failed: 0, repeated: false, listed: None }
    }

    /// When it gives up.
    pub fn end(&self) -> Instant {
        self.end
    }

    /// Lists the work among what is being waited for, once; it stays listed until this is dropped.
    pub fn list_in(&mut self, waits: &Arc<Waits>) -> &Waiting {
        self.listed.get_or_insert_with(|| waits.begin(self.end))
    }

    /// There was progress: failures and the deadline count from now on.
    pub fn progressed(&mut self) {
        self.end = Instant::now() + self.deadline;
        (self.failed, self.repeated) = (0, false);
        if let Some(listed) = &self.listed {
            listed.extend(self.end);
        }
    }

    /// An attempt failed with `error`, which may be repeated as `retry` says. The pause before the
    /// next attempt; none: give up.
    pub fn failed(&mut self, retry: Retry, error: &dyn std::fmt::Display) -> Option<Duration> {
        self.failed += 1;
        let left = self.end.saturating_duration_since(Instant::now());
        let pause = match retry {
            Retry::Never => None,
            Retry::Once if std::mem::replace(&mut self.repeated, true) => None,
            Retry::Once => (!left.is_zero()).then_some(Duration::ZERO),
            Retry::Later { not_before } => {
                self.policy.delay(self.failed, fastrand::f64(), not_before, left)
            }
        };
        if let (Some(listed), Some(_)) = (&self.listed, pause) {
            listed.failed(error);
        }
        pause
    }
}

#[cfg(test)]
#[path = "retry_tests.rs"]
mod tests;
