//! What happens to a supervisor and what it is to do: the input and output of its decisions.
//!
//! Plain values. `machine.rs` decides; `mod.rs` brings it the events and carries the actions out.

use super::messages::ToWorker;
use crate::error::Failure;

/// A worker's serial number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u32);

/// The worker of an event that no worker sent.
pub const NO_WORKER: Generation = Generation(0);

/// The program that a worker runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhichProgram {
    /// The program that is installed now.
    Installed,
    /// The program that was last ready, even if its file was replaced; before that, the installed one.
    Proven,
}

/// The state of the mount when an event arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mount {
    /// Not made yet.
    None,
    /// Mounted and connected.
    Alive {
        /// Whether the kernel allows a takeover after a worker's death.
        can_be_taken_over: bool,
    },
    /// Unmounted or aborted.
    Ended,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// A restart was requested, by command or by signal.
    RestartRequested,
    /// A worker could not be started.
    StartFailed(Failure),
    /// A worker's first message.
    Hello { protocol: u32, version: String },
    /// A worker was sent the mount's parameters. `lacks_registry`: the registry's folder did not answer.
    Welcomed { lacks_registry: bool },
    /// A worker could not be sent the mount's parameters.
    NotWelcomed(String),
    /// A worker is able to begin: it lacks only the store.
    Checked,
    /// A worker has opened the store and wants the connection.
    Prepared,
    /// A worker is ready for requests. `registry_answers`: the registry's folder answers now.
    Ready { registry_answers: bool },
    /// A worker has answered its first requests.
    Served,
    /// A worker has answered a ping.
    Pong,
    /// A worker reports why it cannot continue.
    Failed(Failure),
    /// A worker received the unmount command.
    UnmountRequested,
    /// A worker reports that the connection has ended.
    ConnectionEnded,
    /// A worker is dead; how it ended.
    Died { pid: Option<u32>, how: String },
    /// The registry's folder answers again, after it did not when the worker began.
    RegistryCameBack,
    /// The time of `Machine::deadline` has come.
    Tick,
}

/// What to do.
#[derive(Debug)]
pub enum Action {
    /// Start a worker. If that fails: [`Event::StartFailed`].
    Start(Generation, WhichProgram),
    /// Send a worker the mount's parameters. Result: [`Event::Welcomed`] or [`Event::NotWelcomed`].
    Welcome(Generation),
    /// Send a message.
    Send(Generation, ToWorker),
    /// Hand the connection over; mount first if nothing is mounted yet.
    Serve(Generation),
    /// Record this worker's program as proven.
    ProveProgram(Generation),
    /// Announce that the mount is ready.
    AnnounceReady,
    /// Kill a worker. Its death is still reported as an event.
    Kill(Generation),
    /// Kill a worker whose events no longer matter.
    Discard(Generation),
    /// Unregister what the ended worker had registered and not opened.
    UnregisterUnused,
    /// Answer every request with this reason until [`Action::StopRefusing`].
    Refuse(String),
    /// Let requests wait for a worker again.
    StopRefusing,
    /// End the supervisor's work.
    End(End),
}

/// Why it ends.
#[derive(Debug)]
pub enum End {
    /// A user asked for it, by command.
    Asked,
    /// A signal asked for the end, of the mount or of this process alone.
    Signalled,
    /// Unmounted from outside.
    Unmounted,
    /// It cannot continue.
    Failed(Failure),
}
