//! Where a value came from. Plain values.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Origin {
    /// Built in.
    #[default]
    Default,
    /// An environment variable.
    Environment {
        /// Its name.
        variable: String,
    },
    /// The command line.
    Argument {
        /// The flag with its dashes, or the argument's name in the help.
        name: String,
    },
    /// A file.
    File {
        /// Its path.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The column in characters, from 1.
        column: usize,
    },
    /// A place that only a newer program knows.
    #[serde(other)]
    Other,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Environment { variable } => f.write_str(variable),
            Self::Argument { name } => f.write_str(name),
            Self::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Self::Other => f.write_str("unknown"),
        }
    }
}

/// A value and where it came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting<T> {
    /// The value.
    pub value: T,
    /// Where it came from.
    #[serde(default)]
    pub origin: Origin,
}

impl<T> Setting<T> {
    /// A value that is built in.
    pub fn default(value: T) -> Self {
        Self { value, origin: Origin::Default }
    }

    /// A value of the command line; `name` as in [`Origin::Argument`].
    pub fn argument(name: &str, value: T) -> Self {
        Self { value, origin: Origin::Argument { name: name.to_owned() } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_of_a_newer_program_is_read_as_unknown() {
        let text = r#"{"value":1,"origin":{"kind":"oracle","words":[1]},"more":2}"#;
        let setting: Setting<u32> = serde_json::from_str(text).unwrap();
        assert_eq!(setting, Setting { value: 1, origin: Origin::Other });
        let origin = Origin::Environment { variable: "X".into() };
        let text = serde_json::to_string(&origin).unwrap();
        assert_eq!(text, r#"{"kind":"environment","variable":"X"}"#);
        assert_eq!(serde_json::from_str::<Origin>(&text).unwrap(), origin);
    }
}
