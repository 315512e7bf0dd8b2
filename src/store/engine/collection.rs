//! Deletes names and documents that nothing needs any more from the index.
//!
//! What stays: what a catalog lists, what is pinned, what something is cached of, what a kernel may
//! still know, and what was used a moment ago. The rest goes once names and documents take more than
//! their headroom: nodes without a manifest first, then versions by last use.
//! Invariant: a node's number is never used again, so the number of a deleted one is stale and never
//! another file. Concurrency: one collection at a time; readers of the index wait for a batch at most.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::core::Core;
use super::index_growth::{PER_DOCUMENT, try_promise};
use crate::model::{Digest, SourceName};
use crate::store::error::StoreError;
use crate::store::index::{Durability, garbage, names, sources};
use crate::store::state::collector::{Collector, NodesInUse};
use crate::store::types::{NodeId, NodeKey};

/// Rows deleted in one transaction: neighbours, which share their pages, so that the log stays within
/// what the accounting allows for it.
const BATCH: usize = 500;
/// What was used within so many seconds stays: a reader may be about to fetch of it.
const RECENT: u32 = 600;

/// What the catalogs list. Names are kept as hashes: one that is taken for listed by chance stays.
struct Listed {
    state: RandomState,
    names: HashSet<u64>,
    hashes: HashSet<Digest>,
    /// Sources whose catalog could not be read: all of theirs stays.
    unread: HashSet<SourceName>,
}

impl Listed {
    fn add(&mut self, source: &SourceName, key: &NodeKey) {
        self.names.insert(self.state.hash_one((source, key)));
        if let NodeKey::Version { hash, .. } = key {
            self.hashes.insert(*hash);
        }
    }

    fn has(&self, source: &SourceName, key: &NodeKey) -> bool {
        self.unread.contains(source) || self.names.contains(&self.state.hash_one((source, key)))
    }
}

/// Collects if names and documents take more than their headroom and it may help.
pub fn collect_if_due(core: &Arc<Core>) -> Result<(), StoreError> {
    let mut collector = core.collector.lock();
    let (taken, headroom) = {
        let accounting = core.accounting.lock();
        (accounting.names(), accounting.headroom())
    };
    if !collector.may_help(taken, headroom) {
        return Ok(());
    }
    // a quarter less, so that not every new name deletes another one
    let goal = headroom / 4 * 3;
    let begun = Instant::now();
    let (nodes, manifests, done) = {
        let mut run = Run::new(core, &collector)?;
        let done = run.collect(taken - goal);
        core.collections.fetch_add(1, Ordering::SeqCst);
        let mut accounting = core.accounting.lock();
        accounting.other = accounting.other.saturating_sub(run.freed);
        (run.deleted_nodes, run.deleted_manifests, done)
    };
    let given = give_back(core);
    let left = core.accounting.lock().names();
    collector.ended(left, goal);
    let (bytes, took) = (taken.saturating_sub(left), begun.elapsed());
    tracing::info!(
        nodes,
        manifests,
        bytes,
        ?took,
        "names and documents that nothing needs any more were deleted"
    );
    done.and(given)
}

/// Gives what became free in the index back to the disk.
fn give_back(core: &Arc<Core>) -> Result<(), StoreError> {
    let mut promised = None;
    let given = core.index.shrink(|bytes| {
        promised = try_promise(core, bytes);
        promised.is_some()
    });
    drop(promised);
    core.measure_index();
    given
}

/// One collection.
struct Run<'a> {
    core: &'a Arc<Core>,
    collector: &'a Collector,
    listed: Listed,
    pinned: HashSet<Digest>,
    holders: Vec<Arc<dyn NodesInUse>>,
    freed: u64,
    deleted_nodes: usize,
    deleted_manifests: usize,
}

impl<'a> Run<'a> {
    fn new(core: &'a Arc<Core>, collector: &'a Collector) -> Result<Self, StoreError> {
        let mut listed = Listed {
            state: RandomState::new(),
            names: HashSet::new(),
            hashes: HashSet::new(),
            unread: HashSet::new(),
        };
        for source in core.index.read(garbage::catalogs)? {
            if !list(core, collector, &source, &mut |key| listed.add(&source, &key))? {
                listed.unread.insert(source);
            }
        }
        let pinned = core.index.read(garbage::pinned)?.into_iter().collect();
        let holders = collector.holders();
        Ok(Self {
            core,
            collector,
            listed,
            pinned,
            holders,
            freed: 0,
            deleted_nodes: 0,
            deleted_manifests: 0,
        })
    }

