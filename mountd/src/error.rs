//! How a command fails: one kind per exit code, one line of text, one hint.
//!
//! Invariant: the exit code follows from the kind alone, in the one match of [`Kind::exit_code`]; every
//! library error becomes a failure here, in one place; the daemon's failures reach the command line
//! unchanged. Plain values.

use modelfs::base::blocking::Stopped;
use modelfs::config::ConfigError;
use modelfs::fetch::FetchError;
use modelfs::manager::{ErrorKind, ManagerError};
use modelfs::model::ReferenceError;
use modelfs::registry::RegistryError;
use modelfs::store::StoreError;
use modelfs_platform::MountError;
use serde::{Deserialize, Serialize};

/// Of what kind a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// None of the others.
    General,
    /// The user stopped it.
    Interrupted,
    /// The command line is wrong or incomplete.
    Usage,
    /// The registry has no such model or version.
    NotFound,
    /// It is not here: not mounted, not cached, not pinned.
    NotCached,
    /// The registry could not be reached or gave no sensible answer.
    Network,
    /// Bytes did not match their digest.
    Verification,
    /// The cache folder or its index failed, or another process holds it.
    Storage,
}

impl Kind {
    /// The exit code that scripts see.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::General => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::NotCached => 4,
            Self::Network => 5,
            Self::Verification => 6,
            Self::Storage => 7,
            // As a shell reports a program that SIGINT ended.
            Self::Interrupted => 130,
        }
    }
}

/// What to do where a registry is needed and none is given.
const GIVE_REGISTRY: &str = "give --registry URL|FOLDER, or set MODELFS_REGISTRY";

/// Why a command failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Of what kind it is.
    pub kind: Kind,
    /// One line: what and where.
    pub message: String,
    /// What to do about it, if that can be said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The kind's exit code, for readers of the JSON.
    pub exit_code: u8,
}

impl Failure {
    /// A failure of that kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, exit_code: kind.exit_code() }
    }

    /// The command line is wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// Adds what to do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// A registry is needed, and none was given.
    pub fn no_registry(what: &str) -> Self {
        ManagerError::NoRegistry { action: what.to_owned() }.into()
    }

    /// Something of the cache folder failed.
    pub fn storage(path: &std::path::Path, action: &str, error: &std::io::Error) -> Self {
        Self::new(Kind::Storage, format!("{}: {action}: {error}", path.display()))
    }
}

impl From<ManagerError> for Failure {
    fn from(error: ManagerError) -> Self {
        let kind = match error.kind() {
            ErrorKind::InvalidRequest => Kind::Usage,
            ErrorKind::NotFound => Kind::NotFound,
            ErrorKind::NotCached => Kind::NotCached,
            ErrorKind::Network => Kind::Network,
            ErrorKind::Verification => Kind::Verification,
            ErrorKind::Storage => Kind::Storage,
            ErrorKind::Internal => Kind::General,
        };
        let failure = Self::new(kind, error.to_string());
        match advice(&error) {
            Some(advice) => failure.hint(advice),
            None => failure,
        }
    }
}

/// What a user of the command line can do about an error.
fn advice(error: &ManagerError) -> Option<String> {
    let meant = |suggestions: &[String]| match suggestions {
        [] => String::new(),
        names => format!("did you mean {}? ", names.join(" or ")),
    };
    Some(match error {
        ManagerError::InvalidOwner { .. } => {
            "write a name of at most 64 bytes, without commas".to_owned()
        }
        ManagerError::NoRegistry { .. } => GIVE_REGISTRY.to_owned(),
        ManagerError::Ambiguous { .. } => "say which with --registry".to_owned(),
        ManagerError::NotInRegistry { suggestions, .. } => {
            let meant = meant(suggestions);
            format!("{meant}`modelfs list --remote` shows all that the registry offers")
        }
        ManagerError::NotCached { suggestions, .. } => {
            format!("{}`modelfs list` shows what is cached", meant(suggestions))
        }
        ManagerError::NothingCached { .. } => "`modelfs list` shows what is cached".to_owned(),
        ManagerError::NotPinned { pinned_by, .. } if !pinned_by.is_empty() => {
            format!("it is pinned by {}: say whose pin with --owner", pinned_by.join(", "))
        }
        ManagerError::VersionNotMounted { .. } => {
            "mount it: modelfs mount MOUNTPOINT --registry URL|FOLDER --background".to_owned()
        }
        ManagerError::NoTrace { .. } => {
            "a load is recorded when a program reads the version for the first time".to_owned()
        }
        other => other.store_error()?.next_step()?.to_owned(),
    })
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::usage(error.to_string()).hint(error.next_step())
    }
}

