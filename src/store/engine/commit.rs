//! Group commit: what was written becomes durable, then the index says so.
//!
//! Invariant: a part is in the index only after its bytes, its checksum and its file's name were synced, and
//! an unverified byte only after it was.
//! Knows nothing of eviction: `reserve` enforces the limit after a commit that found more to be taken.
//! Concurrency: one commit at a time, without any lock that readers or writers need; a part that is
//! dropped meanwhile falls out of the commit, one that is written meanwhile waits for the next.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::core::Core;
use super::{checksums, removal, trust};
use crate::model::PartRange;
use crate::store::disk::Access;
use crate::store::error::StoreError;
use crate::store::index::{Durability, garbage, rows};
use crate::store::sidecar;
use crate::store::state::entry::BlobEntry;
use crate::store::state::lru::SegmentId;
use crate::store::state::prefixes::Believed;

/// Rows in one transaction: its log stays within what the accounting allows for it.
const ROWS: usize = 1000;

/// Makes everything written so far durable and marked, and records uses.
pub fn commit(core: &Arc<Core>) -> Result<(), StoreError> {
    let _committing = core.commit_lock.lock();
    let done = commit_group(core, core.dirty.take());
    done.and(record_uses(core))
}

fn commit_group(core: &Arc<Core>, entries: Vec<Arc<BlobEntry>>) -> Result<(), StoreError> {
    let mut failed = None;
    let mut synced = Vec::new();
    for entry in entries {
        match sync(core, &entry) {
            Ok(()) => synced.push(entry),
            Err(source) => {
                let e = StoreError::Disk {
                    path: core.full_path(&entry.path()),
                    action: "sync; what was not yet committed is dropped",
                    source,
                };
                tracing::error!(error = %e);
                // nor is it known of unverified bytes; the index claims those of before
                revoke_unverified(core, &entry);
                if let Err(e) = removal::invalidate(core, &entry, &uncommitted(&entry)) {
                    tracing::error!(error = %e, "dropping what could not be synced");
                }
                failed.get_or_insert(e);
            }
        }
    }
    let mut stale = Vec::new();
    let (mut apart, mut rows) = (Vec::new(), Vec::new());
    for entry in &synced {
        let mut s = entry.state();
        let all = s.syncing.runs(entry.layout.all_parts(), true);
        let mut changed: Vec<u32> = all.into_iter().flat_map(|r| entry.segments_of(r)).collect();
        changed.dedup();
        let index_stale = std::mem::take(&mut s.index_stale);
        if index_stale {
            changed = entry.all_segments().collect();
            stale.push(entry);
        }
        let mut of_entry: Vec<Row<'_>> =
            changed.into_iter().map(|i| Row::Segment(entry, i)).collect();
        if index_stale || s.prefixes.waits_for_commit() {
            of_entry.push(Row::Unverified(entry, index_stale));
        }
        if s.prefixes.are_stale() {
            // what was unverified is claimed as present with the transaction that forgets it: a row for
            // 16 MiB, so that even the largest object stays within what the log is counted for
            apart.push(of_entry);
        } else {
            rows.extend(of_entry);
        }
    }
    for rows in apart.iter().map(Vec::as_slice).chain(rows.chunks(ROWS)) {
        if let Err(e) = mark(core, rows) {
            // still good, still unmarked: the next commit tries again
            stale.iter().for_each(|entry| entry.state().index_stale = true);
            for entry in &synced {
                let mut s = entry.state();
                let again = std::mem::take(&mut s.syncing);
                s.dirty.merge(&again);
                drop(s);
                core.dirty.add(entry, 0);
            }
            return Err(e);
        }
    }
    for entry in &synced {
        measure(core, entry);
    }
    if let Err(error) = keep_stamps(core, &synced) {
        // what is not recorded is compared with its checksums at the next start, no more
        tracing::warn!(%error, "the state of cached files was not recorded");
    }
    failed.map_or(Ok(()), Err)
}

/// Records what these blobs' files look like now, so that the next process need not compare their parts
/// with checksums. A stamp that is lost costs only that.
fn keep_stamps(core: &Core, entries: &[Arc<BlobEntry>]) -> Result<(), StoreError> {
    let mut new: Vec<_> =
        entries.iter().map(|entry| (entry, trust::stamp_to_keep(core, entry))).collect();
    new.retain(|(entry, stamp)| entry.state().indexed_stamp != *stamp);
    for group in new.chunks(ROWS) {
        core.write_index(Durability::Normal, |tx| {
            for (entry, stamp) in group {
                let row = entry.state().row;
                if let Some(row) = row {
                    rows::set_stamp(tx, row, *stamp)?;
                }
            }
            Ok(())
        })?;
        for (entry, stamp) in group {
            entry.state().indexed_stamp = *stamp;
        }
    }
    Ok(())
}

fn uncommitted(entry: &BlobEntry) -> Vec<PartRange> {
    let s = entry.state();
    let mut all = s.dirty.clone();
    all.merge(&s.syncing);
    all.runs(entry.layout.all_parts(), true)
}

