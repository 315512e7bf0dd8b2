//! Promises of space, and finding it.
//!
//! Invariant: what was promised is counted as used until it became data or was given back.
//! Concurrency: whoever finds another thread evicting waits for it and looks again.

use std::sync::Arc;
use std::time::Duration;

use super::commit;
use super::core::Core;
use super::error::StoreError;
use super::evict::{self, Room};
use super::sync::lock;
use crate::base::units::ByteSize;

/// Tries before giving up. Each follows an eviction, a commit or a short wait; more means that
/// others take the space as fast as it is freed.
const ROUNDS: u32 = 256;
/// Of them, waits for segments that are only being read, written or taken away this instant: a
/// tenth of a second in all.
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
        self.left -= bytes;
        lock(&self.core.space).take_data(bytes);
    }

    /// Makes so many of them something else, which `f` counts.
    pub(super) fn convert(&mut self, bytes: u64, f: impl FnOnce(&mut super::space::Space)) {
        self.left -= bytes;
        f(&mut lock(&self.core.space));
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        lock(&self.core.space).reserved -= self.left;
    }
}

/// Promises space, evicting the oldest if need be.
pub fn reserve(core: &Arc<Core>, bytes: u64) -> Result<Reservation, StoreError> {
    if !lock(&core.space).could_fit(bytes) {
        return Err(full(core, bytes));
    }
    let promised = make_room(core, bytes, || {
        let mut space = lock(&core.space);
        space.try_reserve(bytes).then(|| Reservation { core: core.clone(), left: bytes })
    })?;
    if room_on_disk(core)? { Ok(promised) } else { Err(full(core, bytes)) }
}

/// Sees to it that the disk has what was promised, where it has less than the limit allows: a write
/// that fails half-way would take away what was only just read ahead. Whether it has.
fn room_on_disk(core: &Arc<Core>) -> Result<bool, StoreError> {
    // unknown: the write will tell
    let Ok(free) = core.disk.free() else { return Ok(true) };
    let lacking = lock(&core.space).reserved.saturating_sub(free);
    if lacking == 0 {
        return Ok(true);
    }
    let evict = || {
        let _evicting = lock(&core.evictor);
        evict::oldest(core, lacking, false)
    };
    let made = match evict()? {
        Room::Uncommitted => {
            commit::commit(core)?;
            evict()?
        }
        other => other,
    };
    Ok(made == Room::Made)
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
        let evicting = lock(&core.evictor);
        let lacking = lock(&core.space).lacking(bytes);
        if lacking == 0 {
            continue;
        }
        let room = evict::oldest(core, lacking, false)?;
        drop(evicting);
        match room {
            Room::Made => {}
            Room::Uncommitted => commit::commit(core)?,
            Room::InUse if waits < WAITS => {
                waits += 1;
                std::thread::sleep(WAIT);
            }
            Room::InUse | Room::Nothing => return Err(full(core, bytes)),
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
        let space = lock(&core.space);
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
