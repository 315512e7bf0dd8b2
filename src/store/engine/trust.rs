//! What a store believes of an earlier process: which parts are served as they lie on the disk, and which
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
//! Concurrency: our own changes of a blob's file run under the entry's `write_lock`, so that a change time that
//! we did not cause is recognised. The entry's state is locked briefly, never across I/O.

use std::io;
use std::sync::Arc;

use crate::model::PartRange;
use crate::store::disk::{DiskFile, FileStat};
use crate::store::engine::commit;
use crate::store::engine::core::Core;
use crate::store::engine::removal;
use crate::store::engine::verify;
use crate::store::error::StoreError;
use crate::store::state::entry::{BlobEntry, BlobState};
use crate::store::state::part_set::PartSet;

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

/// What makes a part that an earlier process stored believable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// The blob's file looks as the index says.
    Stamp,
    /// The part's bytes match their checksum.
    Checksum,
}

/// How the last process left the store.
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
pub fn examine(core: &Core, entry: &BlobEntry) -> io::Result<()> {
    if entry.state().examined {
        return Ok(());
    }
    let _turn = entry.write_lock.lock();
    compare_stamp(entry, &stat(core, entry)?);
    Ok(())
}

/// Looks whether the file that now has the blob's name is the one that we left there: the kernel is to
/// read it without us. What is not is compared with its checksums first.
pub fn examine_by_name(core: &Core, entry: &BlobEntry) -> io::Result<()> {
    let _turn = entry.write_lock.lock();
    let stat = core.disk.stat(&entry.path())?;
    if compare_stamp(entry, &stat) == Seen::Changed {
        // It may be another file than the one that is open.
        entry.state().file = None;
    }
    Ok(())
}

/// What a blob's file looks like now.
fn stat(core: &Core, entry: &BlobEntry) -> io::Result<FileStat> {
    let open = entry.state().file.clone();
    match open {
        Some(open) => open.file.stat(),
        None => core.disk.stat(&entry.path()),
    }
}

/// What became of comparing a file with its stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// It is as it was left.
    Same,
    /// Another program changed it, or its stamp is not known.
    Changed,
}

/// Compares a file with its stamp. The caller has the entry's `write_lock`.
fn compare_stamp(entry: &BlobEntry, stat: &FileStat) -> Seen {
    let now = Stamp::of(stat);
    let mut s = entry.state();
    let first = !std::mem::replace(&mut s.examined, true);
    let seen = match (first, s.stamp) {
        // What it takes on disk may change without a change of the file while it is being written.
        (false, Some(left)) if left.changed == now.changed => Seen::Same,
        (true, Some(left)) if left == now => Seen::Same,
        _ => Seen::Changed,
    };
    match (first, seen) {
        (true, Seen::Same) => s.unproven = PartSet::default(),
        (false, Seen::Changed) => {
            let present = s.present.clone();
            s.unproven.merge(&present);
            s.foreign_changes += 1;
            tracing::warn!(
                blob = %entry.key(),
                "another program changed a cached file; it is compared with its checksums"
            );
        }
        (true, Seen::Changed) | (false, Seen::Same) => {}
    }
    s.stamp = Some(now);
    seen
}

/// Runs a change of a blob's file, so that its new change time is known to be ours.
pub fn changing<T>(
    core: &Core,
    entry: &BlobEntry,
    change: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    let _turn = entry.write_lock.lock();
    compare_stamp(entry, &stat(core, entry)?);
    let done = change();
    entry.state().stamp = stat(core, entry).ok().as_ref().map(Stamp::of);
    done
}

/// A file that we have just made: nothing of it comes from an earlier process.
pub fn made(entry: &BlobEntry, file: &dyn DiskFile) {
    let stamp = file.stat().ok().as_ref().map(Stamp::of);
    let mut s = entry.state();
    s.examined = true;
    s.stamp = stamp;
}

/// The stamp to keep in the index; `None` while something that the index claims is unproven or was
/// dropped, or if the file cannot be looked at.
pub fn stamp_to_keep(core: &Core, entry: &BlobEntry) -> Option<Stamp> {
    let _turn = entry.write_lock.lock();
    compare_stamp(entry, &stat(core, entry).ok()?);
    let s = entry.state();
    s.stamp.filter(|_| s.unproven.is_empty() && !s.overclaimed)
}

/// Makes sure that what is present of these parts is believed: what does not match its checksum is
/// dropped. Returns at once where nothing is unproven.
pub fn prove(core: &Arc<Core>, entry: &Arc<BlobEntry>, parts: PartRange) -> Result<(), StoreError> {
    if !entry.state().unproven.any(parts) {
        return Ok(());
    }
    // A file that is gone is noticed by the read that follows.
    let _ = examine(core, entry);
    let _one = entry.proving.lock();
    let unproven = |s: &BlobState| s.unproven.runs(parts, true);
    if entry.state().unproven.any(parts) && entry.state().waits(parts) {
        // Checksums are on the disk from their commit on.
        commit::commit(core)?;
    }
    let runs = unproven(&entry.state());
    if runs.is_empty() {
        return Ok(());
    }
    let compared = verify::compare(core, entry, &runs, &mut |_| true)?;
    if !compared.wrong.is_empty() {
        let dropped = removal::drop_wrong(core, entry, &compared.wrong)?;
        tracing::error!(
            blob = %entry.key(), bytes = dropped,
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
