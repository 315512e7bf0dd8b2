//! What a store believes of an earlier process: which parts are served as they lie on the disk, and which
//! only after their recorded checksum matched (`verify`).
//!
//! When a store is opened, every part that the index claims is *unproven*. A blob is examined when it
//! is first used: if its file still looks as the index last saw it (allocated size and change time), its
//! parts are believed. If not, each part is compared with its checksum before it is first served; what
//! does not match is dropped and fetched again. The index's own word counts only if it is the index that
//! this folder was last used with, and if nothing was lost since: `evidence`.
//!
//! Invariants: a part in `unproven` is never handed to a reader, to another blob or to the kernel. The
//! index holds a stamp of a blob only if none of its parts was unproven when the stamp was taken.
//! Concurrency: our own changes of a blob's file run under its `write_lock`, so that a change time that
//! we did not cause is recognised. A blob's state is locked briefly, never across I/O.

use std::io;

use super::core::Core;
use crate::store::disk::{DiskFile, FileStat};
use crate::store::evidence::Stamp;
use crate::store::state::entry::BlobEntry;
use crate::store::state::part_set::PartSet;

/// Looks once whether a blob's file is as the index last saw it; if so, all its parts are believed.
pub fn examine(core: &Core, entry: &BlobEntry) -> io::Result<()> {
    if entry.state().examined {
        return Ok(());
    }
    let _writing = entry.write_lock.lock();
    compare_stamp(entry, &stat(core, entry)?);
    Ok(())
}

/// Looks whether the file that now has the blob's name is the one that we left there: the kernel is to
/// read it without us. If it is another one, it is compared with its checksums first.
pub fn examine_by_name(core: &Core, entry: &BlobEntry) -> io::Result<()> {
    let _writing = entry.write_lock.lock();
    let stat = core.disk.stat(&entry.path())?;
    if compare_stamp(entry, &stat) == Seen::Changed {
        // It may be another file than the one that is open.
        core.files.close(entry);
    }
    Ok(())
}

/// What a blob's file looks like now.
fn stat(core: &Core, entry: &BlobEntry) -> io::Result<FileStat> {
    match core.files.get(entry) {
        Some(open) => open.file.stat(),
        None => core.disk.stat(&entry.path()),
    }
}

/// The result of comparing a file with its stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// It is as it was left.
    Same,
    /// Another program changed it, or its stamp is not known.
    Changed,
}

/// Compares a file with its stamp. The caller has the blob's `write_lock`.
fn compare_stamp(entry: &BlobEntry, stat: &FileStat) -> Seen {
    let now = stat.stamp();
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
    let _writing = entry.write_lock.lock();
    compare_stamp(entry, &stat(core, entry)?);
    let done = change();
    entry.state().stamp = stat(core, entry).ok().map(|stat| stat.stamp());
    done
}

/// Notes a file that was just made: nothing of it comes from an earlier process.
pub fn made(entry: &BlobEntry, file: &dyn DiskFile) {
    let stamp = file.stat().ok().map(|stat| stat.stamp());
    let mut s = entry.state();
    s.examined = true;
    s.stamp = stamp;
}

/// The stamp to keep in the index; `None` while something that the index claims is unproven or was
/// dropped, or if the file cannot be looked at.
pub fn stamp_to_keep(core: &Core, entry: &BlobEntry) -> Option<Stamp> {
    let _writing = entry.write_lock.lock();
    compare_stamp(entry, &stat(core, entry).ok()?);
    let s = entry.state();
    s.stamp.filter(|_| s.unproven.is_empty() && !s.overclaimed)
}
