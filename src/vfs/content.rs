//! What a file of the tree or of a view consists of. Plain values.

use std::sync::Arc;

use bytes::Bytes;

use crate::fetch::Source;
use crate::model::{FileIx, Manifest};

/// What a file consists of.
#[derive(Clone)]
pub(super) enum Content {
    /// A file of a version, and the source that the version comes from.
    File(Arc<Source>, Arc<Manifest>, FileIx),
    /// A document: `manifest.json`, or one that a view makes.
    Document(Bytes),
}
