//! Giving space back: the oldest segments, or blobs by name.
//!
//! Invariant: a plan is made before anything is destroyed, and each segment is looked at once more
//! when it is taken (`leave`). Concurrency: one eviction at a time, under `eviction_lock`.

use std::sync::Arc;
use std::time::Duration;

use crate::model::ContentKey;
use crate::store::engine::core::Core;
use crate::store::engine::removal::{claim, execute};
use crate::store::error::StoreError;
use crate::store::index::names;
use crate::store::state::accounting;
use crate::store::state::entry::{BlobEntry, BlobState};
use crate::store::state::lru::SegmentId;
use crate::store::state::plan::{Candidate, Evictability, EvictionPlan};
use crate::store::types::Evicted;

/// More than was asked for is evicted at once, so that the syncs it costs are shared: a 64th of what
/// there is room for, at most this: a second of a fast link.
const BATCH: u64 = 64 << 20;
/// How long what is mapped counts as held before it is looked at again: maps live for minutes, and a
/// look costs four system calls.
const SHARED_FOR: Duration = Duration::from_millis(100);
/// Candidates looked at between two looks at the list.
const LOOK: usize = 256;
/// How an eviction went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvictionOutcome {
    /// Something went.
    Freed,
    /// What could go waits for its commit.
    Uncommitted,
    /// What could go is in use this instant.
    InUse,
    /// Nothing can go.
    Nothing,
}

/// Looks at segments, oldest first, without keeping the list locked.
fn candidates(core: &Core) -> impl Iterator<Item = Candidate> + '_ {
    let mut after = None;
    let mut chunk = Vec::new().into_iter();
    std::iter::from_fn(move || {
        loop {
            let Some((stamp, segment)) = chunk.next() else {
                chunk = core.lru.lock().oldest(after, LOOK).into_iter();
                if chunk.len() == 0 {
                    return None;
                }
                continue;
            };
            after = Some(stamp);
            let entry = core.blobs.lock().by_id.get(&segment.blob).cloned();
            let Some(entry) = entry else { continue };
            let s = entry.state();
            let parts = entry.parts_of(segment.segment);
            let mut frees: u64 = s
                .present
                .runs(parts, true)
                .iter()
                .map(|r| accounting::cost(&entry.layout, *r))
                .sum();
            if frees == s.cost {
                frees += entry.overhead.total() + s.excess;
            }
            let evictability = match s.shared.is_some_and(|at| at.elapsed() < SHARED_FOR) {
                true => Evictability::Held,
                false => evictability(&entry, &s, segment.segment),
            };
            return Some(Candidate { segment, frees, evictability });
        }
    })
}

/// What stands against evicting a segment, but pins.
pub fn evictability(entry: &BlobEntry, s: &BlobState, segment: u32) -> Evictability {
    let parts = entry.parts_of(segment);
    let seg = s.segments[segment as usize];
    if seg.holds > 0 {
        Evictability::Held
    } else if seg.reading > 0
        || seg.leaving > 0
        || s.removing
        || s.is_writing(entry.block_mates(parts))
    {
        Evictability::InUse
    } else if s.waits(parts) {
        Evictability::Uncommitted
    } else {
        Evictability::Evictable
    }
}

/// Evicts the oldest segments that free `lacking` bytes, or nothing if that many cannot be freed;
/// with `try_all`, then as many as can be. The caller holds `eviction_lock`.
pub fn oldest(
    core: &Arc<Core>,
    lacking: u64,
    try_all: bool,
) -> Result<EvictionOutcome, StoreError> {
    let batch = (core.room() / 64).min(BATCH);
    let plan = EvictionPlan::choose(lacking.max(batch), candidates(core));
    if plan.frees < lacking {
        if plan.uncommitted {
            return Ok(EvictionOutcome::Uncommitted);
        }
        if plan.in_use {
            return Ok(EvictionOutcome::InUse);
        }
        if !try_all {
            return Ok(EvictionOutcome::Nothing);
        }
    }
    let mut by_blob: Vec<SegmentId> = plan.victims;
    by_blob.sort_unstable();
    let mut claims = Vec::new();
    for group in by_blob.chunk_by(|a, b| a.blob == b.blob) {
        let Some(entry) = core.blobs.lock().by_id.get(&group[0].blob).cloned() else { continue };
        let all: Vec<u32>;
        let segments: Vec<u32> = if core.disk.holes() {
            group.iter().map(|s| s.segment).collect()
        } else {
            // space comes back only with the whole file
            all = (0..entry.layout.segment_count()).collect();
            all
        };
        claims.extend(claim(core, &entry, &segments, false).0);
    }
    let freed = execute(core, claims, true)?;
    Ok(if freed > 0 { EvictionOutcome::Freed } else { EvictionOutcome::InUse })
}

/// Puts segments on the LRU list, unless the blob is pinned.
pub fn list(core: &Core, entry: &BlobEntry, segments: impl IntoIterator<Item = (u32, u32)>) {
    let mut lru = core.lru.lock();
    for (segment, used) in segments {
        if entry.is_pinned() {
            lru.remove(entry.segment_id(segment));
        } else {
            lru.insert(entry.segment_id(segment), used);
        }
    }
}

/// Gives back what a shrunken limit or a grown index takes too much, as far as it can.
pub fn enforce_limit(core: &Arc<Core>) -> Result<(), StoreError> {
    let _evicting = core.eviction_lock.lock();
    loop {
        let lacking = core.accounting.lock().lacking(0);
        if lacking == 0 || oldest(core, lacking, true)? != EvictionOutcome::Freed {
            return Ok(());
        }
    }
}

/// Gives back the space of these blobs, with `force` of pinned ones too.
pub fn blobs(core: &Arc<Core>, keys: &[ContentKey], force: bool) -> Result<Evicted, StoreError> {
    // what cannot be committed, on a disk that is full or fails, is kept as busy; the rest can go
    if let Err(error) = crate::store::engine::commit::commit(core) {
        tracing::warn!(%error, "evicting although not everything could be committed");
    }
    let _evicting = core.eviction_lock.lock();
    let mut out = Evicted::default();
    let mut claims = Vec::new();
    for key in keys {
        let Some(entry) = core.blobs.lock().by_key.get(key).cloned() else { continue };
        if entry.is_pinned() {
            if !force {
                out.kept_pinned.0 += entry.state().cost;
                continue;
            }
            let owners = core.index.read(|c| names::owners(c, key))?;
            tracing::warn!(blob = %key, ?owners, "evicted by force although it is pinned");
        }
        let all: Vec<u32> = (0..entry.layout.segment_count()).collect();
        let (leaving, busy) = claim(core, &entry, &all, force);
        out.kept_busy.0 += busy;
        claims.extend(leaving);
    }
    out.freed.0 = execute(core, claims, true)?;
    Ok(out)
}
