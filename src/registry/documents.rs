//! Reads documents that a registry gave earlier and that were kept, without asking it.
//!
//! A document that is made here of a registry's answers names its format at its beginning; every other
//! one is XPRIM. Pure functions.

use super::error::RegistryError;
use super::{huggingface, oci, xprim};
use crate::model::{Catalog, Manifest, VersionId};

/// The catalog in a document that was once [`super::Listing::Changed`].
pub fn read_catalog(document: &[u8]) -> Result<Catalog, RegistryError> {
    if huggingface::is_catalog(document) {
        huggingface::parse_catalog(document)
    } else if oci::is_catalog(document) {
        oci::parse_catalog(document)
    } else {
        xprim::parse_catalog(document)
    }
}

/// The manifest in a document that was once a [`super::ManifestDocument`]. The caller has compared its
/// SHA-256.
pub fn read_manifest(version: VersionId, document: &[u8]) -> Result<Manifest, RegistryError> {
    if huggingface::is_manifest(document) {
        huggingface::parse_manifest(version, document)
    } else if oci::is_manifest(document) {
        oci::parse_manifest(version.digest(), document)
    } else {
        xprim::parse_manifest(version.digest(), document)
    }
}
