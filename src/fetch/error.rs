//! Why bytes could not be fetched.
//!
//! Invariant: every message is one line and names what was requested. Plain values.

use std::sync::Arc;
use std::time::Duration;

use crate::base::blocking::Stopped;
use crate::base::units::ByteSize;
use crate::model::BlobLayout;
use crate::registry::{RegistryError, Retry};
use crate::store::StoreError;

/// Why bytes could not be fetched.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FetchError {
    /// The registry cannot be reached, or fails, until the deadline or permanently.
    #[error("{0}")]
    Registry(#[from] RegistryError),
    /// The received bytes do not match their digest.
    #[error("{what}: {why}")]
    Corrupt {
        /// Which bytes, of which object, from which registry.
        what: String,
        /// What is wrong with them.
        why: String,
    },
    /// The deadline passed.
    #[error("no answer within {}: {last}", humantime::format_duration(*after))]
    TimedOut {
        /// The deadline's length.
        after: Duration,
        /// The reason for the delay.
        last: String,
    },
    /// The store failed.
    #[error("{0}")]
    Store(Arc<StoreError>),
    /// Not in the index, and no registry is configured.
    #[error("{what} is not known here and no registry was given to ask")]
    NotKnown {
        /// What was requested.
        what: String,
    },
    /// A file is a part of an object too large for memory that can be verified only as a whole.
    #[error(
        "{what} has {len} and only one digest for all of them, and a file that is a part of it cannot be fetched yet"
    )]
    TooLargeToVerify {
        /// The object.
        what: String,
        /// Its length.
        len: ByteSize,
    },
    /// The fetch was stopped from within: by a shutdown, or by a bug that was logged.
    #[error("the fetch was stopped")]
    Stopped,
}

impl FetchError {
    /// The error of a file whose ranges were proved and whose whole is another file.
    pub fn another_file(layout: &BlobLayout) -> Self {
        let digest = layout.pieces().first().map(|piece| piece.object.to_string());
        Self::Corrupt {
            what: format!("the file with SHA-256 {}", digest.unwrap_or_default()),
            why:
                "its parts match the hash that the source asserts, and all of them are another file"
                    .to_owned(),
        }
    }

    /// Whether a later attempt may succeed.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Registry(error) => error.is_transient(),
            Self::TimedOut { .. } => true,
            _ => false,
        }
    }

    /// Whether to repeat the request, and when.
    pub(super) fn retry(&self) -> Retry {
        match self {
            Self::Registry(error) => error.retry(),
            Self::TimedOut { .. } => Retry::Later { not_before: None },
            _ => Retry::Never,
        }
    }

    /// Whether the error concerns the flight, not the bytes: another flight may still get them. A flight
    /// of a demand read needs no space in the store.
    pub(super) fn is_of_the_flight(&self) -> bool {
        matches!(self, Self::Stopped | Self::Store(_))
    }
}

impl From<Stopped> for FetchError {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

impl From<StoreError> for FetchError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}
