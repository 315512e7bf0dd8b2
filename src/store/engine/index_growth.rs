//! EvictionOutcome for names and documents in the index.
//!
//! Invariant: they have a headroom that data never gets, so neither pins nor a lowered limit keep a
//! name from being looked up. Beyond it they compete with data like any other: the oldest goes.
//! Concurrency: a promise is counted from when it is given until it was kept or dropped.

use std::sync::Arc;

use crate::store::engine::collection;
use crate::store::engine::core::Core;
use crate::store::engine::reserve;
use crate::store::error::StoreError;

/// What a saved document takes beside its bytes: half a page here and there, and its row.
pub const PER_DOCUMENT: u64 = 16 << 10;

/// EvictionOutcome promised to what is just being written.
#[derive(Debug)]
pub struct Promise {
    core: Arc<Core>,
    bytes: u64,
    grows: u64,
}

impl Promise {
    /// It was written: the index has grown by that much.
    pub fn keep(mut self) {
        let mut space = self.core.accounting.lock();
        space.promised -= self.bytes;
        space.other += self.grows;
        drop(space);
        self.bytes = 0;
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.core.accounting.lock().promised -= self.bytes;
    }
}

/// Promises that the index may grow by so much. What nothing needs any more goes before data does.
pub fn promise(core: &Arc<Core>, grows: u64) -> Result<Promise, StoreError> {
    if let Some(promise) = promise_now(core, grows) {
        return Ok(promise);
    }
    if let Err(error) = collection::when_due(core) {
        tracing::warn!(%error, "forgetting names and documents");
    }
    reserve::make_room(core, 2 * grows, || promise_now(core, grows))
}

/// The same, if there is room as it is.
pub fn promise_now(core: &Arc<Core>, grows: u64) -> Option<Promise> {
    // twice: it stands in the log as well until that is folded in, and then measured
    let bytes = 2 * grows;
    let mut headroom = core.headroom.change();
    let (unused, due) = {
        let mut space = core.accounting.lock();
        if !space.try_promise(bytes) {
            return None;
        }
        (space.unused_headroom(), space.names() > space.headroom())
    };
    headroom.shrink_to(unused);
    if due {
        core.dirty.lock().collect = true;
        core.wake.notify_all();
    }
    Some(Promise { core: core.clone(), bytes, grows })
}

/// Keeps on the disk what the headroom has left, as far as the disk has it.
pub fn tend_headroom(core: &Core) {
    let mut headroom = core.headroom.change();
    let unused = core.accounting.lock().unused_headroom();
    headroom.shrink_to(unused);
    if core.lock.still_ours() {
        headroom.grow_to(unused, core.disk.free().unwrap_or(0));
    }
}
