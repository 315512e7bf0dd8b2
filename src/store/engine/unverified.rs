//! Storing an object that can be verified only when all of it is there, and that is too large for memory.
//!
//! Its bytes are written in order into the piece that is all of the object, and only this writer reads them,
//! until its caller has found that the digest over all of them matched. Then all parts become present at once.
//! What a commit has synced of them outlives the process, to be hashed again.
//!
//! Invariants: space for the whole piece is reserved before its first byte is written; a byte is accepted
//! only if it went through this writer's hands, read back or appended, in order. Concurrency: one writer per
//! piece at a time, used by one thread at a time; what an eviction, a failed sync or a lost file takes from
//! it, its next call finds out.

use std::io;
use std::sync::Arc;

use super::core::Core;
use super::removal::{self, OnFailure};
use super::reserve::{self, Reservation};
use super::{trust, writer};
use crate::model::hash::Hasher;
use crate::model::{BlobLayout, Digest, HashAlgorithm, LARGE_PART, PartIx, PartRange};
use crate::store::error::StoreError;
use crate::store::state::accounting;
use crate::store::state::entry::BlobEntry;
use crate::store::state::prefixes;
use crate::store::state::table::EntryUse;

/// Writes the unverified bytes of one piece, in order.
pub struct UnverifiedWriter {
    core: Arc<Core>,
    entry: EntryUse,
    piece: u32,
    /// Names this writer of the piece.
    id: u64,
    /// For what is not written yet.
    space: Reservation,
    total: u64,
    /// Bytes in the file.
    len: u64,
    /// Bytes that were read back or appended.
    passed: u64,
    /// The checksums of the parts that passed whole, and that of the part that is passing.
    checksums: Vec<Digest>,
    hasher: Hasher,
    /// Changes of the file by other programs, when this writer began.
    foreign_changes: u32,
}

impl std::fmt::Debug for UnverifiedWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { piece, total, len, passed, .. } = self;
        let key = self.entry.key();
        write!(f, "UnverifiedWriter({key} piece {piece}: {len} of {total}, {passed} passed)")
    }
}

fn hasher() -> Hasher {
    Hasher::new(HashAlgorithm::Blake3)
}

/// An error of the caller or of what became of the file.
fn refused(
    core: &Core,
    entry: &BlobEntry,
    action: &'static str,
    kind: io::ErrorKind,
) -> StoreError {
    StoreError::Disk { path: core.full_path(&entry.path()), action, source: kind.into() }
}

/// Begins to write a piece, or goes on with what was kept of it. `layout` is the caller's: it knows the
/// objects' published names. `None`: another writer has it, or something of it is present or is being
/// removed this instant.
pub fn begin(
    core: &Arc<Core>,
    entry: EntryUse,
    layout: &BlobLayout,
    piece: usize,
) -> Result<Option<UnverifiedWriter>, StoreError> {
    let whole = entry.layout.pieces().get(piece).filter(|piece| piece.is_whole_large());
    let Some(total) = whole.map(|piece| piece.file.len()) else {
        let action = "write unverified what is not all of an object";
        return Err(refused(core, &entry, action, io::ErrorKind::InvalidInput));
    };
    let (parts, at) = (entry.layout.parts_of_piece(piece), piece as u32);
    if entry.state().row.is_some() {
        // a change from here on is another program's; a file that is gone is found when it is opened
        let _ = trust::examine(core, &entry);
    }
    let (id, len, counted, foreign_changes) = {
        let mut s = entry.state();
        let removing = s.is_removing_of(entry.segments_of(entry.block_mates(parts)));
        if core.is_closed() || removing || s.is_writing(parts) || s.present.any(parts) {
            return Ok(None);
        }
        let Some((id, len)) = s.prefixes.begin(at) else { return Ok(None) };
        let reach = s.prefixes.get(at).map_or(0, |prefix| prefix.reach);
        (id, len, prefixes::cost(&entry.layout, at, reach), s.foreign_changes)
    };
    core.idle_prefixes.remove(entry.id, at);
    let needed = accounting::cost(&entry.layout, parts) - counted;
    let ready = reserve::reserve(core, needed).and_then(|space| {
        writer::set_up(core, &entry, layout)?;
        Ok(space)
    });
    let space = match ready {
        Ok(space) => space,
        Err(e) => {
            end(core, &entry, at, id);
            return Err(e);
        }
    };
    Ok(Some(UnverifiedWriter {
        core: core.clone(),
        entry,
        piece: at,
        id,
        space,
        total,
        len,
        passed: 0,
        checksums: Vec::with_capacity(parts.len() as usize),
        hasher: hasher(),
        foreign_changes,
    }))
}

