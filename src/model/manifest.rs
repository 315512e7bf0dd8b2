//! The manifest of a version: files made of slices of objects, and how objects are verified.
//!
//! Invariant: a [`Manifest`] is consistent: paths are legal and unique, none is both a file and a folder,
//! every slice lies in its object, and sizes add up without overflow. Only [`ManifestBuilder`] makes one.
//! Immutable once built.

use std::collections::HashSet;
use std::ops::Range;

use super::catalog::{LeftOut, Revision};
use super::digest::Digest;
use super::hash::HashAlgorithm;
use super::layout::BlobLayout;
use super::name::{FilePath, NameError};
use super::object::{Check, MAX_LEAF, MIN_LEAF, Object};
use crate::base::ObjectRange;

/// Maximum number of files of a version.
pub const MAX_FILES: usize = 1_000_000;
/// Maximum number of folders of a version: a path of a hundred bytes can have 64 folders of its own.
pub const MAX_FOLDERS: usize = 1_000_000;
/// Maximum number of objects of a version: at the usual 10 MiB that is 40 TiB.
pub const MAX_OBJECTS: usize = 4_000_000;
/// Maximum size of a version, 64 TiB: the state of an open file takes a byte of memory for each MiB that
/// a manifest announces, present or not.
pub const MAX_TOTAL: u64 = 64 << 40;
/// Maximum number of leaves of an object: reading a part of it needs the whole leaf list, which is 8 MiB
/// then. At 128 KiB a leaf that is an object of 32 GiB.
pub const MAX_OBJECT_LEAVES: u64 = 1 << 18;
/// Maximum number of leaves of a version: 32 MiB as a bitmap. At 128 KiB a leaf that is 32 TiB.
pub const MAX_LEAVES: u64 = 1 << 28;

/// The index of an object in its manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectIx(pub u32);

/// The index of a file in its manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileIx(pub u32);

/// A range of an object's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    /// The object.
    pub object: ObjectIx,
    /// The bytes of the object, never empty.
    pub range: ObjectRange,
}

/// A file of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// The path within the version.
    pub path: FilePath,
    /// Its length in bytes.
    pub len: u64,
    /// The SHA-256 of its bytes, if the registry gives one. A claim.
    pub sha256: Option<Digest>,
    slices: Range<usize>,
}

/// The manifest of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    hash: Digest,
    revision: Option<Revision>,
    objects: Vec<Object>,
    slices: Vec<Slice>,
    files: Vec<File>,
    total: u64,
    uses: Vec<ObjectUse>,
    first_user: Vec<u32>,
    left_out: LeftOut,
}

/// A place where an object's bytes are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectUse {
    /// The file.
    pub file: FileIx,
    /// The index of the slice in the file, which is the index of the piece in its layout.
    pub piece: u32,
}

/// An error in a manifest, naming the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// A field's value cannot be.
    #[error("{field}: {why}")]
    Field {
        /// The field, for example `chunks[3]`.
        field: String,
        /// What is wrong with it.
        why: String,
    },
    /// An illegal path.
    #[error("files[{index}].path {why}")]
    Path {
        /// The index of the file.
        index: usize,
        /// What is wrong.
        why: NameError,
    },
}

impl ManifestError {
    /// A field's value cannot be.
    pub fn field(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Field { field: field.into(), why: why.into() }
    }
}

impl Manifest {
    /// The SHA-256 of its document.
    pub fn hash(&self) -> Digest {
        self.hash
    }

    /// The registry's own word for this state of the model, if it has one: a commit.
    pub fn revision(&self) -> Option<&Revision> {
        self.revision.as_ref()
    }

    /// The objects, in the registry's order.
    pub fn objects(&self) -> &[Object] {
        &self.objects
    }

    /// One object.
    pub fn object(&self, ix: ObjectIx) -> &Object {
        &self.objects[ix.0 as usize]
    }

    /// The files, in the registry's order.
    pub fn files(&self) -> &[File] {
        &self.files
    }

    /// One file.
    pub fn file(&self, ix: FileIx) -> &File {
        &self.files[ix.0 as usize]
    }

    /// The slices that make up a file, in order.
    pub fn slices(&self, file: FileIx) -> &[Slice] {
        &self.slices[self.file(file).slices.clone()]
    }

    /// The uses of this object, in file order.
    pub fn uses(&self, object: ObjectIx) -> &[ObjectUse] {
        let at = object.0 as usize;
        &self.uses[self.first_user[at] as usize..self.first_user[at + 1] as usize]
    }

    /// The files of the version that are not among [`Manifest::files`], each with the reason.
    pub fn left_out(&self) -> &LeftOut {
        &self.left_out
    }

    /// The total size of all files in bytes.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The layout of a file's blob.
    pub fn layout(&self, file: FileIx) -> BlobLayout {
        BlobLayout::new(self.slices(file).iter().map(|s| {
            let o = self.object(s.object);
            (o.check, o.digest, o.len, s.range)
        }))
        .expect("the builder checked every slice and bounded the number of leaves")
    }
}

/// Builds and validates a manifest.
#[derive(Debug)]
pub struct ManifestBuilder {
    out: Manifest,
    leaves: u64,
}

impl ManifestBuilder {
    /// A builder for the document with this SHA-256.
    pub fn new(hash: Digest) -> Self {
        let out = Manifest {
            hash,
            revision: None,
            objects: Vec::new(),
            slices: Vec::new(),
            files: Vec::new(),
            total: 0,
            uses: Vec::new(),
            first_user: Vec::new(),
            left_out: LeftOut::default(),
        };
        Self { out, leaves: 0 }
    }

    /// Sets the registry's own word for this state of the model.
    pub fn revision(&mut self, revision: Revision) {
        self.out.revision = Some(revision);
    }

