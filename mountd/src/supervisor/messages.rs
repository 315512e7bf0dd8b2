//! The messages between supervisor and worker.
//!
//! Invariant: a worker sends [`FromWorker::Hello`] first, and its format never changes, so that
//! programs of different versions can detect that they are incompatible. The order of a start: Hello,
//! Welcome, Checked, Begin, Prepared, Serve, Ready. Plain values.

use std::path::{Path, PathBuf};

use modelfs::config::{Address, Config};
use modelfs::registry::{Credentials, Secret};
use modelfs::vfs::{Handle, Ino};
use modelfs_platform::{BackingNumber, Open, RequestNumber};
use serde::{Deserialize, Serialize};

use crate::error::Failure;
use crate::identity::User;
use crate::ready::Ready;

/// This program's protocol version. A program with another version is incompatible.
pub const PROTOCOL: u32 = 2;
/// Maximum number of open files per message: some 100 bytes each.
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

/// A login, on the wire.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Login {
    Password { user: String, password: String },
    Identity(String),
    Bearer(String),
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Login")
    }
}

impl From<Credentials> for Login {
    fn from(credentials: Credentials) -> Self {
        match credentials {
            Credentials::Password { user, password } => {
                Self::Password { user, password: password.reveal().to_owned() }
            }
            Credentials::Identity(token) => Self::Identity(token.reveal().to_owned()),
            Credentials::Bearer(token) => Self::Bearer(token.reveal().to_owned()),
        }
    }
}

impl From<Login> for Credentials {
    fn from(login: Login) -> Self {
        match login {
            Login::Password { user, password } => {
                Self::Password { user, password: Secret::new(password) }
            }
            Login::Identity(token) => Self::Identity(Secret::new(token)),
            Login::Bearer(token) => Self::Bearer(Secret::new(token)),
        }
    }
}

/// From a worker.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromWorker {
    /// Its protocol and program version.
    Hello { protocol: u32, version: String },
    /// It is able to begin: its arguments are valid, its privileges dropped, and cache and index exist
    /// in a known format. It has not opened the store, which another worker may still hold.
    Checked,
    /// Store and tree are ready; it needs the connection.
    Prepared,
    /// The reply to FUSE_INIT.
    Answered { reply: Vec<u8> },
    /// Register the attached file for passthrough.
    Register { ask: u64, ino: u64 },
    /// A file was opened.
    Opened(OpenFile),
    /// A file was closed.
    Released { ino: u64, handle: u64 },
    /// It is ready for requests.
    Ready(Box<Ready>),
    /// It has answered its first requests.
    Served,
    /// The reply to [`ToWorker::Ping`].
    Pong,
    /// It cannot continue and exits.
    Failed(Failure),
    /// The login of a source is needed, for a repository of it.
    Login { ask: u64, source: u16, repository: String },
    /// A user asked for the unmount by command.
    Unmount,
    /// A user asked for a restart by command.
    Restart,
    /// The connection has ended; the worker exits.
    Ended,
}

/// To a worker.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToWorker {
    /// The mount's parameters. Attached: the store's lock, the control socket.
    Welcome(Box<Welcome>),
    /// The store is free; take it.
    Begin,
    /// Open files, in as many messages as needed.
    Open(Vec<OpenFile>),
    /// The connection. Attached: its descriptor.
    Serve { offer: Vec<u8>, takes_over: bool, no_passthrough: Option<String> },
    /// Whether the kernel has the reply to FUSE_INIT, or why not.
    Answered(Result<(), String>),
    /// A backing id, or the system's error.
    Registered { ask: u64, number: Result<u32, i32> },
    /// The login that was asked for, if there is one; or why it cannot be had.
    Login { ask: u64, login: Result<Option<Login>, String> },
    /// A heartbeat, from the worker's start on.
    Ping,
    /// The outcome of the restart that it requested.
    Restarted(Result<(), String>),
    /// Commit and exit without notifying the kernel: the next worker takes over.
    Retire,
}

/// What a supervisor sends whose program is older than [`Welcome::config`]; the rest is in the arguments.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Locations {
    /// The mount point.
    pub mountpoint: PathBuf,
    /// The cache folder.
    pub cache: PathBuf,
    /// The registry: a URL, or an absolute folder. It may hold credentials.
    pub registry: Address,
    /// The log file, if any.
    pub log: Option<PathBuf>,
}

/// The mount's parameters for a worker.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Welcome {
    /// The supervisor's process id.
    pub supervisor: u32,
    /// The path of the control socket.
    pub socket: PathBuf,
    /// Since when the mount exists; none: not yet.
    pub since: Option<String>,
    /// Number of workers that have ended.
    pub restarts: u32,
    /// The user to switch to; none: stay the same user.
    #[serde(default)]
    pub user: Option<User>,
    /// The configuration, every path absolute; none: the supervisor's program is older, and the arguments
    /// apply. It may hold credentials.
    #[serde(default)]
    pub config: Option<Config>,
    /// The log file, if any.
    #[serde(default)]
    pub log_file: Option<PathBuf>,
    /// Of an older supervisor instead of `config`; never sent.
    #[serde(default, skip_serializing)]
    pub locations: Option<Locations>,
    /// The folder of a registry does not answer: a thread that looks at it may block for ever.
    #[serde(default)]
    pub registry_hangs: bool,
    /// Which folders do not answer; none, of an older supervisor: every one, if one does not.
    #[serde(default)]
    pub hanging_folders: Option<Vec<PathBuf>>,
    /// Whether this supervisor answers [`FromWorker::Login`].
    #[serde(default)]
    pub answers_logins: bool,
    /// Why the last requested restart failed, if it did.
    #[serde(default)]
    pub failed_restart: Option<String>,
}

impl Welcome {
    /// Whether the folder of a registry does not answer.
    pub fn hangs(&self, folder: &Path) -> bool {
        match &self.hanging_folders {
            Some(folders) => folders.iter().any(|hanging| hanging == folder),
            None => self.registry_hangs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_message_is_understood_by_all_versions() {
        let hello = FromWorker::Hello { protocol: 7, version: "9".into() };
        let text = serde_json::to_string(&hello).unwrap();
        assert_eq!(text, r#"{"hello":{"protocol":7,"version":"9"}}"#);
    }

    #[test]
    fn the_list_of_open_files_round_trips_and_fits_a_packet() {
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
