//! Objects: the units that a source keeps, how they are fetched, and how their bytes are verified.
//!
//! An object is verified in leaves: ranges of the object with a digest each. Its identity (its digest) is
//! separate from how its source fetches it (its locator): objects with the same SHA-256 are the same
//! object, wherever they are. Immutable values.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::digest::{Digest, GitId};
use super::hash::HashAlgorithm;
use crate::base::ObjectRange;

/// Maximum number of bytes that one digest may cover: a leaf, or an object without leaves, is held in
/// memory until it has matched.
pub const MAX_LEAF: u64 = 64 << 20;
/// Minimum size of a leaf, except the last of its object: a page; below, digests outweigh data.
pub const MIN_LEAF: u64 = 4 << 10;
/// Bytes of each part of an object that has no leaves of its own and may be too large for memory: its
/// presence, eviction and checksums after it was accepted.
pub const LARGE_PART: u64 = 1 << 20;

/// How an object is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Check {
    /// The object is a single leaf; its name is the SHA-256 of its bytes.
    Whole,
    /// The object is a single leaf that is not held in memory: it is stored unverified, in order, and is
    /// readable once the SHA-256 of all its bytes, which is its name, has matched.
    WholeLarge,
    /// The object is a single leaf; its name is its id as a git blob.
    GitBlob,
    /// Ranges of the object are verified by proofs against a hash that its source asserts for it, of a form
    /// that the source knows; all of it by the SHA-256 of its bytes, which is its name.
    Proof {
        /// That hash.
        root: Digest,
    },
    /// Leaves of `size` bytes, the last one shorter.
    Leaves {
        /// Bytes of each leaf but the last.
        size: u64,
        /// The hash algorithm of the leaves.
        digest: HashAlgorithm,
        /// The SHA-256 of the leaf list.
        list: Digest,
    },
}

impl Check {
    /// The check of an object of that length of which only the digest of all its bytes is known.
    pub fn of_whole(object_len: u64) -> Self {
        if object_len > MAX_LEAF { Self::WholeLarge } else { Self::Whole }
    }

    /// Bytes of each leaf but the last.
    pub fn leaf_size(&self, object_len: u64) -> u64 {
        match self {
            Self::Whole | Self::WholeLarge | Self::GitBlob => object_len,
            // A proof is of any range: the parts are what is asked for.
            Self::Proof { .. } => LARGE_PART,
            Self::Leaves { size, .. } => *size,
        }
    }

    /// Bytes of each part of the object but the last: presence is counted in parts, and one leaf covers one
    /// part, or all of them.
    pub fn part_size(&self, object_len: u64) -> u64 {
        match self {
            Self::WholeLarge => LARGE_PART,
            Self::Whole | Self::GitBlob | Self::Proof { .. } | Self::Leaves { .. } => {
                self.leaf_size(object_len)
            }
        }
    }

    /// Number of parts of an object of that length.
    pub fn part_count(&self, object_len: u64) -> u64 {
        object_len.div_ceil(self.part_size(object_len).max(1))
    }

    /// Number of leaves of an object of that length.
    pub fn leaf_count(&self, object_len: u64) -> u64 {
        object_len.div_ceil(self.leaf_size(object_len).max(1))
    }

    /// The bytes of leaf `leaf`, which must exist.
    pub fn leaf_range(&self, leaf: u64, object_len: u64) -> ObjectRange {
        let size = self.leaf_size(object_len);
        ObjectRange::at(leaf * size, size).intersect(&ObjectRange::new(0, object_len))
    }
}

/// How its source fetches an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Locator {
    /// By its digest: the source is content-addressed.
    Digest,
    /// By a path below the source's root.
    Path(Arc<str>),
}

/// An object of a source: its digest, and how to fetch and verify it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Object {
    /// The digest of all its bytes. Verified only when the whole object has been hashed.
    pub digest: Digest,
    /// The algorithm of that digest.
    pub algorithm: HashAlgorithm,
    /// How its source fetches it.
    pub locator: Locator,
    /// Its length in bytes, at least 1.
    pub len: u64,
    /// How its bytes are verified.
    pub check: Check,
}

impl fmt::Display for Object {
    /// The form used in errors: enough of the digest to find it, short enough for one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "object {:?}", self.digest)
    }
}

impl Object {
    /// An object that its source stores under its SHA-256.
    pub fn new(digest: Digest, len: u64, check: Check) -> Self {
        Self { digest, algorithm: HashAlgorithm::Sha256, locator: Locator::Digest, len, check }
    }

    /// A file of a git repository that its source has at this path.
    pub fn git_blob(id: GitId, len: u64, path: Arc<str>) -> Self {
        Self {
            digest: id.digest(),
            algorithm: HashAlgorithm::GitBlobSha1,
            locator: Locator::Path(path),
            len,
            check: Check::GitBlob,
        }
    }

    /// Number of leaves.
    pub fn leaf_count(&self) -> u64 {
        self.check.leaf_count(self.len)
    }

    /// The bytes of a run of leaves, which must exist and not be empty.
    pub fn leaves_range(&self, leaves: &Range<u64>) -> ObjectRange {
        let of = |leaf| self.check.leaf_range(leaf, self.len);
        ObjectRange::new(of(leaves.start).start(), of(leaves.end - 1).end())
    }
}
