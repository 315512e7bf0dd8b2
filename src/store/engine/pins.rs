//! Pins: promises not to evict, each with an owner.
//!
//! Invariant: a blob is pinned iff some pin in the index names it; a pinned blob's segments are not
//! on the LRU list. Concurrency: changes hold `eviction_lock`, so that no plan made before one is carried
//! out after it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::model::{ContentKey, VersionRef};
use crate::store::engine::core::Core;
use crate::store::engine::eviction;
use crate::store::engine::index_growth::promise;
use crate::store::error::StoreError;
use crate::store::index::{Durability, names};
use crate::store::types::Pin;

/// What the row of a pinned blob takes at most, and of a pin.
const PER_BLOB: u64 = 128;
const PER_PIN: u64 = 4096;

/// Pins the blobs of a version for an owner.
pub fn pin(core: &Arc<Core>, pin: &Pin, blobs: &[ContentKey]) -> Result<(), StoreError> {
    let bytes = PER_PIN + PER_BLOB * blobs.len() as u64;
    let promise = promise(core, bytes)?;
    let _still = core.eviction_lock.lock();
    core.write_index(Durability::Full, |tx| names::add_pin(tx, pin, blobs))?;
    promise.keep();
    apply(core)
}

/// Lets go: whether the owner had a pin, and who else has one.
pub fn unpin(
    core: &Arc<Core>,
    source: &str,
    version: &VersionRef,
    owner: &str,
) -> Result<(bool, Vec<String>), StoreError> {
    let _still = core.eviction_lock.lock();
    let (removed, others) =
        core.write_index(Durability::Full, |tx| names::remove_pin(tx, source, version, owner))?;
    apply(core)?;
    Ok((removed > 0, others))
}

/// How often each blob is pinned.
pub fn count(keys: Vec<ContentKey>) -> HashMap<ContentKey, u32> {
    let mut out = HashMap::new();
    for key in keys {
        *out.entry(key).or_insert(0) += 1;
    }
    out
}

/// Makes memory say what the index says.
fn apply(core: &Arc<Core>) -> Result<(), StoreError> {
    let pinned = count(core.index.read(names::pinned_blobs)?);
    let changed: Vec<_> = {
        let mut blobs = core.blobs.lock();
        let was = std::mem::replace(&mut blobs.pinned, pinned);
        let now = &blobs.pinned;
        let changed = was
            .keys()
            .filter(|k| !now.contains_key(k))
            .chain(now.keys().filter(|k| !was.contains_key(k)));
        changed.filter_map(|k| blobs.by_key.get(k).cloned()).collect()
    };
    for entry in changed {
        let pinned = core.blobs.lock().pinned.contains_key(&entry.key());
        entry.pinned.store(pinned, Ordering::SeqCst);
        let listed: Vec<(u32, u32)> = {
            let s = entry.state();
            let all = 0..entry.layout.segment_count();
            all.filter(|i| s.present.any(entry.parts_of(*i)))
                .map(|i| (i, s.segments[i as usize].used))
                .collect()
        };
        // takes them off the list if it is pinned
        eviction::list(core, &entry, listed);
    }
    Ok(())
}
