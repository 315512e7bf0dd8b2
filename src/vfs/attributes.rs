//! Extended attributes of files and version folders.
//!
//! `user.modelfs.sha256` the digest that the registry claims for the file · `.cached` its bytes in the
//! cache, verified or not yet, decimal · `.pinned` `yes` or `no` · `.error` why the last read failed, only if it did; on
//! folders above versions: why the last catalog request failed · `.hash` on version folders: the SHA-256
//! of the manifest. Pure values.

use crate::model::Digest;

/// Prefix of all attribute names of modelfs.
pub(super) const PREFIX: &str = "user.modelfs.";

/// The attribute values of an inode.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// The SHA-256 of the file, as the registry claims it.
    pub(super) sha256: Option<Digest>,
    /// Bytes of the file in the cache, also those that can be read only once the file is complete.
    pub(super) cached: Option<u64>,
    /// Whether the file is pinned.
    pub(super) pinned: Option<bool>,
    /// Why the last read failed.
    pub(super) error: Option<String>,
    /// The SHA-256 of the version's manifest.
    pub(super) hash: Option<Digest>,
}

impl Facts {
    fn all(&self) -> [(&'static str, Option<String>); 5] {
        let yes_or_no = |yes| if yes { "yes" } else { "no" };
        [
            ("user.modelfs.sha256", self.sha256.map(|d| d.to_string())),
            ("user.modelfs.cached", self.cached.map(|n| n.to_string())),
            ("user.modelfs.pinned", self.pinned.map(|p| yes_or_no(p).to_owned())),
            ("user.modelfs.error", self.error.clone()),
            ("user.modelfs.hash", self.hash.map(|d| d.to_string())),
        ]
    }

    /// The value of an attribute, without a terminating NUL.
    pub(super) fn value(&self, name: &str) -> Option<Vec<u8>> {
        let (_, value) = self.all().into_iter().find(|(n, _)| *n == name)?;
        value.map(String::into_bytes)
    }

    /// The attributes that have a value.
    pub(super) fn names(&self) -> Vec<String> {
        let with_value = self.all().into_iter().filter(|(_, value)| value.is_some());
        with_value.map(|(name, _)| name.to_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_attributes_are_not_listed() {
        let facts = Facts { cached: Some(42), pinned: Some(false), ..Facts::default() };
        assert_eq!(facts.names(), ["user.modelfs.cached", "user.modelfs.pinned"]);
        assert_eq!(facts.value("user.modelfs.cached").as_deref(), Some(&b"42"[..]));
        assert_eq!(facts.value("user.modelfs.pinned").as_deref(), Some(&b"no"[..]));
        assert_eq!(facts.value("user.modelfs.error"), None);
        assert_eq!(facts.value("user.modelfs."), None);
        assert!(facts.names().iter().all(|n| n.starts_with(PREFIX)));
    }
}
