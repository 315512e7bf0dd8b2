//! A version as requests and answers name it: group, model and version, each in a field of its own.
//!
//! Invariant: its names are unchecked until [`Ref::parse`]. Plain values.

use serde::{Deserialize, Serialize};

use crate::model::{ReferenceError, VersionRef, written};

/// A version by its three names, so that no separator can be misread.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ref {
    /// The group.
    pub group: String,
    /// The model.
    pub model: String,
    /// The version.
    pub version: String,
}

impl From<&VersionRef> for Ref {
    fn from(r: &VersionRef) -> Self {
        Self {
            group: r.model.group.as_str().to_owned(),
            model: r.model.model.as_str().to_owned(),
            version: r.version.as_str().to_owned(),
        }
    }
}

impl Ref {
    /// Checks the names.
    pub fn parse(&self) -> Result<VersionRef, ReferenceError> {
        let model = format!("{}/{}", self.group, self.model);
        VersionRef::from_words(&[model, self.version.clone()])
    }
}

impl std::fmt::Display for Ref {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let model = format_args!("{}/{}", self.group, self.model);
        f.write_str(&written(&model, &self.version))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::{ErrorKind, ManagerError};

    #[test]
    fn references_with_separators_in_their_names_survive() {
        let r = Ref { group: "a".into(), model: "b@c".into(), version: "v@1".into() };
        assert_eq!(Ref::from(&r.parse().unwrap()), r);
        let bad = Ref { group: "..".into(), model: "b".into(), version: "c".into() };
        let error = ManagerError::from(bad.parse().unwrap_err());
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    }
}
