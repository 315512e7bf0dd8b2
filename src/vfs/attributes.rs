//! Extended attributes of files and version folders.
//!
//! `user.modelfs.sha256` the digest that the registry claims for the file · `.cached` its bytes in the
//! cache, verified or not yet, decimal · `.pinned` `yes` or `no` · `.error` why the last read failed, only if
//! it did; on folders above versions: why the last catalog request failed · `.hash` on version folders: the
//! SHA-256 of the manifest · `.verified` on files: what their cached bytes have matched, `verified` (a digest
//! that the version binds), `attested` (a hash that the source asserts for the file), or `absent` (none are
//! cached). Pure values.

use crate::model::Digest;

/// Prefix of all attribute names of modelfs.
pub(super) const PREFIX: &str = "user.modelfs.";

/// What the cached bytes of a file have matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// None are cached.
    Absent,
    /// A hash that the source asserts for the file.
    Attested,
    /// A digest that the version binds.
    Verified,
}

impl Trust {
    /// What so many cached bytes have matched. `proved`: their ranges were proved. `whole_matched`: the
    /// digest of the whole has matched once.
    pub(super) fn of(cached: u64, proved: bool, whole_matched: bool) -> Self {
        match cached {
            0 => Self::Absent,
            _ if proved && !whole_matched => Self::Attested,
            _ => Self::Verified,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Attested => "attested",
            Self::Verified => "verified",
        }
    }
}

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
    /// What the cached bytes of the file have matched.
    pub(super) verified: Option<Trust>,
}

impl Facts {
    fn all(&self) -> [(&'static str, Option<String>); 6] {
        let yes_or_no = |yes| if yes { "yes" } else { "no" };
        [
            ("user.modelfs.sha256", self.sha256.map(|d| d.to_string())),
            ("user.modelfs.cached", self.cached.map(|n| n.to_string())),
            ("user.modelfs.pinned", self.pinned.map(|p| yes_or_no(p).to_owned())),
            ("user.modelfs.error", self.error.clone()),
            ("user.modelfs.hash", self.hash.map(|d| d.to_string())),
            ("user.modelfs.verified", self.verified.map(|trust| trust.word().to_owned())),
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
    fn a_file_whose_ranges_were_proved_is_verified_once_the_whole_has_matched() {
        let of = |cached, proved, whole| Trust::of(cached, proved, whole).word();
        assert_eq!((of(0, true, true), of(0, false, false)), ("absent", "absent"));
        assert_eq!((of(1, true, false), of(1, true, true)), ("attested", "verified"));
        assert_eq!(of(1, false, false), "verified");
    }

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
