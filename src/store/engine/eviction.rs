//! Giving space back: unverified bytes and the oldest segments, or blobs by name.
//!
//! Invariant: a plan is made before anything is destroyed, and each segment is looked at once more when
//! its removal begins. Knows nothing of commits: it says what waits for one, and `reserve` sees to it.
//! Concurrency: one eviction at a time, under `eviction_lock`.

use std::sync::Arc;
use std::time::Duration;

use super::core::Core;
use super::removal::{self, OnFailure, Removal, Unverified};
use crate::model::{ContentKey, PartIx, PartRange};
use crate::store::error::StoreError;
use crate::store::index::names;
use crate::store::state::accounting;
use crate::store::state::lru::SegmentId;
use crate::store::state::plan::{Candidate, Evictability, EvictionPlan};
use crate::store::state::prefixes;
use crate::store::types::Evicted;

/// More than was asked for is evicted at once, so that the syncs it costs are shared: a 64th of what
/// there is room for, at most this: what a fast link brings in a second.
const BATCH: u64 = 64 << 20;
/// How long what is mapped counts as held before it is looked at again: maps live for minutes, and a
/// look costs four system calls.
const SHARED_FOR: Duration = Duration::from_millis(100);
/// Candidates taken from the LRU list at once.
const LOOK: usize = 256;

/// The result of an eviction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvictionOutcome {
    /// Something was freed.
    Freed,
    /// What could be freed waits for its commit.
    Uncommitted,
    /// What could be freed is in use this instant.
    InUse,
    /// Nothing can be freed.
    Nothing,
}

/// What an eviction does that cannot free enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shortfall {
    /// It frees nothing.
    FreeNothing,
    /// It frees what it can.
    FreeAll,
}

/// Looks at segments, oldest first, without keeping the list locked.
fn candidates(core: &Core) -> impl Iterator<Item = Candidate> + '_ {
    let mut after = None;
    let mut chunk = Vec::new().into_iter();
    std::iter::from_fn(move || {
        loop {
            let Some((last_use, segment)) = chunk.next() else {
                chunk = core.recency.oldest(after, LOOK).into_iter();
                if chunk.len() == 0 {
                    return None;
                }
                continue;
            };
            after = Some(last_use);
            let Some(entry) = core.table.by_id(segment.blob) else { continue };
            let s = entry.state();
            let parts = entry.parts_of(segment.segment);
            let present = s.present.runs(parts, true);
            let mut frees: u64 = present.iter().map(|r| accounting::cost(&entry.layout, *r)).sum();
            if frees == s.cost {
                frees += entry.overhead.total() + s.excess;
            }
            let evictability = match s.found_shared.is_some_and(|at| at.elapsed() < SHARED_FOR) {
                true => Evictability::Held,
                false => entry.evictability(&s, segment.segment),
            };
            return Some(Candidate { segment, frees, evictability });
        }
    })
}

/// Looks at the unverified bytes without a writer, segment by segment, each blob's from their end on.
fn unverified(core: &Core) -> Vec<Candidate> {
    let mut out = Vec::new();
    for (blob, piece) in core.idle_prefixes.all() {
        let Some(entry) = core.table.by_id(blob).filter(|entry| !entry.is_pinned()) else {
            continue;
        };
        let s = entry.state();
        let Some(prefix) = s.prefixes.get(piece) else { continue };
        // without holes they go with the whole file, if that has nothing else
        let whole = prefixes::cost(&entry.layout, piece, prefix.reach) == s.cost;
        let evictability = match prefix.is_busy() || !core.disk.holes() && !whole {
            true => Evictability::Held,
            false => Evictability::Evictable,
        };
        let parts = prefixes::touched(&entry.layout, piece, prefix.reach);
        let mut left = s.cost;
        for segment in entry.segments_of(parts).rev() {
            let within = entry.parts_of(segment);
            let within = PartRange { start: within.start, end: within.end.min(parts.end) };
            let mut frees = accounting::cost(&entry.layout, within);
            left -= frees;
            if left == 0 {
                frees += entry.overhead.total() + s.excess;
            }
            out.push(Candidate { segment: entry.segment_id(segment), frees, evictability });
        }
    }
    out
}

/// Evicts the oldest segments that free `lacking` bytes.
pub fn oldest(
    core: &Arc<Core>,
    lacking: u64,
    shortfall: Shortfall,
) -> Result<EvictionOutcome, StoreError> {
    let _evicting = core.eviction_lock.lock();
    oldest_locked(core, lacking, shortfall)
}

