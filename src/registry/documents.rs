//! Reads documents that a registry gave earlier and that were kept, without asking it.
//!
//! All registries speak one format so far; with another one, the format of a source is kept beside
//! its documents and decides here. Pure functions.

use super::error::RegistryError;
use super::xprim;
use crate::model::{Catalog, Manifest, VersionId};

/// The catalog in a document that was once [`super::Listing::Changed`].
pub fn read_catalog(document: &[u8]) -> Result<Catalog, RegistryError> {
    xprim::parse_catalog(document)
}

/// The manifest in a document that was once a [`super::ManifestDocument`]. The caller has compared its
/// SHA-256.
pub fn read_manifest(version: VersionId, document: &[u8]) -> Result<Manifest, RegistryError> {
    xprim::parse_manifest(version.digest(), document)
}
