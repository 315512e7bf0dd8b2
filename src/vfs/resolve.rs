//! Maps node keys to rows of the index and back.
//!
//! Invariant: the index is authoritative; the cache copies its answers, which change only when nodes are
//! collected, and is dropped then.
//! Concurrency: one lock, not held while the index is read.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard};

use lru::LruCache;

use super::errors::of_store;
use super::sync::lock;
use super::types::VfsError;
use crate::fetch::Sources;
use crate::model::{Digest, SourceIx};
use crate::store::{NodeId, NodeKey, Store};

/// Maximum number of rows in memory: those of a large catalog, about 200 bytes each, 13 MiB at most.
const KEPT: NonZeroUsize = NonZeroUsize::new(1 << 16).expect("not zero");

/// Maximum number of manifests whose oldest row is in memory: more than programs use at once.
const KEPT_MANIFESTS: NonZeroUsize = NonZeroUsize::new(1 << 10).expect("not zero");

/// The source whose name stands for the folders that sources share: groups and models.
pub(super) const SHARED: SourceIx = SourceIx(0);

/// A row: what it stands for, and in which source.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Node {
    /// The source; [`SHARED`] for groups and models.
    pub(super) source: SourceIx,
    pub(super) key: NodeKey,
}

/// The rows of the sources of one tree.
pub(super) struct Nodes {
    store: Store,
    sources: Arc<Sources>,
    kept: Mutex<Kept>,
}

struct Kept {
    /// Number of node collections when the entries were read: older entries may be gone.
    collections: u64,
    ids: LruCache<Node, NodeId>,
    nodes: LruCache<NodeId, Arc<Node>>,
    oldest: LruCache<ManifestOf, NodeId>,
}

/// A manifest of a model: source, group, model, hash.
type ManifestOf = (SourceIx, Box<str>, Box<str>, Digest);

impl Nodes {
    /// The rows of these sources.
    pub(super) fn new(store: Store, sources: Arc<Sources>) -> Self {
        let (ids, nodes, oldest) =
            (LruCache::new(KEPT), LruCache::new(KEPT), LruCache::new(KEPT_MANIFESTS));
        let kept = Kept { collections: store.collections(), ids, nodes, oldest };
        Self { store, sources, kept: Mutex::new(kept) }
    }

    /// The rows of these keys in a source, in order; missing ones are created, all in one transaction.
    pub(super) fn ids(&self, source: SourceIx, keys: &[NodeKey]) -> Result<Vec<NodeId>, VfsError> {
        let collections = self.store.collections();
        let node = |key: &NodeKey| Node { source, key: key.clone() };
        {
            let mut kept = self.kept(collections);
            let known: Option<Vec<NodeId>> =
                keys.iter().map(|k| kept.ids.get(&node(k)).copied()).collect();
            if let Some(ids) = known {
                return Ok(ids);
            }
        }
        let name = self.sources.get(source).name();
        let ids = self.store.nodes(name, keys).map_err(|e| of_store(&e))?;
        let mut kept = lock(&self.kept);
        if kept.collections == collections {
            for (key, id) in keys.iter().zip(&ids) {
                kept.ids.put(node(key), *id);
            }
        }
        Ok(ids)
    }

    /// The cache, emptied if nodes were collected since it was filled.
    fn kept(&self, collections: u64) -> MutexGuard<'_, Kept> {
        let mut kept = lock(&self.kept);
        if kept.collections < collections {
            kept.collections = collections;
            kept.ids.clear();
            kept.nodes.clear();
            kept.oldest.clear();
        }
        kept
    }

    /// The row of one key in a source.
    pub(super) fn id(&self, source: SourceIx, key: NodeKey) -> Result<NodeId, VfsError> {
        let ids = self.ids(source, &[key])?;
        ids.first().copied().ok_or(VfsError::Stale)
    }

    /// What a row stands for. One of a source that the tree does not have is stale.
    pub(super) fn node(&self, id: NodeId) -> Result<Arc<Node>, VfsError> {
        let collections = self.store.collections();
        if let Some(node) = self.kept(collections).nodes.get(&id) {
            return Ok(Arc::clone(node));
        }
        let row = self.store.node(id).map_err(|e| of_store(&e))?;
        let (name, key) = row.ok_or(VfsError::Stale)?;
        let source = self.sources.iter().find(|(_, source)| *source.name() == name);
        let (source, _) = source.ok_or(VfsError::Stale)?;
        let node = Arc::new(Node { source, key });
        let mut kept = lock(&self.kept);
        if kept.collections == collections {
            kept.nodes.put(id, Arc::clone(&node));
        }
        Ok(node)
    }

    /// The oldest row of a model's versions with this manifest. It stays the oldest as long as the kernel
    /// refers to it, since later rows have larger numbers.
    pub(super) fn oldest(
        &self,
        source: SourceIx,
        group: &str,
        model: &str,
        hash: Digest,
    ) -> Result<Option<NodeId>, VfsError> {
        let collections = self.store.collections();
        let key: ManifestOf = (source, group.into(), model.into(), hash);
        if let Some(id) = self.kept(collections).oldest.get(&key) {
            return Ok(Some(*id));
        }
        let name = self.sources.get(source).name();
        let found = self.store.oldest_node(name, group, model, &hash).map_err(|e| of_store(&e))?;
        let mut kept = lock(&self.kept);
        if let (Some(id), true) = (found, kept.collections == collections) {
            kept.oldest.put(key, id);
        }
        Ok(found)
    }
}
