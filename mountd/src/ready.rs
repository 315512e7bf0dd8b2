//! What is reported when a mount is ready: from the worker to its supervisor, and from a daemon in the
//! background to the command that started it.
//!
//! Invariant: no credentials. Plain values.

use modelfs::manager::DaemonStatus;

/// What is told when the mount is ready.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Ready {
    /// The daemon.
    pub daemon: DaemonStatus,
    /// The registry, without credentials.
    pub registry: String,
    /// Why it offers what was last seen, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}
