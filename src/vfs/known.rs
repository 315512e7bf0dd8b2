//! What is known without a network: the catalog, trees, manifest documents; and how to know more.
//!
//! Every question to the tree is a *step*: it answers from memory and the index alone, or says
//! what it needs; `bring` gets that from the network, and the step is asked again. So the answer
//! on the spot and the one that waits are the same code.
//! Concurrency: short locks around caches, none held while anything is asked.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;

use super::errors::{Failures, of_fetch, of_store};
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

/// Entries of trees and objects of their manifests kept in memory, about a hundred bytes each:
/// 100 MiB, fifty thousand ordinary versions or the largest one that there may be.
const TREES: usize = 1 << 20;
/// Bytes of manifest documents kept: they are read through `.modelfs` only.
const DOCUMENTS: usize = 8 << 20;
/// How long somebody who looks for a name that the catalog lacks waits for a newer one: a registry that
/// is well has answered by then, and one that is not should not hold up who only tries names.
const NEWER: Duration = Duration::from_secs(2);

/// What a step lacks.
#[derive(Debug)]
pub(super) enum Need {
    /// The catalog.
    Catalog,
    /// The tree of the version with this manifest.
    Tree(Digest),
    /// The manifest as published.
    Document(Digest),
    /// A newer catalog, since this one lacks a name; what is said of it if it stays so.
    Newer(VfsError),
    /// Nothing can help.
    Failed(VfsError),
}

impl From<VfsError> for Need {
    fn from(error: VfsError) -> Self {
        Self::Failed(error)
    }
}

/// An answer without a network, or what it needs.
pub(super) type Step<T> = Result<T, Need>;

/// The memory.
pub(super) struct Known {
    source: Arc<Source>,
    store: Store,
    trees: Mutex<Weighted<Digest, Arc<VersionTree>>>,
    documents: Mutex<Weighted<Digest, Bytes>>,
    /// Of versions, by the hash of their manifest.
    failures: Failures<Digest>,
}

impl Known {
    /// Of one source.
    pub(super) fn new(source: Arc<Source>, store: Store) -> Self {
        let trees = Mutex::new(Weighted::new(TREES));
        let documents = Mutex::new(Weighted::new(DOCUMENTS));
        Self { source, store, trees, documents, failures: Failures::new() }
    }

    /// Gets what a step lacks.
    pub(super) async fn bring(&self, need: Need) -> Result<(), VfsError> {
        match need {
            Need::Failed(error) => return Err(error),
            Need::Newer(_) => self.source.ask_again(NEWER).await,
            Need::Catalog => {
                self.source.catalog().await.map_err(|e| of_fetch(&e))?;
            }
            Need::Tree(hash) => {
                let manifest = self.noted(hash, self.source.manifest(&hash).await)?;
                self.keep_tree(manifest);
            }
            Need::Document(hash) => {
                let body = self.noted(hash, self.source.manifest_document(&hash).await)?;
                self.keep_document(hash, body);
            }
        }
        Ok(())
    }

    /// Remembers how it went with a version.
    fn noted<T>(&self, hash: Digest, outcome: Result<T, FetchError>) -> Result<T, VfsError> {
        match outcome {
            Ok(got) => {
                self.failures.fetched(&hash);
                Ok(got)
            }
            Err(error) => {
                let error = of_fetch(&error);
                if self.failures.failed(hash, FileRange::new(0, u64::MAX), &error) {
                    tracing::warn!(manifest = %hash, %error, "a version cannot be had");
                }
                Err(error)
            }
        }
    }

    /// Why a version could last not be had.
    pub(super) fn failure(&self, hash: &Digest) -> Option<String> {
        self.failures.of(hash)
    }

    /// The catalog in memory, if any.
    pub(super) fn catalog_now(&self) -> Option<Arc<Catalog>> {
        self.source.catalog_now()
    }

    /// The catalog.
    pub(super) fn catalog(&self) -> Step<Arc<Catalog>> {
        self.source.catalog_now().ok_or(Need::Catalog)
    }

    /// What is to be done about a name that the catalog does not have: it may be newer than the
    /// catalog, so the registry is asked again, unless that was done a moment ago. A catalog of an
    /// earlier run is asked for first.
    pub(super) fn absent(&self, name: &str) -> Need {
        if is_probed(name) {
            return VfsError::NotFound.into();
        }
        if self.source.asked().is_none() {
            return Need::Catalog;
        }
        // While the registry cannot be asked it may have it by now, so that is what is said.
        let error = match self.source.trouble() {
            None => VfsError::NotFound,
            Some(why) => VfsError::Unavailable {
                reason: format!(
                    "not in the catalog last seen, and no newer one is to be had: {why}"
                ),
            },
        };
        match self.source.may_ask_again() {
            true => Need::Newer(error),
            false => Need::Failed(error),
        }
    }

    /// A version's tree.
    pub(super) fn tree(&self, hash: &Digest) -> Step<Arc<VersionTree>> {
        if let Some(tree) = lock(&self.trees).get(hash) {
            return Ok(tree);
        }
        match self.source.manifest_now(hash).map_err(|e| of_fetch(&e))? {
            Some(manifest) => Ok(self.keep_tree(manifest)),
            None => Err(Need::Tree(*hash)),
        }
    }

    fn keep_tree(&self, manifest: Arc<Manifest>) -> Arc<VersionTree> {
        let hash = manifest.hash();
        let tree = Arc::new(VersionTree::new(manifest));
        let mut trees = lock(&self.trees);
        trees.put(hash, tree.weight(), Arc::clone(&tree));
        tree
    }

    /// A manifest as published; its SHA-256 has matched.
    pub(super) fn document(&self, hash: &Digest) -> Step<Bytes> {
        let kept = lock(&self.documents).get(hash);
        if let Some(body) = kept {
            return Ok(body);
        }
        match self.store.saved_manifest(hash).map_err(|e| of_store(&e))? {
            Some(body) if sha256(&body) == *hash => Ok(self.keep_document(*hash, body.into())),
            _ => Err(Need::Document(*hash)),
        }
    }

    fn keep_document(&self, hash: Digest, body: Bytes) -> Bytes {
        let mut documents = lock(&self.documents);
        documents.put(hash, body.len(), body.clone());
        body
    }
}
