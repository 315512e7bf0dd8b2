//! Why a configuration is refused: what, where, what to do.
//!
//! Invariant: the text is one line and holds no secret. Plain values.

use super::origin::Origin;

/// Why a configuration is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A value that its setting cannot have.
    #[error("{origin}: {why}")]
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
}

impl ConfigError {
    /// What to do about it.
    pub fn next_step(&self) -> String {
        match self {
            Self::Value { origin: Origin::Environment { variable }, .. } => {
                format!("correct the variable {variable}, or unset it")
            }
            Self::Value { key, .. } => format!("correct {key}"),
            Self::Conflict { first, second, .. } => format!("leave out {first} or {second}"),
        }
    }
}
