//! Forgetting names and documents that nobody needs any more.
//!
//! What stays: what a catalog lists, what is pinned, what something is cached of, what a kernel may
//! still know, and what was used a moment ago. The rest goes once names and documents take more than
//! their headroom, nodes without a manifest first, then versions by last use.
//! Invariant: a node's number is never used again, so a number of one that went is stale and never
//! another file. Concurrency: one collection at a time; readers of the index wait for a batch at most.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::model::{ContentKey, Digest};
use crate::store::engine::core::Core;
use crate::store::engine::index_growth as room;
use crate::store::error::StoreError;
use crate::store::index::{Durability, garbage, names};
use crate::store::types::{NodeId, NodeKey};

/// Rows that go in one transaction: neighbours, which share their pages, so that the log stays within
/// what the books allow for it.
const BATCH: usize = 500;
/// What was used within so many seconds stays: somebody may be about to fetch of it.
const RECENT: u32 = 600;
/// How soon it is tried again after nothing more could go, unless much more has come.
const AGAIN: Duration = Duration::from_secs(600);
/// What a document takes beside its bytes.
const PER_DOCUMENT: u64 = crate::store::engine::index_growth::PER_DOCUMENT;

/// How documents are read. The store keeps them and knows no format.
#[derive(Debug, Clone, Copy)]
pub struct Formats {
    /// Tells everything that a catalog lists: groups, models, versions. `false`: it cannot be read.
    pub listed: fn(&[u8], &mut dyn FnMut(NodeKey)) -> bool,
    /// The blobs of the files of a manifest with this SHA-256; none if it cannot be read.
    pub blobs: fn(&Digest, &[u8]) -> Option<Vec<ContentKey>>,
}

/// Knows which nodes somebody may still ask for by number.
pub trait NodesInUse: Send + Sync {
    /// Whether it must stay.
    fn holds(&self, node: NodeId) -> bool;
}

/// Who is asked before something goes, and how the last time went.
#[derive(Default)]
pub struct Collector {
    /// By the name of each source that is in use.
    sources: HashMap<String, Formats>,
    holders: Vec<Weak<dyn NodesInUse>>,
    /// What names took when nothing more could go, and when that was.
    futile: Option<(u64, Instant)>,
}

impl std::fmt::Debug for Collector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Collector").field("sources", &self.sources.keys()).finish_non_exhaustive()
    }
}

impl Collector {
    /// A source is in use; its documents are read so.
    pub fn uses(&mut self, source: &str, formats: Formats) {
        self.sources.insert(source.to_owned(), formats);
    }

    /// Somebody knows nodes by their numbers.
    pub fn asks(&mut self, holder: Weak<dyn NodesInUse>) {
        self.holders.retain(|h| h.strong_count() > 0);
        self.holders.push(holder);
    }
}

/// What the catalogs list. Names are kept as hashes: one that is taken for listed by chance stays.
struct Listed {
    state: RandomState,
    names: HashSet<u64>,
    hashes: HashSet<Digest>,
    /// Sources whose catalog could not be read: all of theirs stays.
    unread: HashSet<String>,
}

impl Listed {
    fn add(&mut self, source: &str, key: &NodeKey) {
        self.names.insert(self.state.hash_one((source, key)));
        if let NodeKey::Version { hash, .. } = key {
            self.hashes.insert(*hash);
        }
    }

    fn has(&self, source: &str, key: &NodeKey) -> bool {
        self.unread.contains(source) || self.names.contains(&self.state.hash_one((source, key)))
    }
}

/// Collects if names and documents take more than their headroom and it may help.
pub fn when_due(core: &Arc<Core>) -> Result<(), StoreError> {
    let mut collector = core.collector.lock();
    let (taken, headroom) = {
        let space = core.accounting.lock();
        (space.names(), space.headroom())
    };
    let futile = collector
        .futile
        .is_some_and(|(before, at)| taken <= before + headroom / 8 && at.elapsed() < AGAIN);
    if taken <= headroom || futile || collector.sources.is_empty() {
        return Ok(());
    }
    // a quarter less, so that not every name that comes has another one go
    let goal = headroom / 4 * 3;
    let begun = Instant::now();
    let (nodes, manifests, done) = {
        let mut run = Run::new(core, &collector)?;
        let done = run.collect(taken - goal);
        core.collections.fetch_add(1, Ordering::SeqCst);
        let mut space = core.accounting.lock();
        space.other = space.other.saturating_sub(run.freed);
        (run.gone_nodes, run.gone_manifests, done)
    };
    let given = give_back(core);
    let left = core.accounting.lock().names();
    collector.futile = (left > goal).then(|| (left, Instant::now()));
    let (bytes, took) = (taken.saturating_sub(left), begun.elapsed());
    tracing::info!(
        nodes,
        manifests,
        bytes,
        ?took,
        "names and documents that nothing needs any more were forgotten"
    );
    done.and(given)
}

