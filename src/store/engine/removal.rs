//! Taking parts away: from readers, from the index, from the disk, from the books, in that order.
//!
//! Invariant: first nobody can read it (bits in memory), then the index durably claims it no more,
//! then its bytes go, then its space is free. While that lasts its segments are `leaving`: nobody
//! writes into them or into a block that they share. Concurrency: see `entry` and `core`.

use std::io;
use std::sync::Arc;

use crate::base::FileRange;
use crate::model::PartRange;
use crate::store::engine::commit;
use crate::store::engine::core::Core;
use crate::store::engine::eviction::{evictability, list};
use crate::store::engine::trust;
use crate::store::error::StoreError;
use crate::store::index::{Durability, rows};
use crate::store::state::accounting;
use crate::store::state::entry::{BlobEntry, BlobState};
use crate::store::state::plan::Evictability;

/// Segments that leave in one transaction: its log stays within what the books allow for it.
const GROUP: usize = 1000;

/// Parts on their way out.
#[derive(Debug)]
pub struct Removal {
    entry: Arc<BlobEntry>,
    segments: Vec<u32>,
    runs: Vec<PartRange>,
    /// Of them: those that were unproven, in case that they stay.
    unproven: Vec<PartRange>,
    punches: Vec<FileRange>,
    cost: u64,
    whole: bool,
}

/// Takes segments from readers, if nothing stands against it; the bytes kept since busy.
pub fn claim(
    core: &Core,
    entry: &Arc<BlobEntry>,
    segments: &[u32],
    force: bool,
) -> (Option<Removal>, u64) {
    let mut s = entry.state();
    let mut out = Vec::new();
    let (mut runs, mut unproven, mut cost, mut busy) = (Vec::new(), Vec::new(), 0, 0);
    let free = |s: &BlobState, i: u32| evictability(entry, s, i) == Evictability::Evictable;
    let present = |s: &BlobState, i: u32| s.present.any(entry.parts_of(i));
    // without holes a blob goes as a whole or not at all
    let whole_only =
        !core.disk.holes() && segments.iter().any(|i| present(&s, *i) && !free(&s, *i));
    for &segment in segments {
        let parts = entry.parts_of(segment);
        if !s.present.any(parts) || (entry.is_pinned() && !force) {
            continue;
        }
        if whole_only || !free(&s, segment) {
            let kept = s.present.runs(parts, true);
            busy += kept.iter().map(|r| accounting::cost(&entry.layout, *r)).sum::<u64>();
            continue;
        }
        unproven.extend(s.unproven.runs(parts, true));
        let (gone, freed) = s.take(&entry.layout, parts);
        runs.extend(gone);
        cost += freed;
        out.push(segment);
    }
    let passed = s.passed;
    let leaving = begin(core, entry, s, out, runs, cost).map(|l| Removal { unproven, ..l });
    match leaving {
        Some(l) if passed && core.is_shared(entry) => {
            busy += l.cost;
            restore(core, l);
            (None, busy)
        }
        other => (other, busy),
    }
}

/// Takes parts from readers that must go, in whatever use they are.
fn claim_wrong(core: &Core, entry: &Arc<BlobEntry>, parts: &[PartRange]) -> Option<Removal> {
    let mut s = entry.state();
    let (mut runs, mut cost) = (Vec::new(), 0);
    for &range in parts {
        let (gone, freed) = s.take(&entry.layout, range);
        runs.extend(gone);
        cost += freed;
    }
    let mut segments: Vec<u32> = runs.iter().flat_map(|r| entry.segments_of(*r)).collect();
    segments.dedup();
    let leaving = begin(core, entry, s, segments, runs, cost)?;
    // whoever is reading them has seen the bits: punch only when they are done
    let mut s = entry.state();
    while leaving.segments.iter().any(|i| s.segments[*i as usize].reading > 0) {
        entry.quiet.wait(&mut s);
    }
    drop(s);
    Some(leaving)
}

