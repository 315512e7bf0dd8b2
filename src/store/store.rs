//! The store as the layers above see it: each method hands on to the part that does it.
//!
//! The last clone's drop commits, records and closes; blobs still in use then stay readable and
//! take no more writes, and the lock is kept until they are gone. Nothing below imports this file.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::SystemTime;

use super::blob::{Blob, Handles, LocalCopy};
use super::disk::lock::StoreLock;
use super::disk::{Disk, RealDisk};
use super::engine::core::Core;
use super::engine::index_growth::PER_DOCUMENT;
use super::engine::reserve::{self, Reservation};
use super::engine::{background, open, pins, sources, verify};
use super::error::StoreError;
use super::index::sources as source_rows;
use super::index::{Durability, garbage, names, rows, whole_checks};
use super::local_copies;
use super::state::collector::{Formats, NodesInUse};
use super::state::entry::BlobEntry;
use super::types::{
    Evicted, Holder, NodeId, NodeKey, Pin, SavedCatalog, StoreOptions, Usage, Verified,
};
use crate::base::units::ByteSize;
use crate::base::{Clock, ObjectRange, SystemClock};
use crate::model::{BlobLayout, ContentKey, Digest, SourceName, VersionRef};

/// Nodes made in one transaction: a large catalog's log stays small beside a small cache.
const NODES: usize = 2048;
/// Traces of loads that are kept: the models that one machine serves in write_lock, at some MiB at most.
const MAX_TRACES: u32 = 64;

/// The store. Cheap to clone; the last clone's drop commits and closes.
#[derive(Debug, Clone)]
pub struct Store {
    open: Arc<OpenStore>,
}

#[derive(Debug)]
struct OpenStore {
    core: Arc<Core>,
    handles: Arc<Handles>,
    commit_thread: Option<JoinHandle<()>>,
}

impl Drop for OpenStore {
    fn drop(&mut self) {
        let core = &self.core;
        core.closed.store(true, Ordering::SeqCst);
        core.dirty.stop();
        if let Some(thread) = self.commit_thread.take() {
            let _ = thread.join();
        }
        if let Err(e) = background::close(core) {
            tracing::error!(error = %e, "closing the store; it is checked at the next start");
        }
    }
}

impl Store {
    /// Opens or makes a store with the real disk and clock.
    pub fn open(options: StoreOptions) -> Result<Self, StoreError> {
        let disk = Arc::new(RealDisk::new(&options.root));
        Self::start(options, disk, Arc::new(SystemClock), None)
    }

    /// Whether there is a store at `root`, or what is left of one. Looks only.
    pub fn is_at(root: &Path) -> Result<bool, StoreError> {
        open::is_at(root)
    }

    /// Takes the lock of the store at `root`, which is made, without opening the store: for a
    /// process that hands it to those that do.
    pub fn lock(root: &Path) -> Result<StoreLock, StoreError> {
        open::take(root)
    }

    /// Finds what would keep this process from opening a store that another one may still have:
    /// its limit, an index that cannot be written or is of a newer program. Not for a process that
    /// has it open.
    pub fn check(options: &StoreOptions) -> Result<(), StoreError> {
        open::check(options)
    }

    /// Opens a store whose lock is held already.
    pub fn open_locked(options: StoreOptions, lock: StoreLock) -> Result<Self, StoreError> {
        let disk = Arc::new(RealDisk::new(&options.root));
        Self::start(options, disk, Arc::new(SystemClock), Some(lock))
    }

