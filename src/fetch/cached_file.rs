//! A file of a version with its blob. Plain values.

use std::sync::Arc;

use crate::model::{FileIx, Manifest};
use crate::store::Blob;

/// A file of a version, ready to be read.
#[derive(Debug)]
pub struct CachedFile {
    /// The version.
    pub manifest: Arc<Manifest>,
    /// The index of the file in the version.
    pub file: FileIx,
    /// The blob; `None` if the file is empty.
    pub blob: Option<Arc<Blob>>,
}
