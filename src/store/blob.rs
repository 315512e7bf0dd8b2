//! A blob in use: reading it, writing it, keeping it.
//!
//! Invariant: a read returns bytes only of parts that were present and proven when it began and cannot
//! be removed before it ends. What is said to be present or missing may be unproven; reading it is
//! a miss then, if it turns out to be wrong. Concurrency: any thread; one handle per content key lives at
//! a time, shared by all who use the blob. The lock of the handles is taken before that of the table.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::disk::DiskFile;
use super::engine::core::Core;
use super::engine::reserve::{self, Reservation};
use super::engine::unverified::{self, UnverifiedWriter};
use super::engine::writer::{self, DiskCopy, Write};
use super::engine::{checksums, reader, removal, trust, verify};
use super::error::StoreError;
use super::state::accounting;
use super::state::entry::{BlobEntry, HoldGuard};
use super::state::table::EntryUse;
use super::types::{ReadState, Written};
use crate::base::{FileRange, ObjectRange};
use crate::model::{BlobLayout, ContentKey, Digest, PartIx, PartRange};

/// The handles that live.
#[derive(Debug, Default)]
pub struct Handles {
    by_key: Mutex<HashMap<ContentKey, Weak<Blob>>>,
}

impl Handles {
    /// The handle of a blob: the one that lives, else a new one with this layout; whether it is new.
    pub(super) fn get(
        self: &Arc<Self>,
        core: &Arc<Core>,
        layout: &Arc<BlobLayout>,
    ) -> (Arc<Blob>, bool) {
        let mut by_key = self.by_key.lock();
        let key = layout.key();
        if let Some(blob) = by_key.get(&key).and_then(Weak::upgrade) {
            return (blob, false);
        }
        let entry = core.table.acquire(layout);
        let (core, layout, handles) = (core.clone(), layout.clone(), self.clone());
        let blob = Arc::new(Blob { core, entry, layout, handles });
        by_key.insert(key, Arc::downgrade(&blob));
        (blob, true)
    }
}

/// A blob in use: at most one value per content key lives at a time, shared.
#[derive(Debug)]
pub struct Blob {
    core: Arc<Core>,
    entry: EntryUse,
    layout: Arc<BlobLayout>,
    handles: Arc<Handles>,
}

impl Drop for Blob {
    fn drop(&mut self) {
        let mut by_key = self.handles.by_key.lock();
        // another one may have been made after the last user of this one dropped it
        if by_key.get(&self.key()).is_some_and(|handle| handle.strong_count() == 0) {
            by_key.remove(&self.key());
        }
    }
}

/// Keeps parts of a blob from being evicted while it lives.
#[derive(Debug)]
pub struct Hold {
    segments: HoldGuard,
    /// A use when it ends, too.
    touches: bool,
    /// Keeps the store's lock, and the blob in the table.
    blob: Arc<Blob>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.touches {
            let core = &self.blob.core;
            self.segments.set_used(core.clock.seconds());
            core.touch(&self.blob.entry, self.segments.segments());
        }
    }
}

