//! What is known in memory of one blob: which parts are present, which wait for their commit, who
//! uses them, and which are just being taken away.
//!
//! Invariants: a part in `present` has verified bytes in the file, or is also in `unproven`; `dirty`,
//! `syncing` and `unproven` are within `present`, and what is in neither of the first two is claimed by
//! the index. A segment marked `leaving` is not
//! written to, nor is any block that it shares with a neighbour, so punching it hits nobody.
//! Concurrency: one short lock per blob, never held across I/O; inside it no other lock is taken.

use parking_lot::{Condvar, Mutex, MutexGuard};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::base::FileRange;
use crate::model::{BlobLayout, ContentKey, Digest, PartIx, PartRange, SegmentIx};
use crate::store::disk::DiskFile;
use crate::store::engine::checksums;
use crate::store::engine::trust::Stamp;
use crate::store::state::accounting::{self, Overhead};
use crate::store::state::lru::SegmentId;
use crate::store::state::part_set::PartSet;

/// A blob in memory.
#[derive(Debug)]
pub struct BlobEntry {
    /// Its number in this process, for the LRU list.
    pub id: u32,
    /// How the file lies in it.
    pub layout: Arc<BlobLayout>,
    /// What it takes beside its data.
    pub overhead: Overhead,
    /// Whether somebody pinned it.
    pub pinned: AtomicBool,
    /// Held while its row and files are made.
    pub setup: Mutex<()>,
    /// Held while its file is changed: the kernel lets one writer into a file at a time, and those
    /// that wait for it there spin; and a change time is known to be ours. Readers do not need it.
    pub write_lock: Mutex<()>,
    /// Held while parts are compared with their checksums for a reader: one at a time, since a part may
    /// be large.
    pub proving: Mutex<()>,
    state: Mutex<BlobState>,
    /// Told when readers leave a segment that is leaving.
    pub quiet: Condvar,
}

/// An open blob file.
#[derive(Debug, Clone)]
pub struct OpenFile {
    /// The file.
    pub file: Arc<dyn DiskFile>,
    /// Whether it may be written.
    pub writable: bool,
}

/// Of one segment.
#[derive(Debug, Clone, Copy, Default)]
pub struct SegmentState {
    /// Last use, in seconds.
    pub used: u32,
    /// Reads under way.
    pub reading: u32,
    /// Holds.
    pub holds: u32,
    /// How many are taking parts of it away.
    pub leaving: u32,
}

/// What changes.
#[derive(Debug, Default)]
pub struct BlobState {
    /// Readable parts.
    pub present: PartSet,
    /// Of them: not in the commit that is under way.
    pub dirty: PartSet,
    /// Of them: in the commit that is under way.
    pub syncing: PartSet,
    /// Of them: claimed by an earlier process, or changed by another program, and not yet found to be right (see `trust`).
    pub unproven: PartSet,
    /// Whether the file was compared with its stamp since the store was opened.
    pub examined: bool,
    /// What the file looked like after our last change of it, where that is known.
    pub stamp: Option<Stamp>,
    /// The stamp that the index has.
    pub stamp_kept: Option<Stamp>,
    /// The index claims parts that were dropped: it could not be told.
    pub overclaimed: bool,
    /// How often the file was found to have been changed by another program.
    pub foreign_changes: u32,
    /// What dirty parts hashed to, for the sidecar.
    pub sums: Vec<(u32, Digest)>,
    /// One per segment.
    pub segments: Vec<SegmentState>,
    /// Runs that are just being written.
    pub writing: Vec<PartRange>,
    /// The whole blob is being removed.
    pub removing: bool,
    /// The index claims parts that are gone: the next commit says all of the blob anew.
    pub behind: bool,
    /// Its row in the index; it has one iff it has files.
    pub row: Option<i64>,
    /// Its names in the folder are not yet durable.
    pub unnamed: bool,
    /// Its file, if open.
    pub file: Option<OpenFile>,
    /// The kernel may have been given it to read by itself: maps made of it outlive every handle.
    pub passed: bool,
    /// When it was last found that somebody reads it so.
    pub shared: Option<Instant>,
    /// Data bytes present.
    pub data: u64,
    /// What they are counted for.
    pub cost: u64,
    /// What the file was seen to take beyond that.
    pub excess: u64,
}

impl BlobEntry {
    /// With nothing present.
    pub fn new(id: u32, layout: Arc<BlobLayout>, pinned: bool) -> Self {
        let segments = vec![SegmentState::default(); layout.segment_count() as usize];
        Self {
            id,
            overhead: Overhead::of(&layout, checksums::len(&layout)),
            pinned: pinned.into(),
            setup: Mutex::new(()),
            write_lock: Mutex::new(()),
            proving: Mutex::new(()),
            state: Mutex::new(BlobState { segments, ..BlobState::default() }),
            quiet: Condvar::new(),
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
    pub fn checksums_path(&self) -> PathBuf {
        self.folder().join(format!("{}.sums", self.key()))
    }

    /// A segment, as the LRU list knows it.
    pub fn segment_id(&self, segment: u32) -> SegmentId {
        SegmentId { blob: self.id, segment }
    }

    /// The segments of a run of parts.
    pub fn segments_of(&self, parts: PartRange) -> std::ops::Range<u32> {
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
        self.layout
            .parts_in(FileRange::new(accounting::down(range.start()), accounting::up(range.end())))
    }

    /// Whether somebody pinned it.
    pub fn is_pinned(&self) -> bool {
        self.pinned.load(Ordering::SeqCst)
    }
}

/// The folder of a blob's files: 256 of them, so that none grows large.
pub fn folder_of(key: &ContentKey) -> PathBuf {
    PathBuf::from("blobs").join(format!("{:02x}", key.digest().as_bytes()[0]))
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
            self.sums.retain(|(p, _)| !(parts.start..parts.end).contains(p));
        }
        self.cost -= freed;
        (runs, freed)
    }

    /// Whether a neighbour keeps a block from being punched.
    pub fn keeps(&self, parts: PartRange) -> bool {
        !parts.is_empty()
            && (self.present.any(parts)
                || self.writing.iter().any(|w| w.start < parts.end && parts.start < w.end))
    }

    /// Whether a part of the run is just being written.
    pub fn is_writing(&self, parts: PartRange) -> bool {
        self.writing.iter().any(|w| w.start < parts.end && parts.start < w.end)
    }

    /// Ends the writing of a run.
    pub fn written(&mut self, parts: PartRange) {
        if let Some(at) = self.writing.iter().position(|w| *w == parts) {
            self.writing.swap_remove(at);
        }
    }
}
