//! What goes wrong with a registry. Plain values; no text holds credentials.

use std::time::Duration;

use crate::base::text::{MESSAGE, brief};
use crate::model::{Digest, ManifestError};

/// Whether to repeat a request that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The answer would be the same.
    Never,
    /// At once, but only once: if it fails in the same way again, the cause is not on the way.
    Once,
    /// After a pause.
    Later {
        /// The pause that the server asks for, at least.
        not_before: Option<Duration>,
    },
}

/// What went wrong with a registry. Texts never hold credentials.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RegistryError {
    /// No answer: refused, reset, timed out, cut off, name not found, TLS.
    #[error("{what}: {why}")]
    Unreachable {
        /// What was asked for.
        what: String,
        /// What happened, in one line.
        why: String,
    },
    /// The folder that a local registry lies in is not there: not mounted, moved or mistyped.
    #[error("the folder {root} is not there")]
    NoFolder {
        /// The folder.
        root: String,
    },
    /// The server is in trouble (5xx) or asks to be asked later (429).
    #[error("{what}: the server answered {status}")]
    Busy {
        /// What was asked for.
        what: String,
        /// The HTTP status.
        status: u16,
        /// `Retry-After`, if given.
        retry_after: Option<Duration>,
    },
    /// The server says that it does not have it.
    #[error("{what}: not found in the registry")]
    Missing {
        /// What was asked for.
        what: String,
    },
    /// The server refuses: 401, 403 or another 4xx.
    #[error("{what}: the server refused with {status}")]
    Refused {
        /// What was asked for.
        what: String,
        /// The HTTP status (a folder's: 403).
        status: u16,
    },
    /// The server refuses, and it is known why and what helps.
    #[error("{what}: {why}")]
    Denied {
        /// What was asked for.
        what: String,
        /// Why, and what the user can do.
        why: String,
    },
    /// The bytes do not match their digest.
    #[error("{what}: {why}")]
    WrongBytes {
        /// What was asked for.
        what: String,
        /// For example `SHA-256 mismatch`.
        why: String,
    },
    /// No range of the object can be proved, so that only the whole can be verified.
    #[error("{what}: no range of it can be verified alone: {why}")]
    Unproven {
        /// What was asked for.
        what: String,
        /// Why there is no proof.
        why: String,
    },
    /// The answer is not one to the request: a bad document, range or length.
    #[error("invalid registry response: {what}: {why}")]
    Invalid {
        /// The document and field, or the request.
        what: String,
        /// What is wrong.
        why: String,
    },
    /// The registry's URL or folder cannot be one.
    #[error("'{name}' is not a registry: {why}")]
    BadName {
        /// As given.
        name: String,
        /// What is wrong.
        why: String,
    },
}

impl RegistryError {
    /// Whether the same request may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::NoFolder { .. } | Self::Busy { .. })
    }

    /// Whether to repeat the request, and when.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Unreachable { .. } => Retry::Later { not_before: None },
            Self::Busy { retry_after, .. } => Retry::Later { not_before: *retry_after },
            // A proxy may have garbled them.
            Self::WrongBytes { .. } => Retry::Once,
            // A folder that is missing stays missing until an administrator restores it.
            Self::NoFolder { .. }
            | Self::Missing { .. }
            | Self::Refused { .. }
            | Self::Denied { .. }
            | Self::Unproven { .. }
            | Self::Invalid { .. }
            | Self::BadName { .. } => Retry::Never,
        }
    }

    /// A manifest that breaks a rule.
    pub fn manifest(hash: &Digest, error: &ManifestError) -> Self {
        Self::Invalid { what: format!("manifest {hash}"), why: brief(&error.to_string(), MESSAGE) }
    }
}
