//! Opening a store: the index is read once; after a crash the disk is made to agree with it.
//!
//! Invariant: when this returns, what is present is what the index claims, unproven (`trust`), and the
//! disk takes no more than is counted. No blob's bytes are read; after a clean close no blob file is
//! looked at. Whatever else lies in the folder, the store opens.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::Connection;

use super::clock::UseClock;
use super::core::Core;
use super::files::OpenFiles;
use super::{eviction, index_growth, recovery};
use crate::base::Clock;
use crate::base::units::ByteSize;
use crate::model::ContentKey;
use crate::store::disk::headroom::Headroom;
use crate::store::disk::lock::{self, StoreLock};
use crate::store::disk::{Disk, epoch};
use crate::store::error::StoreError;
use crate::store::evidence::Evidence;
use crate::store::index::{self, Durability, Epochs, names, rows};
use crate::store::state::accounting::{self, Accounting, BLOCK, MIN_LIMIT};
use crate::store::state::dirty::{CommitPolicy, DirtyQueue};
use crate::store::state::lru::Lru;
use crate::store::state::prefixes::{self, IdlePrefixes};
use crate::store::state::recency::Recency;
use crate::store::state::table::Table;
use crate::store::types::StoreOptions;

/// The limit of a store that was never given one.
const DEFAULT_LIMIT: ByteSize = ByteSize::gib(50);

/// What the index says, before anything is made of it.
struct Read {
    blobs: Vec<rows::BlobRow>,
    pinned: HashSet<ContentKey>,
    limit: Option<u64>,
}

fn read(conn: &Connection) -> rusqlite::Result<Read> {
    let blobs = rows::blobs(conn)?;
    let pinned = names::pinned_blobs(conn)?;
    let limit = rows::meta(conn, "limit")?.and_then(|n| u64::try_from(n).ok());
    Ok(Read { blobs, pinned, limit })
}

/// Opens or makes a store; `lock` is its lock, if that is held already.
pub fn open(
    options: &StoreOptions,
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    lock: Option<StoreLock>,
) -> Result<Arc<Core>, StoreError> {
    large_enough(options)?;
    let root = &options.root;
    let lock = lock.map_or_else(|| take(root), Ok)?;
    disk.make_folder(Path::new("blobs")).map_err(StoreError::disk(root, "make blobs/"))?;
    let epochs = Epochs { last: epoch::read(root), next: epoch::draw() };
    let headroom = Headroom::of(root);
    let open = || index::open(root, &disk, clock.wall(), epochs, read);
    let (opened, read) = match open() {
        Err(e) if e.is_full() && headroom.change().give_up() => open()?,
        other => other?,
    };
    if let Err(error) = epoch::write(root, epochs.next) {
        tracing::warn!(%error, "the epoch cannot be written; at the next start all cached parts are compared with their checksums");
    }
    // the names of a new index and its log; what follows rests on them
    disk.sync_folder(Path::new("")).map_err(StoreError::disk(root, "sync"))?;
    let limit = options.limit.or(read.limit.map(ByteSize)).unwrap_or(DEFAULT_LIMIT);
    let remember = || {
        opened.index.write(Durability::Normal, |tx| {
            rows::set_meta(tx, "limit", i64::try_from(limit.0).unwrap_or(i64::MAX))
        })
    };
    match remember() {
        Err(e) if e.is_full() && headroom.change().give_up() => remember()?,
        other => other?,
    }
    let mut accounting = Accounting::new(limit.0);
    for file in index::open::aside(root) {
        let len = std::fs::metadata(root.join(file)).map_or(0, |m| m.len());
        accounting.overhead += accounting::up(len) + BLOCK;
    }
    let newest = read.blobs.iter().flat_map(|b| &b.used).map(|(_, used)| *used).max().unwrap_or(0);
    let (table, lru, idle_prefixes) = load(read, &mut accounting, opened.evidence);
    let lock = Arc::new(lock);
    let policy = CommitPolicy { bytes: options.commit_bytes.0, after: options.commit_after };
    let core = Arc::new(Core {
        root: root.clone(),
        files: OpenFiles::new(disk.clone(), lock.clone()),
        disk,
        index: opened.index,
        table: Arc::new(table),
        recency: Recency::new(lru),
        idle_prefixes,
        accounting: Mutex::new(accounting),
        headroom,
        dirty: DirtyQueue::new(policy),
        collector: Mutex::default(),
        collections: 0.into(),
        manifest_uses: Mutex::default(),
        eviction_lock: Mutex::default(),
        commit_lock: Mutex::default(),
        closed: false.into(),
        clock: UseClock::new(clock, newest),
        lock,
    });
    if !opened.agrees {
        recovery::agree(&core)?;
    }
    {
        // what the index takes beyond its blobs now, it takes for other things
        let mut accounting = core.accounting.lock();
        accounting.measured = core.index.footprint();
        accounting.other = accounting.measured.saturating_sub(accounting.index_floor());
    }
    let unused = core.accounting.lock().unused_headroom();
    core.headroom.change().shrink_to(unused);
    if let Err(error) = eviction::enforce_limit(&core) {
        tracing::warn!(%error, "the cache takes more than its limit for now");
    }
    index_growth::fill_headroom(&core);
    let by_disk = core.disk_room();
    let by_limit = core.accounting.lock().room();
    if by_disk < by_limit {
        let (limit, room) = (ByteSize(limit.0), ByteSize(by_disk));
        tracing::info!(%limit, %room, "the disk has less room for the cache than its limit allows");
    }
    Ok(core)
}

