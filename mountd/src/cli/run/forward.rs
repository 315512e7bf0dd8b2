//! Signals for a command that this process waits for.
//!
//! Invariant: from its making on, none of these signals ends this process. A signal goes to the command only
//! while it has not been waited for, so never to another process of its number. One task.

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;
use tokio::signal::unix::{self, SignalKind};

use crate::error::{Failure, Kind};

/// The signals that are passed on, and whether a terminal sends them to the command as well.
const SIGNALS: [(Signal, bool); 6] = [
    (Signal::INT, true),
    (Signal::QUIT, true),
    (Signal::TERM, false),
    (Signal::HUP, false),
    (Signal::USR1, false),
    (Signal::USR2, false),
];

/// The signals that came.
pub struct Signals {
    all: Vec<(Signal, unix::Signal)>,
    interactive: bool,
}

impl Signals {
    /// Takes the signals of this process. `interactive`: a terminal sends its signals to the command, too.
    pub fn new(interactive: bool) -> Result<Self, Failure> {
        let listen = |(signal, _): (Signal, bool)| {
            let kind = SignalKind::from_raw(signal.as_raw());
            unix::signal(kind)
                .map(|stream| (signal, stream))
                .map_err(|e| Failure::new(Kind::General, format!("listening for signals: {e}")))
        };
        let all = SIGNALS.into_iter().map(listen).collect::<Result<_, _>>()?;
        Ok(Self { all, interactive })
    }

    /// The next signal.
    pub async fn next(&mut self) -> Signal {
        let waiting = self.all.iter_mut().map(|(signal, stream)| {
            Box::pin(async move {
                stream.recv().await;
                *signal
            })
        });
        futures_util::future::select_all(waiting).await.0
    }

    /// Waits for a command and passes signals on meanwhile.
    pub async fn wait(&mut self, child: &mut Child) -> std::io::Result<std::process::ExitStatus> {
        loop {
            let id = child.id();
            let signal = tokio::select! {
                ended = child.wait() => return ended,
                signal = self.next() => signal,
            };
            let from_terminal = SIGNALS.iter().any(|(s, terminal)| *s == signal && *terminal);
            if self.interactive && from_terminal {
                continue;
            }
            // None, or an error: it has ended, which the next turn finds.
            if let Some(pid) = id.and_then(|id| Pid::from_raw(id as i32)) {
                let _ = kill_process(pid, signal);
            }
        }
    }
}
