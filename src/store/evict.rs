//! Giving space back: the oldest segments, or blobs by name.
//!
//! Invariant: a plan is made before anything is destroyed, and each segment is looked at once more
//! when it is taken (`leave`). Concurrency: one eviction at a time, under `evictor`.

use std::sync::Arc;
use std::time::Duration;

use super::cell::{Cell, State};
use super::core::Core;
use super::error::StoreError;
use super::index::names;
use super::leave::{carry_out, claim};
use super::lru::SegRef;
use super::plan::{Candidate, EvictionPlan, Standing};
use super::space;
use super::sync::lock;
use super::types::Evicted;
use crate::model::ContentKey;

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
pub enum Room {
    /// Something went.
    Made,
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
                chunk = lock(&core.lru).oldest(after, LOOK).into_iter();
                if chunk.len() == 0 {
                    return None;
                }
                continue;
            };
            after = Some(stamp);
            let cell = lock(&core.blobs).by_id.get(&segment.blob).cloned();
            let Some(cell) = cell else { continue };
            let s = cell.state();
            let parts = cell.parts_of(segment.segment);
            let mut frees: u64 =
                s.present.runs(parts, true).iter().map(|r| space::cost(&cell.layout, *r)).sum();
            if frees == s.cost {
                frees += cell.overhead.total() + s.excess;
            }
            let standing = match s.shared.is_some_and(|at| at.elapsed() < SHARED_FOR) {
                true => Standing::Held,
                false => standing(&cell, &s, segment.segment),
            };
            return Some(Candidate { segment, frees, standing });
        }
    })
}

/// What stands against evicting a segment, but pins.
pub fn standing(cell: &Cell, s: &State, segment: u32) -> Standing {
    let parts = cell.parts_of(segment);
    let seg = s.segs[segment as usize];
    if seg.holds > 0 {
        Standing::Held
    } else if seg.reading > 0
        || seg.leaving > 0
        || s.removing
        || s.is_writing(cell.block_mates(parts))
    {
        Standing::InUse
    } else if s.waits(parts) {
        Standing::Uncommitted
    } else {
        Standing::Free
    }
}

/// Evicts the oldest segments that free `lacking` bytes, or nothing if that many cannot be freed;
/// with `try_all`, then as many as can be. The caller holds `evictor`.
pub fn oldest(core: &Arc<Core>, lacking: u64, try_all: bool) -> Result<Room, StoreError> {
    let batch = (core.room() / 64).min(BATCH);
    let plan = EvictionPlan::choose(lacking.max(batch), candidates(core));
    if plan.frees < lacking {
        if plan.uncommitted {
            return Ok(Room::Uncommitted);
        }
        if plan.in_use {
            return Ok(Room::InUse);
        }
        if !try_all {
            return Ok(Room::Nothing);
        }
    }
    let mut by_blob: Vec<SegRef> = plan.victims;
    by_blob.sort_unstable();
    let mut claims = Vec::new();
    for group in by_blob.chunk_by(|a, b| a.blob == b.blob) {
        let Some(cell) = lock(&core.blobs).by_id.get(&group[0].blob).cloned() else { continue };
        let all: Vec<u32>;
        let segments: Vec<u32> = if core.disk.holes() {
            group.iter().map(|s| s.segment).collect()
        } else {
            // space comes back only with the whole file
            all = (0..cell.layout.segment_count()).collect();
            all
        };
        claims.extend(claim(core, &cell, &segments, false).0);
    }
    let freed = carry_out(core, claims, true)?;
    Ok(if freed > 0 { Room::Made } else { Room::InUse })
}

/// Puts segments on the LRU list, unless the blob is pinned.
pub fn list(core: &Core, cell: &Cell, segments: impl IntoIterator<Item = (u32, u32)>) {
    let mut lru = lock(&core.lru);
    for (segment, used) in segments {
        if cell.is_pinned() {
            lru.remove(cell.seg_ref(segment));
        } else {
            lru.insert(cell.seg_ref(segment), used);
        }
    }
}

/// Gives back what a shrunken limit or a grown index takes too much, as far as it can.
pub fn settle(core: &Arc<Core>) -> Result<(), StoreError> {
    let _evicting = lock(&core.evictor);
    loop {
        let lacking = lock(&core.space).lacking(0);
        if lacking == 0 || oldest(core, lacking, true)? != Room::Made {
            return Ok(());
        }
    }
}

/// Gives back the space of these blobs, with `force` of pinned ones too.
pub fn blobs(core: &Arc<Core>, keys: &[ContentKey], force: bool) -> Result<Evicted, StoreError> {
    // what cannot be committed, on a disk that is full or fails, is kept as busy; the rest can go
    if let Err(error) = super::commit::commit(core) {
        tracing::warn!(%error, "evicting although not everything could be committed");
    }
    let _evicting = lock(&core.evictor);
    let mut out = Evicted::default();
    let mut claims = Vec::new();
    for key in keys {
        let Some(cell) = lock(&core.blobs).by_key.get(key).cloned() else { continue };
        if cell.is_pinned() {
            if !force {
                out.kept_pinned.0 += cell.state().cost;
                continue;
            }
            let owners = core.index.read(|c| names::owners(c, key))?;
            tracing::warn!(blob = %key, ?owners, "evicted by force although it is pinned");
        }
        let all: Vec<u32> = (0..cell.layout.segment_count()).collect();
        let (leaving, busy) = claim(core, &cell, &all, force);
        out.kept_busy.0 += busy;
        claims.extend(leaving);
    }
    out.freed.0 = carry_out(core, claims, true)?;
    Ok(out)
}
