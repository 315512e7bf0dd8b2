//! Promises of space, and finding it.
//!
//! Invariant: what was promised is counted as used until it became data or was given back.
//! Concurrency: whoever finds another thread evicting waits for it and looks again.

use std::sync::Arc;
use std::time::Duration;

use crate::base::units::ByteSize;
use crate::store::engine::commit;
use crate::store::engine::core::Core;
use crate::store::engine::eviction::{self, EvictionOutcome};
use crate::store::error::StoreError;

/// Tries before giving up. Each follows an eviction, a commit or a short wait; more means that
/// others take the space as fast as it is freed.
const ROUNDS: u32 = 256;
/// Of them, waits for segments that are only being read, written or taken away this instant: a
/// tenth of a second in all.
const WAITS: u32 = 50;
const WAIT: Duration = Duration::from_millis(2);

/// Accounting promised to a fetch; what was not used is given back when it is dropped.
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
        self.left -= bytes;
        self.core.accounting.lock().take_data(bytes);
    }

    /// Makes so many of them something else, which `f` counts.
    pub(super) fn convert(
        &mut self,
        bytes: u64,
        f: impl FnOnce(&mut crate::store::state::accounting::Accounting),
    ) {
        self.left -= bytes;
        f(&mut self.core.accounting.lock());
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.core.accounting.lock().reserved -= self.left;
    }
}

/// Promises space, evicting the oldest if need be.
pub fn reserve(core: &Arc<Core>, bytes: u64) -> Result<Reservation, StoreError> {
    if !core.accounting.lock().could_fit(bytes) {
        return Err(full(core, bytes));
    }
    let promised = make_room(core, bytes, || {
        let mut space = core.accounting.lock();
        space.try_reserve(bytes).then(|| Reservation { core: core.clone(), left: bytes })
    })?;
    if room_on_disk(core)? { Ok(promised) } else { Err(full(core, bytes)) }
}

/// Sees to it that the disk has what was promised, where it has less than the limit allows: a write
/// that fails half-way would take away what was only just read ahead. Whether it has.
fn room_on_disk(core: &Arc<Core>) -> Result<bool, StoreError> {
    // unknown: the write will tell
    let Ok(free) = core.disk.free() else { return Ok(true) };
    let lacking = core.accounting.lock().reserved.saturating_sub(free);
    if lacking == 0 {
        return Ok(true);
    }
    let evict = || {
        let _evicting = core.eviction_lock.lock();
        eviction::oldest(core, lacking, false)
    };
    let made = match evict()? {
        EvictionOutcome::Uncommitted => {
            commit::commit(core)?;
            evict()?
        }
        other => other,
    };
    Ok(made == EvictionOutcome::Freed)
}

/// Gives what `promise` gives, which it does once there is room by the books: the oldest goes.
pub fn make_room<T>(
    core: &Arc<Core>,
    bytes: u64,
    promise: impl Fn() -> Option<T>,
) -> Result<T, StoreError> {
    let mut waits = 0;
    for _ in 0..ROUNDS {
        if let Some(promised) = promise() {
            return Ok(promised);
        }
        let evicting = core.eviction_lock.lock();
        let lacking = core.accounting.lock().lacking(bytes);
        if lacking == 0 {
            continue;
        }
        let room = eviction::oldest(core, lacking, false)?;
        drop(evicting);
        match room {
            EvictionOutcome::Freed => {}
            EvictionOutcome::Uncommitted => commit::commit(core)?,
            EvictionOutcome::InUse if waits < WAITS => {
                waits += 1;
                std::thread::sleep(WAIT);
            }
            EvictionOutcome::InUse | EvictionOutcome::Nothing => return Err(full(core, bytes)),
        }
    }
    Err(full(core, bytes))
}

/// Why there is no room for so much.
pub fn full(core: &Core, bytes: u64) -> StoreError {
    let wanted = ByteSize(bytes);
    let usage = core.usage();
    let by_disk = core.disk_room();
    let (room, lacking) = {
        let space = core.accounting.lock();
        (ByteSize(space.room()), space.lacking(bytes))
    };
    if wanted > room {
        return StoreError::TooLarge { wanted, room, limit: usage.limit };
    }
    if lacking == 0 || bytes > by_disk {
        let (path, free) = (core.root.clone(), usage.disk_free);
        return StoreError::DiskFull { path, wanted, free };
    }
    let in_use = ByteSize(usage.used.0.saturating_sub(usage.pinned.0));
    StoreError::NoSpace { wanted, limit: usage.limit, pinned: usage.pinned, in_use }
}
