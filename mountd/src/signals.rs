//! The signals that a daemon handles.
//!
//! Invariant: once a value exists, none of these signals ends the process by itself. Concurrency: one
//! task receives them.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::{Failure, Kind};

/// What a signal requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// The end.
    End,
    /// Another worker.
    Restart,
}

/// The signal handlers.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    user: Signal,
    ends_with_terminal: bool,
}

impl Signals {
    /// Installs the handlers. `ends_with_terminal`: losing the terminal requests the end, not a
    /// restart.
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

    /// Waits for the next signal that requests the end. Cancel safe.
    pub async fn end(&mut self) {
        while self.next().await != Asked::End {}
    }

    /// Waits for the next signal. Cancel safe.
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
