//! What a service manager is told: ready, restarting, stopping, still there.
//!
//! Invariant: the supervisor's own loop says that it is still there, so a loop that hangs falls
//! silent. Without a service manager nothing is said.

use std::time::Duration;

use sd_notify::NotifyState;

/// Says something, if anybody listens.
fn say(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager does not listen");
    }
}

/// The mount can be used.
pub fn ready(status: &str) {
    say(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// How it is, in words.
pub fn status(status: &str) {
    say(&[NotifyState::Status(status)]);
}

/// It ends.
pub fn stopping() {
    say(&[NotifyState::Stopping]);
}

/// When and how often to say that it is still there: half of what the manager waits.
pub struct Watchdog(Option<tokio::time::Interval>);

impl Watchdog {
    /// As the manager wants it.
    pub fn new() -> Self {
        let wanted = sd_notify::watchdog_enabled().filter(|every| *every > Duration::ZERO);
        Self(wanted.map(|every| tokio::time::interval(every / 2)))
    }

    /// Says it when it is time; never resolves without a manager. Cancel safe.
    pub async fn tick(&mut self) {
        match &mut self.0 {
            Some(interval) => drop(interval.tick().await),
            None => std::future::pending().await,
        }
        say(&[NotifyState::Watchdog]);
    }
}
