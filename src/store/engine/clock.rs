//! The seconds of last uses.
//!
//! Invariant: they never go back, not even from one start to the next. Any thread.

use std::sync::Arc;
use std::time::{Instant, UNIX_EPOCH};

use crate::base::Clock;

/// Counts seconds since 1970, from when the store was opened on by the monotonic clock.
pub struct UseClock {
    clock: Arc<dyn Clock>,
    start: Instant,
    base: u32,
}

impl std::fmt::Debug for UseClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.seconds())
    }
}

impl UseClock {
    /// Begins now, but not before `least`.
    pub fn new(clock: Arc<dyn Clock>, least: u32) -> Self {
        let wall = clock.wall().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall = u32::try_from(wall.as_secs()).unwrap_or(u32::MAX);
        Self { start: clock.now(), base: wall.max(least), clock }
    }

    /// Now.
    pub fn seconds(&self) -> u32 {
        let passed = self.clock.now().saturating_duration_since(self.start).as_secs();
        self.base.saturating_add(u32::try_from(passed).unwrap_or(u32::MAX))
    }
}
