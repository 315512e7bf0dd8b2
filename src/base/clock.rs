//! The outside world's time, behind a trait so that tests can hold it still.
//!
//! Invariant: `now` never goes back; `wall` may. Implementations are shared freely between threads.

use std::time::{Instant, SystemTime};

/// Where the time comes from.
pub trait Clock: Send + Sync + 'static {
    /// A time that only moves forward, for ages and deadlines.
    fn now(&self) -> Instant;
    /// The time of day, for records that outlive the process.
    fn wall(&self) -> SystemTime;
}

/// The machine's clock.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }
}
