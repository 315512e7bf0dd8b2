//! Group commit: what was written becomes durable, then the index says so.
//!
//! Invariant: a part is in the index only after its bytes, its sum and its file's name were synced.
//! Concurrency: one commit at a time, without any lock that readers or writers need; a part that is
//! dropped meanwhile falls out of the commit, one that is written meanwhile waits for the next.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::model::PartRange;
use crate::store::disk::Access;
use crate::store::engine::checksums;
use crate::store::engine::collection;
use crate::store::engine::core::{Core, Dirty};
use crate::store::engine::eviction;
use crate::store::engine::index_growth;
use crate::store::engine::removal;
use crate::store::engine::trust;
use crate::store::error::StoreError;
use crate::store::index::{Durability, garbage, rows};
use crate::store::state::entry::BlobEntry;
use crate::store::state::lru::SegmentId;

/// Rows in one transaction: its log stays within what the books allow for it.
const ROWS: usize = 1000;
/// Uses are recorded this often when nothing is written: what a crash may forget of them.
const RECENCY: Duration = Duration::from_secs(60);

/// Notes that a blob has dirty parts, or a stamp that the index does not have yet.
pub fn note(core: &Core, entry: &Arc<BlobEntry>, bytes: u64) {
    let mut dirty = core.dirty.lock();
    dirty.entries.entry(entry.id).or_insert_with(|| entry.clone());
    dirty.bytes += bytes;
    let first = dirty.since.is_none();
    dirty.since.get_or_insert_with(Instant::now);
    if first || dirty.bytes >= core.group.bytes {
        core.wake.notify_all();
    }
}

/// Makes everything written so far durable and marked.
pub fn commit(core: &Arc<Core>) -> Result<(), StoreError> {
    let done = {
        let _committing = core.commit_lock.lock();
        let entries = {
            let mut dirty = core.dirty.lock();
            let entries = std::mem::take(&mut dirty.entries);
            (dirty.bytes, dirty.since) = (0, None);
            entries
        };
        let done = group(core, entries.into_values().collect());
        done.and(recency(core))
    };
    let settled = eviction::enforce_limit(core);
    index_growth::tend_headroom(core);
    done.and(settled)
}

fn group(core: &Arc<Core>, entries: Vec<Arc<BlobEntry>>) -> Result<(), StoreError> {
    let mut failed = None;
    let mut synced = Vec::new();
    for entry in entries {
        match sync(core, &entry) {
            Ok(()) => synced.push(entry),
            Err(source) => {
                let e = StoreError::Disk {
                    path: core.full(&entry.path()),
                    action: "sync; what was not yet committed is dropped",
                    source,
                };
                tracing::error!(error = %e);
                let all = waiting(&entry);
                if let Err(e) = removal::drop_wrong(core, &entry, &all) {
                    tracing::error!(error = %e, "dropping what could not be synced");
                }
                failed.get_or_insert(e);
            }
        }
    }
    let (mut segments, mut behind) = (Vec::new(), Vec::new());
    for entry in &synced {
        let mut s = entry.state();
        let all = s.syncing.runs(entry.layout.all_parts(), true);
        let mut mine: Vec<u32> = all.into_iter().flat_map(|r| entry.segments_of(r)).collect();
        mine.dedup();
        if std::mem::take(&mut s.behind) {
            mine = (0..entry.layout.segment_count()).collect();
            behind.push(entry);
        }
        segments.extend(mine.into_iter().map(|i| (entry, i)));
    }
    for rows in segments.chunks(ROWS) {
        if let Err(e) = mark(core, rows) {
            // still good, still unmarked: the next commit tries again
            behind.iter().for_each(|entry| entry.state().behind = true);
            for entry in &synced {
                let mut s = entry.state();
                let again = std::mem::take(&mut s.syncing);
                s.dirty.merge(&again);
                drop(s);
                note(core, entry, 0);
            }
            return Err(e);
        }
    }
    for entry in &synced {
        measure(core, entry);
    }
    if let Err(error) = keep_stamps(core, &synced) {
        // what is not recorded is compared with its checksums at the next start, no more
        tracing::warn!(%error, "what cached files look like was not recorded");
    }
    failed.map_or(Ok(()), Err)
}

/// Records what these blobs' files look like now, so that the next process need not compare their parts
/// with checksums. A stamp that is lost costs only that.
fn keep_stamps(core: &Core, entries: &[Arc<BlobEntry>]) -> Result<(), StoreError> {
    let mut new: Vec<_> =
        entries.iter().map(|entry| (entry, trust::stamp_to_keep(core, entry))).collect();
    new.retain(|(entry, stamp)| entry.state().stamp_kept != *stamp);
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
            entry.state().stamp_kept = *stamp;
        }
    }
    Ok(())
}

fn waiting(entry: &BlobEntry) -> Vec<PartRange> {
    let s = entry.state();
    let mut all = s.dirty.clone();
    all.merge(&s.syncing);
    all.runs(entry.layout.all_parts(), true)
}

