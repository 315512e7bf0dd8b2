//! A blob in use: reading it, writing it, keeping it.
//!
//! Invariant: a read returns bytes only of parts that were present and proven when it began and cannot
//! be taken away before it ends. What is said to be present or missing may be unproven; reading it is
//! a miss then, if it turns out to be wrong. Concurrency: a read takes the blob's own lock twice,
//! briefly, and no lock of the store but once a second per segment.

use std::io;
use std::sync::{Arc, Weak};

use crate::base::{FileRange, ObjectRange};
use crate::model::{BlobLayout, ContentKey, Digest, PartIx, PartRange};
use crate::store::disk::DiskFile;
use crate::store::engine::commit;
use crate::store::engine::core::Core;
use crate::store::engine::removal;
use crate::store::engine::reserve::Reservation;
use crate::store::engine::trust;
use crate::store::engine::writer::{self, Write};
use crate::store::error::StoreError;
use crate::store::state::accounting;
use crate::store::state::entry::BlobEntry;
use crate::store::types::{ReadState, Written};

/// What a blob's disk is said to have failed at, when it failed at that.
pub(super) const READ: &str = "read";
/// How much is read at once of what may be unreadable.
const PIECE: u64 = 1 << 20;

/// Whether a read counts as a use of what it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// Somebody wants the bytes.
    Counts,
    /// They are only looked over: what nobody uses must still grow old.
    No,
}

/// What came of looking at parts on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    /// It was done.
    Hit,
    /// Something is not present.
    Miss,
    /// The file is gone, or was cut.
    Lost,
}

/// A blob in use: at most one value per content key lives at a time, shared.
#[derive(Debug)]
pub struct Blob {
    core: Arc<Core>,
    entry: Arc<BlobEntry>,
    layout: Arc<BlobLayout>,
}

/// Keeps parts of a blob from being evicted while it lives.
#[derive(Debug)]
pub struct Hold {
    blob: Arc<Blob>,
    segments: std::ops::Range<u32>,
    /// A use when it ends, too.
    touches: bool,
}

/// Present bytes of an object in some blob, kept from eviction while this lives.
#[derive(Debug)]
pub struct LocalSource {
    /// The blob.
    pub blob: Arc<Blob>,
    /// Where in the object.
    pub object: ObjectRange,
    /// Where in the blob.
    pub file: FileRange,
    /// What keeps it.
    pub hold: Hold,
}

/// The handle of a entry: the one that lives, else a new one with this layout; whether it is new.
pub fn handle(core: &Arc<Core>, layout: &Arc<BlobLayout>) -> (Arc<Blob>, bool) {
    let mut blobs = core.blobs.lock();
    let key = layout.key();
    if let Some(blob) = blobs.handles.get(&key).and_then(Weak::upgrade) {
        return (blob, false);
    }
    let entry = blobs.entry(layout);
    let blob = Arc::new(Blob { core: core.clone(), entry, layout: layout.clone() });
    blobs.handles.insert(key, Arc::downgrade(&blob));
    (blob, true)
}

impl Drop for Blob {
    fn drop(&mut self) {
        self.core.blobs.lock().forget_if_unused(&self.entry);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let entry = &self.blob.entry;
        let now = self.blob.core.time.seconds();
        let mut s = entry.state();
        for i in self.segments.clone() {
            let seg = &mut s.segments[i as usize];
            seg.holds -= 1;
            if self.touches {
                seg.used = now;
            }
        }
        drop(s);
        if self.touches {
            self.blob.core.touch(entry, self.segments.clone());
        }
    }
}

impl Blob {
    /// How the file lies in it. Of files that share the blob, the layout of the first that asked.
    pub fn layout(&self) -> &BlobLayout {
        &self.layout
    }

    /// Its name.
    pub fn key(&self) -> ContentKey {
        self.entry.key()
    }

    pub(super) fn entry(&self) -> &Arc<BlobEntry> {
        &self.entry
    }

    /// Whether every part is present, and nothing has to be compared with its checksum any more.
    pub fn is_complete(&self) -> bool {
        let complete = || {
            let s = self.entry.state();
            (s.is_complete(&self.layout), s.unproven.is_empty())
        };
        match complete() {
            (true, false) => {
                // A file that is gone is noticed by the read that follows.
                let _ = trust::examine(&self.core, &self.entry);
                complete() == (true, true)
            }
            (all, _) => all,
        }
    }

    /// Whether a range can be read without comparing anything with its checksum first. The range must lie
    /// in the file.
    pub fn is_proven(&self, range: FileRange) -> bool {
        let parts = self.layout.parts_in(range);
        let proven = || !self.entry.state().unproven.any(parts);
        proven() || trust::examine(&self.core, &self.entry).is_ok() && proven()
    }

    /// Compares what is unproven of these parts with its checksums, and drops what does not match. Reads
    /// all of it from the disk.
    pub fn prove(&self, parts: PartRange) -> Result<(), StoreError> {
        trust::prove(&self.core, &self.entry, parts)
    }

