//! The manifests of a source: in memory up to a limit, in the index, else from the registry.
//!
//! Invariant: a manifest is parsed only from a document that matches its digest, wherever it came from.
//! Concurrency: shared; the locks are held for look-ups, the index is read on the blocking pool.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::base::blocking::{Stopped, blocking};
use crate::base::weighted::Weighted;
use crate::fetch::error::FetchError;
use crate::model::hash;
use crate::model::{Digest, Manifest, VersionId};
use crate::registry::{ManifestDocument, Registry, read_manifest};
use crate::store::{Store, StoreError};

/// Maximum number of files and objects of the manifests kept in memory: some 100 bytes each.
const MANIFEST_ENTRIES: usize = 200_000;

/// A registry that answers slower than this is remote: a connection is opened before a reader needs it. A
/// tenth of a remote registry's round trip, ten times a near one's.
const NEAR: Duration = Duration::from_millis(5);
/// How long most servers keep an idle connection, at least.
const KEPT_ALIVE: Duration = Duration::from_secs(30);

/// The manifests of a source.
pub struct Manifests {
    /// With retries.
    registry: Option<Arc<dyn Registry>>,
    store: Store,
    kept: Mutex<Weighted<Digest, Arc<Manifest>>>,
    /// When a connection was last opened ahead of reads.
    preconnected: Mutex<Option<Instant>>,
}

impl Manifests {
    /// None in memory.
    pub fn new(registry: Option<Arc<dyn Registry>>, store: Store) -> Self {
        let kept = Mutex::new(Weighted::new(MANIFEST_ENTRIES));
        Self { registry, store, kept, preconnected: Mutex::new(None) }
    }

    /// From memory or the index. Reads the index.
    pub fn now(&self, hash: &Digest) -> Result<Option<Arc<Manifest>>, FetchError> {
        if let Some(found) = self.kept.lock().expect("holders do not panic").get(hash) {
            return Ok(Some(found));
        }
        let Some(body) = self.saved(hash)? else { return Ok(None) };
        let manifest = Arc::new(read_manifest(VersionId::new(*hash), &body)?);
        self.keep(manifest.clone());
        Ok(Some(manifest))
    }

    /// From memory, the index, or the registry.
    pub async fn get(self: &Arc<Self>, hash: &Digest) -> Result<Arc<Manifest>, FetchError> {
        let (this, hash) = (self.clone(), *hash);
        if let Some(found) = blocking(move || this.now(&hash)).await?? {
            return Ok(found);
        }
        Ok(self.save(self.fetch(&hash).await?).await)
    }

    /// Keeps a manifest that a registry just gave, in memory and in the index.
    pub async fn save(&self, came: ManifestDocument) -> Arc<Manifest> {
        let ManifestDocument { document, manifest } = came;
        let (store, manifest) = (self.store.clone(), Arc::new(manifest));
        let hash = manifest.hash();
        let saved = blocking(move || store.save_manifest(&hash, &document)).await;
        warn_unless_saved("a manifest", saved);
        self.keep(manifest.clone());
        manifest
    }

    /// The document as published.
    pub async fn document(self: &Arc<Self>, hash: &Digest) -> Result<Bytes, FetchError> {
        let (this, hash) = (self.clone(), *hash);
        match blocking(move || this.saved(&hash)).await?? {
            Some(body) => Ok(body.into()),
            None => Ok(self.fetch(&hash).await?.document),
        }
    }

    fn saved(&self, hash: &Digest) -> Result<Option<Vec<u8>>, FetchError> {
        let body = self.store.saved_manifest(hash)?;
        // The index is trusted no more than a registry: a document that does not match its digest is
        // fetched again.
        Ok(body.filter(|body| hash::sha256(body) == *hash))
    }

    async fn fetch(&self, hash: &Digest) -> Result<ManifestDocument, FetchError> {
        let Some(registry) = &self.registry else {
            return Err(FetchError::NotKnown { what: format!("manifest {hash}") });
        };
        let version = VersionId::new(*hash);
        let mut coming = registry.manifest(&version);
        if let Ok(came) = tokio::time::timeout(NEAR, &mut coming).await {
            return Ok(came?);
        }
        // The first read requests data and a leaf list at once; neither should wait for a handshake.
        if self.preconnects() {
            registry.preconnect(&version);
        }
        Ok(coming.await?)
    }

    /// Whether to open a connection now. If so, records it.
    fn preconnects(&self) -> bool {
        let mut preconnected = self.preconnected.lock().expect("holders do not panic");
        let due = preconnected.is_none_or(|at| at.elapsed() >= KEPT_ALIVE);
        if due {
            *preconnected = Some(Instant::now());
        }
        due
    }

    fn keep(&self, manifest: Arc<Manifest>) {
        let weight = manifest.files().len() + manifest.objects().len() + 1;
        let mut kept = self.kept.lock().expect("holders do not panic");
        kept.put(manifest.hash(), weight, manifest);
    }
}

/// Logs a document that could not be saved: it is valid, but unavailable while the registry is offline.
pub fn warn_unless_saved(what: &str, saved: Result<Result<(), StoreError>, Stopped>) {
    if let Err(error) = saved.map_err(FetchError::from).and_then(|saved| Ok(saved?)) {
        tracing::warn!(%error, "{what} could not be kept in the index");
    }
}