/// A writer leaves: what it leaves is idle, or goes as far as it is of no use.
fn end(core: &Arc<Core>, entry: &Arc<BlobEntry>, piece: u32, id: u64) {
    let Some(left) = entry.state().prefixes.end(piece, id) else { return };
    if left.len > 0 {
        core.idle_prefixes.add(entry.id, piece);
    }
    if left.len == 0 || left.len < left.reach {
        // a write that failed may have left something in the parts beyond
        let whole_parts = left.len / LARGE_PART * LARGE_PART;
        discard(core, entry, piece, whole_parts);
    }
}

/// Removes the unverified bytes of a piece without a writer, all but the first `keep`, and the blob if it
/// has nothing else.
fn discard(core: &Arc<Core>, entry: &Arc<BlobEntry>, piece: u32, keep: u64) {
    if core.is_closed() {
        // nothing is changed any more; the next start sees to what the index does not say
        return;
    }
    let removed = match removal::begin_unverified(core, entry, piece, keep) {
        Some(removal) => removal::execute(core, vec![removal], OnFailure::Restore).map(drop),
        // nothing was written: a file that was made for it may be empty
        None => {
            removal::rollback(core, entry, PartRange { start: 0, end: 0 }, &[], 0);
            Ok(())
        }
    };
    if let Err(error) = removed {
        tracing::warn!(blob = %entry.key(), %error, "unverified bytes were not removed; they are evicted later");
    }
}

impl UnverifiedWriter {
    /// Bytes that are in the file: on from there it is appended.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing is in the file yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of the whole object.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Reads the next bytes that an earlier writer left, to be hashed again; how many, 0 when all were
    /// read. An error of the disk may be met by [`UnverifiedWriter::discard`].
    pub fn read_back(&mut self, buf: &mut [u8]) -> Result<usize, StoreError> {
        let n = (self.len - self.passed).min(buf.len() as u64) as usize;
        let buf = &mut buf[..n];
        let path = || self.core.full_path(&self.entry.path());
        let read = self
            .core
            .files
            .open(&self.entry, false)
            .and_then(|open| open.file.read_at(buf, self.start() + self.passed))
            .map_err(|source| StoreError::Disk { path: path(), action: "read", source })?;
        if read < n {
            return Err(self.refused("read back", io::ErrorKind::UnexpectedEof));
        }
        self.pass(buf);
        Ok(n)
    }

