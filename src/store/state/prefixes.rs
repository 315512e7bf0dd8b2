//! Bytes that lie in a blob's file and are not verified yet: the beginnings of pieces that are verified as a
//! whole.
//!
//! Invariants: a piece with a prefix has no present part and none that is being written; a prefix has at
//! most one writer; `claimed <= len <= reach`. Unverified bytes are never present: a search for
//! readable parts does not find them. Pure values: the first kind is guarded by its blob, the second by
//! its own lock.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;

use super::accounting;
use crate::base::FileRange;
use crate::model::{BlobLayout, PartRange};

/// The unverified beginning of one piece.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Prefix {
    /// Bytes that are in the file, from the start of the piece on.
    pub len: u64,
    /// Bytes that may have been written: a write that failed may have left some.
    pub reach: u64,
    /// Of `len`: synced by the commit that is under way.
    pub syncing: u64,
    /// Of `len`: what the index says.
    pub claimed: u64,
    /// The number of its writer, while it has one.
    pub writer: Option<u64>,
    /// A write is under way, of this writer or of one before.
    pub writing: bool,
}

impl Prefix {
    /// Whether it may not be evicted.
    pub fn is_busy(&self) -> bool {
        self.writer.is_some() || self.writing
    }

    /// Without what lies beyond `len`.
    fn cut(&mut self, len: u64) {
        for n in [&mut self.len, &mut self.reach, &mut self.syncing, &mut self.claimed] {
            *n = len.min(*n);
        }
    }
}

/// The parts of a piece that its first so many bytes touch.
pub fn touched(layout: &BlobLayout, piece: u32, bytes: u64) -> PartRange {
    let file = layout.pieces()[piece as usize].file;
    match bytes {
        0 => PartRange { start: 0, end: 0 },
        _ => layout.parts_in(FileRange::at(file.start(), bytes)),
    }
}

/// What the first so many bytes of a piece are counted for.
pub fn cost(layout: &BlobLayout, piece: u32, bytes: u64) -> u64 {
    accounting::cost(layout, touched(layout, piece, bytes))
}

fn overlap(a: PartRange, b: PartRange) -> bool {
    a.start < b.end && b.start < a.end
}

/// What was cut off a prefix.
#[derive(Debug)]
pub struct CutPrefix {
    /// Of which piece.
    pub piece: u32,
    /// The parts that its bytes no longer touch.
    pub parts: PartRange,
    /// What these were counted for.
    pub cost: u64,
    /// As it was.
    before: Prefix,
}

/// What is believed of a prefix that is taken from its writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Believed {
    /// What the index says: it was synced.
    Claimed,
    /// Nothing: the file is gone.
    Nothing,
}

/// The unverified beginnings of a blob's pieces.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Prefixes {
    by_piece: BTreeMap<u32, Prefix>,
    /// Pieces that had a prefix, which the index may have, and have none any more.
    stale: BTreeSet<u32>,
    last_writer: u64,
}