impl From<Stopped> for Failure {
    fn from(error: Stopped) -> Self {
        ManagerError::from(error).into()
    }
}

impl From<ReferenceError> for Failure {
    fn from(error: ReferenceError) -> Self {
        ManagerError::from(error).into()
    }
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        ManagerError::from(error).into()
    }
}

impl From<FetchError> for Failure {
    fn from(error: FetchError) -> Self {
        ManagerError::from(error).into()
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        ManagerError::from(error).into()
    }
}

impl From<MountError> for Failure {
    fn from(error: MountError) -> Self {
        match &error {
            MountError::Mountpoint { .. } => Self::usage(error.to_string()),
            MountError::NotEmpty { .. } => Self::usage(error.to_string())
                .hint("mount at an empty folder, or give --allow-non-empty"),
            MountError::NoFuse(_) | MountError::Failed { .. } => {
                Self::new(Kind::General, error.to_string())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use modelfs::base::units::ByteSize;

    #[test]
    fn exit_codes_are_as_documented() {
        let all = [
            (Kind::General, 1),
            (Kind::Interrupted, 130),
            (Kind::Usage, 2),
            (Kind::NotFound, 3),
            (Kind::NotCached, 4),
            (Kind::Network, 5),
            (Kind::Verification, 6),
            (Kind::Storage, 7),
        ];
        for (kind, code) in all {
            assert_eq!(kind.exit_code(), code, "{kind:?}");
            assert_eq!(Failure::new(kind, "x").exit_code, code);
        }
    }

    #[test]
    fn causes_map_to_failure_kinds() {
        let what = || "x".to_owned();
        let unreachable = RegistryError::Unreachable { what: what(), why: what() };
        assert_eq!(Failure::from(FetchError::from(unreachable)).kind, Kind::Network);
        let wrong = RegistryError::WrongBytes { what: what(), why: what() };
        assert_eq!(Failure::from(wrong).kind, Kind::Verification);
        let missing = RegistryError::Missing { what: what() };
        assert_eq!(Failure::from(missing).kind, Kind::NotFound);
        let n = ByteSize::mib(1);
        let full = StoreError::NoSpace { wanted: n, limit: n, pinned: n, in_use: n };
        let of_a_fetch =
            Failure::from(FetchError::from(StoreError::TooLarge { wanted: n, room: n, limit: n }));
        assert_eq!(of_a_fetch.kind, Kind::Storage);
        assert!(of_a_fetch.hint.is_some_and(|h| h.contains("--cache-size")));
        let failure = Failure::from(full);
        assert_eq!(failure.kind, Kind::Storage);
        assert!(failure.hint.is_some_and(|h| h.contains("evict")));
    }

    #[test]
    fn a_failure_is_the_same_after_a_round_trip_over_the_socket() {
        let failure = Failure::new(Kind::NotFound, "no").hint("look");
        let text = serde_json::to_string(&failure).unwrap();
        assert!(text.contains(r#""kind":"not_found""#) && text.contains(r#""exit_code":3"#));
        assert_eq!(serde_json::from_str::<Failure>(&text).unwrap(), failure);
    }
}