    /// Data bytes present.
    pub fn present_bytes(&self) -> u64 {
        self.entry.state().data
    }

    /// Whether this part is present.
    pub fn is_present(&self, part: PartIx) -> bool {
        self.entry.state().present.get(part.0)
    }

    /// The runs of parts of `parts` that are not present.
    pub fn missing(&self, parts: PartRange) -> Vec<PartRange> {
        self.entry.state().present.runs(parts, false)
    }

    /// The runs of parts of `parts` that are present.
    pub fn present(&self, parts: PartRange) -> Vec<PartRange> {
        self.entry.state().present.runs(parts, true)
    }

    /// The most space that storing these parts can take on disk: whole blocks.
    pub fn cost(&self, parts: PartRange) -> u64 {
        accounting::cost(&self.layout, parts)
    }

    /// Fills `buf` from `offset` if every part of it is present, in one `pread`. The range must lie
    /// in the file. A blob that turns out cut short on disk loses the parts and is a miss; so are
    /// parts that the disk cannot read any more.
    pub fn read(&self, offset: u64, buf: &mut [u8]) -> Result<ReadState, StoreError> {
        let range = FileRange::at(offset, buf.len() as u64);
        if range.end() <= self.layout.len() {
            self.prove(self.layout.parts_in(range))?;
        }
        match self.read_or_fail(offset, buf, Use::Counts) {
            Err(StoreError::Disk { action: READ, source, .. }) => {
                self.drop_unreadable(range, source)?;
                Ok(ReadState::Miss)
            }
            other => other,
        }
    }

    /// The same, but what cannot be read stays and is an error.
    pub(super) fn read_or_fail(
        &self,
        offset: u64,
        buf: &mut [u8],
        use_of: Use,
    ) -> Result<ReadState, StoreError> {
        let range = FileRange::at(offset, buf.len() as u64);
        if range.end() > self.layout.len() {
            let wrong = StoreError::disk(&self.path(), "read beyond the end");
            return Err(wrong(io::ErrorKind::InvalidInput.into()));
        }
        if range.is_empty() {
            return Ok(ReadState::Hit);
        }
        let read = |file: &dyn DiskFile| file.read_at(buf, offset).map(|n| n == buf.len());
        match self.with_present(range, use_of, read)? {
            Access::Hit => Ok(ReadState::Hit),
            Access::Miss => Ok(ReadState::Miss),
            Access::Lost => {
                writer::lost(&self.core, &self.entry);
                Ok(ReadState::Miss)
            }
        }
    }

    /// Drops the parts of a range that fail to be read once more, so that they are fetched again. If
    /// none does, the trouble has passed.
    fn drop_unreadable(&self, range: FileRange, first: io::Error) -> Result<(), StoreError> {
        let mut buffer = Vec::new();
        let mut bad = Vec::new();
        for part in self.layout.parts_in(range).iter() {
            let file = self.layout.part(part).file;
            let piece = |at: u64| FileRange::new(at, file.end().min(at + PIECE));
            let unreadable = (file.start()..file.end()).step_by(PIECE as usize).any(|at| {
                buffer.resize(piece(at).len() as usize, 0);
                let read = self.read_or_fail(at, &mut buffer, Use::No);
                matches!(read, Err(StoreError::Disk { action: READ, .. }))
            });
            if unreadable {
                bad.push(PartRange { start: part.0, end: part.0 + 1 });
            }
        }
        let (error, parts) = (&first, bad.len());
        tracing::error!(blob = %self.key(), %range, %error, parts, "the disk cannot read a blob");
        removal::drop_wrong(&self.core, &self.entry, &bad).map(drop)
    }

    fn path(&self) -> std::path::PathBuf {
        self.core.full(&self.entry.path())
    }

