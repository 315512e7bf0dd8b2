//! Finding space: promises of it, and commits and evictions in the order that makes it.
//!
//! Invariant: what was promised is counted as used until it became data or was given back. This alone
//! knows both `commit` and `eviction`: what an eviction cannot free before its commit is committed first,
//! and a commit that found more to be taken is followed by an eviction.
//! Concurrency: a thread that finds another one evicting waits for it and looks again.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::core::Core;
use super::eviction::{self, EvictionOutcome, Shortfall};
use super::index_growth::{self, GrowthPromise};
use super::{collection, commit};
use crate::model::ContentKey;
use crate::store::error::StoreError;
use crate::store::state::accounting::Accounting;
use crate::store::types::Evicted;

/// Tries before giving up. Each follows an eviction, a commit or a short wait; more means that
/// others take the space as fast as it is freed.
const ROUNDS: u32 = 256;
/// Of them, waits for segments that are being read, written or removed this instant: a tenth of a second
/// in all.
const WAITS: u32 = 50;
const WAIT: Duration = Duration::from_millis(2);

/// Space promised to a fetch; what was not used is given back when it is dropped.
#[derive(Debug)]
pub struct Reservation {
    core: Arc<Core>,
    left: u64,
}

impl Reservation {
    /// Bytes left of the promise.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Makes sure that so many are left.
    pub(super) fn need(&mut self, bytes: u64) -> Result<(), StoreError> {
        if bytes > self.left {
            let mut more = reserve(&self.core, bytes - self.left)?;
            self.left += std::mem::take(&mut more.left);
        }
        Ok(())
    }

    /// Makes so many of them data; they must be left.
    pub(super) fn take_data(&mut self, bytes: u64) {
        self.convert(bytes, |accounting| accounting.take_data(bytes));
    }

    /// Makes so many of them something else, which `f` counts.
    pub(super) fn convert(&mut self, bytes: u64, f: impl FnOnce(&mut Accounting)) {
        self.left -= bytes;
        f(&mut self.core.accounting.lock());
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.core.accounting.lock().reserved -= self.left;
    }
}

/// Makes everything written so far durable and marked, and gives back what turned out to be too much.
pub fn commit(core: &Arc<Core>) -> Result<(), StoreError> {
    let done = commit::commit(core);
    let enforced = eviction::enforce_limit(core);
    index_growth::fill_headroom(core);
    done.and(enforced)
}

/// Promises space, evicting the oldest if need be.
pub fn reserve(core: &Arc<Core>, bytes: u64) -> Result<Reservation, StoreError> {
    if !core.accounting.lock().could_fit(bytes) {
        return Err(core.full(bytes));
    }
    let promised = make_room(core, bytes, || {
        let fits = core.accounting.lock().try_reserve(bytes);
        fits.then(|| Reservation { core: core.clone(), left: bytes })
    })?;
    if make_room_on_disk(core)? { Ok(promised) } else { Err(core.full(bytes)) }
}

/// Promises that the index may grow by so much. What nothing needs any more goes before data does.
pub fn promise_growth(core: &Arc<Core>, growth: u64) -> Result<GrowthPromise, StoreError> {
    if let Some(promise) = index_growth::try_promise(core, growth) {
        return Ok(promise);
    }
    if let Err(error) = collection::collect_if_due(core) {
        tracing::warn!(%error, "deleting unneeded names and documents");
    }
    let bytes = index_growth::with_log(growth);
    make_room(core, bytes, || index_growth::try_promise(core, growth))
}

/// Evicts these blobs, with `force` pinned ones too.
pub fn evict(core: &Arc<Core>, keys: &[ContentKey], force: bool) -> Result<Evicted, StoreError> {
    // what cannot be committed, on a disk that is full or fails, is kept as busy; the rest can go
    if let Err(error) = commit(core) {
        tracing::warn!(%error, "evicting although not everything could be committed");
    }
    eviction::blobs(core, keys, force)
}

/// Runs a write; if the disk turns out to be full, which has less than the limit says, makes room for
/// what is lacking and runs it once more.
pub(super) fn write_or_make_room(
    core: &Arc<Core>,
    cost: u64,
    write: impl Fn() -> io::Result<()>,
) -> io::Result<()> {
    let full = match write() {
        Err(e) if is_full(&e) => e,
        other => return other,
    };
    match evict_committed(core, cost, Shortfall::FreeAll) {
        Ok(EvictionOutcome::Freed) => write(),
        _ => Err(full),
    }
}

/// Whether an error says that the disk or a quota is full.
pub(super) fn is_full(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Evicts the oldest, after a commit if that is what they wait for.
fn evict_committed(
    core: &Arc<Core>,
    lacking: u64,
    shortfall: Shortfall,
) -> Result<EvictionOutcome, StoreError> {
    match eviction::oldest(core, lacking, shortfall)? {
        EvictionOutcome::Uncommitted => {
            commit(core)?;
            eviction::oldest(core, lacking, shortfall)
        }
        other => Ok(other),
    }
}

/// Makes room on the disk for what was promised, where it has less than the limit allows: a write that
/// fails half-way would take away what was only just read ahead. Whether there is room.
fn make_room_on_disk(core: &Arc<Core>) -> Result<bool, StoreError> {
    // unknown: the write will tell
    let Ok(free) = core.disk.free() else { return Ok(true) };
    let lacking = core.accounting.lock().reserved.saturating_sub(free);
    if lacking == 0 {
        return Ok(true);
    }
    Ok(evict_committed(core, lacking, Shortfall::FreeNothing)? == EvictionOutcome::Freed)
}

/// Evicts the oldest until `promise` gives something, which it does once `bytes` fit by the accounting.
fn make_room<T>(
    core: &Arc<Core>,
    bytes: u64,
    promise: impl Fn() -> Option<T>,
) -> Result<T, StoreError> {
    let mut waits = 0;
    for _ in 0..ROUNDS {
        if let Some(promised) = promise() {
            return Ok(promised);
        }
        match eviction::make_fit(core, bytes)? {
            None | Some(EvictionOutcome::Freed) => {}
            Some(EvictionOutcome::Uncommitted) => commit(core)?,
            Some(EvictionOutcome::InUse) if waits < WAITS => {
                waits += 1;
                std::thread::sleep(WAIT);
            }
            Some(EvictionOutcome::InUse | EvictionOutcome::Nothing) => {
                return Err(core.full(bytes));
            }
        }
    }
    Err(core.full(bytes))
}
