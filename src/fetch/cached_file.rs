//! A file of a version with its blob, and the source that it comes from.
//!
//! Invariant: `read_cached` never waits for a network. Shared; immutable.

use std::sync::Arc;

use super::error::FetchError;
use super::source::Source;
use crate::base::FileRange;
use crate::model::{File, FileIx, Manifest};
use crate::store::{Blob, ReadState, Store};

/// A file of a version, ready to be read.
pub struct CachedFile {
    source: Arc<Source>,
    manifest: Arc<Manifest>,
    file: FileIx,
    /// `None` if the file is empty.
    blob: Option<Arc<Blob>>,
    /// Whether the blob was compared with the digest of the whole when this was opened.
    compared: bool,
}

/// Whether a blob whose ranges were proved has also matched the digest of the whole. An error: it was compared,
/// and is another file than it should be.
pub(super) fn has_matched(store: &Store, blob: &Blob) -> Result<bool, FetchError> {
    if !blob.layout().is_proved_file() {
        return Ok(false);
    }
    match store.whole_check(&blob.key())? {
        Some(false) => Err(FetchError::another_file(blob.layout())),
        found => Ok(found.is_some()),
    }
}

impl CachedFile {
    /// Opens the blob of a file, unless it is known to be another file than it should be. Fetches nothing.
    pub(super) fn open(
        source: &Arc<Source>,
        manifest: &Arc<Manifest>,
        file: FileIx,
        store: &Store,
    ) -> Result<Arc<Self>, FetchError> {
        let empty = manifest.file(file).len == 0;
        let blob = (!empty).then(|| store.blob(manifest.layout(file))).transpose()?;
        let compared = blob.as_ref().map_or(Ok(false), |blob| has_matched(store, blob))?;
        let (source, manifest) = (Arc::clone(source), Arc::clone(manifest));
        Ok(Arc::new(Self { source, manifest, file, blob, compared }))
    }

    /// The source whose registry is asked for what is missing.
    pub fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// The version.
    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }

    /// The index of the file in the version.
    pub fn index(&self) -> FileIx {
        self.file
    }

    /// Path and length.
    pub fn entry(&self) -> &File {
        self.manifest.file(self.file)
    }

    /// The blob; `None` if the file is empty.
    pub fn blob(&self) -> Option<&Arc<Blob>> {
        self.blob.as_ref()
    }

    /// The blob, if it may have to be compared with the digest of the whole.
    pub(super) fn uncompared(&self) -> Option<&Arc<Blob>> {
        self.blob.as_ref().filter(|_| !self.compared)
    }

    /// Whether the store has every byte.
    pub fn is_complete(&self) -> bool {
        self.blob.as_ref().is_none_or(|blob| blob.is_complete())
    }

    /// Fills `buf` from `offset` if the store has the whole range. `false`: a part is missing, or must be
    /// verified against its checksum first, which may take long. The range must lie in the file.
    pub(super) fn read_cached(&self, offset: u64, buf: &mut [u8]) -> Result<bool, FetchError> {
        match &self.blob {
            Some(blob) if !buf.is_empty() => {
                let range = FileRange::at(offset, buf.len() as u64);
                Ok(blob.is_proven(range) && blob.read(offset, buf)? == ReadState::Hit)
            }
            _ => Ok(true),
        }
    }
}
