//! The expected digests of a run of an object's leaves. Immutable values, cheap to clone.

use std::ops::Range;
use std::sync::Arc;

use super::digest::Digest;
use super::hash::HashAlgorithm;
use super::object::Object;

/// The digests of a run of leaves of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaves {
    algorithm: HashAlgorithm,
    first: u64,
    digests: Arc<[Digest]>,
}

impl Leaves {
    /// The digests of the leaves from `first` on.
    pub fn new(algorithm: HashAlgorithm, first: u64, digests: Arc<[Digest]>) -> Self {
        Self { algorithm, first, digests }
    }

    /// The digest of an object that is a single leaf.
    pub fn whole(object: &Object) -> Self {
        Self { algorithm: object.algorithm, first: 0, digests: Arc::from([object.digest]) }
    }

    /// The hash algorithm of the leaves.
    pub fn algorithm(&self) -> HashAlgorithm {
        self.algorithm
    }

    /// The digest of a leaf, if it is in the run.
    pub fn digest(&self, leaf: u64) -> Option<Digest> {
        let at = usize::try_from(leaf.checked_sub(self.first)?).ok()?;
        self.digests.get(at).copied()
    }

    /// Whether the bytes match the digest of the leaf. Hashes them.
    pub fn matches(&self, leaf: u64, bytes: &[u8]) -> bool {
        self.digest(leaf).is_some_and(|want| self.algorithm.hash(bytes) == want)
    }

    /// Whether all of these leaves are in the run.
    pub fn covers(&self, leaves: &Range<u64>) -> bool {
        self.first <= leaves.start && leaves.end <= self.first + self.digests.len() as u64
    }

    /// Memory used by the digests, in bytes.
    pub fn memory(&self) -> usize {
        size_of_val(&*self.digests)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::hash::{blake3, git_blob, sha256};
    use crate::model::{Check, Object};

    #[test]
    fn a_run_knows_its_own_leaves_and_no_others() {
        let leaves = Leaves::new(HashAlgorithm::Blake3, 5, [blake3(b"a"), blake3(b"b")].into());
        assert!(leaves.matches(5, b"a") && leaves.matches(6, b"b"));
        assert!(!leaves.matches(6, b"a") && !leaves.matches(4, b"a") && !leaves.matches(7, b"b"));
        assert!(leaves.covers(&(5..7)) && leaves.covers(&(6..6)));
        assert!(!leaves.covers(&(4..6)) && !leaves.covers(&(6..8)));
    }

    #[test]
    fn an_object_that_is_its_one_leaf_is_checked_by_its_own_digest() {
        let leaves = Leaves::whole(&Object::new(sha256(b"abc"), 3, Check::Whole));
        assert!(leaves.matches(0, b"abc") && !leaves.matches(0, b"abd") && !leaves.matches(1, b""));
        let git = Leaves::whole(&Object::git_blob(git_blob(b"abc"), 3, "x".into()));
        assert!(git.matches(0, b"abc") && !git.matches(0, b"abd"));
    }
}
