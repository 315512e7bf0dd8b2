//! Messages to the service manager: ready, restarting, stopping, watchdog; and its fd store.
//!
//! Invariant: the supervisor's own loop sends the watchdog message, so a hung loop stops sending it.
//! Without a service manager nothing is sent. Any thread may send.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sd_notify::NotifyState;

/// Sends a message, if there is a manager.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager does not listen");
    }
}

/// Reports that the mount is ready.
pub fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Sets the status text.
pub fn status(status: &str) {
    notify(&[NotifyState::Status(status)]);
}

/// Reports that the daemon is stopping.
pub fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Stores a descriptor under a name, for the next supervisor.
pub fn store_fd(name: &str, descriptor: BorrowedFd<'_>) -> io::Result<()> {
    sd_notify::notify_with_fds(&[NotifyState::FdStore, NotifyState::FdName(name)], &[descriptor])
}

/// Removes a descriptor from the fd store by its name.
pub fn remove_fd(name: &str) {
    notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)]);
}

/// Waits until the manager has processed all earlier messages: it then closes a pipe that we send it.
pub fn barrier(most: Duration) -> io::Result<()> {
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

/// The watchdog timer: half of the manager's timeout.
pub struct Watchdog(Option<tokio::time::Interval>);

impl Watchdog {
    /// With the manager's timeout.
    pub fn new() -> Self {
        let wanted = sd_notify::watchdog_enabled().filter(|every| *every > Duration::ZERO);
        Self(wanted.map(|every| tokio::time::interval(every / 2)))
    }

    /// Sends the watchdog message when it is due; never resolves without a watchdog. Cancel safe.
    pub async fn tick(&mut self) {
        match &mut self.0 {
            Some(interval) => drop(interval.tick().await),
            None => std::future::pending().await,
        }
        notify(&[NotifyState::Watchdog]);
    }
}
