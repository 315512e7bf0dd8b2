//! Room for names and documents in the index.
//!
//! Invariant: they have a headroom that data never gets, so neither pins nor a lowered limit keep a
//! name from being looked up. Beyond it they compete with data like any other: the oldest goes.
//! Concurrency: a promise is counted from when it is given until it was kept or dropped.

use std::sync::Arc;

use super::core::Core;
use super::error::StoreError;
use super::reserve;
use super::sync::lock;

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

/// Promises that the index may grow by so much.
pub fn promise(core: &Arc<Core>, grows: u64) -> Result<Promise, StoreError> {
    // twice: it stands in the log as well until that is folded in, and then measured
    let bytes = 2 * grows;
    reserve::make_room(core, bytes, || {
        let mut headroom = core.headroom.change();
        let unused = {
            let mut space = lock(&core.space);
            if !space.try_promise(bytes) {
                return None;
            }
            space.unused_headroom()
        };
        headroom.shrink_to(unused);
        Some(Promise { core: core.clone(), bytes, grows })
    })
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
