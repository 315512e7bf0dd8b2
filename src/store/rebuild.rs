//! After a crash, or with a new index: making disk and index agree.
//!
//! Rules: what the index claims stays, if its file is there and whole. What a file takes beyond
//! that is punched. A file that no row claims is adopted part by part, as far as its sidecar
//! certifies it; else it is removed. Runs before anybody uses the store.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::cell::{Cell, folder_of};
use super::core::Core;
use super::disk::Access;
use super::error::StoreError;
use super::index::{Durability, rows};
use super::sync::lock;
use super::{evict, leave, space, sums, verify};
use crate::model::{ContentKey, Digest, PartRange};

/// Makes the disk agree with the index.
pub fn agree(core: &Arc<Core>) -> Result<(), StoreError> {
    let cells: Vec<Arc<Cell>> = lock(&core.blobs).by_key.values().cloned().collect();
    for cell in &cells {
        check(core, cell)?;
    }
    let claimed: HashSet<ContentKey> = lock(&core.blobs).by_key.keys().copied().collect();
    let list = |folder: &Path| {
        core.disk.list(folder).map_err(StoreError::disk(&core.full(folder), "list"))
    };
    for folder in list(Path::new("blobs"))? {
        let folder = Path::new("blobs").join(folder);
        for name in list(&folder)? {
            let path = folder.join(&name);
            let (stem, is_sums) = match name.strip_suffix(".sums") {
                Some(stem) => (stem, true),
                None => (name.as_str(), false),
            };
            let key = stem.parse::<Digest>().ok().map(ContentKey::new);
            match key.filter(|k| folder_of(k) == folder) {
                Some(key) if claimed.contains(&key) => {}
                // goes with its blob
                Some(key) if is_sums => {
                    if core.disk.stat(&folder.join(key.to_string())).is_err() {
                        remove(core, &path);
                    }
                }
                Some(key) => {
                    if !adopt(core, &key, &path)? {
                        remove(core, &path);
                        remove(core, &folder.join(format!("{name}.sums")));
                    }
                }
                // not ours; nothing else belongs here
                None => remove(core, &path),
            }
        }
    }
    Ok(())
}

fn remove(core: &Core, path: &Path) {
    match core.disk.remove(path) {
        Ok(()) => tracing::info!(path = %path.display(), "removed what no index claims"),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => tracing::warn!(path = %path.display(), error = %e, "cannot be removed"),
    }
}

/// Checks a blob that the index claims.
fn check(core: &Arc<Core>, cell: &Arc<Cell>) -> Result<(), StoreError> {
    let whole = core.disk.stat(&cell.path()).is_ok_and(|s| s.len == cell.layout.len());
    if !whole || cell.state().data == 0 {
        // nothing of it is there, or nothing of it was ever committed
        return leave::drop_wrong(core, cell, &[cell.layout.all_parts()]).map(drop);
    }
    drop_hollow(core, cell)?;
    // its names may not have been synced if it is new: with a row they were
    punch_absent(core, cell)
}

/// An index that lost its log, or came from a backup, claims what was evicted since. Where there are
/// holes in what it claims, only what matches its sum is believed.
fn drop_hollow(core: &Arc<Core>, cell: &Arc<Cell>) -> Result<(), StoreError> {
    let claimed = cell.state().present.runs(cell.layout.all_parts(), true);
    let tried = (|| {
        let data = core.disk.open(&cell.path(), Access::Read)?;
        let solid = claimed.iter().try_fold(true, |all, run| {
            let range = cell.layout.file_range(*run);
            Ok::<_, io::Error>(all && data.is_solid(range.start(), range.len())?)
        })?;
        if solid {
            return Ok(Vec::new());
        }
        let sidecar = core.disk.open(&cell.sums_path(), Access::Read)?;
        let good = verify::matching(&cell.layout, data.as_ref(), sidecar.as_ref())?;
        let good: HashSet<u32> = good.iter().flat_map(|run| run.start..run.end).collect();
        let parts = claimed.iter().flat_map(|run| run.start..run.end);
        let bad = parts.filter(|part| !good.contains(part));
        Ok(bad.map(|part| PartRange { start: part, end: part + 1 }).collect())
    })();
    let bad = tried.unwrap_or_else(|e: io::Error| {
        tracing::warn!(blob = %cell.key(), error = %e, "a blob cannot be looked at");
        claimed
    });
    if !bad.is_empty() {
        let parts = bad.len();
        tracing::warn!(blob = %cell.key(), parts, "the index claimed what is a hole: dropped");
        leave::drop_wrong(core, cell, &bad)?;
    }
    Ok(())
}

