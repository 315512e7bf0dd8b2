//! Why a command failed: its kind, one line of text, and the cause.
//!
//! Invariant: the kind follows from the error alone. Texts give no advice on command-line options: the
//! program that shows an error adds it. Plain values.

use super::reference::Ref;
use crate::base::blocking::Stopped;
use crate::fetch::FetchError;
use crate::model::trace::TraceError;
use crate::model::{ReferenceError, VersionRef};
use crate::registry::RegistryError;
use crate::store::StoreError;

/// Of what kind a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request cannot be carried out as it is.
    InvalidRequest,
    /// The registry has no such model or version.
    NotFound,
    /// It is not here: not mounted, not cached, not pinned, not recorded.
    NotCached,
    /// The registry could not be reached or gave no sensible answer.
    Network,
    /// Bytes did not match their digest.
    Verification,
    /// The cache folder or its index failed.
    Storage,
    /// None of the others.
    Internal,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    /// The reference has names that cannot be.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// An owner that cannot be listed or shown.
    #[error("'{}' is not a valid owner", owner.escape_debug())]
    InvalidOwner {
        /// As given.
        owner: String,
    },
    /// A registry is needed and none is configured.
    #[error("{action} needs a registry, and none was given")]
    NoRegistry {
        /// What needs it.
        action: String,
    },
    /// Several registries know the version.
    #[error("{version} is known from several registries: {first} and {second}")]
    Ambiguous {
        /// Which version.
        version: VersionRef,
        /// One registry.
        first: String,
        /// Another one.
        second: String,
    },
    /// The registry's catalog does not have the version.
    #[error("{version} is not in the registry {registry}")]
    NotInRegistry {
        /// Which version.
        version: VersionRef,
        /// Which registry.
        registry: String,
        /// Similar names that it has.
        suggestions: Vec<String>,
    },
    /// The last catalog does not have the version, and the registry cannot be asked for a newer one.
    #[error("{version} is not in the catalog last seen of {registry}: {reason}")]
    NotInLastCatalog {
        /// Which version.
        version: VersionRef,
        /// Which registry.
        registry: String,
        /// Why there is no newer catalog.
        reason: String,
    },
    /// The version is cached, and the registry's catalog no longer has it.
    #[error("{version} is cached, but the registry no longer offers it")]
    NoLongerOffered {
        /// Which version.
        version: VersionRef,
    },
    /// Nothing here knows the version.
    #[error("{version} is not cached")]
    NotCached {
        /// Which version.
        version: VersionRef,
        /// Similar names that are known.
        suggestions: Vec<String>,
    },
    /// No bytes of the version are cached.
    #[error("nothing of {version} is cached")]
    NothingCached {
        /// Which version.
        version: VersionRef,
    },
    /// No bytes at all are cached.
    #[error("nothing is cached")]
    EmptyCache,
    /// The owner has no pin on the version.
    #[error("{version} is not pinned by {}", owner.escape_debug())]
    NotPinned {
        /// Which version.
        version: VersionRef,
        /// Whose pin was asked for.
        owner: String,
        /// Who has one.
        pinned_by: Vec<String>,
    },
    /// The version is not mounted, since nothing is.
    #[error("{version} is not mounted")]
    VersionNotMounted {
        /// Which version.
        version: VersionRef,
    },
    /// This process is no daemon.
    #[error("nothing is mounted")]
    NotMounted,
    /// No trace of the version was recorded.
    #[error("no load of {reference} was recorded")]
    NoTrace {
        /// Which version.
        reference: Ref,
    },
    /// The given trace cannot be read.
    #[error(transparent)]
    InvalidTrace(TraceError),
    /// The trace in the index cannot be read.
    #[error("the index has {0}")]
    DamagedTrace(#[source] TraceError),
    /// The registry could not be asked for its catalog.
    #[error("{reason}")]
    CatalogUnavailable {
        /// Why.
        reason: String,
    },
    /// The daemon could not replace its worker.
    #[error("restart failed: {reason}")]
    RestartFailed {
        /// Why.
        reason: String,
    },
    /// Fetching failed.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The registry failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A task of this process panicked or was cancelled.
    #[error(transparent)]
    Task(#[from] Stopped),
}

impl ManagerError {
    /// Of what kind it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Reference(_)
            | Self::InvalidOwner { .. }
            | Self::NoRegistry { .. }
            | Self::Ambiguous { .. }
            | Self::InvalidTrace(_) => ErrorKind::InvalidRequest,
            Self::NotInRegistry { .. } | Self::NoLongerOffered { .. } => ErrorKind::NotFound,
            Self::NotCached { .. }
            | Self::NothingCached { .. }
            | Self::EmptyCache
            | Self::NotPinned { .. }
            | Self::VersionNotMounted { .. }
            | Self::NotMounted
            | Self::NoTrace { .. } => ErrorKind::NotCached,
            Self::NotInLastCatalog { .. } | Self::CatalogUnavailable { .. } => ErrorKind::Network,
            Self::DamagedTrace(_) => ErrorKind::Storage,
            Self::RestartFailed { .. } | Self::Task(_) => ErrorKind::Internal,
            Self::Fetch(error) => of_fetch(error),
            Self::Registry(error) => of_registry(error),
            Self::Store(StoreError::Limit { .. }) => ErrorKind::InvalidRequest,
            Self::Store(_) => ErrorKind::Storage,
        }
    }

    /// The store's error, if one is the cause.
    pub fn store_error(&self) -> Option<&StoreError> {
        match self {
            Self::Store(error) => Some(error),
            Self::Fetch(FetchError::Store(error)) => Some(error),
            _ => None,
        }
    }
}

