//! What all parts of the store share: the disk, the index, the books, the list of blobs.
//!
//! Concurrency: every lock guards one thing and is held briefly, without I/O (but the index's).
//! Order, where two are held: `collector` → a blob's `proving` → `eviction_lock` → `commit_lock` → a blob's `write_lock` →
//! index → `blobs` → a blob's state; `headroom` inside any of them. `lru`, `space`, `dirty`, `uses` and `files`
//! are leaves: nothing is taken inside them.

use parking_lot::{Condvar, Mutex};
use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rusqlite::Transaction;

use crate::base::units::ByteSize;
use crate::model::{BlobLayout, ContentKey, Digest};
use crate::store::blob::Blob;
use crate::store::disk::headroom::Headroom;
use crate::store::disk::lock::StoreLock;
use crate::store::disk::{Access, Disk};
use crate::store::engine::collection::Collector;
use crate::store::error::StoreError;
use crate::store::index::{Durability, Index};
use crate::store::state::accounting::Accounting;
use crate::store::state::entry::{BlobEntry, OpenFile};
use crate::store::state::lru::Lru;
use crate::store::types::Usage;

/// Blob files kept open at most: half of the usual limit of 1024 descriptors a process. One more
/// blob read than this costs an `open` a read, no more.
const OPEN_FILES: usize = 512;

/// The shared state.
#[derive(Debug)]
pub struct Core {
    /// The folder.
    pub root: PathBuf,
    /// Blob files.
    pub disk: Arc<dyn Disk>,
    /// The index.
    pub index: Index,
    /// The blobs that have something present or are in use.
    pub blobs: Mutex<Blobs>,
    /// Segments by last use.
    pub lru: Mutex<Lru>,
    /// The books.
    pub accounting: Mutex<Accounting>,
    /// EvictionOutcome on the disk that is kept for the index.
    pub headroom: Headroom,
    /// What is forgotten of names and documents, and when. Held by whoever does so.
    pub collector: Mutex<Collector>,
    /// How often nodes were forgotten.
    pub collections: AtomicU64,
    /// When manifests were last used, as far as that is not recorded yet.
    pub uses: Mutex<HashMap<Digest, u32>>,
    /// Held by whoever evicts: others wait for the space that it frees.
    pub eviction_lock: Mutex<()>,
    /// Held by whoever commits.
    pub commit_lock: Mutex<()>,
    /// What waits for a commit.
    pub dirty: Mutex<Dirty>,
    /// Wakes the commit thread.
    pub wake: Condvar,
    /// Blobs whose files are open, oldest first.
    pub files: Mutex<VecDeque<Weak<BlobEntry>>>,
    /// Set when the last `Store` is gone: nothing is written any more.
    pub closed: AtomicBool,
    /// When a group is committed.
    pub group: Group,
    /// Time, and what its seconds count from.
    pub time: Time,
    /// Released last, when nobody can read or write any more.
    pub lock: StoreLock,
}

/// When a group is committed.
#[derive(Debug, Clone, Copy)]
pub struct Group {
    /// After so many bytes.
    pub bytes: u64,
    /// After so long.
    pub after: Duration,
}

/// What waits for a commit.
#[derive(Debug, Default)]
pub struct Dirty {
    /// Blobs with dirty parts.
    pub entries: HashMap<u32, Arc<BlobEntry>>,
    /// Bytes written to them.
    pub bytes: u64,
    /// Since when.
    pub since: Option<Instant>,
    /// Names and documents have grown beyond their headroom.
    pub collect: bool,
    /// The commit thread shall end.
    pub stop: bool,
}

/// The seconds of last uses: never back, not even from one start to the next.
pub struct Time {
    clock: Arc<dyn crate::base::Clock>,
    start: Instant,
    base: u32,
}

impl std::fmt::Debug for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.seconds())
    }
}

impl Time {
    /// Not before `least`.
    pub fn new(clock: Arc<dyn crate::base::Clock>, least: u32) -> Self {
        let wall = clock.wall().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let wall = u32::try_from(wall.as_secs()).unwrap_or(u32::MAX);
        Self { start: clock.now(), base: wall.max(least), clock }
    }

    /// Now.
    pub fn seconds(&self) -> u32 {
        let passed = self.clock.now().saturating_duration_since(self.start).as_secs();
        self.base.saturating_add(u32::try_from(passed).unwrap_or(u32::MAX))
    }
}

/// The list of blobs.
#[derive(Debug, Default)]
pub struct Blobs {
    /// By name.
    pub by_key: HashMap<ContentKey, Arc<BlobEntry>>,
    /// By number.
    pub by_id: HashMap<u32, Arc<BlobEntry>>,
    /// Those that somebody uses.
    pub handles: HashMap<ContentKey, Weak<Blob>>,
    /// Pinned blobs, with how many pins.
    pub pinned: HashMap<ContentKey, u32>,
    next: u32,
}

impl Blobs {
    /// Empty, with these pins.
    pub fn new(pinned: HashMap<ContentKey, u32>) -> Self {
        Self { pinned, ..Self::default() }
    }

    /// The blob of a layout, made with nothing present if it is not there.
    pub fn entry(&mut self, layout: &Arc<BlobLayout>) -> Arc<BlobEntry> {
        let key = layout.key();
        if let Some(entry) = self.by_key.get(&key) {
            return entry.clone();
        }
        self.next += 1;
        let entry = BlobEntry::new(self.next, layout.clone(), self.pinned.contains_key(&key));
        let entry = Arc::new(entry);
        self.by_key.insert(key, entry.clone());
        self.by_id.insert(entry.id, entry.clone());
        entry
    }

