//! Why a configuration is refused: what, where, what to do.
//!
//! Invariant: the text is one line and holds no secret. Plain values.

use std::io;
use std::path::PathBuf;

use super::origin::Origin;
use crate::base::text::brief;

/// How like a known key an unknown one must be to be taken for it (0 to 1).
const LIKENESS: f64 = 0.6;

/// Characters of an unknown key that a message shows.
const SHOWN: usize = 60;

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A value that its setting cannot have.
    #[error("{origin}: {}{why}", shown_key(.origin, .key))]
    Value {
        /// Where it stands.
        origin: Origin,
        /// The setting.
        key: String,
        /// What is wrong.
        why: String,
    },
    /// Two settings that exclude each other.
    #[error("{first} ({first_origin}) and {second} ({second_origin}) exclude each other")]
    Conflict {
        /// The one.
        first: &'static str,
        /// Where it stands.
        first_origin: Origin,
        /// The other.
        second: &'static str,
        /// Where it stands.
        second_origin: Origin,
    },
    /// A file that is no TOML.
    #[error("{origin}: {why}")]
    Syntax {
        /// Where it goes wrong.
        origin: Origin,
        /// What is wrong.
        why: String,
    },
    /// A key that no setting has.
    #[error("{origin}: there is no setting '{key}'")]
    Unknown {
        /// Where it stands.
        origin: Origin,
        /// The key.
        key: String,
        /// A setting with a similar key.
        meant: Option<&'static str>,
    },
    /// A secret itself instead of a reference to it.
    #[error(
        "{origin}: {key}: a secret may not stand in a configuration file, which is copied and shown"
    )]
    LiteralSecret {
        /// Where it stands.
        origin: Origin,
        /// The key.
        key: String,
    },
    /// A setting that a project may not change.
    #[error("{origin}: {key} may not stand in a project's file, which comes with the project")]
    NotOfProject {
        /// Where it stands.
        origin: Origin,
        /// The key.
        key: String,
    },
    /// A source without an address.
    #[error("{origin}: the source '{name}' has no url")]
    NoAddress {
        /// Where its name stands.
        origin: Origin,
        /// Its name.
        name: String,
    },
    /// A host that the policy does not allow.
    #[error("{origin}: the host {host} is not in allowed_hosts ({policy})")]
    NotAllowed {
        /// Where the address stands.
        origin: Origin,
        /// The host.
        host: String,
        /// Where the list stands that lacks it.
        policy: Origin,
    },
    /// A file that cannot be read.
    #[error("{}: reading the configuration: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file that another user may have written.
    #[error("{}: not read: {why}", path.display())]
    Unsafe {
        /// The file.
        path: PathBuf,
        /// What other users can do to it.
        why: String,
    },
    /// A file that is too large.
    #[error("{}: larger than {limit} bytes, which no configuration is", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit: usize,
    },
}

/// A variable and a flag are named by their origin.
fn shown_key(origin: &Origin, key: &str) -> String {
    match origin {
        Origin::File { .. } => format!("{key}: "),
        _ => String::new(),
    }
}

impl ConfigError {
    /// An unknown key, with the one that was meant.
    pub(super) fn unknown(
        key: &str,
        origin: Origin,
        known: impl Iterator<Item = &'static str>,
    ) -> Self {
        let wanted = brief(key, SHOWN).to_lowercase().replace('-', "_");
        let likeness = |name: &str| strsim::normalized_damerau_levenshtein(&wanted, name);
        let nearest = known.max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
        let meant = nearest.filter(|name| likeness(name) >= LIKENESS);
        Self::Unknown { origin, key: brief(key, SHOWN), meant }
    }

    /// What to do about it.
    pub fn next_step(&self) -> String {
        match self {
            Self::Value { origin: Origin::Environment { variable }, .. } => {
                format!("correct the variable {variable}, or unset it")
            }
            Self::Value { key, .. } => format!("correct {}", brief(key, SHOWN)),
            Self::Conflict { first, second, .. } => format!("leave out {first} or {second}"),
            Self::Syntax { .. } => {
                "correct this line; `modelfs config check FILE` checks it".into()
            }
            Self::Unknown { meant: Some(meant), .. } => format!("did you mean {meant}?"),
            Self::Unknown { meant: None, .. } => "docs/configuration.md lists all settings".into(),
            Self::LiteralSecret { .. } => {
                "say where it is: token_file, token_command or token_variable".into()
            }
            Self::NotOfProject { .. } => {
                "put it into the user's file or the system's, or give it as a flag".into()
            }
            Self::NoAddress { name, .. } => {
                format!("give its url, or name a source that a weaker file has instead of {name}")
            }
            Self::NotAllowed { .. } => {
                "use another address, or ask the administrator who keeps that list".into()
            }
            Self::Unreadable { path, .. } => {
                format!("see to it that you may read {}, or remove it", path.display())
            }
            Self::Unsafe { path, .. } => format!(
                "make it yours alone (chown, chmod go-w), or name the file to use: --config FILE instead of {}",
                path.display()
            ),
            Self::TooLarge { path, .. } => format!("shorten {}", path.display()),
        }
    }
}
