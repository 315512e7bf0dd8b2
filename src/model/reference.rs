//! References to versions in text form: `group/model version`, `group/model@version`,
//! `group/model/version`.
//!
//! Plain values.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::name::{Name, NameError};
use crate::base::text::brief;

/// A model: `group/model`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelRef {
    /// The group.
    pub group: Name,
    /// The model within it.
    pub model: Name,
}

/// A version of a model.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VersionRef {
    /// The model.
    pub model: ModelRef,
    /// The version.
    pub version: Name,
}

/// Maximum number of characters of the input that an error shows.
const SHOWN: usize = 120;

/// Why a text names no model or version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Not of a form that names a model.
    #[error("'{0}' does not name a model: write GROUP/MODEL")]
    Model(String),
    /// Not of a form that names a version.
    #[error(
        "'{0}' does not name a version: write GROUP/MODEL@VERSION, GROUP/MODEL/VERSION or GROUP/MODEL VERSION"
    )]
    Version(String),
    /// An illegal name in the text.
    #[error("'{text}': the name '{part}' {why}")]
    Name {
        /// The whole text.
        text: String,
        /// The illegal part.
        part: String,
        /// What is wrong with it.
        why: NameError,
    },
}

fn name(text: &str, part: &str) -> Result<Name, ReferenceError> {
    Name::new(part).map_err(|why| ReferenceError::Name {
        text: brief(text, SHOWN),
        part: brief(part, SHOWN),
        why,
    })
}

impl FromStr for ModelRef {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        match text.split('/').collect::<Vec<_>>()[..] {
            [group, model] => Ok(Self { group: name(text, group)?, model: name(text, model)? }),
            _ => Err(ReferenceError::Model(brief(text, SHOWN))),
        }
    }
}

impl FromStr for VersionRef {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let bad = || ReferenceError::Version(brief(text, SHOWN));
        let (model, version) = match text.rsplit_once('@') {
            Some((model, version)) if model.matches('/').count() == 1 => (model, version),
            _ => text.rsplit_once('/').ok_or_else(bad)?,
        };
        let model = model.parse().map_err(|e| match e {
            ReferenceError::Model(_) => bad(),
            other => other,
        })?;
        Ok(Self { model, version: name(text, version)? })
    }
}

impl VersionRef {
    /// Its folder in a tree of models rooted at `root`.
    pub fn folder_in(&self, root: &Path) -> PathBuf {
        let model = root.join(self.model.group.as_str()).join(self.model.model.as_str());
        model.join(self.version.as_str())
    }

    /// From the one or two words of a command line.
    pub fn from_words(words: &[String]) -> Result<Self, ReferenceError> {
        match words {
            [one] => one.parse(),
            [model, version] => {
                let text = format!("{model} {version}");
                Ok(Self { model: model.parse()?, version: name(&text, version)? })
            }
            _ => Err(ReferenceError::Version(brief(&words.join(" "), SHOWN))),
        }
    }
}

/// A version as one word that parses back to the same: an `@` in the version's name would be taken for
/// the separator, so `/` is used then.
pub fn written(model: &impl fmt::Display, version: &str) -> String {
    let sign = if version.contains('@') { '/' } else { '@' };
    format!("{model}{sign}{version}")
}

impl fmt::Display for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.group, self.model))
    }
}

impl fmt::Display for VersionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&written(&self.model, self.version.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_ways_to_write_a_version() {
        let want = "org/net@v1".parse::<VersionRef>().unwrap();
        assert_eq!("org/net/v1".parse(), Ok(want.clone()));
        assert_eq!(VersionRef::from_words(&["org/net".into(), "v1".into()]), Ok(want.clone()));
        assert_eq!(VersionRef::from_words(&["org/net/v1".into()]), Ok(want.clone()));
        assert_eq!(want.to_string(), "org/net@v1");
        let at = "org/net/v@1".parse::<VersionRef>().unwrap();
        assert_eq!((at.version.as_str(), at.model.to_string().as_str()), ("v@1", "org/net"));
    }

    #[test]
    fn a_displayed_reference_parses_to_itself() {
        for (group, model, version) in [
            ("g", "m", "v"),
            ("g@", "m", "v"),
            ("g", "m@1", "v"),
            ("g", "m", "v@1"),
            ("@", "@", "@"),
        ] {
            let name = |n| Name::new(n).unwrap();
            let model = ModelRef { group: name(group), model: name(model) };
            let want = VersionRef { model, version: name(version) };
            assert_eq!(want.to_string().parse(), Ok(want.clone()), "{want}");
        }
    }

    #[test]
    fn invalid_references_are_refused() {
        for bad in ["", "org", "org/net", "/org/net/v1", "a/b/c/d", "org/net@", "org/../v1", "@"] {
            assert!(bad.parse::<VersionRef>().is_err(), "{bad}");
        }
        assert!(VersionRef::from_words(&[]).is_err());
    }
}
