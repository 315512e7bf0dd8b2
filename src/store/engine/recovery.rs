//! After a crash, or with a new index: making disk and index agree, without reading any blob's bytes.
//!
//! Rules: what the index claims stays, if its file is there and whole. What a file takes beyond that is
//! punched. A file that no row claims is taken back as far as its sidecar certifies it, unproven; else it
//! is removed. What has no name of ours, or is no ordinary file, is left alone and named once in the log.
//! Nothing that lies in the folder keeps the store from being opened. Runs before the store is used.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::core::Core;
use super::{checksums, removal, trust};
use crate::model::{BlobLayout, ContentKey, Digest, PartRange};
use crate::store::disk::Access;
use crate::store::error::StoreError;
use crate::store::index::{Durability, rows};
use crate::store::state::accounting;
use crate::store::state::entry::{BlobEntry, folder_of};
use crate::store::state::part_set::PartSet;
use crate::store::state::prefixes;

/// Makes the disk agree with the index.
pub fn agree(core: &Arc<Core>) -> Result<(), StoreError> {
    let entries = core.table.all();
    for entry in &entries {
        check(core, entry)?;
    }
    let claimed: HashSet<ContentKey> = entries.iter().map(|entry| entry.key()).collect();
    let mut foreign = Vec::new();
    for folder in list(core, Path::new("blobs")) {
        let path = Path::new("blobs").join(&folder);
        if !is_folder_name(&folder) {
            foreign.push(path);
            continue;
        }
        for name in list(core, &path) {
            sort_out(core, &claimed, &path, &name, &mut foreign)?;
        }
    }
    if let Some(first) = foreign.first() {
        let (first, count) = (core.full_path(first), foreign.len());
        tracing::warn!(
            count, first = %first.display(),
            "files in the cache folder are not modelfs's; they are left alone and not counted"
        );
    }
    Ok(())
}

/// What is in a folder; one that cannot be listed has nothing of ours.
fn list(core: &Core, folder: &Path) -> Vec<String> {
    core.disk.list(folder).unwrap_or_else(|error| {
        tracing::warn!(path = %core.full_path(folder).display(), %error, "cannot be listed; left alone");
        Vec::new()
    })
}

