//! What the layers above ask of a registry, whatever its format.
//!
//! Invariant: a catalog or manifest that comes out of a registry was checked by the rules of its
//! format, and a manifest document has matched its SHA-256. Bytes of objects are only claimed: the
//! caller verifies them by their leaves. The exception is [`Registry::read_proven`]. Implementations are shared between tasks and hold no lock
//! while they wait for the network.

use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};

use super::error::RegistryError;
use crate::base::ObjectRange;
use crate::model::{
    Catalog, Leaves, Manifest, ModelRef, Name, Object, Revision, VersionEntry, VersionId,
};

/// Identifies the state of a document for conditional requests.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Validator {
    /// The `ETag`, as sent.
    pub etag: Option<String>,
    /// The `Last-Modified`, as sent (a folder's: modification time, size and inode).
    pub last_modified: Option<String>,
}

/// What a registry can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Whether it lists everything that it offers. If not, models are looked up one by one.
    pub listable: bool,
    /// Whether its lists say which manifest a version is. If not, names lead to revisions, and each is
    /// resolved when it is used.
    pub names_manifests: bool,
    /// Whether a range of an object can be read without the rest.
    pub ranged_reads: bool,
    /// Whether the digests of an object's leaves are available without its bytes.
    pub leaves_in_advance: bool,
}

/// The answer to a conditional request for the catalog.
#[derive(Debug)]
pub enum Listing {
    /// The state that the caller knows is the current one.
    Unchanged,
    /// Another catalog.
    Changed {
        /// What it offers.
        catalog: Catalog,
        /// The document to keep, for [`super::read_catalog`].
        document: Bytes,
        /// For the next conditional request.
        validator: Validator,
    },
}

/// The answer to a conditional request for the versions of one model.
#[derive(Debug)]
pub enum Versions {
    /// The state that the caller knows is the current one.
    Unchanged,
    /// What the registry has of the model; empty if it does not have it.
    Changed {
        /// The versions, sorted by name.
        versions: Vec<VersionEntry>,
        /// For the next conditional request.
        validator: Validator,
    },
}

/// A manifest and the document that it was read from.
#[derive(Debug)]
pub struct ManifestDocument {
    /// The document to keep, for [`super::read_manifest`]; its SHA-256 is the version's identity.
    pub document: Bytes,
    /// What it says.
    pub manifest: Manifest,
}

/// The bytes of an object as they arrive: exactly those that were asked for, or an error.
pub type ObjectBody = Pin<Box<dyn Stream<Item = Result<Bytes, RegistryError>> + Send>>;

/// A range of an object whose bytes were verified by the registry, by a proof.
pub struct ProvenBody {
    /// The range: it covers the one that was asked for, and all of it is verified together.
    pub range: ObjectRange,
    /// Its bytes as they arrive. They are verified once the body has ended without an error, and not
    /// before.
    pub bytes: ObjectBody,
}

/// A place that offers models.
///
/// A version's name leads to a `VersionTarget`. Where the registry knows manifests by their SHA-256, the
/// target is one, and [`Registry::manifest`] has its document. Elsewhere (a branch of a git
/// repository, the tag of an image) the way is longer: `lookup` lists names; [`Registry::version`] says
/// which revision one name leads to now, and costs a request; [`Registry::resolve`] makes the document
/// of a revision, whose SHA-256 is then the version's identity. A revision never changes, so its
/// document is made once and kept; only the first step is repeated when its time to live has elapsed.
#[async_trait]
pub trait Registry: Send + Sync + 'static {
    /// Names this registry in the index and to people: its URL or folder, without credentials.
    fn name(&self) -> &str;

    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// All that it offers, unless that is still what `known` identifies.
    async fn list(&self, known: &Validator) -> Result<Listing, RegistryError>;

    /// The versions of one model, unless they are still what `known` identifies. A registry that
    /// lists everything looks the model up in its list.
    async fn lookup(&self, model: &ModelRef, known: &Validator) -> Result<Versions, RegistryError> {
        Ok(match self.list(known).await? {
            Listing::Unchanged => Versions::Unchanged,
            Listing::Changed { catalog, validator, .. } => {
                let versions = catalog.versions(model.group.as_str(), model.model.as_str());
                Versions::Changed { versions: versions.unwrap_or_default().to_vec(), validator }
            }
        })
    }

    /// One version by its name, also where `lookup` does not list it (a commit, a digest); `None` if
    /// the registry does not have it. The target is never `VersionTarget::Unknown`.
    async fn version(
        &self,
        model: &ModelRef,
        name: &Name,
    ) -> Result<Option<VersionEntry>, RegistryError> {
        Ok(match self.lookup(model, &Validator::default()).await? {
            Versions::Unchanged => None,
            Versions::Changed { versions, .. } => versions.into_iter().find(|v| v.name == *name),
        })
    }

    /// The manifest of a revision; its document is the same each time.
    async fn resolve(
        &self,
        model: &ModelRef,
        revision: &Revision,
    ) -> Result<ManifestDocument, RegistryError> {
        Err(RegistryError::Invalid {
            what: format!("{model} at {revision}"),
            why: "this registry knows versions by their manifests".into(),
        })
    }

    /// The manifest of a version.
    async fn manifest(&self, version: &VersionId) -> Result<ManifestDocument, RegistryError>;

    /// How to verify a range of an object: the digests of at least the leaves that it touches.
    async fn leaves(&self, object: &Object, range: ObjectRange) -> Result<Leaves, RegistryError>;

    /// A range of an object. Unverified.
    async fn read(&self, object: &Object, range: ObjectRange) -> Result<ObjectBody, RegistryError>;

    /// A range of an object that is verified by proofs, and covers `range`, which must not be empty. What
    /// verifies it is known only together with its bytes, so that the registry does it. Fails with
    /// [`RegistryError::Unproven`] if only the whole object can be verified.
    async fn read_proven(
        &self,
        object: &Object,
        range: ObjectRange,
    ) -> Result<ProvenBody, RegistryError> {
        let why = format!("this registry has no proofs (asked for {range})");
        Err(RegistryError::Unproven { what: object.to_string(), why })
    }

    /// Objects of this version will be read soon, several at once: a remote registry may open
    /// another connection meanwhile. Waits for nothing and never fails.
    fn preconnect(&self, version: &VersionId);
}

/// All bytes of a range of an object. Unverified.
pub async fn read_object(
    registry: &(impl Registry + ?Sized),
    object: &Object,
    range: ObjectRange,
) -> Result<Vec<u8>, RegistryError> {
    let mut body = registry.read(object, range).await?;
    let mut out = Vec::new();
    while let Some(piece) = body.next().await {
        out.extend_from_slice(&piece?);
    }
    Ok(out)
}