fn of_fetch(error: &FetchError) -> ErrorKind {
    match error {
        FetchError::Registry(error) => of_registry(error),
        FetchError::Corrupt { .. } => ErrorKind::Verification,
        FetchError::TimedOut { .. } => ErrorKind::Network,
        FetchError::Store(_) => ErrorKind::Storage,
        FetchError::NotKnown { .. } => ErrorKind::NotCached,
        // The daemon ends; the caller of this command stopped nothing.
        FetchError::Stopped | FetchError::TooLargeToVerify { .. } => ErrorKind::Internal,
    }
}

fn of_registry(error: &RegistryError) -> ErrorKind {
    match error {
        RegistryError::Unreachable { .. }
        | RegistryError::NoFolder { .. }
        | RegistryError::Busy { .. }
        | RegistryError::Refused { .. }
        | RegistryError::Denied { .. }
        // A proxy's login page is the usual cause: trouble on the way, not damage.
        | RegistryError::Invalid { .. } => ErrorKind::Network,
        RegistryError::Missing { .. } => ErrorKind::NotFound,
        RegistryError::WrongBytes { .. } | RegistryError::Unproven { .. } => ErrorKind::Verification,
        RegistryError::BadName { .. } => ErrorKind::InvalidRequest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::units::ByteSize;

    #[test]
    fn the_cause_decides_the_error_kind() {
        let what = || "x".to_owned();
        let unreachable = RegistryError::Unreachable { what: what(), why: what() };
        let kind = |error: ManagerError| error.kind();
        assert_eq!(kind(FetchError::from(unreachable).into()), ErrorKind::Network);
        let wrong = RegistryError::WrongBytes { what: what(), why: what() };
        assert_eq!(kind(wrong.into()), ErrorKind::Verification);
        assert_eq!(kind(RegistryError::Missing { what: what() }.into()), ErrorKind::NotFound);
        let n = ByteSize::mib(1);
        let limit = || StoreError::Limit { given: n, least: n };
        assert_eq!(kind(limit().into()), ErrorKind::InvalidRequest);
        assert_eq!(kind(FetchError::from(limit()).into()), ErrorKind::Storage);
    }

    #[test]
    fn errors_keep_their_cause() {
        use std::error::Error;
        let disk = std::io::Error::other("spoilt");
        let error = StoreError::Disk { path: "x".into(), action: "reading", source: disk };
        let error = ManagerError::from(error);
        assert!(error.source().is_some_and(|cause| cause.to_string() == "spoilt"), "{error:?}");
        assert!(error.store_error().is_some());
    }
}
