//! The domain types: digests, names, references, catalogs, manifests, and the layout of blobs.
//!
//! Invariant: a value of these types is valid; the claims of a registry become one only through a checked
//! constructor. Plain values, no I/O.

mod catalog;
mod digest;
mod group_pattern;
pub mod hash;
mod layout;
mod leaves;
mod manifest;
mod name;
mod object;
mod reference;
mod source_name;
pub mod tensors;
pub mod trace;

pub use catalog::{Catalog, CatalogBuilder, LeftOut, Revision, VersionEntry, VersionTarget};
pub use digest::{ContentKey, Digest, DigestError, GitId, GitIdError, VersionId};
pub use group_pattern::{GroupClaims, GroupPattern, GroupPatternError, SourceIx};
pub use hash::HashAlgorithm;
pub use layout::{BlobLayout, LayoutError, Part, PartIx, PartRange, Piece, SegmentIx};
pub use leaves::Leaves;
pub use manifest::{
    File, FileIx, MAX_FILES, MAX_OBJECTS, MAX_TOTAL, Manifest, ManifestBuilder, ManifestError,
    ObjectIx, ObjectUse, Slice,
};
pub use name::{FilePath, Name, NameError};
pub use object::{Check, LARGE_PART, Locator, MAX_LEAF, MIN_LEAF, Object};
pub use reference::{ModelRef, ReferenceError, VersionRef, written};
pub use source_name::{SourceName, SourceNameError};
