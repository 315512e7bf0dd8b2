//! What only a daemon can do, and what it says of itself.
//!
//! The manager knows no mount: a daemon implements [`DaemonControl`] for it. Plain values otherwise; an
//! implementation is shared between tasks.

use std::fmt;
use std::path::PathBuf;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

/// The daemon that this process is.
pub trait DaemonControl: Send + Sync {
    /// What it says of itself.
    fn status(&self) -> DaemonStatus;

    /// Where it answers programs that ask the Hub, if it does.
    fn hub_endpoint(&self) -> Option<HubEndpoint>;

    /// Asks it to unmount and end; returns at once.
    fn unmount(&self);

    /// Asks it to replace its worker; resolves when the new worker serves, or with the reason why it does
    /// not.
    fn restart(&self) -> BoxFuture<'static, Result<(), String>>;
}

/// An address and its token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HubEndpoint {
    /// `http://127.0.0.1:PORT`.
    pub url: String,
    /// Only who gives it is answered.
    pub token: String,
}

impl fmt::Debug for HubEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubEndpoint").field("url", &self.url).finish_non_exhaustive()
    }
}

/// A running daemon.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DaemonStatus {
    /// The process that keeps the mount.
    pub pid: u32,
    /// The process that serves it and answers requests.
    pub worker: u32,
    /// How many workers served before this one.
    pub restarts: u32,
    /// The daemon's version.
    pub version: String,
    /// Where it is mounted.
    pub mountpoint: PathBuf,
    /// Where it listens.
    pub socket: PathBuf,
    /// Since when it is mounted.
    pub since: String,
    /// Whether the kernel reads complete files by itself.
    pub passthrough: bool,
    /// Why not, if not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why_no_passthrough: Option<String>,
    /// The largest read request in bytes.
    pub max_read: u32,
    /// How the worker is confined.
    pub confinement: Confinement,
    /// Why the last requested restart failed, if it did: the former program still serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_restart: Option<String>,
    /// The log file, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<PathBuf>,
}

/// How a worker is confined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// Whether the process has no capabilities and cannot get any.
    pub unprivileged: bool,
    /// Whether Landlock limits the files that it can open.
    pub landlock: bool,
    /// Its user's number; none: that version does not say.
    #[serde(default)]
    pub user: Option<u32>,
    /// What is missing, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}
