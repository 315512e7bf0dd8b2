//! What supervisor and worker say to each other.
//!
//! Invariant: a worker says [`FromWorker::Hello`] first, and its form never changes, so that two
//! programs of different ages can find out that they do not understand each other. The order of a
//! start: Hello, Welcome, Checked, Begin, Prepared, Serve, Ready. Plain values.

use std::path::PathBuf;

use modelfs::vfs::{Handle, Ino};
use modelfs_platform::{BackingNumber, Open, RequestNumber};
use serde::{Deserialize, Serialize};

use crate::error::Failure;
use crate::identity::User;
use crate::ready::Ready;

/// The protocol of this program. Another number: the other one cannot be talked to.
pub const PROTOCOL: u32 = 2;
/// Open files in one message: some 100 bytes each.
pub const OPEN_FILES: usize = 400;

/// An open file, on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenFile {
    ino: u64,
    handle: u64,
    request: u64,
    backing: Option<u32>,
}

impl From<Open> for OpenFile {
    fn from(open: Open) -> Self {
        Self {
            ino: open.ino.0,
            handle: open.handle.0,
            request: open.request.get(),
            backing: open.backing.map(|b| b.0),
        }
    }
}

impl From<OpenFile> for Open {
    fn from(open: OpenFile) -> Self {
        Self {
            ino: Ino(open.ino),
            handle: Handle(open.handle),
            request: RequestNumber::new(open.request),
            backing: open.backing.map(BackingNumber),
        }
    }
}

/// From a worker.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromWorker {
    /// What it speaks and which program it is.
    Hello { protocol: u32, version: String },
    /// It can begin: its arguments are understood, its privileges dropped, and cache and index are
    /// there and of a form that it knows. It has not opened the store, which another may still have.
    Checked,
    /// Store and tree are ready; it wants the connection.
    Prepared,
    /// The answer to the connection's first request.
    Answered { reply: Vec<u8> },
    /// The kernel is to read the file beside by itself.
    Register { ask: u64, ino: u64 },
    /// A file was opened.
    Opened(OpenFile),
    /// A file was closed.
    Released { ino: u64, handle: u64 },
    /// It is there for requests.
    Ready(Box<Ready>),
    /// It has answered the first ones.
    Served,
    /// It has heard a [`ToWorker::Ping`].
    Pong,
    /// It cannot; it ends.
    Failed(Failure),
    /// Somebody asked for the end by command.
    Unmount,
    /// Somebody asked for another worker by command.
    Restart,
    /// The connection has ended; it ends.
    Ended,
}

/// To a worker.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToWorker {
    /// What it is to serve. Beside: the store's lock, the control socket.
    Welcome(Welcome),
    /// The store is its own now.
    Begin,
    /// Files that are open; as many such messages as it takes.
    Open(Vec<OpenFile>),
    /// The connection. Beside: its descriptor.
    Serve { offer: Vec<u8>, takes_over: bool, no_passthrough: Option<String> },
    /// The kernel has an answer to the first request, or why not.
    Answered(Result<(), String>),
    /// The number of a backing file, or the system's error.
    Registered { ask: u64, number: Result<u32, i32> },
    /// Whether it is there; asked from its start on.
    Ping,
    /// What became of the restart that it was asked for.
    Restarted(Result<(), String>),
    /// Commit and end, without a word to the kernel: the next one goes on.
    Retire,
}

/// Where things are. The supervisor resolves this once; it means the same to every worker, whatever
/// folder that one was started in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Locations {
    /// The mount point.
    pub mountpoint: PathBuf,
    /// The cache folder.
    pub cache: PathBuf,
    /// The registry: a URL, or an absolute folder. It may hold credentials.
    pub registry: String,
    /// The file that the log goes to, if it does.
    pub log: Option<PathBuf>,
}

/// What a worker is told of the mount.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Welcome {
    /// The supervisor.
    pub supervisor: u32,
    /// Where to say that one listens.
    pub socket: PathBuf,
    /// Since when the mount is there; none: not yet.
    pub since: Option<String>,
    /// How many workers have gone before.
    pub restarts: u32,
    /// Who it is to become; none: it stays who it is.
    #[serde(default)]
    pub user: Option<User>,
    /// Where things are; none: the supervisor's program does not say, and the arguments do.
    #[serde(default)]
    pub locations: Option<Locations>,
    /// The registry's folder does not answer: whoever looks at it may wait for ever.
    #[serde(default)]
    pub registry_hangs: bool,
    /// Why the last restart that was asked for failed, if it did.
    #[serde(default)]
    pub failed_restart: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_is_understood_by_all_versions() {
        let hello = FromWorker::Hello { protocol: 7, version: "9".into() };
        let text = serde_json::to_string(&hello).unwrap();
        assert_eq!(text, r#"{"hello":{"protocol":7,"version":"9"}}"#);
    }

    #[test]
    fn open_files_survive_the_wire_and_fit_a_packet() {
        let open = Open {
            ino: Ino(u64::MAX),
            handle: Handle(u64::MAX - 1),
            request: RequestNumber::new(u64::MAX),
            backing: Some(BackingNumber(u32::MAX)),
        };
        assert_eq!(Open::from(OpenFile::from(open)), open);
        let many = ToWorker::Open(vec![open.into(); OPEN_FILES]);
        assert!(serde_json::to_vec(&many).unwrap().len() < 60 << 10);
    }
}