/// Marks what was taken as leaving. With nothing taken: the whole blob, if it is empty.
fn begin(
    core: &Core,
    entry: &Arc<BlobEntry>,
    mut s: parking_lot::MutexGuard<'_, BlobState>,
    segments: Vec<u32>,
    runs: Vec<PartRange>,
    cost: u64,
) -> Option<Removal> {
    let whole = s.row.is_some() && !s.removing && s.is_idle_and_empty();
    if runs.is_empty() && !whole {
        return None;
    }
    s.removing |= whole;
    for i in &segments {
        s.segments[*i as usize].leaving += 1;
    }
    let punches = runs.iter().map(|r| accounting::punch_range(&entry.layout, *r, |n| s.keeps(n)));
    let punches = punches.filter(|r| !r.is_empty()).collect();
    let empty: Vec<u32> =
        segments.iter().copied().filter(|i| !s.present.any(entry.parts_of(*i))).collect();
    drop(s);
    let mut lru = core.lru.lock();
    for i in empty {
        lru.remove(entry.segment_id(i));
    }
    drop(lru);
    Some(Removal {
        entry: entry.clone(),
        segments,
        runs,
        unproven: Vec::new(),
        punches,
        cost,
        whole,
    })
}

/// Makes it all durable and gives the space back. If the index fails and `undo`, everything is
/// present again.
pub fn execute(core: &Arc<Core>, claims: Vec<Removal>, undo: bool) -> Result<u64, StoreError> {
    let mut freed = 0;
    let mut failed = None;
    let mut claims = claims.into_iter().peekable();
    while claims.peek().is_some() {
        let mut size = 0;
        let mut group = Vec::new();
        while let Some(l) = claims.next_if(|l| group.is_empty() || size + l.segments.len() <= GROUP)
        {
            size += l.segments.len();
            group.push(l);
        }
        let written = match &failed {
            None => unmark(core, &group),
            Some(_) => Err(StoreError::Index("not tried".into())),
        };
        match written {
            Ok(()) => freed += group.into_iter().map(|l| finish(core, l)).sum::<u64>(),
            Err(e) if e.is_full() => freed += free_first(core, group),
            Err(e) => {
                failed.get_or_insert(e);
                for l in group {
                    if undo { restore(core, l) } else { leave_behind(core, l) }
                }
            }
        }
    }
    failed.map_or(Ok(freed), Err)
}

fn unmark(core: &Core, group: &[Removal]) -> Result<(), StoreError> {
    core.write_index(Durability::Full, |tx| {
        for l in group {
            let s = l.entry.state();
            let Some(row) = s.row else { continue };
            if l.whole {
                rows::remove_blob(tx, row)?;
                continue;
            }
            for &segment in &l.segments {
                let range = l.entry.parts_of(segment);
                let parts = s.committed(range).to_bytes(range);
                let used = s.segments[segment as usize].used;
                let new = rows::SegmentRow { segment, parts, used };
                rows::set_segment(tx, row, &l.entry.key(), &new)?;
            }
        }
        Ok(())
    })
}

/// On a disk where not even that something leaves can be written: its bytes go first, which makes
/// room to write it. Until it is written the index claims what is a hole. It has no stamp of that
/// file, so the next process would compare it with its checksums.
fn free_first(core: &Arc<Core>, group: Vec<Removal>) -> u64 {
    let taken: Vec<_> = group.iter().map(|l| take_bytes(core, l)).collect();
    if let Err(error) = unmark(core, &group) {
        tracing::warn!(%error, "the index is behind until the next commit");
        for l in group.iter().filter(|l| !l.whole) {
            l.entry.state().behind = true;
            commit::note(core, &l.entry, 0);
        }
    }
    group.into_iter().zip(taken).map(|(l, done)| account(core, l, done)).sum()
}

/// Takes the bytes and gives the space back.
fn finish(core: &Arc<Core>, l: Removal) -> u64 {
    let done = take_bytes(core, &l);
    account(core, l, done)
}

