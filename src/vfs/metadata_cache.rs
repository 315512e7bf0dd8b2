//! Cache of metadata: the catalog, trees of versions, manifest documents.
//!
//! Invariant: every operation on the tree runs against this cache and the index alone: it returns a
//! [`Ready`] result, or what is [`Pending`]. `fetch` then gets that from the network, and the operation
//! runs again. So an immediate answer and one that waits share their code.
//! Concurrency: short locks around caches, none held while a registry is asked.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::errors::{RecentFailures, of_fetch, of_store};
use super::probes::is_probed;
use super::sync::lock;
use super::tree::VersionTree;
use super::types::VfsError;
use crate::base::FileRange;
use crate::base::weighted::Weighted;
use crate::fetch::{FetchError, Provider, Sources, VersionKnowledge};
use crate::model::hash::sha256;
use crate::model::{
    Catalog, Digest, Manifest, ModelRef, Name, SourceIx, VersionRef, VersionTarget,
};
use crate::store::Store;

/// Maximum number of entries of trees and objects of their manifests in memory, about a hundred bytes
/// each: 100 MiB, fifty thousand ordinary versions or the largest possible one.
const TREES: usize = 1 << 20;
/// Maximum size of the manifest documents in memory: they are only read through `.modelfs`.
const DOCUMENTS: usize = 8 << 20;
/// How long the lookup of a name that the catalog lacks waits for a newer catalog: a healthy registry has
/// answered by then, and a slow one should not block a program that only probes names. The same holds for
/// a newer answer about a model or a version where an earlier one is known.
const NEWER: Duration = Duration::from_secs(2);

/// What an operation lacks.
#[derive(Debug)]
pub(super) enum Pending {
    /// The catalog.
    Catalog,
    /// The tree of the version with this manifest, of a source.
    Tree(SourceIx, Digest),
    /// The manifest as published, of a source.
    Document(SourceIx, Digest),
    /// A newer catalog of the sources that may have this group, since theirs lack a name (none: of all);
    /// the error if the newer one lacks it, too.
    NewerCatalog(Option<Box<str>>, VfsError),
    /// Whether a source that cannot list has a model.
    Model(SourceIx, ModelRef),
    /// Which manifest a version's name leads to.
    Version(SourceIx, VersionRef),
    /// Nothing: the operation has failed.
    Failed(VfsError),
}

impl Pending {
    /// Whether fetching it may add to what views list: they list what was used.
    pub(super) fn may_change_views(&self) -> bool {
        matches!(self, Self::Tree(..) | Self::Version(..))
    }
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
    sources: Arc<Sources>,
    store: Store,
    trees: Mutex<Weighted<Digest, Arc<VersionTree>>>,
    documents: Mutex<Weighted<Digest, Bytes>>,
    /// By the hash of the manifest of a version.
    failures: RecentFailures<Digest>,
}

impl MetadataCache {
    /// The cache of these sources.
    pub(super) fn new(sources: Arc<Sources>, store: Store) -> Self {
        let trees = Mutex::new(Weighted::new(TREES));
        let documents = Mutex::new(Weighted::new(DOCUMENTS));
        Self { sources, store, trees, documents, failures: RecentFailures::new() }
    }

    /// The sources.
    pub(super) fn sources(&self) -> &Arc<Sources> {
        &self.sources
    }

