//! Writing verified parts.
//!
//! Invariant: space is taken before bytes are written, and a part is readable only after all its
//! bytes were. Only absent parts are written, so a write never meets a reader. Concurrency: runs
//! being written are marked; a second writer of the same run, or of a block that is just being
//! taken away, is turned away with `Skipped`.

use std::io;
use std::sync::Arc;

use crate::base::FileRange;
use crate::base::units::ByteSize;
use crate::model::hash;
use crate::model::{BlobLayout, Digest, PartIx, PartRange};
use crate::store::blob::LocalSource;
use crate::store::disk::Access;
use crate::store::engine::commit;
use crate::store::engine::core::Core;
use crate::store::engine::eviction::{self, EvictionOutcome};
use crate::store::engine::removal;
use crate::store::engine::reserve::{Reservation, reserve};
use crate::store::engine::trust;
use crate::store::error::StoreError;
use crate::store::index::{Durability, rows};
use crate::store::state::accounting::{self, BLOCK};
use crate::store::state::entry::{BlobEntry, OpenFile};
use crate::store::types::Written;

/// What is written, where.
#[derive(Debug, Clone, Copy)]
pub struct Write<'a> {
    /// The first part.
    pub first: PartIx,
    /// All bytes of it and the parts that follow.
    pub bytes: &'a [u8],
    /// The BLAKE3 of each part, where known.
    pub sums: &'a [Option<Digest>],
    /// Where else the disk has the same bytes.
    pub shared: Option<(&'a LocalSource, u64)>,
}

fn is_full(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn disk_full(core: &Core, wanted: u64) -> StoreError {
    let free = ByteSize(core.disk.free().unwrap_or(0));
    StoreError::DiskFull { path: core.root.clone(), wanted: ByteSize(wanted), free }
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
    space: &mut Reservation,
) -> Result<Written, StoreError> {
    let Some(parts) = parts_of(&entry.layout, &w) else {
        return Err(StoreError::disk(&core.full(&entry.path()), "write what are not whole parts")(
            io::ErrorKind::InvalidInput.into(),
        ));
    };
    let runs = {
        let mut s = entry.state();
        if s.present.all(parts) {
            return Ok(Written::Present);
        }
        let near = entry.block_mates(parts);
        let leaving = entry.segments_of(near).any(|i| s.segments[i as usize].leaving > 0);
        if core.is_closed() || s.removing || leaving || s.is_writing(parts) {
            return Ok(Written::Skipped);
        }
        s.writing.push(parts);
        s.present.runs(parts, false)
    };
    let cost = runs.iter().map(|r| accounting::cost(&entry.layout, *r)).sum();
    let tried = store(core, entry, layout, &w, &runs, cost, space);
    match tried {
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
    let sums: Vec<_> = runs
        .iter()
        .flat_map(|run| run.iter())
        .map(|part| {
            let at = entry.layout.part(part).file;
            let bytes = &w.bytes[(at.start() - start) as usize..(at.end() - start) as usize];
            let known = w.sums.get((part.0 - w.first.0) as usize).copied().flatten();
            (part.0, known.unwrap_or_else(|| hash::blake3(bytes)))
        })
        .collect();
    let used = core.time.seconds();
    let segments = entry.segments_of(parts);
    {
        let mut s = entry.state();
        s.written(parts);
        for run in &runs {
            s.add(&entry.layout, *run);
            s.dirty.set(*run);
        }
        s.sums.extend(sums);
        for i in segments.clone() {
            s.segments[i as usize].used = used;
        }
    }
    eviction::list(core, entry, segments.map(|i| (i, used)));
    commit::note(core, entry, w.bytes.len() as u64);
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
    space: &mut Reservation,
) -> Result<(), Failed> {
    setup(core, entry, layout).map_err(Failed::Before)?;
    let path = core.full(&entry.path());
    let open = match trust::changing(core, entry, || core.file(entry, true)) {
        Ok(open) => open,
        Err(source) => {
            if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof) {
                lost(core, entry);
            }
            return Err(Failed::Before(StoreError::Disk { path, action: "open", source }));
        }
    };
    // a file that somebody cut must not grow again around what it lost
    if open.file.stat().is_ok_and(|s| s.len != entry.layout.len()) {
        lost(core, entry);
        let source = io::ErrorKind::UnexpectedEof.into();
        return Err(Failed::Before(StoreError::Disk { path, action: "write", source }));
    }
    space.need(cost).map_err(Failed::Before)?;
    space.take_data(cost);
    let first = put(core, &open, entry, w, runs);
    let done = match first {
        Err(e) if is_full(&e) => {
            // the disk has less than the limit says: make room for what is lacking, once
            let evict = || {
                let _evicting = core.eviction_lock.lock();
                eviction::oldest(core, cost, true)
            };
            let made = match evict() {
                Ok(EvictionOutcome::Uncommitted) => commit::commit(core).and_then(|()| evict()),
                other => other,
            };
            match made {
                Ok(EvictionOutcome::Freed) => put(core, &open, entry, w, runs),
                _ => Err(e),
            }
        }
        other => other,
    };
    done.map_err(|source| {
        Failed::Writing(if is_full(&source) {
            disk_full(core, cost)
        } else {
            StoreError::Disk { path, action: "write", source }
        })
    })
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
            if let Some((source, from)) = w.shared
                && copy(open, layout, source, from + skip, range)?
            {
                continue;
            }
            let bytes = &w.bytes[skip as usize..(range.end() - start) as usize];
            open.file.write_at(bytes, range.start())?;
        }
        Ok(())
    })
}