    /// Writes the next bytes. Everything that was kept must have been read back before. After an error of
    /// the disk the same bytes can be appended again.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let len = bytes.len() as u64;
        if self.passed < self.len || self.total - self.len < len {
            return Err(self.refused("append out of order", io::ErrorKind::InvalidInput));
        }
        let open = writer::open(&self.core, &self.entry)?;
        let taken = {
            let mut s = self.entry.state();
            let closed = self.core.is_closed();
            let mine = s.prefixes.of_writer(self.piece, self.id).filter(|_| !closed);
            let more = mine.map(|prefix| {
                let reach = prefix.reach.max(self.len + len);
                let cost = |bytes| prefixes::cost(&self.entry.layout, self.piece, bytes);
                let more = cost(reach) - cost(prefix.reach);
                (prefix.reach, prefix.writing) = (reach, true);
                more
            });
            s.cost += more.unwrap_or(0);
            more
        };
        let Some(more) = taken else { return Err(self.lost()) };
        self.space.take_data(more);
        let at = self.start() + self.len;
        let written = reserve::write_or_make_room(&self.core, len, || {
            trust::changing(&self.core, &self.entry, || open.file.write_at(bytes, at))
        });
        {
            let mut s = self.entry.state();
            s.prefixes.end_write(self.piece);
            let mine = s.prefixes.of_writer(self.piece, self.id);
            match (&written, mine) {
                (Ok(()), Some(prefix)) => prefix.len += len,
                (Ok(()), None) => {
                    drop(s);
                    return Err(self.lost());
                }
                (Err(_), _) => {}
            }
        }
        written.map_err(|source| writer::failed(&self.core, &self.entry, len, source))?;
        self.len += len;
        self.pass(bytes);
        self.core.dirty.add(&self.entry, len);
        Ok(())
    }

    /// The digest over all bytes matched: they are readable when this returns, and durable after the next
    /// commit. All of them must have been read back or appended by this writer.
    pub fn accept(self) -> Result<(), StoreError> {
        if self.passed < self.total {
            return Err(self.refused("accept what is not complete", io::ErrorKind::InvalidInput));
        }
        // as they were hashed? looks at the file once more
        trust::changing(&self.core, &self.entry, || Ok(()))
            .map_err(|source| writer::failed(&self.core, &self.entry, 0, source))?;
        let (layout, used) = (&self.entry.layout, self.core.clock.seconds());
        let parts = layout.parts_of_piece(self.piece as usize);
        let segments = self.entry.segments_of(parts);
        {
            let mut s = self.entry.state();
            if s.foreign_changes != self.foreign_changes {
                drop(s);
                let changed =
                    self.refused("accept what another program changed", io::ErrorKind::InvalidData);
                self.discard();
                return Err(changed);
            }
            if self.core.is_closed() || s.prefixes.of_writer(self.piece, self.id).is_none() {
                drop(s);
                return Err(self.lost());
            }
            s.accept_prefix(layout, self.piece);
            s.dirty.set(parts);
            s.checksums.extend((parts.start..).zip(self.checksums.iter().copied()));
            for i in segments.clone() {
                s.segments[i as usize].used = used;
            }
        }
        self.core.recency.list(&self.entry, segments.map(|i| (i, used)));
        self.core.dirty.add(&self.entry, 0);
        Ok(())
    }

    /// The bytes are of no use: they go.
    pub fn discard(self) {
        if self.entry.state().prefixes.end(self.piece, self.id).is_some() {
            discard(&self.core, &self.entry, self.piece, 0);
        }
    }

    /// Where the piece begins in the file.
    fn start(&self) -> u64 {
        self.entry.layout.pieces()[self.piece as usize].file.start()
    }

    /// Takes bytes into the checksums of their parts.
    fn pass(&mut self, mut bytes: &[u8]) {
        let first = self.entry.layout.parts_of_piece(self.piece as usize).start;
        while !bytes.is_empty() {
            let part = PartIx(first + self.checksums.len() as u32);
            let end = self.entry.layout.part(part).file.end() - self.start();
            let n = (end - self.passed).min(bytes.len() as u64);
            let (now, rest) = bytes.split_at(n as usize);
            self.hasher.update(now);
            self.passed += n;
            bytes = rest;
            if self.passed == end {
                let whole = std::mem::replace(&mut self.hasher, hasher());
                self.checksums.push(whole.finish());
            }
        }
    }

    fn refused(&self, action: &'static str, kind: io::ErrorKind) -> StoreError {
        refused(&self.core, &self.entry, action, kind)
    }

    /// The bytes were taken from this writer: the file is gone, a sync failed, or the store is closed.
    fn lost(&self) -> StoreError {
        self.refused("continue unverified bytes that were dropped", io::ErrorKind::NotFound)
    }
}

impl Drop for UnverifiedWriter {
    fn drop(&mut self) {
        end(&self.core, &self.entry, self.piece, self.id);
    }
}