impl Prefixes {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_piece.is_empty()
    }

    /// The prefix of a piece.
    pub fn get(&self, piece: u32) -> Option<&Prefix> {
        self.by_piece.get(&piece)
    }

    /// The pieces that have one.
    pub fn pieces(&self) -> Vec<u32> {
        self.by_piece.keys().copied().collect()
    }

    /// All, by piece.
    pub fn all(&self) -> impl Iterator<Item = (u32, &Prefix)> {
        self.by_piece.iter().map(|(piece, prefix)| (*piece, prefix))
    }

    /// Unverified bytes.
    pub fn bytes(&self) -> u64 {
        self.by_piece.values().map(|prefix| prefix.len).sum()
    }

    /// What an earlier process left, as the index says.
    pub fn load(&mut self, piece: u32, len: u64) {
        let prefix = Prefix { len, reach: len, syncing: len, claimed: len, ..Prefix::default() };
        self.by_piece.insert(piece, prefix);
    }

    /// A writer of a piece, which may have a prefix; its number, and how long that is. `None`: there is
    /// another one.
    pub fn begin(&mut self, piece: u32) -> Option<(u64, u64)> {
        let prefix = self.by_piece.entry(piece).or_default();
        if prefix.is_busy() {
            return None;
        }
        self.last_writer += 1;
        prefix.writer = Some(self.last_writer);
        Some((self.last_writer, prefix.len))
    }

    /// The prefix of this writer, unless it was taken from it.
    pub fn of_writer(&mut self, piece: u32, writer: u64) -> Option<&mut Prefix> {
        self.by_piece.get_mut(&piece).filter(|prefix| prefix.writer == Some(writer))
    }

    /// A write has ended, even if the prefix has another writer by now.
    pub fn end_write(&mut self, piece: u32) {
        if let Some(prefix) = self.by_piece.get_mut(&piece) {
            prefix.writing = false;
        }
    }

    /// The writer ends; what it leaves, unless another one has that by now.
    pub fn end(&mut self, piece: u32, writer: u64) -> Option<Prefix> {
        let prefix = self.by_piece.get_mut(&piece)?;
        if prefix.writer == Some(writer) {
            prefix.writer = None;
        }
        let left = prefix.clone();
        if left.is_busy() {
            return None;
        }
        if left.reach == 0 {
            self.by_piece.remove(&piece);
        }
        Some(left)
    }

    /// Takes a prefix out: its bytes are verified now, or not wanted.
    pub fn remove(&mut self, piece: u32) -> Option<Prefix> {
        let prefix = self.by_piece.remove(&piece)?;
        self.stale.insert(piece);
        Some(prefix)
    }

    /// Shortens a prefix without a writer to its first `keep` bytes, which end with a part.
    pub fn cut(&mut self, layout: &BlobLayout, piece: u32, keep: u64) -> Option<CutPrefix> {
        let prefix = self.by_piece.get_mut(&piece).filter(|prefix| !prefix.is_busy())?;
        if keep >= prefix.reach {
            return None;
        }
        let before = prefix.clone();
        prefix.cut(keep);
        if keep == 0 {
            self.remove(piece);
        }
        let first = layout.parts_of_piece(piece as usize).start;
        let start = touched(layout, piece, keep).end.max(first);
        let parts = PartRange { start, end: touched(layout, piece, before.reach).end };
        Some(CutPrefix { piece, parts, cost: accounting::cost(layout, parts), before })
    }

    /// Puts back what was cut.
    pub fn restore(&mut self, cut: &CutPrefix) {
        self.stale.remove(&cut.piece);
        self.by_piece.insert(cut.piece, cut.before.clone());
    }

    /// Takes a prefix from its writer, which keeps nothing of it that `believed` says is not there.
    pub fn revoke(&mut self, piece: u32, believed: Believed) {
        if let Some(prefix) = self.by_piece.get_mut(&piece) {
            prefix.writer = None;
            prefix.len = if believed == Believed::Claimed { prefix.claimed } else { 0 };
            prefix.syncing = prefix.syncing.min(prefix.len);
        }
    }

    /// Whether these parts belong to a prefix: touched by one that is idle, or anywhere in a piece that is
    /// being written.
    pub fn has(&self, layout: &BlobLayout, parts: PartRange) -> bool {
        self.all().any(|(piece, prefix)| {
            let taken = match prefix.is_busy() {
                true => layout.parts_of_piece(piece as usize),
                false => touched(layout, piece, prefix.reach),
            };
            overlap(taken, parts)
        })
    }

    /// The pieces with a prefix that have one of these parts.
    pub fn pieces_of(&self, layout: &BlobLayout, parts: PartRange) -> Vec<u32> {
        let has = |piece: &u32| overlap(layout.parts_of_piece(*piece as usize), parts);
        self.by_piece.keys().copied().filter(has).collect()
    }

    /// Whether the next commit has something to sync or to say of them.
    pub fn waits_for_commit(&self) -> bool {
        !self.stale.is_empty() || self.by_piece.values().any(|p| p.len != p.claimed)
    }

    /// Whether the index may have prefixes that are gone.
    pub fn are_stale(&self) -> bool {
        !self.stale.is_empty()
    }

    /// Whether the file has nothing of them that the index does not say.
    pub fn are_recorded(&self) -> bool {
        let recorded =
            |p: &Prefix| !p.writing && p.len > 0 && p.len == p.claimed && p.len == p.reach;
        self.stale.is_empty() && self.by_piece.values().all(recorded)
    }

    /// What was written so far is synced by the commit that begins.
    pub fn begin_sync(&mut self) {
        self.by_piece.values_mut().for_each(|prefix| prefix.syncing = prefix.len);
    }

    /// What the index is to say now, where it says something else, or of `all`: `(piece, bytes)`. Only what
    /// was synced.
    pub fn unrecorded(&self, all: bool) -> Vec<(u32, u64)> {
        let gone = self.stale.iter().filter(|piece| !self.by_piece.contains_key(piece));
        let there = self.by_piece.iter().filter(|(_, p)| all || p.syncing != p.claimed);
        gone.map(|piece| (*piece, 0)).chain(there.map(|(piece, p)| (*piece, p.syncing))).collect()
    }

    /// What the index says of these pieces: of those that were cut, with what is left of them.
    pub fn claims(&self, pieces: impl IntoIterator<Item = u32>) -> Vec<(u32, u64)> {
        let claimed = |piece| self.by_piece.get(&piece).map_or(0, |p: &Prefix| p.claimed);
        pieces.into_iter().map(|piece| (piece, claimed(piece))).collect()
    }

    /// The index says so.
    pub fn recorded(&mut self, said: &[(u32, u64)]) {
        for (piece, len) in said {
            match self.by_piece.get_mut(piece) {
                // it may have been cut meanwhile
                Some(prefix) => prefix.claimed = prefix.len.min(*len),
                None if *len > 0 => continue,
                None => {}
            }
            self.stale.remove(piece);
        }
    }

    /// The blob has no row in the index any more.
    pub fn forget_rows(&mut self) {
        self.stale.clear();
    }
}

