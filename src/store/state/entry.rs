//! What is known in memory of one blob: which parts are present, which wait for their commit, who uses
//! them, and which are just being removed.
//!
//! Invariants: a part in `present` has verified bytes in the file, or is also in `unproven`; `dirty`,
//! `syncing` and `unproven` are within `present`; a part that is present and neither dirty nor syncing
//! is claimed by the index. A segment with `removals` is not written to, nor is any block that it shares
//! with a neighbour, so punching it hits nobody. Readers and holders are counted by guards.
//! Concurrency: one short lock per blob, never held across I/O on blobs; no other lock is taken inside it.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::accounting::{self, Overhead};
use super::lru::SegmentId;
use super::part_set::PartSet;
use super::plan::Evictability;
use crate::base::FileRange;
use crate::model::{BlobLayout, ContentKey, Digest, PartIx, PartRange, SegmentIx};
use crate::store::evidence::Stamp;
use crate::store::sidecar;

/// A blob in memory.
#[derive(Debug)]
pub struct BlobEntry {
    /// Its number in this process, never used for another blob.
    pub id: u32,
    /// How the file lies in it.
    pub layout: Arc<BlobLayout>,
    /// What it takes beside its data.
    pub overhead: Overhead,
    /// Held while its row and files are made.
    pub setup: Mutex<()>,
    /// Held while its file is changed: the kernel lets one writer into a file at a time, and the others
    /// would spin; and a new change time is known to be ours. Readers do not need it.
    pub write_lock: Mutex<()>,
    /// Held while parts are compared with their checksums for a reader: one at a time, since a part may
    /// be large.
    pub proof_lock: Mutex<()>,
    pinned: AtomicBool,
    state: Mutex<BlobState>,
    /// Notified when reads of a segment with a removal end.
    reads_ended: Condvar,
}

/// What changes of one segment.
#[derive(Debug, Clone, Copy, Default)]
pub struct SegmentState {
    /// Last use, in seconds.
    pub used: u32,
    /// Removals of parts of it that are under way.
    pub removals: u32,
    /// Reads under way, counted by [`ReadGuard`].
    reading: u32,
    /// Counted by [`HoldGuard`].
    holds: u32,
}

/// What changes of one blob.
#[derive(Debug, Default)]
pub struct BlobState {
    /// Readable parts.
    pub present: PartSet,
    /// Of them: not in the commit that is under way.
    pub dirty: PartSet,
    /// Of them: in the commit that is under way.
    pub syncing: PartSet,
    /// Of them: claimed by an earlier process, or changed by another program, and not yet compared with
    /// a stamp or checksum (see `engine::trust`).
    pub unproven: PartSet,
    /// Whether the file was compared with its stamp since the store was opened.
    pub examined: bool,
    /// What the file looked like after our last change of it, where that is known.
    pub stamp: Option<Stamp>,
    /// The stamp that the index has.
    pub indexed_stamp: Option<Stamp>,
    /// The index claims parts that were dropped, because it could not be changed.
    pub overclaimed: bool,
    /// How often the file was found to have been changed by another program.
    pub foreign_changes: u32,
    /// Checksums of dirty parts, for the sidecar.
    pub checksums: Vec<(u32, Digest)>,
    /// One per segment.
    pub segments: Vec<SegmentState>,
    /// Runs that are being written.
    pub writing: Vec<PartRange>,
    /// The whole blob is being removed.
    pub removing: bool,
    /// The index claims parts that are gone: the next commit rewrites all of the blob's rows.
    pub index_stale: bool,
    /// Its row in the index; it has one iff it has files.
    pub row: Option<i64>,
    /// Its names in the folder are not yet durable.
    pub name_unsynced: bool,
    /// The kernel may have been given the file to read by itself: maps made of it outlive every handle.
    pub passed_to_kernel: bool,
    /// When somebody was last found to read the file that way.
    pub found_shared: Option<Instant>,
    /// Data bytes present.
    pub data: u64,
    /// What they are counted for.
    pub cost: u64,
    /// What the file was seen to take beyond that.
    pub excess: u64,
    /// How many keep the entry in the table, counted by `table::EntryUse`.
    pub users: u32,
}