    /// Forgets a blob that nobody uses and that has no files.
    pub fn forget_if_unused(&mut self, entry: &Arc<BlobEntry>) {
        let key = entry.key();
        let used = self.handles.get(&key).is_some_and(|w| w.strong_count() > 0);
        let mine = self.by_key.get(&key).is_some_and(|c| Arc::ptr_eq(c, entry));
        let s = entry.state();
        if mine && !used && s.row.is_none() && !s.removing && s.is_idle_and_empty() {
            drop(s);
            self.by_key.remove(&key);
            self.by_id.remove(&entry.id);
            self.handles.remove(&key);
        }
    }
}

impl Core {
    /// Whether the last `Store` is gone.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// A transaction; the books learn what the index takes after it. On a full disk the headroom
    /// is given up for it, and it is tried once more.
    pub fn write_index<T>(
        &self,
        durability: Durability,
        mut f: impl FnMut(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let mut out = self.index.write(durability, &mut f);
        if out.as_ref().is_err_and(StoreError::is_full) && self.headroom.change().give_up() {
            tracing::warn!("the disk is full: the room kept for the index is used");
            out = self.index.write(durability, &mut f);
        }
        self.measure_index();
        out
    }

    /// The books learn what the index takes.
    pub fn measure_index(&self) {
        let footprint = self.index.footprint();
        let unused = {
            let mut space = self.accounting.lock();
            space.measured = footprint;
            space.unused_headroom()
        };
        self.headroom.change().shrink_to(unused);
    }

    /// What the disk has for data: what is free on it, less what was promised, and what data there is.
    pub fn disk_room(&self) -> u64 {
        let free = self.disk.free().unwrap_or(u64::MAX);
        let space = self.accounting.lock();
        free.saturating_add(space.data)
    }

    /// The most data that there can be, by the limit and by the disk.
    pub fn room(&self) -> u64 {
        let by_disk = self.disk_room();
        self.accounting.lock().room().min(by_disk)
    }

    /// How full the store is.
    pub fn usage(&self) -> Usage {
        let entries: Vec<_> = self.blobs.lock().by_key.values().cloned().collect();
        let mut out = Usage::default();
        for entry in entries {
            let s = entry.state();
            out.data.0 += s.data;
            out.blobs += u64::from(s.data > 0);
            out.complete_blobs += u64::from(s.is_complete(&entry.layout));
            if entry.is_pinned() && s.data > 0 {
                out.pinned.0 += s.cost + s.excess + entry.overhead.total();
            }
        }
        let space = self.accounting.lock().clone();
        out.limit = ByteSize(space.limit);
        out.used = ByteSize(space.used());
        out.reserved = ByteSize(space.reserved);
        out.disk_free = ByteSize(self.disk.free().unwrap_or(0));
        out
    }

    /// A full path, for messages.
    pub fn full(&self, path: &std::path::Path) -> PathBuf {
        self.root.join(path)
    }

    /// The open file of a blob, opened if need be. The blob must have files.
    pub fn file(&self, entry: &Arc<BlobEntry>, writable: bool) -> std::io::Result<OpenFile> {
        if let Some(f) = &entry.state().file
            && (f.writable || !writable)
        {
            return Ok(f.clone());
        }
        let access = if writable { Access::Write } else { Access::Read };
        let file = self.disk.open(&entry.path(), access)?;
        if !self.lock.still_ours() {
            return Err(std::io::ErrorKind::NotFound.into());
        }
        if file.stat()?.len != entry.layout.len() {
            // somebody cut it: what lies beyond is gone
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let open = OpenFile { file, writable };
        // What somebody else opened or made meanwhile counts: ours may be a file that is gone.
        if let Some(theirs) = &entry.state().file
            && (theirs.writable || !writable)
        {
            return Ok(theirs.clone());
        }
        self.keep_open(entry, open.clone());
        Ok(open)
    }

    /// Whether somebody may read a blob's file through the kernel: by a handle that a process which
    /// died left behind, or by a map, which outlives its handle.
    pub fn is_shared(&self, entry: &BlobEntry) -> bool {
        // ours would count; whoever uses it just now makes it look shared, for a moment
        let ours = entry.state().file.take();
        drop(ours);
        let shared = self.disk.is_shared(&entry.path());
        let mut s = entry.state();
        s.passed = shared;
        s.shared = shared.then(Instant::now);
        shared
    }

    /// Keeps a file open, closing the one that was opened longest ago if there are too many.
    pub fn keep_open(&self, entry: &Arc<BlobEntry>, open: OpenFile) {
        if entry.state().file.replace(open).is_some() {
            return;
        }
        let too_many = {
            let mut files = self.files.lock();
            files.push_back(Arc::downgrade(entry));
            if files.len() > OPEN_FILES { files.pop_front() } else { None }
        };
        if let Some(oldest) = too_many.and_then(|w| w.upgrade()) {
            // whoever still uses it has its own reference
            oldest.state().file = None;
        }
    }

    /// Notes the use of segments now, at most once a second each.
    pub fn touch(&self, entry: &BlobEntry, segments: impl Iterator<Item = u32>) {
        let now = self.time.seconds();
        let mut lru = self.lru.lock();
        for segment in segments {
            lru.touch(entry.segment_id(segment), now);
        }
    }
}
