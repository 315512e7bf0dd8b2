//! Reading parts that are present.
//!
//! Invariant: a read returns bytes only of parts that were present, and for a reader proven, when it
//! began; a guard keeps them until it ends. Concurrency: a read takes the blob's own lock twice, briefly,
//! and of the store the lock of open files, and once a second per segment that of the LRU list.

use std::io;
use std::sync::Arc;

use super::core::Core;
use super::removal;
use crate::base::FileRange;
use crate::model::PartRange;
use crate::store::disk::DiskFile;
use crate::store::error::StoreError;
use crate::store::state::entry::BlobEntry;
use crate::store::types::ReadState;

/// The action of the error when the disk failed to read.
pub const READ: &str = "read";
/// Bytes read at once of what may be unreadable.
const PIECE: u64 = 1 << 20;

/// Whether a read counts as a use of what it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A reader wants the bytes: it is a use, and all of them must be proven.
    Use,
    /// They are only checked: unused bytes must still age.
    Check,
}

/// The result of looking at parts on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    /// It was done.
    Hit,
    /// Something is not present.
    Miss,
    /// The file is gone, or was cut.
    Lost,
}

/// Fills `buf` from `offset` if every part of it is present and proven. Parts of a file that was cut, and
/// parts that the disk cannot read any more, are dropped and are a miss.
pub fn read(
    core: &Arc<Core>,
    entry: &Arc<BlobEntry>,
    offset: u64,
    buf: &mut [u8],
) -> Result<ReadState, StoreError> {
    let range = FileRange::at(offset, buf.len() as u64);
    match read_or_fail(core, entry, offset, buf, Purpose::Use) {
        Err(StoreError::Disk { action: READ, source, .. }) => {
            drop_unreadable(core, entry, range, source)?;
            Ok(ReadState::Miss)
        }
        other => other,
    }
}

/// The same, but what cannot be read stays and is an error.
pub fn read_or_fail(
    core: &Arc<Core>,
    entry: &Arc<BlobEntry>,
    offset: u64,
    buf: &mut [u8],
    purpose: Purpose,
) -> Result<ReadState, StoreError> {
    let range = FileRange::at(offset, buf.len() as u64);
    if range.end() > entry.layout.len() {
        let path = core.full_path(&entry.path());
        let source = io::ErrorKind::InvalidInput.into();
        return Err(StoreError::Disk { path, action: "read beyond the end", source });
    }
    if range.is_empty() {
        return Ok(ReadState::Hit);
    }
    let read = |file: &dyn DiskFile| file.read_at(buf, offset).map(|n| n == buf.len());
    match with_present(core, entry, range, purpose, read)? {
        Access::Hit => Ok(ReadState::Hit),
        Access::Miss => Ok(ReadState::Miss),
        Access::Lost => {
            removal::invalidate_all(core, entry);
            Ok(ReadState::Miss)
        }
    }
}

/// Drops the parts of a range that fail to be read once more, so that they are fetched again. If none
/// does, the error was temporary.
fn drop_unreadable(
    core: &Arc<Core>,
    entry: &Arc<BlobEntry>,
    range: FileRange,
    first: io::Error,
) -> Result<(), StoreError> {
    let mut buffer = Vec::new();
    let mut bad = Vec::new();
    for part in entry.layout.parts_in(range).iter() {
        let file = entry.layout.part(part).file;
        let piece = |at: u64| FileRange::new(at, file.end().min(at + PIECE));
        let unreadable = (file.start()..file.end()).step_by(PIECE as usize).any(|at| {
            buffer.resize(piece(at).len() as usize, 0);
            let read = read_or_fail(core, entry, at, &mut buffer, Purpose::Check);
            matches!(read, Err(StoreError::Disk { action: READ, .. }))
        });
        if unreadable {
            bad.push(PartRange { start: part.0, end: part.0 + 1 });
        }
    }
    let (error, parts) = (&first, bad.len());
    tracing::error!(blob = %entry.key(), %range, %error, parts, "the disk cannot read a blob");
    removal::invalidate(core, entry, &bad).map(drop)
}

/// Runs `f` on the file while every part of the range is present and stays. `f` says whether the file
/// had all of it; if not, or if it is gone, its parts are lost.
fn with_present(
    core: &Arc<Core>,
    entry: &Arc<BlobEntry>,
    range: FileRange,
    purpose: Purpose,
    f: impl FnOnce(&dyn DiskFile) -> io::Result<bool>,
) -> Result<Access, StoreError> {
    let parts = entry.layout.parts_in(range);
    let now = (purpose == Purpose::Use).then(|| core.clock.seconds());
    let Some((reading, new_use)) = entry.begin_read(parts, now) else { return Ok(Access::Miss) };
    let segments = reading.segments();
    let opened = core.files.open(entry, false);
    let action = if opened.is_ok() { READ } else { "open" };
    let done = opened.and_then(|open| f(open.file.as_ref()));
    drop(reading);
    match done {
        Ok(true) => {
            if new_use {
                core.touch(entry, segments);
            }
            Ok(Access::Hit)
        }
        Ok(false) => Ok(Access::Lost),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof) => {
            Ok(Access::Lost)
        }
        Err(source) => {
            Err(StoreError::Disk { path: core.full_path(&entry.path()), action, source })
        }
    }
}

/// Copies present and proven bytes into another blob's file; `false` if the disk did not. Changes
/// nothing of this blob: the caller has the other one's `write_lock`, which may be this one's.
pub fn copy_to(
    core: &Arc<Core>,
    entry: &Arc<BlobEntry>,
    from: u64,
    file: &dyn DiskFile,
    to: FileRange,
) -> io::Result<bool> {
    let range = FileRange::at(from, to.len());
    if range.end() > entry.layout.len() {
        return Ok(false);
    }
    let mut copied = Ok(false);
    let state = with_present(core, entry, range, Purpose::Use, |source| {
        copied = file.copy_from(source, from, to.start(), to.len());
        Ok(true)
    });
    match state {
        Ok(Access::Hit) => copied,
        _ => Ok(false),
    }
}