    /// Opens or makes a store on a given disk and clock. The index and the lock are always files
    /// below `options.root`.
    pub fn open_with(
        options: StoreOptions,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StoreError> {
        Self::start(options, disk, clock, None)
    }

    fn start(
        options: StoreOptions,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        lock: Option<StoreLock>,
    ) -> Result<Self, StoreError> {
        let core = open::open(&options, disk, clock, lock)?;
        let thread = std::thread::Builder::new().name("store-commit".into()).spawn({
            let core = core.clone();
            move || background::run(&core)
        });
        let thread = thread.map_err(StoreError::disk(&core.root, "start the commit thread"))?;
        let (handles, commit_thread) = (Arc::default(), Some(thread));
        Ok(Self { open: Arc::new(OpenStore { core, handles, commit_thread }) })
    }

    fn core(&self) -> &Arc<Core> {
        &self.open.core
    }

    /// Writes into the lock file who this is, for commands that look for the daemon.
    pub fn announce(&self, holder: &Holder) -> Result<(), StoreError> {
        self.core().lock.say(holder)
    }

    /// The store's folder.
    pub fn root(&self) -> &Path {
        &self.core().root
    }

    /// What may be taken on disk in all.
    pub fn limit(&self) -> ByteSize {
        ByteSize(self.core().accounting.lock().limit)
    }

    /// The blob of a file, empty if nothing of it was ever fetched. Touches no disk file before
    /// the first write. The layout must not be empty.
    pub fn blob(&self, layout: BlobLayout) -> Result<Arc<Blob>, StoreError> {
        let core = self.core();
        let layout = Arc::new(layout);
        let (blob, new) = self.open.handles.get(core, &layout);
        let row = blob.entry().state().row;
        let Some(last) = layout.pieces().last() else { return Ok(blob) };
        if let Some(row) = row
            && new
        {
            // the blob is there, under names that it may not be known by yet
            let known = core.index.read(|c| rows::has_object(c, &last.object, row))?;
            if !known
                && let Err(error) =
                    core.write_index(Durability::Normal, |tx| rows::add_objects(tx, row, &layout))
            {
                // only other files would find it by them
                tracing::warn!(%error, "a blob is not known by all of its names");
            }
        }
        Ok(blob)
    }

    /// What is present of a blob, without opening it: (data bytes present, complete?).
    pub fn presence(&self, key: &ContentKey) -> (ByteSize, bool) {
        self.core().table.get(key).map_or_else(Default::default, |entry| {
            let s = entry.state();
            (ByteSize(s.data), s.is_complete(&entry.layout))
        })
    }

    /// Bytes in a blob that are not verified yet.
    pub fn unverified(&self, key: &ContentKey) -> ByteSize {
        let entry = self.core().table.get(key);
        ByteSize(entry.map_or(0, |entry| entry.state().prefixes.bytes()))
    }

    /// Promises space, evicting the oldest if need be.
    pub fn reserve(&self, bytes: u64) -> Result<Reservation, StoreError> {
        reserve::reserve(self.core(), bytes)
    }

    /// Where other blobs have bytes of an object that fall into `range`: by the digest that is
    /// checked or the claimed name of the object. The caller verifies what it reads there.
    /// At most a few, longest first, disjoint or not.
    pub fn local_copies(
        &self,
        object: &[Digest],
        range: ObjectRange,
    ) -> Result<Vec<LocalCopy>, StoreError> {
        local_copies::find(self.core(), &self.open.handles, object, range)
    }

    /// Makes everything written so far durable and marked. Returns after the transaction.
    pub fn commit(&self) -> Result<(), StoreError> {
        reserve::commit(self.core())
    }

    /// How full the store is.
    pub fn usage(&self) -> Usage {
        self.core().usage()
    }

    /// The most data that there can be: the limit's share of data, or less on a small disk.
    pub fn room(&self) -> ByteSize {
        ByteSize(self.core().room())
    }

    /// Why so much more cannot be stored.
    pub fn full(&self, wanted: u64) -> StoreError {
        self.core().full(wanted)
    }

    /// Pins the blobs of a version for an owner; again: no change.
    pub fn pin(&self, pin: &Pin, blobs: &[ContentKey]) -> Result<(), StoreError> {
        pins::pin(self.core(), pin, blobs)
    }

    /// Lets go. Returns whether the owner had pinned it (any hash) and who else still does.
    pub fn unpin(
        &self,
        source: &SourceName,
        version: &VersionRef,
        owner: &str,
    ) -> Result<(bool, Vec<String>), StoreError> {
        pins::unpin(self.core(), source, version, owner)
    }

    /// All pins, oldest first.
    pub fn pins(&self) -> Result<Vec<Pin>, StoreError> {
        self.core().index.read(names::pins)
    }

    /// Whether this blob is pinned.
    pub fn is_pinned(&self, key: &ContentKey) -> bool {
        self.core().table.is_pinned(key)
    }

    /// Gives back the space of these blobs. With `force`, of pinned ones too (they stay pinned).
    pub fn evict(&self, blobs: &[ContentKey], force: bool) -> Result<Evicted, StoreError> {
        reserve::evict(self.core(), blobs, force)
    }

    /// Every blob that holds bytes, verified or not.
    pub fn blobs(&self) -> Vec<ContentKey> {
        let holds = |entry: &Arc<BlobEntry>| entry.state().holds_bytes();
        self.core().table.all().iter().filter(|entry| holds(entry)).map(|e| e.key()).collect()
    }

    /// Whether a blob holds bytes, verified or not.
    pub fn holds(&self, key: &ContentKey) -> bool {
        self.core().table.get(key).is_some_and(|entry| entry.state().holds_bytes())
    }

    /// Re-hashes what is present of these blobs against the sums; drops what does not match.
    /// `progress` gets (bytes done, bytes in all) after each part and says whether to go on. Looking
    /// things over is no use of them: what is oldest stays oldest.
    pub fn verify(
        &self,
        blobs: &[ContentKey],
        progress: &dyn Fn(u64, u64) -> bool,
    ) -> Result<Verified, StoreError> {
        verify::verify(self.core(), blobs, progress)
    }

    /// A transaction on names that makes the index grow by at most so much.
    fn save<T>(
        &self,
        grows: u64,
        f: impl FnMut(&rusqlite::Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let promise = reserve::promise_growth(self.core(), grows)?;
        let out = self.core().write_index(Durability::Normal, f)?;
        promise.keep();
        Ok(out)
    }

    /// A source is used, which is at this URL or folder now and has documents of this format. Before
    /// anything else is asked of it: what was kept under its address alone becomes known under its name.
    pub fn uses(&self, source: &SourceName, url: &str, format: &str) -> Result<(), StoreError> {
        sources::uses(self.core(), source, url, format)
    }

    /// The documents of a source are read so: before anything of the index is forgotten, it is looked up
    /// in them whether something needs it.
    pub fn reads(&self, source: &SourceName, formats: Formats) {
        self.core().collector.lock().add_source(source, formats);
    }

    /// Asks this one before a node is forgotten.
    pub fn asks(&self, nodes: Weak<dyn NodesInUse>) {
        self.core().collector.lock().add_holder(nodes);
    }

    /// How often nodes were forgotten so far: what is remembered of them elsewhere holds until then.
    pub fn collections(&self) -> u64 {
        self.core().collections.load(Ordering::SeqCst)
    }

    /// The id that the last new node got.
    pub fn last_node(&self) -> Result<NodeId, StoreError> {
        self.core().index.read(garbage::last_node).map(NodeId)
    }

    /// A source's catalog as last seen.
    pub fn saved_catalog(&self, source: &SourceName) -> Result<Option<SavedCatalog>, StoreError> {
        self.core().index.read(|c| names::catalog(c, source))
    }

    /// When a source's catalog was last known to be right; none if there is none.
    pub fn catalog_last_checked(
        &self,
        source: &SourceName,
    ) -> Result<Option<SystemTime>, StoreError> {
        self.core().index.read(|c| names::checked(c, source))
    }

    /// Keeps a source's catalog, in place of the one before.
    pub fn save_catalog(
        &self,
        source: &SourceName,
        catalog: &SavedCatalog,
    ) -> Result<(), StoreError> {
        let before = self.core().index.read(|c| names::catalog_len(c, source))?;
        let grows = (catalog.body.len() as u64 + PER_DOCUMENT).saturating_sub(before);
        self.save(grows, |tx| names::set_catalog(tx, source, catalog))
    }

    /// Notes that the saved catalog is still right.
    pub fn catalog_checked(&self, source: &SourceName, at: SystemTime) -> Result<(), StoreError> {
        self.core().write_index(Durability::Normal, |tx| names::set_checked(tx, source, at))
    }

    /// A manifest, if it was kept.
    pub fn saved_manifest(&self, hash: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.core().index.read(|c| names::manifest(c, hash))?;
        if found.is_some() {
            let core = self.core();
            core.manifest_uses.lock().insert(*hash, core.clock.seconds());
        }
        Ok(found)
    }

    /// Keeps a manifest, which has this SHA-256.
    pub fn save_manifest(&self, hash: &Digest, body: &[u8]) -> Result<(), StoreError> {
        if self.core().index.read(|c| names::has_manifest(c, hash))? {
            return Ok(());
        }
        let grows = body.len() as u64 + PER_DOCUMENT;
        let now = self.core().clock.seconds();
        self.save(grows, |tx| {
            names::set_manifest(tx, hash, body)?;
            garbage::set_use(tx, hash, now)
        })
    }

    /// Whether a blob whose ranges were proved has matched the digest of the whole, if it was compared.
    pub fn whole_check(&self, blob: &ContentKey) -> Result<Option<bool>, StoreError> {
        self.core().index.read(|c| whole_checks::find(c, blob))
    }

    /// Keeps whether a blob has matched the digest of the whole.
    pub fn set_whole_check(&self, blob: &ContentKey, matched: bool) -> Result<(), StoreError> {
        self.save(whole_checks::ROW, |tx| whole_checks::set(tx, blob, matched))
    }

    /// What a load of the version with this manifest touched, if that was kept.
    pub fn trace(&self, manifest: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        self.core().index.read(|c| names::trace(c, manifest))
    }

    /// Keeps what a load of a version touched, in place of what was kept before.
    pub fn save_trace(&self, manifest: &Digest, body: &[u8]) -> Result<(), StoreError> {
        let now = self.core().clock.seconds();
        let before = self.core().index.read(|c| names::trace_len(c, manifest))?;
        let before = before.map_or(0, |len| len + PER_DOCUMENT);
        self.save((body.len() as u64 + PER_DOCUMENT).saturating_sub(before), |tx| {
            names::set_trace(tx, manifest, body, now, MAX_TRACES)
        })
    }

    /// Forgets it. Whether there was something.
    pub fn forget_trace(&self, manifest: &Digest) -> Result<bool, StoreError> {
        self.core().write_index(Durability::Normal, |tx| names::forget_trace(tx, manifest))
    }

    /// The ids of these, in order; made if new, many in one transaction.
    pub fn nodes(&self, source: &SourceName, keys: &[NodeKey]) -> Result<Vec<NodeId>, StoreError> {
        let mut out = Vec::with_capacity(keys.len());
        for keys in keys.chunks(NODES) {
            out.extend(self.some_nodes(source, keys)?);
        }
        Ok(out)
    }

    fn some_nodes(&self, source: &SourceName, keys: &[NodeKey]) -> Result<Vec<NodeId>, StoreError> {
        let find = |c: &rusqlite::Connection| {
            keys.iter().map(|k| names::find_node(c, source, k)).collect::<Result<Vec<_>, _>>()
        };
        let found = self.core().index.read(find)?;
        let new = keys.iter().zip(&found).filter(|(_, id)| id.is_none());
        let grows: u64 = new.map(|(key, _)| names::node_cost(source, key)).sum();
        if grows == 0 {
            return Ok(found.into_iter().flatten().collect());
        }
        // ids outlive the process in inodes: durable before they are given out
        let grows = grows + PER_DOCUMENT;
        let promise = reserve::promise_growth(self.core(), grows)?;
        let ids = self.core().write_index(Durability::Full, |tx| {
            keys.iter()
                .map(|k| names::node_id(tx, source, k))
                .collect::<rusqlite::Result<Option<Vec<_>>>>()
        })?;
        promise.keep();
        ids.ok_or_else(|| StoreError::Index("no more node ids fit 31 bits".into()))
    }

    /// What an id stands for, and in which source.
    pub fn node(&self, id: NodeId) -> Result<Option<(SourceName, NodeKey)>, StoreError> {
        self.core().index.read(|c| names::node(c, id))
    }

    /// The sources that the index knows anything of: a catalog, versions or pins. In order.
    pub fn sources(&self) -> Result<Vec<SourceName>, StoreError> {
        self.core().index.read(source_rows::sources)
    }

    /// Versions of a source that the index has nodes for: what may be cached.
    pub fn known_versions(
        &self,
        source: &SourceName,
    ) -> Result<Vec<(VersionRef, Digest)>, StoreError> {
        self.core().index.read(|c| names::versions(c, source))
    }

    /// The oldest node of a model's versions with this manifest.
    pub fn oldest_node(
        &self,
        source: &SourceName,
        group: &str,
        model: &str,
        hash: &Digest,
    ) -> Result<Option<NodeId>, StoreError> {
        self.core().index.read(|c| names::oldest_node(c, source, (group, model), hash))
    }

    /// The versions of a source, or of one model of it, that have a node and a kept manifest: those that
    /// were used.
    pub fn used_versions(
        &self,
        source: &SourceName,
        model: Option<(&str, &str)>,
    ) -> Result<Vec<(VersionRef, Digest)>, StoreError> {
        self.core().index.read(|c| names::used_versions(c, source, model))
    }
}
