//! A blob in memory: what is fixed of it, the lock of what changes (`blob_state`), and who uses its segments.
//!
//! Invariant: readers and holders are counted by guards.
//! Concurrency: one short lock per blob, never held across I/O on blobs; no other lock is taken inside it.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::accounting::{self, Overhead};
use super::blob_state::{BlobState, SegmentState};
use super::lru::SegmentId;
use super::plan::Evictability;
use crate::base::FileRange;
use crate::model::{BlobLayout, ContentKey, PartIx, PartRange, SegmentIx};
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

    /// Waits until no reader is in these segments. The caller has made their parts absent, so no new read
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ObjectRange;
    use crate::model::{Check, Digest};

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