impl BlobEntry {
    /// With nothing present.
    pub fn new(id: u32, layout: Arc<BlobLayout>, pinned: bool) -> Self {
        let segments = vec![SegmentState::default(); layout.segment_count() as usize];
        Self {
            id,
            overhead: Overhead::of(&layout, sidecar::len(&layout)),
            setup: Mutex::new(()),
            write_lock: Mutex::new(()),
            proof_lock: Mutex::new(()),
            pinned: pinned.into(),
            state: Mutex::new(BlobState { segments, ..BlobState::default() }),
            reads_ended: Condvar::new(),
            layout,
        }
    }

    /// The blob's name.
    pub fn key(&self) -> ContentKey {
        self.layout.key()
    }

    /// Locks the state.
    pub fn state(&self) -> MutexGuard<'_, BlobState> {
        self.state.lock()
    }

    /// The folder of its files, relative to the store's.
    pub fn folder(&self) -> PathBuf {
        folder_of(&self.key())
    }

    /// Its file, relative to the store's folder.
    pub fn path(&self) -> PathBuf {
        self.folder().join(self.key().to_string())
    }

    /// Its sidecar.
    pub fn sidecar_path(&self) -> PathBuf {
        self.folder().join(format!("{}.sums", self.key()))
    }

    /// A segment, as the LRU list knows it.
    pub fn segment_id(&self, segment: u32) -> SegmentId {
        SegmentId { blob: self.id, segment }
    }

    /// All segments.
    pub fn all_segments(&self) -> Range<u32> {
        0..self.layout.segment_count()
    }

    /// The segments of a run of parts.
    pub fn segments_of(&self, parts: PartRange) -> Range<u32> {
        if parts.is_empty() {
            return 0..0;
        }
        let first = self.layout.segment_of(PartIx(parts.start)).0;
        first..self.layout.segment_of(PartIx(parts.end - 1)).0 + 1
    }

    /// The parts of a segment.
    pub fn parts_of(&self, segment: u32) -> PartRange {
        self.layout.parts_of_segment(SegmentIx(segment))
    }

    /// The parts that have a byte in a block of these parts.
    pub fn block_mates(&self, parts: PartRange) -> PartRange {
        let range = self.layout.file_range(parts);
        let (start, end) = (accounting::down(range.start()), accounting::up(range.end()));
        self.layout.parts_in(FileRange::new(start, end))
    }

    /// Whether it is pinned.
    pub fn is_pinned(&self) -> bool {
        self.pinned.load(Ordering::SeqCst)
    }

    /// Notes whether it is pinned. For the table.
    pub fn set_pinned(&self, pinned: bool) {
        self.pinned.store(pinned, Ordering::SeqCst);
    }

    /// Segments that have something present, with their last uses.
    pub fn present_segments(&self) -> Vec<(u32, u32)> {
        let s = self.state();
        self.all_segments()
            .filter(|i| s.present.any(self.parts_of(*i)))
            .map(|i| (i, s.segments[i as usize].used))
            .collect()
    }

    /// What stands against evicting a segment, apart from pins.
    pub fn evictability(&self, s: &BlobState, segment: u32) -> Evictability {
        let parts = self.parts_of(segment);
        let state = s.segments[segment as usize];
        if state.holds > 0 {
            Evictability::Held
        } else if state.reading > 0
            || state.removals > 0
            || s.removing
            || s.is_writing(self.block_mates(parts))
        {
            Evictability::InUse
        } else if s.waits(parts) {
            Evictability::Uncommitted
        } else {
            Evictability::Evictable
        }
    }

    /// Keeps parts from being removed while they are read. `None` if one of them is not present, or for a
    /// reader, who uses them `now`, is unproven. Also whether that is a new use.
    pub fn begin_read(&self, parts: PartRange, now: Option<u32>) -> Option<(ReadGuard<'_>, bool)> {
        let segments = self.segments_of(parts);
        let mut s = self.state();
        if !s.present.all(parts) || now.is_some() && s.unproven.any(parts) {
            return None;
        }
        let mut new_use = false;
        for segment in &mut s.segments[segments.start as usize..segments.end as usize] {
            segment.reading += 1;
            if let Some(now) = now {
                new_use |= std::mem::replace(&mut segment.used, now) != now;
            }
        }
        Some((ReadGuard { entry: self, segments }, new_use))
    }

    /// Waits until nobody reads these segments. The caller has made their parts absent, so no new read
    /// of them begins.
    pub fn wait_for_readers(&self, segments: &[u32]) {
        let mut s = self.state();
        while segments.iter().any(|i| s.segments[*i as usize].reading > 0) {
            self.reads_ended.wait(&mut s);
        }
    }

    /// Keeps segments from eviction, and notes a use of them.
    pub fn hold(self: &Arc<Self>, segments: Range<u32>, now: u32) -> HoldGuard {
        let mut s = self.state();
        for segment in &mut s.segments[segments.start as usize..segments.end as usize] {
            segment.holds += 1;
            segment.used = now;
        }
        drop(s);
        HoldGuard { entry: self.clone(), segments }
    }
}