/// Gives what became free in the index back to the disk.
fn give_back(core: &Arc<Core>) -> Result<(), StoreError> {
    let mut promised = None;
    let given = core.index.give_back(|bytes| {
        promised = room::promise_now(core, bytes);
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
    gone_nodes: usize,
    gone_manifests: usize,
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
        let holders = collector.holders.iter().filter_map(Weak::upgrade).collect();
        Ok(Self {
            core,
            collector,
            listed,
            pinned,
            holders,
            freed: 0,
            gone_nodes: 0,
            gone_manifests: 0,
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
        // what was only ever listed costs nobody anything
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
                        key => parents.contains(&(source.as_str(), key.clone())),
                    };
                if !stays {
                    dead.push((*id, names::node_cost(source, key)));
                    continue;
                }
                if let NodeKey::Version { group, model, .. } = key {
                    let (group, model) = (group.clone(), model.clone());
                    parents.insert((source.as_str(), NodeKey::Model { group, model }));
                }
                if let NodeKey::Version { group, .. } | NodeKey::Model { group, .. } = key {
                    parents.insert((source.as_str(), NodeKey::Group { group: group.clone() }));
                }
            }
            dead
        };
        let first = dead(self, &there);
        self.forget_nodes(&first)?;
        let now = self.core.time.seconds();
        let used_since = self.core.uses.lock().clone();
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
                self.core.uses.lock().remove(&m.hash);
                there.remove(&m.hash);
                self.freed += m.len + PER_DOCUMENT;
                self.gone_manifests += 1;
            }
        }
        let gone: HashSet<NodeId> = first.into_iter().map(|(id, _)| id).collect();
        let mut rest = dead(self, &there);
        rest.retain(|(id, _)| !gone.contains(id));
        self.forget_nodes(&rest)?;
        self.forget_traces(&there)?;
        if self.freed < goal { self.forget_catalogs() } else { Ok(()) }
    }

    fn forget_nodes(&mut self, dead: &[(NodeId, u64)]) -> Result<(), StoreError> {
        for batch in dead.chunks(BATCH) {
            let ids: Vec<NodeId> = batch.iter().map(|(id, _)| *id).collect();
            self.core.write_index(Durability::Normal, |tx| garbage::forget_nodes(tx, &ids))?;
            self.freed += batch.iter().map(|(_, cost)| cost).sum::<u64>();
            self.gone_nodes += batch.len();
        }
        Ok(())
    }

    fn forget_traces(&self, there: &HashSet<Digest>) -> Result<(), StoreError> {
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

    /// Catalogs of sources that nobody uses now, and of which nothing is pinned or cached. What they
    /// listed goes next time.
    fn forget_catalogs(&mut self) -> Result<(), StoreError> {
        for source in self.core.index.read(garbage::catalogs)? {
            if self.collector.sources.contains_key(&source) {
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
        let keys = self.collector.sources.values().find_map(|f| (f.blobs)(hash, &body));
        let blobs = self.core.blobs.lock();
        let entries: Vec<_> =
            keys.iter().flatten().filter_map(|key| blobs.by_key.get(key).cloned()).collect();
        drop(blobs);
        Ok(entries.iter().any(|entry| entry.state().data > 0))
    }
}

/// Tells what a source's saved catalog lists; `false` if that cannot be read.
fn list(
    core: &Core,
    collector: &Collector,
    source: &str,
    tell: &mut dyn FnMut(NodeKey),
) -> Result<bool, StoreError> {
    let Some(saved) = core.index.read(|c| names::catalog(c, source))? else { return Ok(false) };
    // of a source that is not in use now: by any format that can read it
    let own = collector.sources.get(source);
    let mut formats = own.into_iter().chain(collector.sources.values());
    Ok(formats.any(|f| (f.listed)(&saved.body, tell)))
}