/// Syncs what of a blob is dirty now: bytes, checksums, names.
fn sync(core: &Core, entry: &Arc<BlobEntry>) -> io::Result<()> {
    let (mut new, name_unsynced) = {
        let mut s = entry.state();
        let dirty = std::mem::take(&mut s.dirty);
        s.syncing.merge(&dirty);
        if s.row.is_none() || s.removing || s.syncing.is_empty() && !s.prefixes.waits_for_commit() {
            return Ok(());
        }
        s.prefixes.begin_sync();
        (std::mem::take(&mut s.checksums), s.name_unsynced)
    };
    let open = core.files.open(entry, false)?;
    open.file.sync()?;
    new.sort_unstable();
    let file = core.disk.open(&entry.sidecar_path(), Access::Create)?;
    if file.stat()?.len == 0 {
        file.write_at(&sidecar::header(&entry.layout), 0)?;
    }
    checksums::write(file.as_ref(), &entry.layout, &new)?;
    file.sync()?;
    if name_unsynced {
        core.disk.sync_folder(&entry.folder())?;
        core.disk.sync_folder(Path::new("blobs"))?;
        core.disk.sync_folder(Path::new(""))?;
        entry.state().name_unsynced = false;
    }
    Ok(())
}

/// A row to write.
enum Row<'a> {
    /// Of a segment.
    Segment(&'a Arc<BlobEntry>, u32),
    /// Of the unverified bytes of a blob; `true`: whatever the index should say already.
    Unverified(&'a Arc<BlobEntry>, bool),
}

/// Takes unverified bytes that are not yet committed from their writers.
fn revoke_unverified(core: &Core, entry: &BlobEntry) {
    let mut s = entry.state();
    for piece in s.prefixes.pieces() {
        s.prefixes.revoke(piece, Believed::Claimed);
        core.idle_prefixes.add(entry.id, piece);
    }
}

/// Says in the index what was synced and is still there.
fn mark(core: &Core, marked: &[Row<'_>]) -> Result<(), StoreError> {
    let (mut done, mut said) = (Vec::with_capacity(marked.len()), Vec::new());
    core.write_index(Durability::Full, |tx| {
        done.clear();
        said.clear();
        for marked in marked {
            let (entry, segment) = match marked {
                Row::Segment(entry, segment) => (entry, *segment),
                Row::Unverified(entry, all) => {
                    let s = entry.state();
                    let Some(row) = s.row.filter(|_| !s.removing) else { continue };
                    let claims = s.prefixes.unrecorded(*all);
                    drop(s);
                    for (piece, len) in &claims {
                        rows::set_unverified(tx, row, *piece, *len)?;
                    }
                    said.push((entry, claims));
                    continue;
                }
            };
            let s = entry.state();
            let Some(row) = s.row.filter(|_| !s.removing) else { continue };
            let range = entry.parts_of(segment);
            let mut parts = s.committed(range);
            let synced = s.syncing.runs(range, true);
            for run in &synced {
                parts.set(*run);
            }
            let used = s.segments[segment as usize].used;
            let new = rows::SegmentRow { segment, parts: parts.to_bytes(range), used };
            drop(s);
            rows::set_segment(tx, row, &entry.key(), &new)?;
            done.push((entry, synced));
        }
        Ok(())
    })?;
    said.iter().for_each(|(entry, claims)| entry.state().prefixes.recorded(claims));
    for (entry, synced) in done {
        let mut s = entry.state();
        for run in synced {
            s.syncing.clear(run);
        }
    }
    Ok(())
}

/// Counts what the file takes beyond what its parts were counted for.
fn measure(core: &Core, entry: &BlobEntry) {
    let Some(stat) = core.files.get(entry).and_then(|open| open.file.stat().ok()) else { return };
    let mut s = entry.state();
    let writing = !s.writing.is_empty() || s.prefixes.all().any(|(_, prefix)| prefix.writing);
    if writing || s.is_removing_of(entry.all_segments()) {
        return;
    }
    let excess = stat.allocated.saturating_sub(s.cost + entry.overhead.map);
    let mut accounting = core.accounting.lock();
    accounting.data = accounting.data + excess - s.excess;
    s.excess = excess;
}

/// Records the uses since the last time, of manifests and of segments.
pub fn record_uses(core: &Core) -> Result<(), StoreError> {
    let uses = std::mem::take(&mut *core.manifest_uses.lock());
    for group in uses.into_iter().collect::<Vec<_>>().chunks(ROWS) {
        core.write_index(Durability::Normal, |tx| {
            group.iter().try_for_each(|(hash, used)| garbage::set_use(tx, hash, *used))
        })?;
    }
    let touched: Vec<SegmentId> = core.recency.take_touched().into_iter().collect();
    for group in touched.chunks(ROWS) {
        core.write_index(Durability::Normal, |tx| {
            for t in group {
                let Some(entry) = core.table.by_id(t.blob) else { continue };
                let (row, used) = {
                    let s = entry.state();
                    (s.row, s.segments[t.segment as usize].used)
                };
                if let Some(row) = row {
                    rows::set_used(tx, row, t.segment, used)?;
                }
            }
            Ok(())
        })?;
    }
    Ok(())
}
