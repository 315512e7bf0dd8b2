//! Reads documents that a registry gave earlier and that were kept, without asking it.
//!
//! A document that is made here of a registry's answers names its format at its beginning; every other
//! one is XPRIM. Pure functions.

use super::error::RegistryError;
use super::{huggingface, xprim};
use crate::model::{Catalog, Manifest, VersionId};

/// The catalog in a document that was once [`super::Listing::Changed`].
pub fn read_catalog(document: &[u8]) -> Result<Catalog, RegistryError> {
    match huggingface::is_catalog(document) {
        true => huggingface::parse_catalog(document),
        false => xprim::parse_catalog(document),
    }
}

/// The manifest in a document that was once a [`super::ManifestDocument`]. The caller has compared its
/// SHA-256.
pub fn read_manifest(version: VersionId, document: &[u8]) -> Result<Manifest, RegistryError> {
    match huggingface::is_manifest(document) {
        true => huggingface::parse_manifest(version, document),
        false => xprim::parse_manifest(version.digest(), document),
    }
}