/// The prefixes without a writer, the one that was left longest ago first. Concurrency: one lock, inside
/// which nothing else is taken.
#[derive(Debug, Default)]
pub struct IdlePrefixes {
    order: Mutex<Vec<(u32, u32)>>,
}

impl IdlePrefixes {
    /// Adds the prefix of a piece of the blob with this number, as the newest.
    pub fn add(&self, blob: u32, piece: u32) {
        let mut order = self.order.lock();
        order.retain(|known| *known != (blob, piece));
        order.push((blob, piece));
    }

    /// It has a writer, or is gone.
    pub fn remove(&self, blob: u32, piece: u32) {
        self.order.lock().retain(|known| *known != (blob, piece));
    }

    /// All: `(blob, piece)`.
    pub fn all(&self) -> Vec<(u32, u32)> {
        self.order.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ObjectRange;
    use crate::model::{Check, Digest, LARGE_PART};

    const LEN: u64 = 3 * LARGE_PART + 5;

    fn layout() -> BlobLayout {
        let piece =
            |check, n, len| (check, Digest::from_bytes([n; 32]), len, ObjectRange::new(0, len));
        BlobLayout::new([piece(Check::Whole, 1, 100), piece(Check::WholeLarge, 2, LEN)]).unwrap()
    }

    fn parts(start: u32, end: u32) -> PartRange {
        PartRange { start, end }
    }

    /// With `len` bytes of piece 1 written, and a writer.
    fn written(len: u64) -> (Prefixes, u64) {
        let mut all = Prefixes::default();
        let (writer, before) = all.begin(1).unwrap();
        assert_eq!(before, 0);
        let prefix = all.of_writer(1, writer).unwrap();
        (prefix.len, prefix.reach) = (len, len);
        (all, writer)
    }

    #[test]
    fn a_piece_has_one_writer_who_leaves_what_was_written() {
        let (mut all, first) = written(7);
        assert!(all.begin(1).is_none() && all.of_writer(1, first + 1).is_none());
        assert!(all.has(&layout(), parts(4, 5)), "all of the piece while it is written");
        assert_eq!(all.end(1, first).unwrap().len, 7);
        assert!(all.has(&layout(), parts(1, 2)) && !all.has(&layout(), parts(2, 5)));
        assert!(!all.has(&layout(), parts(0, 1)));
        let (second, before) = all.begin(1).unwrap();
        assert_eq!(before, 7);
        assert!(all.end(1, first).is_none(), "another writer has it by now");
        all.end(1, second).unwrap();
        let (third, _) = written(0);
        let mut all = third;
        assert_eq!(all.end(1, 1).unwrap().reach, 0);
        assert!(all.is_empty(), "nothing was written");
    }

    #[test]
    fn what_is_cut_ends_with_a_part_and_can_be_put_back() {
        let (layout, (mut all, writer)) = (layout(), written(2 * LARGE_PART + 9));
        assert!(all.cut(&layout, 1, 0).is_none(), "it is being written");
        all.end(1, writer).unwrap();
        let cut = all.cut(&layout, 1, LARGE_PART).unwrap();
        assert_eq!((cut.parts, cut.cost), (parts(2, 4), accounting::cost(&layout, parts(2, 4))));
        assert_eq!(all.bytes(), LARGE_PART);
        assert!(all.cut(&layout, 1, LARGE_PART).is_none(), "there is no more");
        all.restore(&cut);
        assert_eq!(all.bytes(), 2 * LARGE_PART + 9);
        let cut = all.cut(&layout, 1, 0).unwrap();
        assert_eq!((cut.parts, all.is_empty(), all.are_stale()), (parts(1, 4), true, true));
        all.restore(&cut);
        assert!(!all.are_stale());
    }

    #[test]
    fn the_index_is_told_what_was_synced_and_what_is_gone() {
        let (mut all, writer) = written(7);
        assert!(all.waits_for_commit() && all.unrecorded(false).is_empty(), "not synced yet");
        all.begin_sync();
        let prefix = all.of_writer(1, writer).unwrap();
        (prefix.len, prefix.reach) = (9, 9);
        let said = all.unrecorded(false);
        assert_eq!(said, [(1, 7)]);
        all.recorded(&said);
        assert!(all.waits_for_commit() && !all.are_recorded() && all.unrecorded(false).is_empty());
        assert_eq!(all.unrecorded(true), [(1, 7)]);
        all.revoke(1, Believed::Claimed);
        assert_eq!(all.get(1).map(|prefix| (prefix.len, prefix.reach)), Some((7, 9)));
        all.remove(1).unwrap();
        assert_eq!(all.unrecorded(false), [(1, 0)]);
        // a commit that had begun before says what it knew
        all.recorded(&[(1, 7)]);
        assert_eq!(all.unrecorded(false), [(1, 0)], "it is still to be said");
        all.recorded(&[(1, 0)]);
        assert!(!all.waits_for_commit() && all.are_recorded());
    }

    #[test]
    fn a_prefix_that_was_cut_while_it_was_recorded_is_not_claimed_beyond_its_end() {
        let (layout, (mut all, writer)) = (layout(), written(2 * LARGE_PART));
        all.end(1, writer).unwrap();
        all.begin_sync();
        let said = all.unrecorded(false);
        all.cut(&layout, 1, LARGE_PART).unwrap();
        all.recorded(&said);
        assert_eq!(all.claims([1]), [(1, LARGE_PART)]);
    }

    #[test]
    fn the_one_left_longest_ago_goes_first() {
        let idle = IdlePrefixes::default();
        for (blob, piece) in [(1, 0), (2, 0), (1, 3), (2, 0)] {
            idle.add(blob, piece);
        }
        assert_eq!(idle.all(), [(1, 0), (1, 3), (2, 0)]);
        idle.remove(1, 3);
        assert_eq!(idle.all(), [(1, 0), (2, 0)]);
    }
}
