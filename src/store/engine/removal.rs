//! Removing parts and unverified bytes: from readers, from the index, from the disk, from the accounting, in
//! that order.
//!
//! Invariant: first they can neither be read nor continued (memory), then the index durably claims them no
//! more, then their bytes go, then their space is free. While that lasts their segments count a removal: no
//! writer writes into them or into a block that they share. Concurrency: see `state::entry` and `core`.

use std::io;
use std::sync::Arc;

use parking_lot::MutexGuard;

use super::core::Core;
use super::trust;
use crate::base::FileRange;
use crate::model::PartRange;
use crate::store::error::StoreError;
use crate::store::index::{Durability, rows};
use crate::store::state::accounting;
use crate::store::state::blob_state::BlobState;
use crate::store::state::entry::BlobEntry;
use crate::store::state::plan::Evictability;
use crate::store::state::prefixes::{self, Believed, CutPrefix};

/// Segments removed in one transaction: its log stays within what the accounting allows for it.
const GROUP: usize = 1000;

/// Parts and unverified bytes that are being removed.
#[derive(Debug)]
pub struct Removal {
    entry: Arc<BlobEntry>,
    segments: Vec<u32>,
    taken: Taken,
    punches: Vec<FileRange>,
    whole: bool,
}

/// What was taken from readers and writers.
#[derive(Debug, Default)]
struct Taken {
    runs: Vec<PartRange>,
    /// Of them: those that were unproven, in case that they are restored.
    unproven: Vec<PartRange>,
    /// Unverified bytes.
    cut: Vec<CutPrefix>,
    cost: u64,
}

impl Taken {
    /// Takes unverified bytes without a writer, all but the first `keep`; whether there were any.
    fn cut(&mut self, entry: &BlobEntry, s: &mut BlobState, piece: u32, keep: u64) -> bool {
        let Some(cut) = s.cut_prefix(&entry.layout, piece, keep) else { return false };
        self.cost += cut.cost;
        self.cut.push(cut);
        true
    }

    /// Takes what is present of a run.
    fn take(&mut self, entry: &BlobEntry, s: &mut BlobState, parts: PartRange) {
        let (gone, freed) = s.take(&entry.layout, parts);
        self.runs.extend(gone);
        self.cost += freed;
    }

    /// The runs of parts whose bytes go.
    fn parts(&self) -> impl Iterator<Item = PartRange> + '_ {
        self.runs.iter().copied().chain(self.cut.iter().map(|cut| cut.parts))
    }

    /// Their segments.
    fn segments(&self, entry: &BlobEntry) -> Vec<u32> {
        let mut segments: Vec<u32> = self.parts().flat_map(|r| entry.segments_of(r)).collect();
        segments.sort_unstable();
        segments.dedup();
        segments
    }
}

/// What happens to parts whose removal the index could not record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// They are present again.
    Restore,
    /// They are wrong and stay absent; their space stays counted.
    StayAbsent,
}

/// Whether unverified bytes go with segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unverified {
    /// All of the blob's without a writer.
    Goes,
    /// They stay, but on a disk where a blob goes as a whole.
    Stays,
}

/// Takes segments from readers, where nothing stands against it; and the bytes kept because they are in
/// use.
pub fn begin(
    core: &Core,
    entry: &Arc<BlobEntry>,
    segments: &[u32],
    unverified: Unverified,
    force: bool,
) -> (Option<Removal>, u64) {
    let mut s = entry.state();
    let (mut taken, mut busy) = (Taken::default(), 0);
    let free = |s: &BlobState, i: u32| entry.evictability(s, i) == Evictability::Evictable;
    let present = |s: &BlobState, i: u32| s.present.any(entry.parts_of(i));
    // without holes a blob goes as a whole or not at all
    let whole_only = !core.disk.holes()
        && (segments.iter().any(|i| present(&s, *i) && !free(&s, *i))
            || s.prefixes.all().any(|(_, prefix)| prefix.is_busy()));
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
        taken.unproven.extend(s.unproven.runs(parts, true));
        taken.take(entry, &mut s, parts);
    }
    if unverified == Unverified::Goes || !core.disk.holes() {
        for piece in s.prefixes.pieces() {
            if whole_only || entry.is_pinned() && !force || !taken.cut(entry, &mut s, piece, 0) {
                let kept = s.prefixes.get(piece).map_or(0, |prefix| prefix.reach);
                busy += prefixes::cost(&entry.layout, piece, kept);
            }
        }
    }
    let passed_to_kernel = s.passed_to_kernel;
    match mark(core, entry, s, taken) {
        Some(r) if passed_to_kernel && core.files.is_shared(entry) => {
            busy += r.taken.cost;
            restore(core, r);
            (None, busy)
        }
        other => (other, busy),
    }
}

