//! Pins: promises not to evict, each with an owner.
//!
//! Invariant: a blob is pinned iff some pin in the index names it; a pinned blob's segments are not
//! on the LRU list. Concurrency: changes hold `eviction_lock`, so that no plan made before one is carried
//! out after it.

use std::sync::Arc;

use super::core::Core;
use super::reserve;
use crate::model::{ContentKey, SourceName, VersionRef};
use crate::store::error::StoreError;
use crate::store::index::{Durability, names};
use crate::store::types::Pin;

/// The most that the row of a pinned blob takes, and that of a pin.
const PER_BLOB: u64 = 128;
const PER_PIN: u64 = 4096;

/// Pins the blobs of a version for an owner.
pub fn pin(core: &Arc<Core>, pin: &Pin, blobs: &[ContentKey]) -> Result<(), StoreError> {
    let bytes = PER_PIN + PER_BLOB * blobs.len() as u64;
    let promise = reserve::promise_growth(core, bytes)?;
    let _no_eviction = core.eviction_lock.lock();
    core.write_index(Durability::Full, |tx| names::add_pin(tx, pin, blobs))?;
    promise.keep();
    apply(core)
}

/// Removes an owner's pin: whether there was one, and who else has one.
pub fn unpin(
    core: &Arc<Core>,
    source: &SourceName,
    version: &VersionRef,
    owner: &str,
) -> Result<(bool, Vec<String>), StoreError> {
    let _no_eviction = core.eviction_lock.lock();
    let (removed, others) =
        core.write_index(Durability::Full, |tx| names::remove_pin(tx, source, version, owner))?;
    apply(core)?;
    Ok((removed > 0, others))
}

/// Makes memory say what the index says.
fn apply(core: &Core) -> Result<(), StoreError> {
    let pinned = core.index.read(names::pinned_blobs)?;
    for entry in core.table.set_pinned(pinned) {
        // takes them off the list if it is pinned
        core.recency.list(&entry, entry.present_segments());
    }
    Ok(())
}
