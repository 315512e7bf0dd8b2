//! A file of a version together with its blob. Plain values.

use std::sync::Arc;

use crate::model::{FileIx, Manifest};
use crate::store::Blob;

/// A file of a version, ready to be read.
#[derive(Debug)]
pub struct CachedFile {
    /// The version.
    pub manifest: Arc<Manifest>,
    /// Which of its files.
    pub file: FileIx,
    /// Its blob; none if the file is empty.
    pub blob: Option<Arc<Blob>>,
}
