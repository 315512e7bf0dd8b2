//! Writing verified parts.
//!
//! Invariant: space is taken before bytes are written, and a part is readable only after all its
//! bytes were. Only absent parts are written, so a write never meets a reader. Concurrency: runs
//! being written are marked; a second writer of the same run, or of a block that is being removed, is
//! turned away with `Skipped`.

use std::io;
use std::sync::Arc;

use super::core::Core;
use super::files::OpenFile;
use super::reserve::{self, Reservation};
use super::{removal, trust};
use crate::base::FileRange;
use crate::model::{BlobLayout, Digest, PartIx, PartRange, hash};
use crate::store::disk::{Access, DiskFile};
use crate::store::error::StoreError;
use crate::store::index::{Durability, rows};
use crate::store::state::accounting::{self, BLOCK};
use crate::store::state::entry::BlobEntry;
use crate::store::types::Written;

/// What is written, where.
#[derive(Clone, Copy)]
pub struct Write<'a> {
    /// The first part.
    pub first: PartIx,
    /// All bytes of it and the parts that follow.
    pub bytes: &'a [u8],
    /// The BLAKE3 of each part, where known.
    pub checksums: &'a [Option<Digest>],
    /// Where else the disk has the same bytes.
    pub copy: Option<DiskCopy<'a>>,
}

/// How the same bytes can be copied on the disk, sharing blocks.
#[derive(Clone, Copy)]
pub struct DiskCopy<'a> {
    /// Where the first of them lies in the file that they are copied from.
    pub from: u64,
    /// Copies from an offset of that file into a range of the given one; `false` if the disk did not.
    pub copy: &'a dyn Fn(u64, &dyn DiskFile, FileRange) -> io::Result<bool>,
}

/// The parts that the bytes are, if they are whole parts.
fn parts_of(layout: &BlobLayout, w: &Write<'_>) -> Option<PartRange> {
    if w.first.0 >= layout.part_count() || w.bytes.is_empty() {
        return None;
    }
    let start = layout.part(w.first).file.start();
    let range = FileRange::at(start, w.bytes.len() as u64);
    let parts = layout.parts_in(range);
    (layout.file_range(parts) == range).then_some(parts)
}

/// Stores parts. `layout` is the caller's: it knows the objects' published names.
pub fn write(
    core: &Arc<Core>,
    entry: &Arc<BlobEntry>,
    layout: &BlobLayout,
    w: Write<'_>,
    reservation: &mut Reservation,
) -> Result<Written, StoreError> {
    let Some(parts) = parts_of(&entry.layout, &w) else {
        let path = core.full_path(&entry.path());
        let source = io::ErrorKind::InvalidInput.into();
        return Err(StoreError::Disk { path, action: "write what are not whole parts", source });
    };
    removal::make_way(core, entry, parts)?;
    let runs = {
        let mut s = entry.state();
        if s.present.all(parts) {
            return Ok(Written::Present);
        }
        let removing = s.is_removing_of(entry.segments_of(entry.block_mates(parts)));
        let taken = s.is_writing(parts) || s.prefixes.has(&entry.layout, parts);
        if core.is_closed() || removing || taken {
            return Ok(Written::Skipped);
        }
        s.writing.push(parts);
        s.present.runs(parts, false)
    };
    let cost = runs.iter().map(|r| accounting::cost(&entry.layout, *r)).sum();
    match store(core, entry, layout, &w, &runs, cost, reservation) {
        Ok(()) => {}
        Err(Failed::Before(e)) => {
            removal::rollback(core, entry, parts, &[], 0);
            return Err(e);
        }
        Err(Failed::Writing(e)) => {
            removal::rollback(core, entry, parts, &runs, cost);
            return Err(e);
        }
    }
    let start = entry.layout.part(w.first).file.start();
    let checksums: Vec<_> = runs
        .iter()
        .flat_map(|run| run.iter())
        .map(|part| {
            let at = entry.layout.part(part).file;
            let bytes = &w.bytes[(at.start() - start) as usize..(at.end() - start) as usize];
            let known = w.checksums.get((part.0 - w.first.0) as usize).copied().flatten();
            (part.0, known.unwrap_or_else(|| hash::blake3(bytes)))
        })
        .collect();
    let used = core.clock.seconds();
    let segments = entry.segments_of(parts);
    {
        let mut s = entry.state();
        s.end_write(parts);
        for run in &runs {
            s.add(&entry.layout, *run);
            s.dirty.set(*run);
        }
        s.checksums.extend(checksums);
        for i in segments.clone() {
            s.segments[i as usize].used = used;
        }
    }
    core.recency.list(entry, segments.map(|i| (i, used)));
    core.dirty.add(entry, w.bytes.len() as u64);
    Ok(Written::Stored)
}

enum Failed {
    /// Nothing was written, nothing counted.
    Before(StoreError),
    /// Something may have been written; its cost is counted as data.
    Writing(StoreError),
}