/// Whether blobs lie in a folder of this name: two hexadecimal digits.
fn is_folder_name(name: &str) -> bool {
    name.len() == 2 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Applies the rules to one file below `blobs/`.
fn sort_out(
    core: &Arc<Core>,
    claimed: &HashSet<ContentKey>,
    folder: &Path,
    name: &str,
    foreign: &mut Vec<PathBuf>,
) -> Result<(), StoreError> {
    let path = folder.join(name);
    let (stem, is_sums) = match name.strip_suffix(".sums") {
        Some(stem) => (stem, true),
        None => (name, false),
    };
    let key = stem.parse::<Digest>().ok().map(ContentKey::new);
    let key = key.filter(|key| folder_of(key) == folder && key.to_string() == stem);
    if key.is_some_and(|key| claimed.contains(&key)) {
        return Ok(());
    }
    // only ordinary files are there for the disk
    let (Some(key), Ok(stat)) = (key, core.disk.stat(&path)) else {
        foreign.push(path);
        return Ok(());
    };
    if is_sums {
        // goes with its blob
        if core.disk.stat(&folder.join(stem)).is_err() {
            remove(core, &path);
        }
    } else if !adopt(core, &key, &path, stat.allocated)? {
        remove(core, &path);
        remove(core, &folder.join(format!("{name}.sums")));
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
fn check(core: &Arc<Core>, entry: &Arc<BlobEntry>) -> Result<(), StoreError> {
    let stat = core.disk.stat(&entry.path()).ok().filter(|s| s.len == entry.layout.len());
    let cost = entry.state().cost;
    let Some(stat) = stat.filter(|_| cost > 0) else {
        // nothing of it is there, or nothing of it was ever committed
        return removal::invalidate(core, entry, &[entry.layout.all_parts()]).map(drop);
    };
    // its names may not have been synced if it is new: with a row they were
    give_back(core, entry, stat.allocated);
    Ok(())
}

/// Punches what is absent of a blob that takes more than it is counted for; what it takes beyond that
/// all the same is counted.
fn give_back(core: &Arc<Core>, entry: &Arc<BlobEntry>, allocated: u64) {
    if allocated <= entry.state().cost {
        return;
    }
    if let Err(error) = punch_absent(core, entry) {
        tracing::warn!(blob = %entry.key(), %error, "space that nothing is cached in was not given back");
    }
    let allocated = core.disk.stat(&entry.path()).map_or(allocated, |s| s.allocated);
    let excess = allocated.saturating_sub(entry.state().cost + entry.overhead.map);
    entry.state().excess = excess;
    core.accounting.lock().data += excess;
}

fn punch_absent(core: &Core, entry: &Arc<BlobEntry>) -> io::Result<()> {
    let absent: Vec<PartRange> = {
        let (s, layout) = (entry.state(), &entry.layout);
        let mut taken = s.present.clone();
        for (piece, prefix) in s.prefixes.all() {
            taken.set(prefixes::touched(layout, piece, prefix.reach));
        }
        taken.runs(layout.all_parts(), false)
    };
    if absent.is_empty() || !core.disk.holes() || core.files.is_shared(entry) {
        return Ok(());
    }
    trust::changing(core, entry, || {
        let open = core.files.open(entry, true)?;
        absent.iter().try_for_each(|run| {
            let r = accounting::punch_range(&entry.layout, *run, |n| {
                entry.state().keeps(&entry.layout, n)
            });
            if r.is_empty() { Ok(()) } else { open.file.punch(r.start(), r.len()) }
        })
    })?;
    core.dirty.add(entry, 0);
    Ok(())
}

/// The parts of a blob without a row that may be there: they have a checksum and no hole. Makes what is
/// there durable. Nothing is read: they are unproven.
fn claims(core: &Core, layout: &BlobLayout, path: &Path) -> io::Result<Vec<PartRange>> {
    let sidecar_path = path.with_extension("sums");
    let (data, sidecar) =
        (core.disk.open(path, Access::Read)?, core.disk.open(&sidecar_path, Access::Read)?);
    if data.stat()?.len != layout.len() {
        return Ok(Vec::new());
    }
    let (mut bits, solid) = (PartSet::default(), data.is_solid(0, layout.len())?);
    for chunk in checksums::chunks(layout.all_parts()) {
        for (part, slot) in chunk.iter().zip(checksums::read(sidecar.as_ref(), layout, chunk)?) {
            let file = layout.part(part).file;
            if slot.is_some() && (solid || data.is_solid(file.start(), file.len())?) {
                bits.set(PartRange { start: part.0, end: part.0 + 1 });
            }
        }
    }
    // they may be in memory only
    data.sync()?;
    sidecar.sync()?;
    if let Some(folder) = path.parent() {
        core.disk.sync_folder(folder)?;
    }
    Ok(bits.runs(layout.all_parts(), true))
}

/// Takes in a blob that no row claims, as far as its sidecar certifies it; `false`: it is of no use. One
/// that cannot be looked at stays, and is counted.
fn adopt(
    core: &Arc<Core>,
    key: &ContentKey,
    path: &Path,
    allocated: u64,
) -> Result<bool, StoreError> {
    let sidecar_path = path.with_extension("sums");
    let Some(layout) = checksums::certified_layout(core.disk.as_ref(), &sidecar_path, key) else {
        return Ok(false);
    };
    let claimed = match claims(core, &layout, path) {
        Ok(claimed) => claimed,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => {
            tracing::warn!(path = %core.full_path(path).display(), %error, "a blob cannot be looked at");
            core.accounting.lock().overhead += allocated;
            return Ok(true);
        }
    };
    if claimed.is_empty() {
        return Ok(false);
    }
    let entry = core.table.entry(&Arc::new(layout));
    let used = core.clock.seconds();
    let row = core.write_index(Durability::Full, |tx| {
        let row = rows::add_blob(tx, &entry.layout)?;
        let mut s = entry.state();
        for run in &claimed {
            s.add(&entry.layout, *run);
            s.unproven.set(*run);
        }
        for segment in entry.all_segments() {
            let range = entry.parts_of(segment);
            let parts = s.present.to_bytes(range);
            s.segments[segment as usize].used = used;
            if !parts.is_empty() {
                rows::set_segment(tx, row, key, &rows::SegmentRow { segment, parts, used })?;
            }
        }
        Ok(row)
    })?;
    {
        let mut s = entry.state();
        s.row = Some(row);
        // a former process may have passed it on, and a program mapped it
        s.passed_to_kernel = true;
        let mut accounting = core.accounting.lock();
        accounting.add_overhead(&entry.overhead);
        accounting.data += s.cost;
    }
    core.recency.list(&entry, entry.present_segments());
    tracing::info!(blob = %key, bytes = entry.state().data, "a blob was taken back into the index");
    give_back(core, &entry, allocated);
    Ok(true)
}
