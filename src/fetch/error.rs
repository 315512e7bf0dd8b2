//! Why bytes could not be had.
//!
//! Every text is one line and names what was asked for. Plain values.

use std::sync::Arc;
use std::time::Duration;

use crate::registry::{RegistryError, Retry};
use crate::store::StoreError;

/// Why bytes could not be had.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FetchError {
    /// The registry could not be reached, or has trouble, until the deadline or for good.
    #[error("{0}")]
    Registry(#[from] RegistryError),
    /// What came does not match its digest.
    #[error("{what}: {why}")]
    Corrupt {
        /// Which bytes of what, from where.
        what: String,
        /// What is wrong with them.
        why: String,
    },
    /// The deadline passed.
    #[error("no answer within {}: {last}", humantime::format_duration(*after))]
    TimedOut {
        /// The deadline's length.
        after: Duration,
        /// What was being waited for.
        last: String,
    },
    /// The store failed.
    #[error("{0}")]
    Store(Arc<StoreError>),
    /// Never seen, and there is no registry to ask.
    #[error("{what} is not known here and no registry was given to ask")]
    NotKnown {
        /// What was asked for.
        what: String,
    },
    /// The work was cut short from within: a shutdown, or a bug that was logged.
    #[error("the fetch was stopped")]
    Stopped,
}

impl FetchError {
    /// Whether asking again later may help.
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

    /// Whether it says something about the flight only, not about the bytes: another flight may bring
    /// them. A flight of a demand read needs no space in the store.
    pub(super) fn is_of_the_flight(&self) -> bool {
        matches!(self, Self::Stopped | Self::Store(_))
    }
}

impl From<StoreError> for FetchError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}
