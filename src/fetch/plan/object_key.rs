//! When two objects are the same bytes, checked in the same way. Plain values.

use crate::model::{Check, Digest, Object};

/// Identity of an object to fetch: the digest that is checked, the kind of check, and the length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ObjectKey {
    check: Check,
    /// The digest of the object if it is checked as a whole; else of its leaf list.
    digest: Digest,
    len: u64,
}

impl ObjectKey {
    /// The key of an object.
    pub fn of(object: &Object) -> Self {
        let digest = match object.check {
            Check::Whole | Check::WholeLarge | Check::GitBlob => object.digest,
            Check::Leaves { list, .. } => list,
        };
        Self { check: object.check, digest, len: object.len }
    }
}