/// Whether there is a store at `root`. A folder that only holds a `blobs` of others is none; a store
/// whose index is lost is one, since its blobs can be taken back.
pub fn is_at(root: &Path) -> Result<bool, StoreError> {
    use std::io::ErrorKind;
    let is_there = |name: &str| match std::fs::symlink_metadata(root.join(name)) {
        Ok(_) => Ok(true),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(false),
        Err(e) => Err(StoreError::disk(root, "look for a cache")(e)),
    };
    Ok(is_there("index.db")? || (is_there("lock")? && is_there("blobs")?))
}

fn large_enough(options: &StoreOptions) -> Result<(), StoreError> {
    match options.limit.filter(|l| l.0 < MIN_LIMIT) {
        Some(given) => Err(StoreError::Limit { given, least: ByteSize(MIN_LIMIT) }),
        None => Ok(()),
    }
}

/// Finds what would keep this process from opening the store, while another one may still have it.
pub fn check(options: &StoreOptions) -> Result<(), StoreError> {
    large_enough(options)?;
    index::open::check(&options.root)
}

/// Takes the lock of the store at `root`, whose folder is made.
pub fn take(root: &Path) -> Result<StoreLock, StoreError> {
    make_root(root)?;
    StoreLock::take(root)
}

fn make_root(root: &Path) -> Result<(), StoreError> {
    lock::make_folder(root).map_err(StoreError::disk(root, "make the cache folder"))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // one that was there already may be open to others; if it is not ours to change, so be it
        let _ = std::fs::set_permissions(root, std::fs::Permissions::from_mode(0o700));
    }
    Ok(())
}

/// Makes the table, the LRU list and the list of unverified bytes of what the index says.
fn load(read: Read, accounting: &mut Accounting, evidence: Evidence) -> (Table, Lru, IdlePrefixes) {
    let (table, idle) = (Table::new(read.pinned), IdlePrefixes::default());
    let mut listed = Vec::with_capacity(read.blobs.iter().map(|b| b.used.len()).sum());
    for row in read.blobs {
        let entry = table.entry(&row.layout);
        accounting.add_overhead(&entry.overhead);
        let mut s = entry.state();
        s.row = Some(row.id);
        for run in row.present.runs(entry.layout.all_parts(), true) {
            accounting.data += s.add(&entry.layout, run);
        }
        s.unproven = s.present.clone();
        s.stamp = row.stamp.filter(|_| evidence == Evidence::Stamp);
        s.indexed_stamp = s.stamp;
        for (piece, len) in row.unverified {
            let cost = prefixes::cost(&entry.layout, piece, len);
            s.prefixes.load(piece, len);
            s.cost += cost;
            accounting.data += cost;
            idle.add(entry.id, piece);
        }
        for (segment, used) in row.used {
            s.segments[segment as usize].used = used;
            if !entry.is_pinned() {
                listed.push((used, entry.segment_id(segment)));
            }
        }
        // a former process may have passed it on, and a program mapped it
        s.passed_to_kernel = s.data == entry.layout.len() || evidence == Evidence::Checksum;
    }
    let mut lru = Lru::default();
    lru.load(listed);
    (table, lru, idle)
}
