//! Room for names and documents in the index.
//!
//! Invariant: they have a headroom that data never gets, so neither pins nor a lowered limit keep a
//! name from being looked up. Beyond it they compete with data (`reserve`).
//! Concurrency: growth is counted from when it is promised until it was written or given up.

use std::sync::Arc;

use super::core::Core;

/// What a saved document takes beside its bytes: half a page here and there, and its row.
pub const PER_DOCUMENT: u64 = 16 << 10;

/// Room promised to what is being written into the index; given back when dropped.
#[derive(Debug)]
pub struct GrowthPromise {
    core: Arc<Core>,
    bytes: u64,
    growth: u64,
}

impl GrowthPromise {
    /// It was written: the index has grown by that much.
    pub fn keep(mut self) {
        let mut accounting = self.core.accounting.lock();
        accounting.promised -= self.bytes;
        accounting.other += self.growth;
        drop(accounting);
        self.bytes = 0;
    }
}

impl Drop for GrowthPromise {
    fn drop(&mut self) {
        self.core.accounting.lock().promised -= self.bytes;
    }
}

/// The most that the accounting counts for a growth: it is in the log as well until that is folded into
/// the database, and then measured.
pub fn with_log(growth: u64) -> u64 {
    2 * growth
}

/// Promises that the index may grow by so much, if there is room for it now.
pub fn try_promise(core: &Arc<Core>, growth: u64) -> Option<GrowthPromise> {
    let bytes = with_log(growth);
    let mut headroom = core.headroom.change();
    let (unused, exceeded) = {
        let mut accounting = core.accounting.lock();
        if !accounting.try_promise(bytes) {
            return None;
        }
        (accounting.unused_headroom(), accounting.names() > accounting.headroom())
    };
    headroom.shrink_to(unused);
    if exceeded {
        core.dirty.request_collection();
    }
    Some(GrowthPromise { core: core.clone(), bytes, growth })
}

/// Keeps on the disk what is left of the headroom, as far as the disk has it.
pub fn fill_headroom(core: &Core) {
    let mut headroom = core.headroom.change();
    let unused = core.accounting.lock().unused_headroom();
    headroom.shrink_to(unused);
    if core.lock.still_ours() {
        headroom.grow_to(unused, core.disk.free().unwrap_or(0));
    }
}
