//! Comparing stored parts with the checksums that were recorded when they were written.
//!
//! Invariant: what does not match, or cannot be read, is dropped before this returns. Reads like
//! any reader: nothing is held between two parts, and what is only checked is not kept in the page cache.

use std::io;
use std::sync::Arc;

use super::core::Core;
use super::reader::{self, Purpose, READ};
use super::{checksums, removal, reserve, trust};
use crate::model::{ContentKey, PartRange, hash};
use crate::store::disk::Access;
use crate::store::error::StoreError;
use crate::store::state::blob_state::BlobState;
use crate::store::state::entry::BlobEntry;
use crate::store::types::{ReadState, Verified};

/// Verifies these blobs; `progress` gets (bytes done, bytes in all) and says whether to go on.
pub fn verify(
    core: &Arc<Core>,
    keys: &[ContentKey],
    progress: &dyn Fn(u64, u64) -> bool,
) -> Result<Verified, StoreError> {
    reserve::commit(core)?;
    let entries: Vec<_> = keys.iter().filter_map(|key| core.table.get(key)).collect();
    let all: u64 = entries.iter().map(|c| c.state().data).sum();
    let mut out = Verified::default();
    let mut done = 0;
    let mut go_on = progress(0, all);
    for entry in entries {
        if !go_on {
            break;
        }
        let Compared { wrong, checked } = check(core, &entry, &mut |bytes| {
            done += bytes;
            go_on = progress(done.min(all), all);
            go_on
        })?;
        out.checked.0 += checked;
        if !wrong.is_empty() {
            let dropped = removal::invalidate(core, &entry, &wrong)?;
            tracing::error!(
                blob = %entry.key(), bytes = dropped,
                "cached bytes are not what was stored; they are dropped and will be fetched again"
            );
            out.dropped.0 += dropped;
            out.damaged.push(entry.key());
        }
    }
    Ok(out)
}

/// The result of comparing parts with their checksums.
#[derive(Debug, Default)]
struct Compared {
    /// Those that do not match, or cannot be read.
    wrong: Vec<PartRange>,
    /// Bytes that were compared.
    checked: u64,
}

fn check(
    core: &Arc<Core>,
    entry: &Arc<BlobEntry>,
    progress: &mut dyn FnMut(u64) -> bool,
) -> Result<Compared, StoreError> {
    // what waits for its commit has no slot yet
    let all = entry.layout.all_parts();
    let committed = entry.state().committed(all).runs(all, true);
    let out = compare(core, entry, &committed, progress)?;
    if let Some(open) = core.files.get(entry) {
        open.file.forget(0, entry.layout.len());
    }
    Ok(out)
}

/// Compares committed parts with their checksums, until `progress`, which is told how many bytes each
/// had, wants no more. Those that match are proven. Nothing is dropped yet.
fn compare(
    core: &Arc<Core>,
    entry: &Arc<BlobEntry>,
    runs: &[PartRange],
    progress: &mut dyn FnMut(u64) -> bool,
) -> Result<Compared, StoreError> {
    // what is compared from here on is of the file as it looks now; one that is gone reads as wrong
    let _ = trust::examine(core, entry);
    let mut out = Compared::default();
    let cannot = || StoreError::disk(&core.full_path(&entry.sidecar_path()), "read the checksums");
    // without checksums nothing matches; checksums that cannot be read say nothing
    let sidecar = match core.disk.open(&entry.sidecar_path(), Access::Read) {
        Ok(file) => Some(file),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(cannot()(e)),
    };
    let changes = entry.state().foreign_changes;
    let mut buf = Vec::new();
    'all: for chunk in runs.iter().flat_map(|run| checksums::chunks(*run)) {
        let slots = match &sidecar {
            Some(file) => {
                Some(checksums::read(file.as_ref(), &entry.layout, chunk).map_err(cannot())?)
            }
            None => None,
        };
        for part in chunk.iter() {
            let file = entry.layout.part(part).file;
            let one = PartRange { start: part.0, end: part.0 + 1 };
            buf.resize(file.len() as usize, 0);
            let mut read =
                || reader::read_or_fail(core, entry, file.start(), &mut buf, Purpose::Check);
            // an error of the medium may be temporary
            let state = read().or_else(|_| read());
            let good = match state {
                // evicted meanwhile
                Ok(ReadState::Miss) => continue,
                Ok(ReadState::Hit) => {
                    let want = slots.as_ref().and_then(|s| s[(part.0 - chunk.start) as usize]);
                    want == Some(hash::blake3(&buf))
                }
                Err(StoreError::Disk { action: READ, .. }) => false,
                Err(e) => return Err(e),
            };
            out.checked += file.len();
            if good {
                let mut s = entry.state();
                if s.foreign_changes == changes {
                    s.unproven.clear(one);
                }
            } else {
                match out.wrong.last_mut() {
                    Some(run) if run.end == part.0 => run.end += 1,
                    _ => out.wrong.push(one),
                }
            }
            if !progress(file.len()) {
                break 'all;
            }
        }
    }
    let s = entry.state();
    let believable = s.unproven.is_empty() && s.stamp != s.indexed_stamp;
    drop(s);
    if believable {
        // the index may say from now on that the file is as it looks
        core.dirty.add(entry, 0);
    }
    Ok(out)
}

/// Makes sure that what is present of these parts is believed: what does not match its checksum is
/// dropped. Returns at once where nothing is unproven.
pub fn prove(core: &Arc<Core>, entry: &Arc<BlobEntry>, parts: PartRange) -> Result<(), StoreError> {
    if !entry.state().unproven.any(parts) {
        return Ok(());
    }
    // A file that is gone is noticed by the read that follows.
    let _ = trust::examine(core, entry);
    let _proving = entry.proof_lock.lock();
    let unproven = |s: &BlobState| s.unproven.runs(parts, true);
    if entry.state().unproven.any(parts) && entry.state().waits(parts) {
        // Checksums are on the disk from their commit on.
        reserve::commit(core)?;
    }
    let runs = unproven(&entry.state());
    if runs.is_empty() {
        return Ok(());
    }
    let compared = compare(core, entry, &runs, &mut |_| true)?;
    if !compared.wrong.is_empty() {
        let dropped = removal::invalidate(core, entry, &compared.wrong)?;
        tracing::error!(
            blob = %entry.key(), bytes = dropped,
            "cached bytes do not match their checksum; they are dropped and will be fetched again"
        );
    }
    Ok(())
}
