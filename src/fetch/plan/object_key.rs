//! When two objects are the same bytes, checked in the same way. Plain values.

use crate::model::{Check, Digest, HashAlgorithm, LARGE_PART, Object};

/// Identity of an object to fetch: the digest that is checked, the kind of check, and the length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ObjectKey {
    check: Check,
    /// The digest of the object if it is checked as a whole; else of its leaf list.
    digest: Digest,
    len: u64,
    /// Whether it is verified by the checksums of its parts that were learned.
    learned: bool,
}

impl ObjectKey {
    /// The key of an object.
    pub fn of(object: &Object) -> Self {
        let digest = match object.check {
            Check::Whole | Check::WholeLarge | Check::GitBlob | Check::Proof { .. } => {
                object.digest
            }
            Check::Leaves { list, .. } => list,
        };
        Self { check: object.check, digest, len: object.len, learned: false }
    }

    /// The key of an object that was verified as a whole before, and is verified part by part now.
    pub fn learned(object: &Object) -> Self {
        Self { learned: true, ..Self::of(object) }
    }

    /// Whether it is verified by the checksums of its parts that were learned.
    pub fn is_learned(&self) -> bool {
        self.learned
    }
}

/// An object as it is verified once its parts have checksums that were learned: each part is a leaf. No
/// registry has the list of these.
pub fn by_parts(object: &Object) -> Object {
    let (size, digest, list) = (LARGE_PART, HashAlgorithm::Blake3, object.digest);
    Object { check: Check::Leaves { size, digest, list }, ..object.clone() }
}