/// Syncs what of a blob is dirty now: bytes, sums, names.
fn sync(core: &Core, entry: &Arc<BlobEntry>) -> io::Result<()> {
    let (mut new, unnamed) = {
        let mut s = entry.state();
        let dirty = std::mem::take(&mut s.dirty);
        s.syncing.merge(&dirty);
        if s.row.is_none() || s.removing || s.syncing.is_empty() {
            return Ok(());
        }
        (std::mem::take(&mut s.sums), s.unnamed)
    };
    let open = core.file(entry, false)?;
    open.file.sync()?;
    new.sort_unstable();
    let file = core.disk.open(&entry.checksums_path(), Access::Create)?;
    if file.stat()?.len == 0 {
        file.write_at(&checksums::header(&entry.layout), 0)?;
    }
    checksums::write(file.as_ref(), &entry.layout, &new)?;
    file.sync()?;
    if unnamed {
        core.disk.sync_folder(&entry.folder())?;
        core.disk.sync_folder(Path::new("blobs"))?;
        core.disk.sync_folder(Path::new(""))?;
        entry.state().unnamed = false;
    }
    Ok(())
}

/// Says in the index what was synced and is still there.
fn mark(core: &Core, segments: &[(&Arc<BlobEntry>, u32)]) -> Result<(), StoreError> {
    let mut done = Vec::with_capacity(segments.len());
    core.write_index(Durability::Full, |tx| {
        done.clear();
        for &(entry, segment) in segments {
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
    for (entry, synced) in done {
        let mut s = entry.state();
        for run in synced {
            s.syncing.clear(run);
        }
    }
    Ok(())
}

/// Counts what the file takes beyond what its parts were counted for.
fn measure(core: &Core, entry: &Arc<BlobEntry>) {
    let file = entry.state().file.clone();
    let Some(stat) = file.and_then(|f| f.file.stat().ok()) else { return };
    let mut s = entry.state();
    if !s.writing.is_empty() || s.removing || s.segments.iter().any(|g| g.leaving > 0) {
        return;
    }
    let excess = stat.allocated.saturating_sub(s.cost + entry.overhead.map);
    let mut space = core.accounting.lock();
    space.data = space.data + excess - s.excess;
    s.excess = excess;
}

/// Records the uses since the last time.
fn recency(core: &Core) -> Result<(), StoreError> {
    let uses = std::mem::take(&mut *core.uses.lock());
    for group in uses.into_iter().collect::<Vec<_>>().chunks(ROWS) {
        core.write_index(Durability::Normal, |tx| {
            group.iter().try_for_each(|(hash, used)| garbage::set_use(tx, hash, *used))
        })?;
    }
    let touched: Vec<SegmentId> = core.lru.lock().take_touched().into_iter().collect();
    for group in touched.chunks(ROWS) {
        core.write_index(Durability::Normal, |tx| {
            for t in group {
                let entry = core.blobs.lock().by_id.get(&t.blob).cloned();
                let Some(entry) = entry else { continue };
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

/// The commit thread's life: commits when a group is full or old, until told to stop.
pub fn run(core: &Arc<Core>) {
    let mut recorded = Instant::now();
    loop {
        let mut dirty = core.dirty.lock();
        if dirty.stop {
            return;
        }
        let due = |d: &Dirty| {
            d.since.map(|t| {
                let age = t.elapsed();
                if d.bytes >= core.group.bytes {
                    Duration::ZERO
                } else {
                    core.group.after.saturating_sub(age)
                }
            })
        };
        let quiet = RECENCY.saturating_sub(recorded.elapsed());
        let wait = due(&dirty).map_or(quiet, |d| d.min(quiet));
        if !wait.is_zero() && !dirty.collect {
            core.wake.wait_for(&mut dirty, wait);
            if dirty.stop {
                return;
            }
        }
        let now = due(&dirty).is_some_and(|d| d.is_zero());
        let record = recorded.elapsed() >= RECENCY;
        let collects = std::mem::take(&mut dirty.collect);
        drop(dirty);
        if (collects || record)
            && let Err(error) = collection::when_due(core)
        {
            tracing::warn!(%error, "forgetting names and documents");
        }
        if now {
            if let Err(e) = commit(core) {
                tracing::error!(error = %e, "commit");
                // what failed is tried again with the next group, not at once
                std::thread::sleep(Duration::from_millis(100));
            }
        } else if record && let Err(e) = recency(core) {
            tracing::warn!(error = %e, "recording uses");
        }
        if now || record {
            recorded = Instant::now();
        }
    }
}

/// Commits for the last time; marks the index clean if nothing is under way any more.
pub fn close(core: &Arc<Core>) -> Result<(), StoreError> {
    commit(core)?;
    // room that was made at its end changed files: the last commit records what they look like
    if !core.dirty.lock().entries.is_empty() {
        commit(core)?;
    }
    let entries: Vec<_> = core.blobs.lock().by_key.values().cloned().collect();
    let quiet = entries.iter().all(|c| {
        let s = c.state();
        s.writing.is_empty() && s.dirty.is_empty() && s.syncing.is_empty() && s.excess == 0
    });
    if quiet { core.index.close() } else { Ok(()) }
}