/// Present bytes of an object in some blob, kept from eviction while this lives.
#[derive(Debug)]
pub struct LocalCopy {
    /// The blob.
    pub blob: Arc<Blob>,
    /// Where in the object.
    pub object: ObjectRange,
    /// Where in the blob.
    pub file: FileRange,
    /// What keeps it.
    pub hold: Hold,
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
        verify::prove(&self.core, &self.entry, parts)
    }

    /// Data bytes present.
    pub fn present_bytes(&self) -> u64 {
        self.entry.state().data
    }

    /// Bytes in the file that are not verified yet.
    pub fn unverified_bytes(&self) -> u64 {
        self.entry.state().prefixes.bytes()
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
        reader::read(&self.core, &self.entry, offset, buf)
    }

    /// Stores consecutive parts from `first` on, whose verified bytes are `bytes`, taking their
    /// cost from the reservation. `checksums` has the BLAKE3 of each part where the caller knows it; the
    /// others are computed. Readable when it returns, durable after the commit.
    pub fn write(
        &self,
        first: PartIx,
        bytes: &[u8],
        checksums: &[Option<Digest>],
        space: &mut Reservation,
    ) -> Result<Written, StoreError> {
        let w = Write { first, bytes, checksums, copy: None };
        writer::write(&self.core, &self.entry, &self.layout, w, space)
    }

    /// Like `write` of bytes that another blob has on disk, at an offset of that blob: shares the blocks
    /// where the disk can (`bytes` are what was just read from there and verified), else writes them.
    pub fn write_shared(
        &self,
        first: PartIx,
        bytes: &[u8],
        checksums: &[Option<Digest>],
        local: (&LocalCopy, u64),
        space: &mut Reservation,
    ) -> Result<Written, StoreError> {
        let (local, from) = local;
        let copy = |from: u64, file: &dyn DiskFile, to: FileRange| {
            reader::copy_to(&local.blob.core, &local.blob.entry, from, file, to)
        };
        let copy = Some(DiskCopy { from, copy: &copy });
        let w = Write { first, bytes, checksums, copy };
        writer::write(&self.core, &self.entry, &self.layout, w, space)
    }

    /// Writes a piece that is all of its object and is verified as a whole, or goes on with what was kept of
    /// it: space for what it lacks is reserved now. `None`: another writer has it, or something of it is
    /// present already, of which the rest can be verified by [`Blob::learned`].
    pub fn begin_unverified(&self, piece: usize) -> Result<Option<UnverifiedWriter>, StoreError> {
        let entry = self.core.table.acquire(&self.layout);
        unverified::begin(&self.core, entry, &self.layout, piece)
    }

    /// The BLAKE3 of each of these parts, as far as they were verified before: a part that was evicted since
    /// can be verified by it, as long as something of the blob is there.
    pub fn learned(&self, parts: PartRange) -> Result<Vec<Option<Digest>>, StoreError> {
        checksums::learned(&self.core, &self.entry, parts)
    }

    /// Keeps what is present of these parts from eviction, and counts as their use.
    pub fn hold(self: &Arc<Self>, parts: PartRange) -> Hold {
        let hold = self.hold_segments(parts, false);
        self.core.touch(&self.entry, hold.segments.segments());
        hold
    }

    fn hold_segments(self: &Arc<Self>, parts: PartRange, touches: bool) -> Hold {
        let segments = self.entry.segments_of(parts);
        let segments = self.entry.hold(segments, self.core.clock.seconds());
        Hold { segments, touches, blob: self.clone() }
    }

    /// A read-only descriptor of the complete file, for the kernel to read by itself; the hold
    /// keeps all of it and touches it now and when dropped. `None` while something is missing or
    /// unproven, or if the disk is not the operating system's. Commits first what is not yet committed:
    /// the file must stay whole even if this process dies while the kernel reads it. For as long as
    /// the kernel has it open, no other process evicts of it either.
    pub fn complete_file(self: &Arc<Self>) -> Result<Option<(std::fs::File, Hold)>, StoreError> {
        let all = self.layout.all_parts();
        let hold = self.hold_segments(all, true);
        if !self.is_complete() {
            return Ok(None);
        }
        if self.entry.state().waits(all) {
            reserve::commit(&self.core)?;
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
                    removal::invalidate_all(&self.core, &self.entry);
                    return Ok(None);
                }
                self.entry.state().passed_to_kernel = true;
                self.core.touch(&self.entry, hold.segments.segments());
                // still complete? a failed sync may have dropped something
                Ok(self.is_complete().then_some((file, hold)))
            }
            Ok(None) => Ok(None),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                removal::invalidate_all(&self.core, &self.entry);
                Ok(None)
            }
            Err(source) => {
                let path = self.core.full_path(&self.entry.path());
                Err(StoreError::Disk { path, action: "open", source })
            }
        }
    }
}
