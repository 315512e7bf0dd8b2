//! Cache of metadata: the catalog, trees of versions, manifest documents.
//!
//! Invariant: every operation on the tree runs against this cache and the index alone: it returns a
//! [`Ready`] result, or what is [`Pending`]. `fetch` then gets that from the network, and the operation
//! runs again. So an immediate answer and one that waits share their code.
//! Concurrency: short locks around caches, none held while a registry is asked.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;

use super::errors::{RecentFailures, of_fetch, of_store};
use super::probes::is_probed;
use super::sync::lock;
use super::tree::VersionTree;
use super::types::VfsError;
use crate::base::FileRange;
use crate::base::weighted::Weighted;
use crate::fetch::{FetchError, Source};
use crate::model::hash::sha256;
use crate::model::{Catalog, Digest, Manifest};
use crate::store::Store;

/// Maximum number of entries of trees and objects of their manifests in memory, about a hundred bytes
/// each: 100 MiB, fifty thousand ordinary versions or the largest possible one.
const TREES: usize = 1 << 20;
/// Maximum size of the manifest documents in memory: they are only read through `.modelfs`.
const DOCUMENTS: usize = 8 << 20;
/// How long the lookup of a name that the catalog lacks waits for a newer catalog: a healthy registry has
/// answered by then, and a slow one should not block a program that only probes names.
const NEWER: Duration = Duration::from_secs(2);

/// What an operation lacks.
#[derive(Debug)]
pub(super) enum Pending {
    /// The catalog.
    Catalog,
    /// The tree of the version with this manifest.
    Tree(Digest),
    /// The manifest as published.
    Document(Digest),
    /// A newer catalog, since this one lacks a name; the error if the newer one lacks it, too.
    NewerCatalog(VfsError),
    /// Nothing: the operation has failed.
    Failed(VfsError),
}

impl From<VfsError> for Pending {
    fn from(error: VfsError) -> Self {
        Self::Failed(error)
    }
}

/// A result that needed no network, or what is needed for it.
pub(super) type Ready<T> = Result<T, Pending>;

/// The cache.
pub(super) struct MetadataCache {
    source: Arc<Source>,
    store: Store,
    trees: Mutex<Weighted<Digest, Arc<VersionTree>>>,
    documents: Mutex<Weighted<Digest, Bytes>>,
    /// By the hash of the manifest of a version.
    failures: RecentFailures<Digest>,
}

impl MetadataCache {
    /// The cache of one source.
    pub(super) fn new(source: Arc<Source>, store: Store) -> Self {
        let trees = Mutex::new(Weighted::new(TREES));
        let documents = Mutex::new(Weighted::new(DOCUMENTS));
        Self { source, store, trees, documents, failures: RecentFailures::new() }
    }

    /// Fetches what an operation lacks.
    pub(super) async fn fetch(&self, pending: Pending) -> Result<(), VfsError> {
        match pending {
            Pending::Failed(error) => return Err(error),
            Pending::NewerCatalog(_) => self.source.ask_again(NEWER).await,
            Pending::Catalog => {
                self.source.catalog().await.map_err(|e| of_fetch(&e))?;
            }
            Pending::Tree(hash) => {
                let manifest = self.noted(hash, self.source.manifest(&hash).await)?;
                self.keep_tree(manifest);
            }
            Pending::Document(hash) => {
                let body = self.noted(hash, self.source.manifest_document(&hash).await)?;
                self.keep_document(hash, body);
            }
        }
        Ok(())
    }

    /// Records whether a version could be fetched.
    fn noted<T>(&self, hash: Digest, outcome: Result<T, FetchError>) -> Result<T, VfsError> {
        match outcome {
            Ok(got) => {
                self.failures.fetched(&hash);
                Ok(got)
            }
            Err(error) => {
                let error = of_fetch(&error);
                if self.failures.failed(hash, FileRange::new(0, u64::MAX), &error) {
                    tracing::warn!(manifest = %hash, %error, "the manifest of a version could not be fetched");
                }
                Err(error)
            }
        }
    }

    /// Why the last fetch of a version failed.
    pub(super) fn failure(&self, hash: &Digest) -> Option<String> {
        self.failures.of(hash)
    }

    /// The catalog in memory, if any.
    pub(super) fn catalog_now(&self) -> Option<Arc<Catalog>> {
        self.source.catalog_now()
    }

    /// The catalog.
    pub(super) fn catalog(&self) -> Ready<Arc<Catalog>> {
        self.source.catalog_now().ok_or(Pending::Catalog)
    }

    /// What to do about a name that the catalog lacks: the name may be newer than the catalog, so the
    /// registry is asked again, if the rate limit allows it. After a start the registry is asked first.
    pub(super) fn absent(&self, name: &str) -> Pending {
        if is_probed(name) {
            return VfsError::NotFound.into();
        }
        if self.source.asked().is_none() {
            return Pending::Catalog;
        }
        // While the registry cannot be reached, it is unknown whether it has the name by now.
        let error = match self.source.trouble() {
            None => VfsError::NotFound,
            Some(why) => VfsError::Unavailable {
                reason: format!(
                    "not in the catalog last seen, and the registry cannot be asked for a newer one: {why}"
                ),
            },
        };
        match self.source.may_ask_again() {
            true => Pending::NewerCatalog(error),
            false => Pending::Failed(error),
        }
    }

    /// A version's tree.
    pub(super) fn tree(&self, hash: &Digest) -> Ready<Arc<VersionTree>> {
        if let Some(tree) = lock(&self.trees).get(hash) {
            return Ok(tree);
        }
        match self.source.manifest_now(hash).map_err(|e| of_fetch(&e))? {
            Some(manifest) => Ok(self.keep_tree(manifest)),
            None => Err(Pending::Tree(*hash)),
        }
    }

    fn keep_tree(&self, manifest: Arc<Manifest>) -> Arc<VersionTree> {
        let hash = manifest.hash();
        let tree = Arc::new(VersionTree::new(manifest));
        let mut trees = lock(&self.trees);
        trees.put(hash, tree.weight(), Arc::clone(&tree));
        tree
    }

    /// A manifest as published; its SHA-256 was verified.
    pub(super) fn document(&self, hash: &Digest) -> Ready<Bytes> {
        let kept = lock(&self.documents).get(hash);
        if let Some(body) = kept {
            return Ok(body);
        }
        match self.store.saved_manifest(hash).map_err(|e| of_store(&e))? {
            Some(body) if sha256(&body) == *hash => Ok(self.keep_document(*hash, body.into())),
            _ => Err(Pending::Document(*hash)),
        }
    }

    fn keep_document(&self, hash: Digest, body: Bytes) -> Bytes {
        let mut documents = lock(&self.documents);
        documents.put(hash, body.len(), body.clone());
        body
    }
}