    /// Runs `f` on the file while every part of the range is present and stays. `f` says whether
    /// the file had all of it; if not, or if it is gone, its parts are lost. For a reader every part has
    /// to be proven, too.
    fn with_present(
        &self,
        range: FileRange,
        use_of: Use,
        f: impl FnOnce(&dyn DiskFile) -> io::Result<bool>,
    ) -> Result<Access, StoreError> {
        let parts = self.layout.parts_in(range);
        let segments = self.entry.segments_of(parts);
        let now = self.core.time.seconds();
        let (open, fresh) = {
            let mut s = self.entry.state();
            if !s.present.all(parts) || use_of == Use::Counts && s.unproven.any(parts) {
                return Ok(Access::Miss);
            }
            let mut fresh = false;
            for seg in &mut s.segments[segments.start as usize..segments.end as usize] {
                seg.reading += 1;
                if use_of == Use::Counts {
                    fresh |= std::mem::replace(&mut seg.used, now) != now;
                }
            }
            (s.file.clone(), fresh)
        };
        let opened = open.map_or_else(|| self.core.file(&self.entry, false), Ok);
        let action = if opened.is_ok() { READ } else { "open" };
        let done = opened.and_then(|open| f(open.file.as_ref()));
        {
            let mut s = self.entry.state();
            let mut leaving = false;
            for seg in &mut s.segments[segments.start as usize..segments.end as usize] {
                seg.reading -= 1;
                leaving |= seg.leaving > 0;
            }
            if leaving {
                self.entry.quiet.notify_all();
            }
        }
        match done {
            Ok(true) => {
                if fresh {
                    self.core.touch(&self.entry, segments);
                }
                Ok(Access::Hit)
            }
            Ok(false) => Ok(Access::Lost),
            Err(e)
                if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof) =>
            {
                Ok(Access::Lost)
            }
            Err(e) => Err(StoreError::disk(&self.path(), action)(e)),
        }
    }

    /// Copies present and proven bytes into another blob's file; `false` if the disk did not. Changes
    /// nothing of this blob: the caller has the other one's `write_lock`, which may be this one's.
    pub(super) fn copy_to(
        &self,
        from: u64,
        file: &dyn DiskFile,
        to: FileRange,
    ) -> io::Result<bool> {
        let range = FileRange::at(from, to.len());
        if range.end() > self.layout.len() {
            return Ok(false);
        }
        let mut copied = Ok(false);
        let state = self.with_present(range, Use::Counts, |source| {
            copied = file.copy_from(source, from, to.start(), to.len());
            Ok(true)
        });
        match state {
            Ok(Access::Hit) => copied,
            _ => Ok(false),
        }
    }

    /// Stores consecutive parts from `first` on, whose verified bytes are `bytes`, taking their
    /// cost from the reservation. `sums` has the BLAKE3 of each part where the caller knows it; what
    /// is not there is computed. Readable when it returns, durable after the commit.
    pub fn write(
        &self,
        first: PartIx,
        bytes: &[u8],
        sums: &[Option<Digest>],
        space: &mut Reservation,
    ) -> Result<Written, StoreError> {
        let w = Write { first, bytes, sums, shared: None };
        writer::write(&self.core, &self.entry, &self.layout, w, space)
    }

    /// Like `write` of bytes that a source has on disk at an offset of its blob: shares the blocks
    /// where the disk can (`bytes` are what was just read from there and verified), else writes them.
    pub fn write_shared(
        &self,
        first: PartIx,
        bytes: &[u8],
        sums: &[Option<Digest>],
        source: (&LocalSource, u64),
        space: &mut Reservation,
    ) -> Result<Written, StoreError> {
        let w = Write { first, bytes, sums, shared: Some(source) };
        writer::write(&self.core, &self.entry, &self.layout, w, space)
    }

    /// Keeps what is present of these parts from eviction, and counts as their use.
    pub fn hold(self: &Arc<Self>, parts: PartRange) -> Hold {
        let hold = self.hold_segments(self.entry.segments_of(parts), false);
        self.core.touch(&self.entry, hold.segments.clone());
        hold
    }

    fn hold_segments(self: &Arc<Self>, segments: std::ops::Range<u32>, touches: bool) -> Hold {
        let now = self.core.time.seconds();
        let mut s = self.entry.state();
        for i in segments.clone() {
            let seg = &mut s.segments[i as usize];
            seg.holds += 1;
            seg.used = now;
        }
        drop(s);
        Hold { blob: self.clone(), segments, touches }
    }

    /// A read-only descriptor of the complete file, for the kernel to read by itself; the hold
    /// keeps all of it and touches it now and when dropped. `None` while something is missing or
    /// unproven, or if the disk is none of the operating system's. Commits first what is not yet committed: the
    /// file must stay whole even if this process dies while the kernel reads it. For as long as
    /// the kernel has it open, no other process evicts of it either.
    pub fn complete_file(self: &Arc<Self>) -> Result<Option<(std::fs::File, Hold)>, StoreError> {
        let all = self.layout.all_parts();
        let hold = self.hold_segments(self.entry.segments_of(all), true);
        if !self.is_complete() {
            return Ok(None);
        }
        if self.entry.state().waits(all) {
            commit::commit(&self.core)?;
        }
        // A file that is gone is noticed when it is opened.
        let _ = trust::examine_by_name(&self.core, &self.entry);
        if !self.is_complete() {
            return Ok(None);
        }
        match self.core.disk.open_shared(&self.entry.path()) {
            Ok(Some(file)) => {
                let whole = file.metadata().is_ok_and(|m| m.len() == self.layout.len());
                if !whole || !self.core.lock.still_ours() {
                    writer::lost(&self.core, &self.entry);
                    return Ok(None);
                }
                self.entry.state().passed = true;
                self.core.touch(&self.entry, hold.segments.clone());
                // still complete? a failed sync may have taken something
                Ok(self.is_complete().then_some((file, hold)))
            }
            Ok(None) => Ok(None),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                writer::lost(&self.core, &self.entry);
                Ok(None)
            }
            Err(e) => Err(StoreError::disk(&self.path(), "open")(e)),
        }
    }
}