/// The folder of a blob's files: 256 of them, so that none grows large.
pub fn folder_of(key: &ContentKey) -> PathBuf {
    PathBuf::from("blobs").join(format!("{:02x}", key.digest().as_bytes()[0]))
}

/// Keeps segments from being removed while it lives: for as long as one read.
#[derive(Debug)]
pub struct ReadGuard<'a> {
    entry: &'a BlobEntry,
    segments: Range<u32>,
}

impl ReadGuard<'_> {
    /// The segments that it keeps.
    pub fn segments(&self) -> Range<u32> {
        self.segments.clone()
    }
}

impl Drop for ReadGuard<'_> {
    fn drop(&mut self) {
        let mut s = self.entry.state();
        let mut awaited = false;
        for i in self.segments.clone() {
            let segment = &mut s.segments[i as usize];
            segment.reading -= 1;
            awaited |= segment.removals > 0;
        }
        if awaited {
            self.entry.reads_ended.notify_all();
        }
    }
}

/// Keeps segments from eviction while it lives, for however long.
#[derive(Debug)]
pub struct HoldGuard {
    entry: Arc<BlobEntry>,
    segments: Range<u32>,
}

impl HoldGuard {
    /// The segments that it keeps.
    pub fn segments(&self) -> Range<u32> {
        self.segments.clone()
    }

    /// Notes a use of them.
    pub fn set_used(&self, now: u32) {
        let mut s = self.entry.state();
        for i in self.segments.clone() {
            s.segments[i as usize].used = now;
        }
    }
}

impl Drop for HoldGuard {
    fn drop(&mut self) {
        let mut s = self.entry.state();
        for i in self.segments.clone() {
            s.segments[i as usize].holds -= 1;
        }
    }
}

fn overlap(a: PartRange, b: PartRange) -> bool {
    a.start < b.end && b.start < a.end
}

impl BlobState {
    /// Whether every part is present, proven or not.
    pub fn is_complete(&self, layout: &BlobLayout) -> bool {
        self.data == layout.len()
    }

    /// Whether nothing is present and nothing is about to be.
    pub fn is_idle_and_empty(&self) -> bool {
        self.data == 0 && self.writing.is_empty()
    }

    /// Whether nothing is lost with the entry.
    pub fn is_unused(&self) -> bool {
        self.users == 0 && self.row.is_none() && !self.removing && self.is_idle_and_empty()
    }

    /// What the index may claim of a run: present, and synced by a commit that has ended.
    pub fn committed(&self, parts: PartRange) -> PartSet {
        let mut out = PartSet::default();
        for run in self.present.runs(parts, true) {
            out.set(run);
        }
        for waiting in [&self.dirty, &self.syncing] {
            for run in waiting.runs(parts, true) {
                out.clear(run);
            }
        }
        out
    }

