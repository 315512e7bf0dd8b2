//! What changes of one blob: which parts are present, which wait for their commit, which bytes are not
//! verified yet.
//!
//! Invariants: a part in `present` has verified bytes in the file, or is also in `unproven`; `dirty`,
//! `syncing` and `unproven` are within `present`; a part that is present and neither dirty nor syncing
//! is claimed by the index. Unverified bytes (`prefixes`) are in no part of `present`. A segment with
//! `removals` is not written to, nor is any block that it shares with a neighbour, so punching it harms
//! no reader. Plain values; `entry` guards them.

use std::ops::Range;
use std::time::Instant;

use super::accounting;
use super::part_set::PartSet;
use super::prefixes::{self, CutPrefix, Prefixes};
use crate::model::{BlobLayout, Digest, PartRange};
use crate::store::evidence::Stamp;

/// What changes of one segment.
#[derive(Debug, Clone, Copy, Default)]
pub struct SegmentState {
    /// Last use, in seconds.
    pub used: u32,
    /// Removals of parts of it that are under way.
    pub removals: u32,
    /// Reads under way, counted by `entry::ReadGuard`.
    pub(super) reading: u32,
    /// Counted by `entry::HoldGuard`.
    pub(super) holds: u32,
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
    /// Bytes in the file that are not verified yet.
    pub prefixes: Prefixes,
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
    /// When a process was last found to read the file that way.
    pub found_shared: Option<Instant>,
    /// Data bytes present.
    pub data: u64,
    /// What they and unverified bytes are counted for.
    pub cost: u64,
    /// What the file was seen to take beyond that.
    pub excess: u64,
    /// How many keep the entry in the table, counted by `table::EntryUse`.
    pub users: u32,
}

fn overlap(a: PartRange, b: PartRange) -> bool {
    a.start < b.end && b.start < a.end
}

impl BlobState {
    /// Whether every part is present, proven or not.
    pub fn is_complete(&self, layout: &BlobLayout) -> bool {
        self.data == layout.len()
    }

    /// Whether bytes are in the file, verified or not.
    pub fn holds_bytes(&self) -> bool {
        self.data > 0 || !self.prefixes.is_empty()
    }

    /// Whether nothing is there and nothing is about to be.
    pub fn is_idle_and_empty(&self) -> bool {
        self.data == 0 && self.writing.is_empty() && self.prefixes.is_empty()
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

    /// Takes the unverified bytes of a piece beyond the first `keep` away, if they have no writer.
    pub fn cut_prefix(&mut self, layout: &BlobLayout, piece: u32, keep: u64) -> Option<CutPrefix> {
        let cut = self.prefixes.cut(layout, piece, keep)?;
        self.cost -= cut.cost;
        Some(cut)
    }

    /// Puts unverified bytes back.
    pub fn restore_prefix(&mut self, cut: &CutPrefix) {
        self.prefixes.restore(cut);
        self.cost += cut.cost;
    }

    /// Makes unverified bytes verified: all parts of the piece, which are now present.
    pub fn accept_prefix(&mut self, layout: &BlobLayout, piece: u32) {
        if let Some(prefix) = self.prefixes.remove(piece) {
            self.cost -= prefixes::cost(layout, piece, prefix.reach);
            self.add(layout, layout.parts_of_piece(piece as usize));
        }
    }

    /// Whether a neighbour keeps a block from being punched.
    pub fn keeps(&self, layout: &BlobLayout, parts: PartRange) -> bool {
        let has_something = || {
            self.present.any(parts) || self.is_writing(parts) || self.prefixes.has(layout, parts)
        };
        !parts.is_empty() && has_something()
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
