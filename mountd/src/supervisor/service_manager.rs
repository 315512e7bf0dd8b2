//! What a service manager is told: ready, restarting, stopping, still there; and what it keeps for us.
//!
//! Invariant: the supervisor's own loop says that it is still there, so a loop that hangs falls
//! silent. Without a service manager nothing is said.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
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

/// Has it keep a descriptor by a name, for whoever comes next.
pub fn keep(name: &str, descriptor: BorrowedFd<'_>) -> io::Result<()> {
    sd_notify::notify_with_fds(&[NotifyState::FdStore, NotifyState::FdName(name)], &[descriptor])
}

/// Has it let go of what it keeps by a name.
pub fn let_go(name: &str) {
    say(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)]);
}

/// Waits until it has heard everything said so far: it lets go of a pipe that it is sent.
pub fn has_heard(most: Duration) -> io::Result<()> {
    let (ours, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    sd_notify::notify_with_fds(&[NotifyState::Custom("BARRIER=1")], &[theirs.as_fd()])?;
    drop(theirs);
    let most = Timespec { tv_sec: most.as_secs().cast_signed(), tv_nsec: 0 };
    let mut look = [PollFd::new(&ours, PollFlags::IN)];
    match poll(&mut look, Some(&most))? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
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
