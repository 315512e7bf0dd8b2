//! A version as the control API names it: group, model and version, each in a field of its own.
//!
//! Invariant: unchecked until [`Ref::parse`]. Plain values.

use modelfs::model::VersionRef;
use serde::{Deserialize, Serialize};

use crate::error::Failure;

/// A version, in parts: no text form can be misread.
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
    /// The checked reference.
    pub fn parse(&self) -> Result<VersionRef, Failure> {
        let model = format!("{}/{}", self.group, self.model);
        Ok(VersionRef::from_words(&[model, self.version.clone()])?)
    }
}

impl std::fmt::Display for Ref {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let model = format_args!("{}/{}", self.group, self.model);
        f.write_str(&modelfs::model::written(&model, &self.version))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_with_odd_signs_survive() {
        let r = Ref { group: "a".into(), model: "b@c".into(), version: "v@1".into() };
        assert_eq!(Ref::from(&r.parse().unwrap()), r);
        let bad = Ref { group: "..".into(), model: "b".into(), version: "c".into() };
        assert_eq!(bad.parse().unwrap_err().exit_code, 2);
    }
}