    /// Whether some part of the run waits for its commit.
    pub fn waits(&self, parts: PartRange) -> bool {
        self.dirty.any(parts) || self.syncing.any(parts)
    }

    /// Makes a run present. Returns what it costs beyond what was present.
    pub fn add(&mut self, layout: &BlobLayout, parts: PartRange) -> u64 {
        let mut added = 0;
        for run in self.present.runs(parts, false) {
            added += accounting::cost(layout, run);
            self.data += layout.file_range(run).len();
            self.present.set(run);
        }
        self.cost += added;
        added
    }

    /// Makes a run absent: what was present of it, and what that cost.
    pub fn take(&mut self, layout: &BlobLayout, parts: PartRange) -> (Vec<PartRange>, u64) {
        let runs = self.present.runs(parts, true);
        let mut freed = 0;
        for run in &runs {
            freed += accounting::cost(layout, *run);
            self.data -= layout.file_range(*run).len();
            self.present.clear(*run);
            self.dirty.clear(*run);
            self.syncing.clear(*run);
            self.unproven.clear(*run);
        }
        if !runs.is_empty() {
            self.checksums.retain(|(p, _)| !(parts.start..parts.end).contains(p));
        }
        self.cost -= freed;
        (runs, freed)
    }

    /// Whether a neighbour keeps a block from being punched.
    pub fn keeps(&self, parts: PartRange) -> bool {
        !parts.is_empty() && (self.present.any(parts) || self.is_writing(parts))
    }

    /// Whether a part of the run is being written.
    pub fn is_writing(&self, parts: PartRange) -> bool {
        self.writing.iter().any(|w| overlap(*w, parts))
    }

    /// Ends the writing of a run.
    pub fn end_write(&mut self, parts: PartRange) {
        if let Some(at) = self.writing.iter().position(|w| *w == parts) {
            self.writing.swap_remove(at);
        }
    }

    /// Whether something of these segments is being removed.
    pub fn is_removing_of(&self, mut segments: Range<u32>) -> bool {
        self.removing || segments.any(|i| self.segments[i as usize].removals > 0)
    }

    /// Begins a removal of parts of these segments.
    pub fn begin_removal(&mut self, segments: &[u32]) {
        segments.iter().for_each(|i| self.segments[*i as usize].removals += 1);
    }

    /// Ends it.
    pub fn end_removal(&mut self, segments: &[u32]) {
        segments.iter().for_each(|i| self.segments[*i as usize].removals -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ObjectRange;
    use crate::model::Check;

    #[test]
    fn guards_stand_against_eviction_for_as_long_as_they_live() {
        let piece = (Check::Whole, Digest::from_bytes([1; 32]), 9, ObjectRange::new(0, 9));
        let layout = Arc::new(BlobLayout::new([piece]).unwrap());
        let all = layout.all_parts();
        let entry = Arc::new(BlobEntry::new(1, layout, false));
        assert!(entry.begin_read(all, Some(7)).is_none(), "nothing is present");
        entry.state().add(&entry.layout, all);
        entry.state().unproven.set(all);
        assert!(entry.begin_read(all, Some(7)).is_none(), "it is unproven");
        assert!(entry.begin_read(all, None).is_some(), "but may be looked at");
        entry.state().unproven.clear(all);
        let evictability = || entry.evictability(&entry.state(), 0);
        let (reading, new_use) = entry.begin_read(all, Some(7)).unwrap();
        assert!(new_use && evictability() == Evictability::InUse);
        drop(reading);
        assert!(!entry.begin_read(all, Some(7)).unwrap().1, "a use within the same second");
        let hold = entry.hold(entry.segments_of(all), 8);
        assert_eq!(evictability(), Evictability::Held);
        drop(hold);
        assert_eq!(evictability(), Evictability::Evictable);
        assert_eq!(entry.present_segments(), [(0, 8)]);
    }
}
