//! Room for names and documents in the index.
//!
//! Invariant: they have a headroom that data never gets, so neither pins nor a lowered limit keep a
//! name from being looked up. Beyond it they compete with data like any other: the oldest goes.
//! Concurrency: a promise is counted from when it is given until it was kept or dropped.

use std::sync::Arc;

use super::core::Core;
use super::error::StoreError;
use super::sync::lock;
use super::{collect, reserve};

/// What a saved document takes beside its bytes: half a page here and there, and its row.
pub const PER_DOCUMENT: u64 = 16 << 10;

/// Room promised to what is just being written.
#[derive(Debug)]
pub struct Promise {
    core: Arc<Core>,
    bytes: u64,
    grows: u64,
}

impl Promise {
    /// It was written: the index has grown by that much.
    pub fn keep(mut self) {
        let mut space = lock(&self.core.space);
        space.promised -= self.bytes;
        space.other += self.grows;
        drop(space);
        self.bytes = 0;
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        lock(&self.core.space).promised -= self.bytes;
    }
}

/// Promises that the index may grow by so much. What nothing needs any more goes before data does.
pub fn promise(core: &Arc<Core>, grows: u64) -> Result<Promise, StoreError> {
    if let Some(promise) = promise_now(core, grows) {
        return Ok(promise);
    }
    if let Err(error) = collect::when_due(core) {
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
        let mut space = lock(&core.space);
        if !space.try_promise(bytes) {
            return None;
        }
        (space.unused_headroom(), space.names() > space.headroom())
    };
    headroom.shrink_to(unused);
    if due {
        lock(&core.dirty).collect = true;
        core.wake.notify_all();
    }
    Some(Promise { core: core.clone(), bytes, grows })
}

/// Keeps on the disk what the headroom has left, as far as the disk has it.
pub fn tend_headroom(core: &Core) {
    let mut headroom = core.headroom.change();
    let unused = lock(&core.space).unused_headroom();
    headroom.shrink_to(unused);
    if core.lock.still_ours() {
        headroom.grow_to(unused, core.disk.free().unwrap_or(0));
    }
}