    fn collect(&mut self, goal: u64) -> Result<(), StoreError> {
        let manifests = self.core.index.read(garbage::manifests)?;
        let mut there: HashSet<Digest> = manifests.iter().map(|m| m.hash).collect();
        let nodes = self.core.index.read(garbage::nodes)?;
        let holders = std::mem::take(&mut self.holders);
        let held = |id: NodeId| holders.iter().any(|h| h.holds(id));
        let mut held_hashes = HashSet::new();
        for (id, _, key) in &nodes {
            if let NodeKey::Version { hash, .. } = key
                && held(*id)
            {
                held_hashes.insert(*hash);
            }
        }
        // a version that was only listed holds no bytes
        let dead = |run: &Self, there: &HashSet<Digest>| -> Vec<(NodeId, u64)> {
            let mut parents = HashSet::new();
            let mut dead = Vec::new();
            // versions before their models, those before their groups: a parent of what stays stays
            for (id, source, key) in nodes.iter().rev() {
                let stays = run.listed.has(source, key)
                    || held(*id)
                    || match key {
                        NodeKey::Version { hash, .. } => {
                            there.contains(hash) || run.pinned.contains(hash)
                        }
                        key => parents.contains(&(source, key.clone())),
                    };
                if !stays {
                    dead.push((*id, names::node_cost(source, key)));
                    continue;
                }
                if let NodeKey::Version { group, model, .. } = key {
                    let (group, model) = (group.clone(), model.clone());
                    parents.insert((source, NodeKey::Model { group, model }));
                }
                if let NodeKey::Version { group, .. } | NodeKey::Model { group, .. } = key {
                    parents.insert((source, NodeKey::Group { group: group.clone() }));
                }
            }
            dead
        };
        let first = dead(self, &there);
        self.delete_nodes(&first)?;
        let now = self.core.clock.seconds();
        let used_since = self.core.manifest_uses.lock().clone();
        for m in manifests {
            if self.freed >= goal {
                break;
            }
            let used = used_since.get(&m.hash).copied().unwrap_or(0).max(m.used);
            let stays = self.listed.hashes.contains(&m.hash)
                || self.pinned.contains(&m.hash)
                || held_hashes.contains(&m.hash)
                || used.saturating_add(RECENT) > now
                || self.is_cached(&m.hash)?;
            if !stays {
                self.core
                    .write_index(Durability::Normal, |tx| garbage::forget_manifest(tx, &m.hash))?;
                self.core.manifest_uses.lock().remove(&m.hash);
                there.remove(&m.hash);
                self.freed += m.len + PER_DOCUMENT;
                self.deleted_manifests += 1;
            }
        }
        let gone: HashSet<NodeId> = first.into_iter().map(|(id, _)| id).collect();
        let mut rest = dead(self, &there);
        rest.retain(|(id, _)| !gone.contains(id));
        self.delete_nodes(&rest)?;
        self.delete_traces(&there)?;
        if self.freed < goal {
            self.delete_catalogs()?;
        }
        let in_use = |name: &SourceName| self.collector.has_source(name);
        self.core.write_index(Durability::Normal, |tx| sources::forget_empty(tx, in_use))
    }

    fn delete_nodes(&mut self, dead: &[(NodeId, u64)]) -> Result<(), StoreError> {
        for batch in dead.chunks(BATCH) {
            let ids: Vec<NodeId> = batch.iter().map(|(id, _)| *id).collect();
            self.core.write_index(Durability::Normal, |tx| garbage::forget_nodes(tx, &ids))?;
            self.freed += batch.iter().map(|(_, cost)| cost).sum::<u64>();
            self.deleted_nodes += batch.len();
        }
        Ok(())
    }

    fn delete_traces(&self, there: &HashSet<Digest>) -> Result<(), StoreError> {
        for hash in self.core.index.read(garbage::traced)? {
            let stays = there.contains(&hash)
                || self.listed.hashes.contains(&hash)
                || self.pinned.contains(&hash);
            if !stays {
                self.core.write_index(Durability::Normal, |tx| names::forget_trace(tx, &hash))?;
            }
        }
        Ok(())
    }

    /// Catalogs of sources that are not configured now, and of which nothing is pinned or cached. What they
    /// listed goes next time.
    fn delete_catalogs(&mut self) -> Result<(), StoreError> {
        for source in self.core.index.read(garbage::catalogs)? {
            if self.collector.has_source(&source) {
                continue;
            }
            let mut hashes = Vec::new();
            list(self.core, self.collector, &source, &mut |key| {
                if let NodeKey::Version { hash, .. } = key {
                    hashes.push(hash);
                }
            })?;
            let mut stays = false;
            for hash in &hashes {
                stays |= self.pinned.contains(hash) || self.is_cached(hash)?;
            }
            if !stays {
                let len = self.core.index.read(|c| names::catalog_len(c, &source))?;
                self.core
                    .write_index(Durability::Normal, |tx| garbage::forget_catalog(tx, &source))?;
                self.freed += len + PER_DOCUMENT;
            }
        }
        Ok(())
    }

    /// Whether something is cached of the version with this manifest. One that cannot be read by any
    /// source in use has nothing that could be found.
    fn is_cached(&self, hash: &Digest) -> Result<bool, StoreError> {
        let Some(body) = self.core.index.read(|c| names::manifest(c, hash))? else {
            return Ok(false);
        };
        let keys = self.collector.formats().find_map(|f| (f.blobs)(hash, &body));
        let mut entries = keys.iter().flatten().filter_map(|key| self.core.table.get(key));
        Ok(entries.any(|entry| entry.state().data > 0))
    }
}

/// Tells what a source's saved catalog lists; `false` if that cannot be read.
fn list(
    core: &Core,
    collector: &Collector,
    source: &SourceName,
    tell: &mut dyn FnMut(NodeKey),
) -> Result<bool, StoreError> {
    let Some(saved) = core.index.read(|c| names::catalog(c, source))? else { return Ok(false) };
    // of a source that is not in use now: by any format that can read it
    Ok(collector.formats_for(source).any(|f| (f.listed)(&saved.body, tell)))
}