fn store(
    core: &Arc<Core>,
    entry: &Arc<BlobEntry>,
    layout: &BlobLayout,
    w: &Write<'_>,
    runs: &[PartRange],
    cost: u64,
    reservation: &mut Reservation,
) -> Result<(), Failed> {
    set_up(core, entry, layout).map_err(Failed::Before)?;
    let open = open(core, entry).map_err(Failed::Before)?;
    reservation.need(cost).map_err(Failed::Before)?;
    reservation.take_data(cost);
    let put = || put(core, &open, entry, w, runs);
    reserve::write_or_make_room(core, cost, put)
        .map_err(|source| Failed::Writing(failed(core, entry, cost, source)))
}

/// Why a write failed that had promised to take so much.
pub(super) fn failed(core: &Core, entry: &BlobEntry, cost: u64, source: io::Error) -> StoreError {
    if reserve::is_full(&source) {
        return core.disk_full(cost);
    }
    StoreError::Disk { path: core.full_path(&entry.path()), action: "write", source }
}

/// The file of a blob that has one, to be written.
pub(super) fn open(core: &Arc<Core>, entry: &Arc<BlobEntry>) -> Result<OpenFile, StoreError> {
    let path = core.full_path(&entry.path());
    let open = match trust::changing(core, entry, || core.files.open(entry, true)) {
        Ok(open) => open,
        Err(source) => {
            if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof) {
                removal::invalidate_all(core, entry);
            }
            return Err(StoreError::Disk { path, action: "open", source });
        }
    };
    // a file that another program truncated must not grow again around what it lost
    if open.file.stat().is_ok_and(|s| s.len != entry.layout.len()) {
        removal::invalidate_all(core, entry);
        let source = io::ErrorKind::UnexpectedEof.into();
        return Err(StoreError::Disk { path, action: "write", source });
    }
    Ok(open)
}

/// Writes the runs.
fn put(
    core: &Core,
    open: &OpenFile,
    entry: &BlobEntry,
    w: &Write<'_>,
    runs: &[PartRange],
) -> io::Result<()> {
    let layout = &entry.layout;
    let start = layout.part(w.first).file.start();
    trust::changing(core, entry, || {
        for run in runs {
            let range = layout.file_range(*run);
            let skip = range.start() - start;
            if let Some(DiskCopy { from, copy }) = w.copy
                && is_aligned(layout, from + skip, range)
                && copy(from + skip, open.file.as_ref(), range)?
            {
                continue;
            }
            let bytes = &w.bytes[skip as usize..(range.end() - start) as usize];
            open.file.write_at(bytes, range.start())?;
        }
        Ok(())
    })
}

/// Whether blocks can be shared: both sides begin at a block and end at one or with their file.
fn is_aligned(layout: &BlobLayout, from: u64, to: FileRange) -> bool {
    from.is_multiple_of(BLOCK)
        && to.start().is_multiple_of(BLOCK)
        && (to.end().is_multiple_of(BLOCK) || to.end() == layout.len())
}

/// Makes the row and the file of a blob that has none.
pub(super) fn set_up(
    core: &Arc<Core>,
    entry: &Arc<BlobEntry>,
    layout: &BlobLayout,
) -> Result<(), StoreError> {
    if entry.state().row.is_some() {
        return Ok(());
    }
    let _setup = entry.setup.lock();
    if entry.state().row.is_some() {
        return Ok(());
    }
    if !core.lock.still_ours() {
        return Err(StoreError::disk(&core.root, "keep anything in this folder")(
            io::Error::other("another process has made its cache there"),
        ));
    }
    let overhead = entry.overhead;
    let mut reservation = reserve::reserve(core, overhead.total())?;
    // the row first: what is on disk has one, or is removed at the next start
    let row = core.write_index(Durability::Normal, |tx| {
        let row = rows::add_blob(tx, layout)?;
        // of a blob that was removed while the index could not be changed
        rows::forget_parts(tx, row)?;
        Ok(row)
    })?;
    match make_files(core, entry) {
        Ok(file) => {
            reservation.convert(overhead.total(), |accounting| accounting.take_overhead(&overhead));
            trust::made(entry, file.as_ref());
            {
                let mut s = entry.state();
                s.row = Some(row);
                s.name_unsynced = true;
            }
            core.files.keep(entry, OpenFile { file, writable: true });
            Ok(())
        }
        Err(source) => {
            let path = entry.path();
            let _ = core.disk.remove(&path);
            let _ = core.write_index(Durability::Normal, |tx| rows::remove_blob(tx, row));
            Err(if reserve::is_full(&source) {
                core.disk_full(overhead.total())
            } else {
                StoreError::Disk { path: core.full_path(&path), action: "make", source }
            })
        }
    }
}

fn make_files(core: &Core, entry: &BlobEntry) -> io::Result<Arc<dyn DiskFile>> {
    core.disk.make_folder(&entry.folder())?;
    let file = core.disk.open(&entry.path(), Access::Create)?;
    if file.stat()?.len > 0 {
        // left there by a removal that failed
        file.set_len(0)?;
    }
    file.set_len(entry.layout.len())?;
    match core.disk.remove(&entry.sidecar_path()) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(file),
    }
}
