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
use crate::model::SourceName;
use crate::store::{NodeId, NodeKey, Store};

/// Maximum number of rows in memory: those of a large catalog, about 200 bytes each, 13 MiB at most.
const KEPT: NonZeroUsize = NonZeroUsize::new(1 << 16).expect("not zero");

/// The rows of one source.
pub(super) struct Nodes {
    store: Store,
    source: SourceName,
    kept: Mutex<Kept>,
}

struct Kept {
    /// Number of node collections when the entries were read: older entries may be gone.
    collections: u64,
    ids: LruCache<NodeKey, NodeId>,
    keys: LruCache<NodeId, Arc<NodeKey>>,
}

impl Nodes {
    /// The rows of the source called `source`.
    pub(super) fn new(store: Store, source: SourceName) -> Self {
        let (ids, keys) = (LruCache::new(KEPT), LruCache::new(KEPT));
        let kept = Kept { collections: store.collections(), ids, keys };
        Self { store, source, kept: Mutex::new(kept) }
    }

    /// The rows of these keys, in order; missing ones are created, all in one transaction.
    pub(super) fn ids(&self, keys: &[NodeKey]) -> Result<Vec<NodeId>, VfsError> {
        let collections = self.store.collections();
        {
            let mut kept = self.kept(collections);
            let known: Option<Vec<NodeId>> =
                keys.iter().map(|k| kept.ids.get(k).copied()).collect();
            if let Some(ids) = known {
                return Ok(ids);
            }
        }
        let ids = self.store.nodes(&self.source, keys).map_err(|e| of_store(&e))?;
        let mut kept = lock(&self.kept);
        if kept.collections == collections {
            for (key, id) in keys.iter().zip(&ids) {
                kept.ids.put(key.clone(), *id);
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
            kept.keys.clear();
        }
        kept
    }

    /// The row of one key.
    pub(super) fn id(&self, key: NodeKey) -> Result<NodeId, VfsError> {
        let ids = self.ids(&[key])?;
        ids.first().copied().ok_or(VfsError::Stale)
    }

    /// The key of a row.
    pub(super) fn key(&self, id: NodeId) -> Result<Arc<NodeKey>, VfsError> {
        let collections = self.store.collections();
        if let Some(key) = self.kept(collections).keys.get(&id) {
            return Ok(Arc::clone(key));
        }
        match self.store.node(id).map_err(|e| of_store(&e))? {
            Some((source, key)) if source == self.source => {
                let key = Arc::new(key);
                let mut kept = lock(&self.kept);
                if kept.collections == collections {
                    kept.keys.put(id, Arc::clone(&key));
                }
                Ok(key)
            }
            _ => Err(VfsError::Stale),
        }
    }
}
