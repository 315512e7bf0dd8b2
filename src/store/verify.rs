//! Re-hashing what is stored against what it hashed to when it was written.
//!
//! Invariant: what does not match, or cannot be read, is dropped before this returns. Reads like
//! any reader: nothing is held between two parts, and what is read is not kept in the page cache.

use std::io;
use std::sync::Arc;

use super::blob::{Use, handle};
use super::cell::Cell;
use super::core::Core;
use super::disk::{Access, DiskFile};
use super::error::StoreError;
use super::sync::lock;
use super::types::{ReadState, Verified};
use super::{commit, leave, sums};
use crate::base::hash;
use crate::base::units::ByteSize;
use crate::model::{BlobLayout, ContentKey, PartRange};

/// Slots read at once: 32 KiB of them.
const SLOTS: u32 = 1024;

/// Verifies these blobs; `progress` gets (bytes done, bytes in all) and says whether to go on.
pub fn verify(
    core: &Arc<Core>,
    keys: &[ContentKey],
    progress: &dyn Fn(u64, u64) -> bool,
) -> Result<Verified, StoreError> {
    commit::commit(core)?;
    let cells: Vec<Arc<Cell>> = {
        let blobs = lock(&core.blobs);
        keys.iter().filter_map(|k| blobs.by_key.get(k).cloned()).collect()
    };
    let all: u64 = cells.iter().map(|c| c.state().data).sum();
    let mut out = Verified::default();
    let mut done = 0;
    let mut go_on = progress(0, all);
    for cell in cells {
        if !go_on {
            break;
        }
        let wrong = check(core, &cell, &mut |bytes| {
            done += bytes;
            go_on = progress(done.min(all), all);
            go_on
        })?;
        out.checked.0 += wrong.checked;
        if !wrong.parts.is_empty() {
            let dropped = leave::drop_wrong(core, &cell, &wrong.parts)?;
            tracing::error!(
                blob = %cell.key(), bytes = dropped,
                "cached bytes are not what was stored; they are dropped and will be fetched again"
            );
            out.dropped = ByteSize(out.dropped.0 + dropped);
            out.damaged.push(cell.key());
        }
    }
    Ok(out)
}

struct Wrong {
    parts: Vec<PartRange>,
    checked: u64,
}

fn check(
    core: &Arc<Core>,
    cell: &Arc<Cell>,
    progress: &mut dyn FnMut(u64) -> bool,
) -> Result<Wrong, StoreError> {
    let (blob, _) = handle(core, &cell.layout);
    let mut out = Wrong { parts: Vec::new(), checked: 0 };
    let sidecar = core.disk.open(&cell.sums_path(), Access::Read);
    let mut buf = Vec::new();
    // what waits for its commit has no slot yet
    let mut committed = Vec::new();
    {
        let s = cell.state();
        for run in s.committed(cell.layout.all_parts()).runs(cell.layout.all_parts(), true) {
            committed.extend(
                (run.start..run.end)
                    .step_by(SLOTS as usize)
                    .map(|start| PartRange { start, end: (start + SLOTS).min(run.end) }),
            );
        }
    }
    'blob: for chunk in committed {
        let slots = match &sidecar {
            Ok(file) => sums::read(file.as_ref(), &cell.layout, chunk).ok(),
            Err(_) => None,
        };
        for part in chunk.iter() {
            let file = cell.layout.part(part).file;
            buf.resize(file.len() as usize, 0);
            let good = match blob.read_or_fail(file.start(), &mut buf, Use::No) {
                // evicted meanwhile
                Ok(ReadState::Miss) => continue,
                Ok(ReadState::Hit) => {
                    let want = slots.as_ref().and_then(|s| s[(part.0 - chunk.start) as usize]);
                    want == Some(hash::blake3(&buf))
                }
                Err(_) => false,
            };
            out.checked += file.len();
            if !good {
                match out.parts.last_mut() {
                    Some(run) if run.end == part.0 => run.end += 1,
                    _ => out.parts.push(PartRange { start: part.0, end: part.0 + 1 }),
                }
            }
            if !progress(file.len()) {
                break 'blob;
            }
        }
    }
    if let Some(open) = cell.state().file.clone() {
        open.file.forget(0, cell.layout.len());
    }
    Ok(out)
}

/// The runs of parts whose bytes in `data` match their slots in `sums`: what a rebuild believes.
pub fn matching(
    layout: &BlobLayout,
    data: &dyn DiskFile,
    sums: &dyn DiskFile,
) -> io::Result<Vec<PartRange>> {
    let mut out: Vec<PartRange> = Vec::new();
    let mut buf = Vec::new();
    let mut start = 0;
    while start < layout.part_count() {
        let chunk = PartRange { start, end: start.saturating_add(SLOTS).min(layout.part_count()) };
        start = chunk.end;
        for (part, slot) in chunk.iter().zip(sums::read(sums, layout, chunk)?) {
            let Some(slot) = slot else { continue };
            let file = layout.part(part).file;
            buf.resize(file.len() as usize, 0);
            let whole = data.read_at(&mut buf, file.start()).is_ok_and(|n| n == buf.len());
            if whole && hash::blake3(&buf) == slot {
                match out.last_mut() {
                    Some(run) if run.end == part.0 => run.end += 1,
                    _ => out.push(PartRange { start: part.0, end: part.0 + 1 }),
                }
            }
        }
    }
    data.forget(0, layout.len());
    Ok(out)
}
