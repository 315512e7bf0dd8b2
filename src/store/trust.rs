//! What a store believes of an earlier life: which parts are served as they lie on the disk, and which
//! only after their recorded checksum matched.
//!
//! When a store is opened, every part that the index claims is *unproven*. A blob is examined when it
//! is first used: if its file still looks as the index last saw it (allocated size and change time), its
//! parts are believed. If not, each part is compared with its checksum before it is first served; what
//! does not match is dropped and fetched again. The index's own word counts only if it is the index that
//! this folder was last used with, and if nothing was lost since: [`evidence`].
//!
//! Invariants: a part in `unproven` is never handed to a reader, to another blob or to the kernel. The
//! index holds a stamp of a blob only if none of its parts was unproven when the stamp was taken.
//! Concurrency: our own changes of a blob's file run under the cell's `turn`, so that a change time that
//! we did not cause is recognised. The cell's state is locked briefly, never across I/O.

use std::io;
use std::sync::Arc;

use super::cell::Cell;
use super::core::Core;
use super::disk::{DiskFile, FileStat};
use super::error::StoreError;
use super::leave;
use super::sync::lock;
use super::verify;
use crate::model::PartRange;

/// What a blob's file looked like after our last change of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Bytes that it took on disk.
    pub allocated: u64,
    /// When its content, length or mode last changed, in nanoseconds since 1970.
    pub changed: i64,
}

impl Stamp {
    /// Of a file.
    pub fn of(stat: &FileStat) -> Self {
        Self { allocated: stat.allocated, changed: stat.changed }
    }
}

/// What makes a part of an earlier life believable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// The blob's file looks as the index says.
    Stamp,
    /// The part's bytes match their checksum.
    Checksum,
}

/// How the store was left.
#[derive(Debug, Clone, Copy)]
pub struct Left {
    /// Index and folder carry the same epoch: no other index was used with this folder since.
    pub same_epoch: bool,
    /// The store was closed in good order.
    pub clean: bool,
    /// Whatever was written reached the disk or is still in the page cache: the machine has not
    /// restarted since.
    pub same_boot: bool,
}

/// Which evidence is enough. After a power cut the disk may have lost what it said was durable, so
/// only checksums count. A process that died loses nothing that it had written.
pub fn evidence(left: Left) -> Evidence {
    if left.same_epoch && (left.clean || left.same_boot) {
        Evidence::Stamp
    } else {
        Evidence::Checksum
    }
}

/// Looks once whether a blob's file is as the index last saw it; if so, all its parts are believed.
pub fn examine(core: &Core, cell: &Cell) -> io::Result<()> {
    if cell.state().examined {
        return Ok(());
    }
    let _turn = lock(&cell.turn);
    let stat = stat(core, cell)?;
    compare_stamp(cell, &stat);
    Ok(())
}

/// What a blob's file looks like now.
fn stat(core: &Core, cell: &Cell) -> io::Result<FileStat> {
    let open = cell.state().file.clone();
    match open {
        Some(open) => open.file.stat(),
        None => core.disk.stat(&cell.path()),
    }
}

/// Compares a file with its stamp. The caller has the cell's `turn`.
fn compare_stamp(cell: &Cell, stat: &FileStat) {
    let now = Stamp::of(stat);
    let mut s = cell.state();
    if !s.examined {
        s.examined = true;
        if s.stamp == Some(now) {
            s.unproven.clear(cell.layout.all_parts());
        }
    } else if s.stamp.is_some_and(|stamp| stamp.changed != now.changed) {
        // What waits for its commit has no checksum on the disk yet.
        let all = cell.layout.all_parts();
        let committed = s.committed(all);
        s.unproven.merge(&committed);
        tracing::warn!(blob = %cell.key(), "another program changed a cached file; it is compared with its checksums");
    }
    s.stamp = Some(now);
}

/// Runs a change of a blob's file, so that its new change time is known to be ours.
pub fn changing<T>(
    core: &Core,
    cell: &Cell,
    change: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    let _turn = lock(&cell.turn);
    compare_stamp(cell, &stat(core, cell)?);
    let done = change();
    cell.state().stamp = stat(core, cell).ok().as_ref().map(Stamp::of);
    done
}

/// A file that we have just made: nothing of it comes from an earlier life.
pub fn made(cell: &Cell, file: &dyn DiskFile) {
    let stamp = file.stat().ok().as_ref().map(Stamp::of);
    let mut s = cell.state();
    s.examined = true;
    s.stamp = stamp;
}

/// The stamp to keep in the index; `None` while something is unproven or the file cannot be looked at.
pub fn stamp_to_keep(core: &Core, cell: &Cell) -> Option<Stamp> {
    let _turn = lock(&cell.turn);
    compare_stamp(cell, &stat(core, cell).ok()?);
    let s = cell.state();
    s.stamp.filter(|_| s.unproven.is_empty())
}

/// Makes sure that what is present of these parts is believed: what does not match its checksum is
/// dropped. Returns at once where nothing is unproven.
pub fn prove(core: &Arc<Core>, cell: &Arc<Cell>, parts: PartRange) -> Result<(), StoreError> {
    if !cell.state().unproven.any(parts) {
        return Ok(());
    }
    // A file that is gone is noticed by the read that follows.
    let _ = examine(core, cell);
    let runs = cell.state().unproven.runs(parts, true);
    if runs.is_empty() {
        return Ok(());
    }
    let compared = verify::compare(core, cell, &runs, &mut |_| true)?;
    if !compared.wrong.is_empty() {
        let dropped = leave::drop_wrong(core, cell, &compared.wrong)?;
        tracing::error!(
            blob = %cell.key(), bytes = dropped,
            "cached bytes do not match their checksum; they are dropped and will be fetched again"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_known_epoch_without_a_power_cut_lets_stamps_count() {
        let all = [true, false];
        for same_epoch in all {
            for clean in all {
                for same_boot in all {
                    let left = Left { same_epoch, clean, same_boot };
                    let stamps = same_epoch && (clean || same_boot);
                    assert_eq!(evidence(left) == Evidence::Stamp, stamps, "{left:?}");
                }
            }
        }
    }
}
