//! Time, behind a trait so that tests can control it.
//!
//! Invariant: `now` never goes back; `wall` may. Concurrency: implementations are shared between threads.

use std::time::{Instant, SystemTime};

/// A source of time.
pub trait Clock: Send + Sync + 'static {
    /// Monotonic time, for ages and deadlines.
    fn now(&self) -> Instant;
    /// Wall-clock time, for records that outlive the process.
    fn wall(&self) -> SystemTime;
}

/// The system clock.
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

/// Formats a time as RFC 3339. A clock may be set before 1970, which this format cannot represent: that
/// is shown as 1970.
pub fn rfc3339(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(at.max(SystemTime::UNIX_EPOCH)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_in_utc_to_the_second() {
        let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(1_700_000_000_999);
        assert_eq!(rfc3339(at), "2023-11-14T22:13:20Z");
        let before = SystemTime::UNIX_EPOCH - std::time::Duration::from_secs(1);
        assert_eq!(rfc3339(before), "1970-01-01T00:00:00Z");
    }
}