    /// Adds an object.
    pub fn object(&mut self, object: Object) -> Result<ObjectIx, ManifestError> {
        let ix = self.out.objects.len();
        let field = |why: String| ManifestError::field(format!("chunks[{ix}]"), why);
        if ix >= MAX_OBJECTS {
            return Err(field(format!("more than {MAX_OBJECTS} objects")));
        }
        if object.len == 0 || object.len > MAX_TOTAL {
            return Err(field(format!("a length of {} bytes cannot be", object.len)));
        }
        // Blobs and their layouts identify objects by SHA-256, or say that they do not.
        let named_by = match object.check {
            Check::GitBlob => HashAlgorithm::GitBlobSha1,
            _ => HashAlgorithm::Sha256,
        };
        if object.algorithm != named_by {
            return Err(field("is not named by its SHA-256".into()));
        }
        match object.check {
            Check::Whole | Check::GitBlob if object.len > MAX_LEAF => {
                return Err(field(format!(
                    "{} bytes without leaves are more than the {MAX_LEAF} that one digest may cover",
                    object.len
                )));
            }
            Check::Leaves { digest: HashAlgorithm::GitBlobSha1, .. } => {
                return Err(field("git blobs have no leaves".into()));
            }
            Check::Leaves { size, .. } if !(MIN_LEAF..=MAX_LEAF).contains(&size) => {
                return Err(ManifestError::field(
                    "leaf_size",
                    format!("{size} is not between {MIN_LEAF} and {MAX_LEAF}"),
                ));
            }
            _ => {}
        }
        let leaves = object.check.part_count(object.len);
        if leaves > MAX_OBJECT_LEAVES {
            return Err(field(format!(
                "{leaves} leaves or parts are more than {MAX_OBJECT_LEAVES}"
            )));
        }
        self.leaves += leaves;
        if self.leaves > MAX_LEAVES {
            return Err(field(format!("more than {MAX_LEAVES} leaves in all")));
        }
        self.out.objects.push(object);
        Ok(ObjectIx(ix as u32))
    }

    /// Adds a file made of these slices, in order; empty for an empty file.
    pub fn file(
        &mut self,
        path: &str,
        sha256: Option<Digest>,
        slices: impl IntoIterator<Item = Slice>,
    ) -> Result<FileIx, ManifestError> {
        let index = self.out.files.len();
        let field = |why: &str| ManifestError::field(format!("files[{index}]"), why);
        if index >= MAX_FILES {
            return Err(field(&format!("more than {MAX_FILES} files")));
        }
        let path = FilePath::new(path).map_err(|why| ManifestError::Path { index, why })?;
        let first = self.out.slices.len();
        let (mut len, mut parts) = (0u64, 0u64);
        for slice in slices {
            let object = self.out.objects.get(slice.object.0 as usize);
            if slice.range.is_empty() || object.is_none_or(|o| slice.range.end() > o.len) {
                return Err(field("a slice lies outside its object"));
            }
            if let Some(o) = object {
                let size = o.check.part_size(o.len);
                parts += (slice.range.end() - 1) / size - slice.range.start() / size + 1;
            }
            len = len.saturating_add(slice.range.len());
            self.out.slices.push(slice);
        }
        if parts > u64::from(u32::MAX) || self.out.slices.len() > u32::MAX as usize {
            return Err(field("more leaves than can be counted"));
        }
        self.out.total = self.out.total.saturating_add(len);
        if self.out.total > MAX_TOTAL {
            return Err(field("the sizes add up to more than can be"));
        }
        let slices = first..self.out.slices.len();
        self.out.files.push(File { path, len, sha256, slices });
        Ok(FileIx(index as u32))
    }

    /// Records a file that is left out; `why` contains its path and is one short line.
    pub fn left_out(&mut self, why: String) {
        self.out.left_out.add(why);
    }

    /// Validates and returns the manifest.
    pub fn build(mut self) -> Result<Manifest, ManifestError> {
        let mut files = HashSet::with_capacity(self.out.files.len());
        for (i, f) in self.out.files.iter().enumerate() {
            if !files.insert(f.path.as_str()) {
                return Err(ManifestError::field(format!("files[{i}].path"), "occurs twice"));
            }
        }
        let mut folders = HashSet::new();
        for (i, f) in self.out.files.iter().enumerate() {
            let field = |why: String| ManifestError::field(format!("files[{i}].path"), why);
            let path = f.path.as_str();
            for folder in path.rmatch_indices('/').map(|(at, _)| &path[..at]) {
                if !folders.insert(folder) {
                    // Seen before, and so were all its parents.
                    break;
                }
                if files.contains(folder) {
                    return Err(field("has another file of the version as a folder".into()));
                }
                if folders.len() > MAX_FOLDERS {
                    return Err(field(format!("more than {MAX_FOLDERS} folders")));
                }
            }
        }
        self.index_users();
        Ok(self.out)
    }

    /// Builds the index of uses by object with a counting sort.
    fn index_users(&mut self) {
        let out = &mut self.out;
        let mut next = vec![0u32; out.objects.len() + 1];
        for slice in &out.slices {
            next[slice.object.0 as usize + 1] += 1;
        }
        for i in 1..next.len() {
            next[i] += next[i - 1];
        }
        out.first_user = next.clone();
        out.uses = vec![ObjectUse { file: FileIx(0), piece: 0 }; out.slices.len()];
        for (file, f) in out.files.iter().enumerate() {
            for (piece, slice) in out.slices[f.slices.clone()].iter().enumerate() {
                let at = &mut next[slice.object.0 as usize];
                out.uses[*at as usize] =
                    ObjectUse { file: FileIx(file as u32), piece: piece as u32 };
                *at += 1;
            }
        }
    }
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
