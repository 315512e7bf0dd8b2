//! The signals that a daemon takes.
//!
//! Invariant: from the first value on, none of them ends the process by itself.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::{Failure, Kind};

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// The end.
    End,
    /// Another worker.
    Restart,
}

/// The signals, listened to.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    user: Signal,
    ends_with_terminal: bool,
}

impl Signals {
    /// Listens. `ends_with_terminal`: a lost terminal asks for the end, not for a restart.
    pub fn new(ends_with_terminal: bool) -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind)
                .map_err(|e| Failure::new(Kind::General, format!("listening for signals: {e}")))
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
            user: listen(SignalKind::user_defined1())?,
            ends_with_terminal,
        })
    }

    /// The next one that asks for the end. Cancel safe.
    pub async fn end(&mut self) {
        while self.next().await != Asked::End {}
    }

    /// The next one. Cancel safe.
    pub async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::End,
            _ = self.terminate.recv() => Asked::End,
            _ = self.user.recv() => Asked::Restart,
            _ = self.hangup.recv() => match self.ends_with_terminal {
                true => Asked::End,
                false => Asked::Restart,
            },
        }
    }
}