/// Evicts the oldest segments if `bytes` more do not fit by the accounting; `None` if they fit. What
/// another thread evicts meanwhile counts.
pub fn make_fit(core: &Arc<Core>, bytes: u64) -> Result<Option<EvictionOutcome>, StoreError> {
    let _evicting = core.eviction_lock.lock();
    let lacking = core.accounting.lock().lacking(bytes);
    if lacking == 0 {
        return Ok(None);
    }
    oldest_locked(core, lacking, Shortfall::FreeNothing).map(Some)
}

/// Gives back what a shrunken limit or a grown index takes too much, as far as possible.
pub fn enforce_limit(core: &Arc<Core>) -> Result<(), StoreError> {
    let _evicting = core.eviction_lock.lock();
    loop {
        let lacking = core.accounting.lock().lacking(0);
        if lacking == 0
            || oldest_locked(core, lacking, Shortfall::FreeAll)? != EvictionOutcome::Freed
        {
            return Ok(());
        }
    }
}

fn oldest_locked(
    core: &Arc<Core>,
    lacking: u64,
    shortfall: Shortfall,
) -> Result<EvictionOutcome, StoreError> {
    let batch = (core.room() / 64).min(BATCH);
    let plan = EvictionPlan::choose(lacking.max(batch), unverified(core), candidates(core));
    if plan.frees < lacking {
        if plan.uncommitted {
            return Ok(EvictionOutcome::Uncommitted);
        }
        if plan.in_use {
            return Ok(EvictionOutcome::InUse);
        }
        if shortfall == Shortfall::FreeNothing {
            return Ok(EvictionOutcome::Nothing);
        }
    }
    let mut removals = cut_unverified(core, plan.unverified);
    let mut by_blob: Vec<SegmentId> = plan.victims;
    by_blob.sort_unstable();
    for group in by_blob.chunk_by(|a, b| a.blob == b.blob) {
        let Some(entry) = core.table.by_id(group[0].blob) else { continue };
        let segments: Vec<u32> = if core.disk.holes() {
            group.iter().map(|s| s.segment).collect()
        } else {
            // space is freed only with the whole file
            entry.all_segments().collect()
        };
        removals.extend(removal::begin(core, &entry, &segments, Unverified::Stays, false).0);
    }
    let freed = removal::execute(core, removals, OnFailure::Restore)?;
    Ok(if freed > 0 { EvictionOutcome::Freed } else { EvictionOutcome::InUse })
}

/// Takes the unverified bytes in these segments, and what comes after them in their pieces.
fn cut_unverified(core: &Core, mut segments: Vec<SegmentId>) -> Vec<Removal> {
    segments.sort_unstable();
    let mut removals = Vec::new();
    for group in segments.chunk_by(|a, b| a.blob == b.blob) {
        let Some(entry) = core.table.by_id(group[0].blob) else { continue };
        let start = |segment: &SegmentId| {
            let first = entry.layout.part(PartIx(entry.parts_of(segment.segment).start));
            let piece = entry.layout.pieces()[first.piece].file.start();
            (first.piece as u32, first.file.start() - piece)
        };
        // in order, so the first of a piece is where it is cut
        let mut cuts: Vec<(u32, u64)> = group.iter().map(start).collect();
        cuts.dedup_by_key(|(piece, _)| *piece);
        for (piece, mut keep) in cuts {
            if !core.disk.holes() {
                keep = 0;
            }
            removals.extend(removal::begin_unverified(core, &entry, piece, keep));
        }
    }
    removals
}

/// Evicts these blobs, with `force` pinned ones too.
pub fn blobs(core: &Arc<Core>, keys: &[ContentKey], force: bool) -> Result<Evicted, StoreError> {
    let _evicting = core.eviction_lock.lock();
    let mut out = Evicted::default();
    let mut removals = Vec::new();
    for key in keys {
        let Some(entry) = core.table.get(key) else { continue };
        if entry.is_pinned() {
            if !force {
                out.kept_pinned.0 += entry.state().cost;
                continue;
            }
            let owners = core.index.read(|c| names::owners(c, key))?;
            tracing::warn!(blob = %key, ?owners, "evicted by force although it is pinned");
        }
        let all: Vec<u32> = entry.all_segments().collect();
        let (removal, busy) = removal::begin(core, &entry, &all, Unverified::Goes, force);
        out.kept_busy.0 += busy;
        removals.extend(removal);
    }
    out.freed.0 = removal::execute(core, removals, OnFailure::Restore)?;
    Ok(out)
}