/// Takes unverified bytes of a piece, all but the first `keep`, unless they have a writer.
pub fn begin_unverified(
    core: &Core,
    entry: &Arc<BlobEntry>,
    piece: u32,
    keep: u64,
) -> Option<Removal> {
    let (mut s, mut taken) = (entry.state(), Taken::default());
    taken.cut(entry, &mut s, piece, keep).then(|| mark(core, entry, s, taken)).flatten()
}

/// Verified parts are to be written: unverified bytes in their place that have no writer go.
pub fn make_way(
    core: &Arc<Core>,
    entry: &Arc<BlobEntry>,
    parts: PartRange,
) -> Result<(), StoreError> {
    let pieces = entry.state().prefixes.pieces_of(&entry.layout, parts);
    let removals = pieces.into_iter().filter_map(|piece| begin_unverified(core, entry, piece, 0));
    execute(core, removals.collect(), OnFailure::Restore).map(drop)
}

/// Takes parts from readers, and unverified bytes in them from their writers, that must go, in whatever
/// use they are.
fn begin_invalid(core: &Core, entry: &Arc<BlobEntry>, parts: &[PartRange]) -> Option<Removal> {
    let (mut s, mut taken) = (entry.state(), Taken::default());
    for &range in parts {
        taken.take(entry, &mut s, range);
        for piece in s.prefixes.pieces_of(&entry.layout, range) {
            // one that is being written this instant goes when its writer finds out
            s.prefixes.revoke(piece, Believed::Nothing);
            taken.cut(entry, &mut s, piece, 0);
        }
    }
    let removal = mark(core, entry, s, taken)?;
    // reads under way found the parts present: punch only when they have ended
    entry.wait_for_readers(&removal.segments);
    Some(removal)
}

/// Marks as being removed what was taken. With nothing taken: the whole blob, if it is empty.
fn mark(
    core: &Core,
    entry: &Arc<BlobEntry>,
    mut s: MutexGuard<'_, BlobState>,
    taken: Taken,
) -> Option<Removal> {
    let whole = s.row.is_some() && !s.removing && s.is_idle_and_empty();
    if taken.parts().next().is_none() && !whole {
        return None;
    }
    s.removing |= whole;
    let segments = taken.segments(entry);
    s.begin_removal(&segments);
    let layout = &entry.layout;
    let punches = taken.parts().map(|r| accounting::punch_range(layout, r, |n| s.keeps(layout, n)));
    let punches = punches.filter(|r| !r.is_empty()).collect();
    let gone = |cut: &&CutPrefix| s.prefixes.get(cut.piece).is_none();
    taken.cut.iter().filter(gone).for_each(|cut| core.idle_prefixes.remove(entry.id, cut.piece));
    let empty: Vec<u32> =
        segments.iter().copied().filter(|i| !s.present.any(entry.parts_of(*i))).collect();
    drop(s);
    core.recency.unlist(entry, empty);
    Some(Removal { entry: entry.clone(), segments, taken, punches, whole })
}