    /// The store.
    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// Fetches what an operation lacks.
    pub(super) async fn fetch(&self, pending: Pending) -> Result<(), VfsError> {
        match pending {
            Pending::Failed(error) => return Err(error),
            Pending::NewerCatalog(group, _) => {
                self.sources.ask_again(group.as_deref(), NEWER).await;
            }
            Pending::Catalog => {
                self.sources.catalog().await.map_err(|e| of_fetch(&e))?;
            }
            Pending::Tree(source, hash) => {
                let fetched = self.sources.get(source).manifest(&hash).await;
                self.keep_tree(self.noted(hash, fetched)?);
            }
            Pending::Document(source, hash) => {
                let fetched = self.sources.get(source).manifest_document(&hash).await;
                let body = self.noted(hash, fetched)?;
                self.keep_document(hash, body);
            }
            Pending::Model(source, model) => {
                self.sources.get(source).look_up(&model, NEWER).await;
            }
            Pending::Version(source, version) => {
                let source = self.sources.get(source);
                source.resolve(&version, NEWER).await.map_err(|e| of_fetch(&e))?;
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
        self.sources.catalog_now()
    }

    /// The catalog.
    pub(super) fn catalog(&self) -> Ready<Arc<Catalog>> {
        self.sources.catalog_now().ok_or(Pending::Catalog)
    }

    /// Whether there is, or may be, a group of this name. A source that cannot list may have models in
    /// any group that it may be asked about.
    pub(super) fn group(&self, name: &str) -> Ready<()> {
        if self.catalog()?.models(name).is_some() {
            return Ok(());
        }
        match !is_probed(name) && Name::new(name).is_ok() && self.sources.may_have_group(name) {
            true => Ok(()),
            false => Err(self.absent(Some(name), name)),
        }
    }

    /// The source that provides a model.
    pub(super) fn provider(&self, group: &str, model: &str) -> Ready<SourceIx> {
        let listed = self.catalog()?.source_of(group, model);
        let Some(reference) = model_ref(group, model) else {
            return Err(VfsError::NotFound.into());
        };
        if listed.is_none() && is_probed(model) {
            return Err(VfsError::NotFound.into());
        }
        match self.sources.provider(&reference, Instant::now()) {
            Provider::Source(source) => Ok(source),
            Provider::Ask(source) => Err(Pending::Model(source, reference)),
            Provider::Unreachable { why } => Err(VfsError::Unavailable { reason: why }.into()),
            Provider::None => Err(self.absent(Some(group), model)),
        }
    }

    /// The manifest that a version's name leads to.
    pub(super) fn version(
        &self,
        ix: SourceIx,
        group: &str,
        model: &str,
        name: &str,
    ) -> Ready<Digest> {
        let source = self.sources.get(ix);
        let Some(known) = source.look_ups() else {
            let catalog = source.catalog_now().ok_or(Pending::Catalog)?;
            let entry = catalog.version(group, model, name);
            return entry
                .and_then(|entry| entry.hash())
                .ok_or_else(|| self.absent(Some(group), name));
        };
        let (Some(model), Ok(version)) = (model_ref(group, model), Name::new(name)) else {
            return Err(VfsError::NotFound.into());
        };
        match known.version(&model, &version, Instant::now()) {
            VersionKnowledge::Known(VersionTarget::Manifest(hash)) => Ok(hash),
            VersionKnowledge::Missing => Err(VfsError::NotFound.into()),
            VersionKnowledge::Ask(None) if is_probed(name) => Err(VfsError::NotFound.into()),
            VersionKnowledge::Ask(Some(VersionTarget::Manifest(hash)))
                if source.registry().is_none() =>
            {
                Ok(hash)
            }
            VersionKnowledge::Known(_) | VersionKnowledge::Ask(_) => {
                Err(Pending::Version(ix, VersionRef { model, version }))
            }
        }
    }

    /// What to do about a name that the catalogs lack: it may be newer than they are, so the listing
    /// sources that may have its group are asked again, if their rate limits allow it. After a start they
    /// are asked first.
    fn absent(&self, group: Option<&str>, name: &str) -> Pending {
        if is_probed(name) {
            return VfsError::NotFound.into();
        }
        let mut may_ask = false;
        let mut error = VfsError::NotFound;
        for source in self.sources.listing(group) {
            if source.asked().is_none() && source.registry().is_some() {
                return Pending::Catalog;
            }
            // While the registry cannot be reached, it is unknown whether it has the name by now.
            if let Some(why) = source.trouble() {
                let reason = format!(
                    "not in the catalog last seen, and the registry cannot be asked for a newer \
                     one: {why}"
                );
                error = VfsError::Unavailable { reason };
            }
            may_ask |= source.may_ask_again();
        }
        match may_ask {
            true => Pending::NewerCatalog(group.map(Into::into), error),
            false => Pending::Failed(error),
        }
    }

    /// A version's tree.
    pub(super) fn tree(&self, source: SourceIx, hash: &Digest) -> Ready<Arc<VersionTree>> {
        if let Some(tree) = lock(&self.trees).get(hash) {
            return Ok(tree);
        }
        match self.sources.get(source).manifest_now(hash).map_err(|e| of_fetch(&e))? {
            Some(manifest) => Ok(self.keep_tree(manifest)),
            None => Err(Pending::Tree(source, *hash)),
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
    pub(super) fn document(&self, source: SourceIx, hash: &Digest) -> Ready<Bytes> {
        let kept = lock(&self.documents).get(hash);
        if let Some(body) = kept {
            return Ok(body);
        }
        match self.store.saved_manifest(hash).map_err(|e| of_store(&e))? {
            Some(body) if sha256(&body) == *hash => Ok(self.keep_document(*hash, body.into())),
            _ => Err(Pending::Document(source, *hash)),
        }
    }

    fn keep_document(&self, hash: Digest, body: Bytes) -> Bytes {
        let mut documents = lock(&self.documents);
        documents.put(hash, body.len(), body.clone());
        body
    }
}

fn model_ref(group: &str, model: &str) -> Option<ModelRef> {
    Some(ModelRef { group: Name::new(group).ok()?, model: Name::new(model).ok()? })
}