/// Punches what is absent of a blob that takes more than it is counted for.
fn punch_absent(core: &Arc<Core>, cell: &Arc<Cell>) -> Result<(), StoreError> {
    let fail = |e: io::Error| StoreError::disk(&core.full(&cell.path()), "punch")(e);
    let allocated = core.disk.stat(&cell.path()).map_err(fail)?.allocated;
    let counted = cell.state().cost + cell.overhead.map;
    if allocated <= cell.state().cost {
        return Ok(());
    }
    let absent = cell.state().present.runs(cell.layout.all_parts(), false);
    if !absent.is_empty() && core.disk.holes() && !core.is_shared(cell) {
        let open = core.file(cell, true).map_err(fail)?;
        for run in absent {
            let r = space::punch_range(&cell.layout, run, |n| cell.state().keeps(n));
            if !r.is_empty() {
                open.file.punch(r.start(), r.len()).map_err(fail)?;
            }
        }
    }
    let allocated = core.disk.stat(&cell.path()).map_err(fail)?.allocated;
    let excess = allocated.saturating_sub(counted);
    cell.state().excess = excess;
    lock(&core.space).data += excess;
    Ok(())
}

/// Takes in a blob that no row claims, as far as its sidecar certifies it.
fn adopt(core: &Arc<Core>, key: &ContentKey, path: &Path) -> Result<bool, StoreError> {
    let sums_path = path.with_extension("sums");
    let Some(layout) = sums::certified_layout(core.disk.as_ref(), &sums_path, key) else {
        return Ok(false);
    };
    let tried = (|| {
        let data = core.disk.open(path, Access::Read)?;
        if data.stat()?.len != layout.len() {
            return Ok(Vec::new());
        }
        let sidecar = core.disk.open(&sums_path, Access::Read)?;
        let good = verify::matching(&layout, data.as_ref(), sidecar.as_ref())?;
        // they may be in memory only
        data.sync()?;
        sidecar.sync()?;
        if let Some(folder) = path.parent() {
            core.disk.sync_folder(folder)?;
        }
        Ok(good)
    })();
    let good: Vec<PartRange> = tried.map_err(StoreError::disk(&core.full(path), "adopt"))?;
    if good.is_empty() {
        return Ok(false);
    }
    let cell = lock(&core.blobs).cell(&Arc::new(layout));
    let used = core.time.seconds();
    let row = core.write_index(Durability::Full, |tx| {
        let row = rows::add_blob(tx, &cell.layout)?;
        let mut s = cell.state();
        for run in &good {
            s.add(&cell.layout, *run);
        }
        for segment in 0..cell.layout.segment_count() {
            let range = cell.parts_of(segment);
            let parts = s.present.to_bytes(range);
            s.segs[segment as usize].used = used;
            if !parts.is_empty() {
                rows::set_segment(tx, row, key, &rows::SegmentRow { segment, parts, used })?;
            }
        }
        Ok(row)
    })?;
    let listed: Vec<_> = {
        let mut s = cell.state();
        s.row = Some(row);
        let mut space = lock(&core.space);
        space.add_overhead(&cell.overhead);
        space.data += s.cost;
        let all = 0..cell.layout.segment_count();
        all.filter(|i| s.present.any(cell.parts_of(*i))).map(|i| (i, used)).collect()
    };
    evict::list(core, &cell, listed);
    tracing::info!(blob = %key, bytes = cell.state().data, "a blob was taken back into the index");
    punch_absent(core, &cell)?;
    Ok(true)
}