/// Shares blocks, where both sides begin at a block and end at one or with their file.
fn copy(
    open: &OpenFile,
    layout: &BlobLayout,
    source: &LocalSource,
    from: u64,
    to: FileRange,
) -> io::Result<bool> {
    let aligned = from.is_multiple_of(BLOCK)
        && to.start().is_multiple_of(BLOCK)
        && (to.end().is_multiple_of(BLOCK) || to.end() == layout.len());
    if !aligned {
        return Ok(false);
    }
    source.blob.copy_to(from, open.file.as_ref(), to)
}

/// Makes the row and the file of a blob that has none.
fn setup(core: &Arc<Core>, entry: &Arc<BlobEntry>, layout: &BlobLayout) -> Result<(), StoreError> {
    if entry.state().row.is_some() {
        return Ok(());
    }
    let _one = entry.setup.lock();
    if entry.state().row.is_some() {
        return Ok(());
    }
    if !core.lock.still_ours() {
        return Err(StoreError::disk(&core.root, "keep anything in this folder")(
            io::Error::other("another process has made its cache there"),
        ));
    }
    let overhead = entry.overhead;
    let mut space = reserve(core, overhead.total())?;
    // the row first: what is on disk has one, or is cleared away at the next start
    let row = core.write_index(Durability::Normal, |tx| {
        let row = rows::add_blob(tx, layout)?;
        // of a blob that went without the index hearing of it
        rows::forget_parts(tx, row)?;
        Ok(row)
    })?;
    let path = entry.path();
    let made = (|| {
        core.disk.make_folder(&entry.folder())?;
        let file = core.disk.open(&path, Access::Create)?;
        if file.stat()?.len > 0 {
            // left behind by a removal that failed
            file.set_len(0)?;
        }
        file.set_len(entry.layout.len())?;
        match core.disk.remove(&entry.checksums_path()) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        Ok(file)
    })();
    match made {
        Ok(file) => {
            space.convert(overhead.total(), |books| books.take_overhead(&overhead));
            trust::made(entry, file.as_ref());
            {
                let mut s = entry.state();
                s.row = Some(row);
                s.unnamed = true;
            }
            core.keep_open(entry, OpenFile { file, writable: true });
            Ok(())
        }
        Err(source) => {
            let _ = core.disk.remove(&path);
            let _ = core.write_index(Durability::Normal, |tx| rows::remove_blob(tx, row));
            let full = is_full(&source);
            Err(if full {
                disk_full(core, overhead.total())
            } else {
                StoreError::Disk { path: core.full(&path), action: "make", source }
            })
        }
    }
}

/// The file is gone or was cut: nothing of it is present any more.
pub fn lost(core: &Arc<Core>, entry: &Arc<BlobEntry>) {
    tracing::warn!(blob = %entry.key(), "a blob was changed behind our back: dropped");
    entry.state().file = None;
    if let Err(e) = removal::drop_wrong(core, entry, &[entry.layout.all_parts()]) {
        tracing::error!(error = %e, "dropping a blob that is gone");
    }
}
