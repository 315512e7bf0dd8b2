//! A mount without its descriptor: found by its numbers and unmounted at its current path.
//!
//! Invariant: only this mount is unmounted, and it is reported gone only when the mount table no longer
//! lists it. It is found by its numbers and its source, not by its path: a parent folder may have been
//! renamed. The kernel reuses both numbers as soon as a mount is gone, so each mount has a unique
//! source. Plain values, any thread; nothing touches the mount itself, which may be dead.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};

use super::{mountinfo, system};
use crate::error::MountError;

/// Number of attempts while parent folders are renamed.
const TRIES: u32 = 4;

/// A mount, identified by its numbers.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Mounted {
    /// Where it was mounted.
    pub point: PathBuf,
    /// Its connection number, in sysfs and in the device number of its files.
    pub number: Option<String>,
    /// Its mount id in the mount table; none: noted by an older version.
    #[serde(default)]
    pub id: Option<u64>,
    /// Its mount source, a unique name; none: noted by an older version.
    #[serde(default)]
    pub source: Option<String>,
}

impl Mounted {
    /// Makes a source for one mount: the program's name and a random number.
    pub(super) fn new_source() -> String {
        let random = RandomState::new().build_hasher().finish();
        format!("modelfs-{:08x}", random >> 32)
    }

    /// The mount that was just made there from that source.
    pub(super) fn at(point: &Path, source: String) -> Self {
        let found = mountinfo::all()
            .into_iter()
            .rfind(|m| m.kind == mountinfo::TYPE && m.point == point && m.source == source);
        Self {
            point: point.to_owned(),
            number: found.as_ref().and_then(|m| m.connection().map(str::to_owned)),
            id: found.map(|m| m.id),
            source: Some(source),
        }
    }

    fn is(&self, other: &mountinfo::Mounted) -> bool {
        if self.source.as_ref().is_some_and(|source| *source != other.source) {
            return false;
        }
        let same = match (&self.number, self.id) {
            (Some(number), Some(id)) => other.connection() == Some(number) && other.id == id,
            // Without a mount id, a mount of the same connection elsewhere counts as another one.
            (Some(number), None) => other.connection() == Some(number) && other.point == self.point,
            (None, _) => other.point == self.point,
        };
        same && other.kind == mountinfo::TYPE
    }

    /// The mount's current entry in the mount table.
    pub(super) fn found(&self) -> Option<mountinfo::Mounted> {
        mountinfo::all().into_iter().rfind(|other| self.is(other))
    }

    /// Whether it is still mounted at its mount point.
    pub(super) fn is_in_place(&self) -> bool {
        self.found().is_some_and(|found| found.point == self.point)
    }

    /// Unmounts it; no error if it is gone.
    pub(super) fn unmount(&self) -> Result<(), MountError> {
        let mut outcome = Ok(());
        for _ in 0..TRIES {
            let Some(found) = self.found() else { return Ok(()) };
            // An unmount by path takes the topmost mount there, even if it is another one.
            outcome = match mountinfo::at(&found.point) {
                Some(top) if top.id == found.id => system::unmount(&found.point).map(drop),
                Some(top) => Err(MountError::Failed {
                    path: found.point,
                    source: io::Error::other(format!(
                        "a {} mount lies over it: unmount that first",
                        top.kind
                    )),
                }),
                None => continue,
            };
        }
        match self.found() {
            Some(found) => outcome.and(Err(MountError::Failed {
                path: found.point,
                source: io::Error::other("it is still mounted"),
            })),
            None => Ok(()),
        }
    }

    /// Aborts the connection: files that are still open get errors.
    pub(super) fn abort(&self) {
        let Some(number) = &self.number else { return };
        let path = format!("/sys/fs/fuse/connections/{number}/abort");
        match std::fs::write(&path, "1") {
            Ok(()) => tracing::info!("files were still open and have been cut off"),
            Err(error) => {
                tracing::debug!(%error, path, "open files stay until the last process ends");
            }
        }
    }

    /// Aborts the connection and unmounts, if it is still the same mount.
    pub fn end(&self) -> Result<(), MountError> {
        // Once the mount is gone, its number may have been reused, and no reader is left. So abort
        // first, while the number is its own.
        if self.found().is_none() {
            return Ok(());
        }
        self.abort();
        self.unmount()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_known_by_its_numbers_and_not_by_its_path() {
        let ours = |number: Option<&str>, id| Mounted {
            point: "/a/models".into(),
            number: number.map(str::to_owned),
            id,
            source: None,
        };
        let there = |id, minor, point: &str, kind: &str| mountinfo::Mounted {
            id,
            device: format!("0:{minor}"),
            point: point.into(),
            kind: kind.into(),
            source: "modelfs-7f".into(),
            user: None,
        };
        let moved = there(97, 52, "/b/models", mountinfo::TYPE);
        assert!(ours(Some("52"), Some(97)).is(&moved));
        let copy = there(98, 52, "/container/models", mountinfo::TYPE);
        assert!(!ours(Some("52"), Some(97)).is(&copy), "a bind mount of it");
        let later = there(97, 60, "/a/models", mountinfo::TYPE);
        assert!(!ours(Some("52"), Some(97)).is(&later), "its own number was given again");
        assert!(!ours(Some("52"), Some(97)).is(&there(97, 52, "/a/models", "tmpfs")));
        // As an older version noted it.
        assert!(ours(Some("52"), None).is(&there(97, 52, "/a/models", mountinfo::TYPE)));
        assert!(!ours(Some("52"), None).is(&moved));
    }

    #[test]
    fn a_new_mount_with_reused_numbers_is_not_taken_for_the_old_one() {
        let ours = |source: &str| Mounted {
            point: "/a/models".into(),
            number: Some("52".into()),
            id: Some(97),
            source: Some(source.into()),
        };
        let there = mountinfo::Mounted {
            id: 97,
            device: "0:52".into(),
            point: "/b/models".into(),
            kind: mountinfo::TYPE.into(),
            source: "modelfs-7f".into(),
            user: None,
        };
        assert!(ours("modelfs-7f").is(&there));
        assert!(!ours("modelfs-80").is(&there));
        assert_ne!(Mounted::new_source(), Mounted::new_source());
    }
}