/// Makes removals durable and gives their space back: how much.
pub fn execute(
    core: &Arc<Core>,
    removals: Vec<Removal>,
    on_failure: OnFailure,
) -> Result<u64, StoreError> {
    let mut freed = 0;
    let mut failed = None;
    let mut removals = removals.into_iter().peekable();
    while removals.peek().is_some() {
        let mut size = 0;
        let mut group = Vec::new();
        while let Some(r) =
            removals.next_if(|r| group.is_empty() || size + r.segments.len() <= GROUP)
        {
            size += r.segments.len();
            group.push(r);
        }
        let written = match &failed {
            None => unclaim(core, &group),
            Some(_) => Err(StoreError::Index("not tried".into())),
        };
        match written {
            Ok(()) => freed += group.into_iter().map(|r| finish(core, r)).sum::<u64>(),
            Err(e) if e.is_full() => freed += free_first(core, group),
            Err(e) => {
                failed.get_or_insert(e);
                for r in group {
                    match on_failure {
                        OnFailure::Restore => restore(core, r),
                        OnFailure::StayAbsent => stay_absent(r),
                    }
                }
            }
        }
    }
    failed.map_or(Ok(freed), Err)
}

/// Has the index claim the parts no more.
fn unclaim(core: &Core, group: &[Removal]) -> Result<(), StoreError> {
    let mut said = Vec::new();
    core.write_index(Durability::Full, |tx| {
        said.clear();
        for r in group {
            let s = r.entry.state();
            let Some(row) = s.row else { continue };
            if r.whole {
                rows::remove_blob(tx, row)?;
                continue;
            }
            for &segment in &r.segments {
                let range = r.entry.parts_of(segment);
                let parts = s.committed(range).to_bytes(range);
                let used = s.segments[segment as usize].used;
                let new = rows::SegmentRow { segment, parts, used };
                rows::set_segment(tx, row, &r.entry.key(), &new)?;
            }
            let claims = s.prefixes.claims(r.taken.cut.iter().map(|cut| cut.piece));
            for (piece, len) in &claims {
                rows::set_unverified(tx, row, *piece, *len)?;
            }
            said.push((&r.entry, claims));
        }
        Ok(())
    })?;
    said.iter().for_each(|(entry, claims)| entry.state().prefixes.recorded(claims));
    Ok(())
}

/// On a disk so full that not even a removal can be recorded: the bytes go first, which makes room to
/// record it. Until then the index claims what is a hole. It has no stamp of that file, so the next
/// process would compare it with its checksums.
fn free_first(core: &Arc<Core>, group: Vec<Removal>) -> u64 {
    let freed: Vec<_> = group.iter().map(|r| free_bytes(core, r)).collect();
    if let Err(error) = unclaim(core, &group) {
        tracing::warn!(%error, "the index is behind until the next commit");
        for r in group.iter().filter(|r| !r.whole) {
            r.entry.state().index_stale = true;
            core.dirty.add(&r.entry, 0);
        }
    }
    group.into_iter().zip(freed).map(|(r, done)| account(core, r, done)).sum()
}

/// Frees the bytes and counts that.
fn finish(core: &Arc<Core>, removal: Removal) -> u64 {
    let done = free_bytes(core, &removal);
    account(core, removal, done)
}

/// Frees the bytes on the disk.
fn free_bytes(core: &Arc<Core>, removal: &Removal) -> io::Result<()> {
    let entry = &removal.entry;
    let gone = |r: io::Result<()>| match r {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    };
    if removal.whole {
        core.files.close(entry);
        // a file with its name in another process's folder is not this blob
        let ours = core.lock.still_ours();
        let remove = |path: &std::path::Path| if ours { core.disk.remove(path) } else { Ok(()) };
        gone(remove(&entry.path())).and_then(|()| gone(remove(&entry.sidecar_path())))
    } else if !core.disk.holes() {
        Err(io::ErrorKind::Unsupported.into())
    } else {
        let punched = trust::changing(core, entry, || {
            let open = core.files.open(entry, true)?;
            removal.punches.iter().try_for_each(|r| open.file.punch(r.start(), r.len()))
        });
        core.dirty.add(entry, 0);
        match punched {
            // gone or cut: nothing there to free
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
            other => gone(other),
        }
    }
}