/// Takes the bytes.
fn take_bytes(core: &Arc<Core>, l: &Removal) -> io::Result<()> {
    let entry = &l.entry;
    let gone = |r: io::Result<()>| match r {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    };
    if l.whole {
        entry.state().file = None;
        // what has its name in another process's folder is not it
        let ours = core.lock.still_ours();
        let remove = |path: &std::path::Path| if ours { core.disk.remove(path) } else { Ok(()) };
        gone(remove(&entry.path())).and_then(|()| gone(remove(&entry.checksums_path())))
    } else if !core.disk.holes() {
        Err(io::ErrorKind::Unsupported.into())
    } else {
        let punched = trust::changing(core, entry, || {
            let open = core.file(entry, true)?;
            l.punches.iter().try_for_each(|r| open.file.punch(r.start(), r.len()))
        });
        commit::note(core, entry, 0);
        match punched {
            // gone or cut: nothing there to take
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
            other => gone(other),
        }
    }
}

/// Gives the space back in the books, if the bytes are gone.
fn account(core: &Arc<Core>, l: Removal, done: io::Result<()>) -> u64 {
    let entry = &l.entry;
    let mut s = entry.state();
    let mut freed = l.cost;
    if let Err(e) = &done {
        // it still takes its space: counted until the file goes or is seen to be smaller
        tracing::warn!(blob = %entry.key(), error = %e, "space was not given back");
        s.excess += l.cost;
        freed = 0;
    }
    for i in &l.segments {
        s.segments[*i as usize].leaving -= 1;
    }
    let mut space = core.accounting.lock();
    space.data -= freed;
    if l.whole {
        s.removing = false;
        s.row = None;
        s.unnamed = false;
        (s.examined, s.stamp, s.stamp_kept) = (false, None, None);
        s.overclaimed = false;
        if done.is_ok() {
            let excess = std::mem::take(&mut s.excess);
            space.data -= excess;
            freed += excess + entry.overhead.total();
        }
        space.remove_overhead(&entry.overhead);
    }
    drop(space);
    drop(s);
    core.blobs.lock().forget_if_unused(entry);
    freed
}

/// Makes it present again: its bytes were not touched.
fn restore(core: &Core, l: Removal) {
    let mut s = l.entry.state();
    for run in &l.runs {
        s.add(&l.entry.layout, *run);
    }
    for run in &l.unproven {
        s.unproven.set(*run);
    }
    if l.whole {
        s.removing = false;
    }
    for i in &l.segments {
        s.segments[*i as usize].leaving -= 1;
    }
    let used: Vec<_> = l.segments.iter().map(|i| (*i, s.segments[*i as usize].used)).collect();
    drop(s);
    list(core, &l.entry, used);
}

/// Absent in memory, but the index could not be told: its bytes and space stay as they are.
fn leave_behind(core: &Core, l: Removal) {
    let mut s = l.entry.state();
    s.excess += l.cost;
    s.overclaimed = true;
    if l.whole {
        s.removing = false;
    }
    for i in &l.segments {
        s.segments[*i as usize].leaving -= 1;
    }
    drop(s);
    let _ = core;
}

/// Drops parts that are not what they should be; the data bytes that were dropped.
pub fn drop_wrong(
    core: &Arc<Core>,
    entry: &Arc<BlobEntry>,
    parts: &[PartRange],
) -> Result<u64, StoreError> {
    let Some(leaving) = claim_wrong(core, entry, parts) else { return Ok(0) };
    let bytes = leaving.runs.iter().map(|r| entry.layout.file_range(*r).len()).sum();
    execute(core, vec![leaving], false)?;
    Ok(bytes)
}

/// Undoes a write that failed: the bytes that may be there go. `runs` were absent and being
/// written by the caller, within `writing`, and their `cost` is counted as data; none if nothing
/// was written yet.
pub fn rollback(
    core: &Arc<Core>,
    entry: &Arc<BlobEntry>,
    writing: PartRange,
    runs: &[PartRange],
    cost: u64,
) {
    let mut s = entry.state();
    s.written(writing);
    let segments: Vec<u32> = entry.segments_of(writing).collect();
    if let Some(l) = begin(core, entry, s, segments, runs.to_vec(), cost) {
        if l.whole {
            let _ = execute(core, vec![l], false);
        } else {
            finish(core, l);
        }
    }
}