/// Counts the space as free, if the bytes are gone.
fn account(core: &Arc<Core>, removal: Removal, done: io::Result<()>) -> u64 {
    let entry = &removal.entry;
    let mut s = entry.state();
    let mut freed = removal.taken.cost;
    if let Err(e) = &done {
        // it still takes its space: counted until the file goes or is seen to be smaller
        tracing::warn!(blob = %entry.key(), error = %e, "space was not given back");
        s.excess += removal.taken.cost;
        freed = 0;
    }
    s.end_removal(&removal.segments);
    let mut accounting = core.accounting.lock();
    accounting.data -= freed;
    if removal.whole {
        s.removing = false;
        s.row = None;
        s.name_unsynced = false;
        (s.examined, s.stamp, s.indexed_stamp) = (false, None, None);
        s.overclaimed = false;
        s.prefixes.forget_rows();
        if done.is_ok() {
            let excess = std::mem::take(&mut s.excess);
            accounting.data -= excess;
            freed += excess + entry.overhead.total();
        }
        accounting.remove_overhead(&entry.overhead);
    }
    drop(accounting);
    drop(s);
    if removal.whole {
        // opened meanwhile: it would keep the removed file's space
        core.files.close_if_removed(entry);
    }
    core.table.remove_if_unused(entry);
    freed
}

/// Makes the parts present again: their bytes were not touched.
fn restore(core: &Core, removal: Removal) {
    let entry = &removal.entry;
    let mut s = entry.state();
    for run in &removal.taken.runs {
        s.add(&entry.layout, *run);
    }
    for run in &removal.taken.unproven {
        s.unproven.set(*run);
    }
    for cut in &removal.taken.cut {
        s.restore_prefix(cut);
        core.idle_prefixes.add(entry.id, cut.piece);
    }
    if removal.whole {
        s.removing = false;
    }
    s.end_removal(&removal.segments);
    // unverified bytes are on no list of segments
    let listed = removal.taken.runs.iter().flat_map(|run| entry.segments_of(*run));
    let used: Vec<_> = listed.map(|i| (i, s.segments[i as usize].used)).collect();
    drop(s);
    core.recency.list(entry, used);
}

/// Leaves the parts absent in memory, although the index still claims them: bytes and space stay.
fn stay_absent(removal: Removal) {
    let mut s = removal.entry.state();
    s.excess += removal.taken.cost;
    s.overclaimed = true;
    if removal.whole {
        s.removing = false;
    }
    s.end_removal(&removal.segments);
}

/// Drops parts that are not what they should be; the data bytes that were dropped.
pub fn invalidate(
    core: &Arc<Core>,
    entry: &Arc<BlobEntry>,
    parts: &[PartRange],
) -> Result<u64, StoreError> {
    let Some(removal) = begin_invalid(core, entry, parts) else { return Ok(0) };
    let bytes = removal.taken.runs.iter().map(|r| entry.layout.file_range(*r).len()).sum();
    execute(core, vec![removal], OnFailure::StayAbsent)?;
    Ok(bytes)
}

/// Drops all of a blob whose file is gone or was cut.
pub fn invalidate_all(core: &Arc<Core>, entry: &Arc<BlobEntry>) {
    tracing::warn!(blob = %entry.key(), "another program removed or cut a cached file: it is dropped");
    core.files.close(entry);
    if let Err(e) = invalidate(core, entry, &[entry.layout.all_parts()]) {
        tracing::error!(error = %e, "dropping a blob that is gone");
    }
}

/// Undoes a write that failed: bytes that may be there go. `runs` were absent and being written by the
/// caller, within `writing`, and their `cost` is counted as data; none if nothing was written yet.
pub fn rollback(
    core: &Arc<Core>,
    entry: &Arc<BlobEntry>,
    writing: PartRange,
    runs: &[PartRange],
    cost: u64,
) {
    let mut s = entry.state();
    s.end_write(writing);
    let taken = Taken { runs: runs.to_vec(), cost, ..Taken::default() };
    if let Some(removal) = mark(core, entry, s, taken) {
        if removal.whole {
            let _ = execute(core, vec![removal], OnFailure::StayAbsent);
        } else {
            finish(core, removal);
        }
    }
}
