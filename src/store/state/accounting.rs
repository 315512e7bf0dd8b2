//! What everything takes on disk, and what is promised: the arithmetic of `used <= limit`.
//!
//! Invariant: nothing is ever counted for less than it can take; a promise is only given when it fits;
//! names and documents have a headroom that data never gets. Pure values; the engine keeps one
//! `Accounting` behind one short lock.

use crate::base::FileRange;
use crate::model::{BlobLayout, PartIx, PartRange};

/// The unit in which file systems allocate: 4 KiB on ext4, XFS, btrfs and APFS by default.
pub const BLOCK: u64 = 4 << 10;
/// What of a limit is kept for names and documents, whatever data there is: a sixteenth, at least
/// what a version of some thousand files takes, at most what a hundred thousand versions take.
const HEADROOM_SHARE: u64 = 16;
const LEAST_HEADROOM: u64 = 1 << 20;
const MOST_HEADROOM: u64 = 256 << 20;
/// The least room for data: a leaf of a megabyte, a few times over.
const LEAST_DATA: u64 = 4 << 20;
/// The smallest limit: it leaves room for data beside the index and its headroom.
pub const MIN_LIMIT: u64 =
    (SKELETON + INDEX_FLOOR + LEAST_HEADROOM + LEAST_DATA).next_multiple_of(1 << 20);
/// The folder, `blobs/`, the lock and the epoch: a block each, and one spare.
const SKELETON: u64 = 5 * BLOCK;
/// The least that the index is counted for: an empty one with its log at its usual full size.
const INDEX_FLOOR: u64 = 2 << 20;

/// Up to the next block.
pub fn up(n: u64) -> u64 {
    n.saturating_add(BLOCK - 1) / BLOCK * BLOCK
}

/// Down to the block that has it.
pub fn down(n: u64) -> u64 {
    n / BLOCK * BLOCK
}

/// The most that these parts take: each rounded outward to whole blocks, so that it adds up part
/// by part and a block that two parts share is counted for both.
pub fn cost(layout: &BlobLayout, parts: PartRange) -> u64 {
    if parts.is_empty() {
        return 0;
    }
    let range = layout.file_range(parts);
    up(range.end()) - down(range.start()) + BLOCK * unaligned_boundaries(layout, parts)
}

/// Boundaries between the parts of a run that lie within a block.
fn unaligned_boundaries(layout: &BlobLayout, parts: PartRange) -> u64 {
    let (mut count, mut at) = (0, parts.start);
    while at < parts.end {
        let first = layout.part(PartIx(at));
        let piece = layout.parts_of_piece(first.piece);
        let end = piece.end.min(parts.end);
        // the boundary before this run of parts of one piece
        count += u64::from(at > parts.start && !first.file.start().is_multiple_of(BLOCK));
        if layout.pieces()[first.piece].part_size().is_multiple_of(BLOCK) {
            // all inner boundaries of a piece are alike
            count += u64::from(end - at - 1) * u64::from(!first.file.end().is_multiple_of(BLOCK));
        } else {
            count += (at + 1..end)
                .filter(|p| !layout.part(PartIx(*p)).file.start().is_multiple_of(BLOCK))
                .count() as u64;
        }
        at = end;
    }
    count
}

/// What to punch so that a run of absent parts takes nothing: a block that it shares with a taken
/// neighbour stays, one that it shares with an absent neighbour goes. May be empty.
pub fn punch_range(
    layout: &BlobLayout,
    parts: PartRange,
    taken: impl Fn(PartRange) -> bool,
) -> FileRange {
    let range = layout.file_range(parts);
    let before = layout.parts_in(FileRange::new(down(range.start()), range.start()));
    let after = layout.parts_in(FileRange::new(range.end(), up(range.end())));
    let start = if taken(before) { up(range.start()) } else { down(range.start()) };
    let end = if taken(after) { down(range.end()) } else { up(range.end()) };
    FileRange::new(start, end)
}

/// What a blob takes beside its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Overhead {
    /// Directory entries, sidecar, the file system's map of a sparse file.
    pub files: u64,
    /// Of it: that map, counted within the blob file's own blocks.
    pub map: u64,
    /// Rows in the index.
    pub index: u64,
}

impl Overhead {
    /// Of a blob with this layout and a sidecar of that length.
    pub fn of(layout: &BlobLayout, sidecar_len: u64) -> Self {
        let parts = u64::from(layout.part_count());
        let pieces = layout.pieces().len() as u64;
        let segments = u64::from(layout.segment_count());
        // ext4 keeps four extents in the inode; a file of four blocks cannot have more. Beyond:
        // 12 bytes an extent, in blocks, with a block for their root
        let map = if layout.len() <= 4 * BLOCK { 0 } else { BLOCK + up(16 * parts) };
        // two names of 64 and 69 bytes in a folder whose blocks may be half empty: under a block
        let files = BLOCK + up(sidecar_len) + map;
        // measured rows: blob 200 + layout, segment 40 + bitmap, object 50; pages may be half empty
        let index = 512 + 2 * (65 * pieces + 48 * segments + parts / 8) + 2 * pieces * 112;
        Self { files, map, index }
    }

    /// All of it.
    pub fn total(&self) -> u64 {
        self.files + self.index
    }
}

/// What is counted, in bytes.
#[derive(Debug, Clone, Default)]
pub struct Accounting {
    /// The limit of everything together.
    pub limit: u64,
    /// Parts, each at its cost, and what the disk was seen to take beyond.
    pub data: u64,
    /// Blobs beside their data, folders, set-aside files.
    pub overhead: u64,
    /// What the index will take for the rows of blobs.
    pub shares: u64,
    /// What the index will take for everything else: names and documents.
    pub other: u64,
    /// Promised to names and documents that are just being written.
    pub promised: u64,
    /// What the index was seen to take, with room for its next transactions.
    pub measured: u64,
    /// Promised to data, not yet written.
    pub reserved: u64,
}

impl Accounting {
    /// With nothing in it.
    pub fn new(limit: u64) -> Self {
        Self { limit, overhead: SKELETON, ..Self::default() }
    }

    /// What the index is counted for. Names and documents always have their headroom, so data can
    /// never take it.
    pub fn index(&self) -> u64 {
        self.index_floor() + self.names().max(self.headroom())
    }

    /// What the index is counted for at least, beside what is not of blobs.
    pub fn index_floor(&self) -> u64 {
        INDEX_FLOOR + self.shares
    }

    /// What names and documents take, promises included.
    pub fn names(&self) -> u64 {
        self.other.max(self.measured.saturating_sub(self.index_floor())) + self.promised
    }

    /// What is kept for names and documents.
    pub fn headroom(&self) -> u64 {
        down((self.limit / HEADROOM_SHARE).clamp(LEAST_HEADROOM, MOST_HEADROOM))
    }

    /// What of the headroom is left, and may lie on the disk as a file meanwhile.
    pub fn unused_headroom(&self) -> u64 {
        self.headroom().saturating_sub(self.names())
    }

    /// Everything that counts against the limit.
    pub fn used(&self) -> u64 {
        self.data + self.overhead + self.index() + self.reserved
    }

    /// The most data that fits if everything else were evicted.
    pub fn room(&self) -> u64 {
        let names = self.names().max(self.headroom());
        self.limit.saturating_sub(SKELETON + INDEX_FLOOR + names)
    }

    /// Whether that many bytes could fit even if everything were evicted.
    pub fn could_fit(&self, bytes: u64) -> bool {
        bytes.saturating_add(self.reserved) <= self.room()
    }

    /// How much must go before that many bytes fit.
    pub fn lacking(&self, bytes: u64) -> u64 {
        self.used().saturating_add(bytes).saturating_sub(self.limit)
    }

    /// Promises bytes if they fit.
    #[must_use]
    pub fn try_reserve(&mut self, bytes: u64) -> bool {
        let fits = self.lacking(bytes) == 0;
        if fits {
            self.reserved += bytes;
        }
        fits
    }

    /// Promises bytes to names and documents if they fit: into the headroom they do, however much
    /// data there is.
    #[must_use]
    pub fn try_promise(&mut self, bytes: u64) -> bool {
        let before = self.index();
        self.promised += bytes;
        let fits = self.index() == before || self.used() <= self.limit;
        if !fits {
            self.promised -= bytes;
        }
        fits
    }

    /// Makes promised bytes data.
    pub fn take_data(&mut self, bytes: u64) {
        self.reserved -= bytes;
        self.data += bytes;
    }

    /// Makes promised bytes a blob's overhead.
    pub fn take_overhead(&mut self, o: &Overhead) {
        self.reserved -= o.total();
        self.add_overhead(o);
    }

    /// Counts a blob that is there already.
    pub fn add_overhead(&mut self, o: &Overhead) {
        self.overhead += o.files;
        self.shares += o.index;
    }

    /// A blob is gone.
    pub fn remove_overhead(&mut self, o: &Overhead) {
        self.overhead -= o.files;
        self.shares -= o.index;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ObjectRange;
    use crate::model::{Check, Digest, HashAlgorithm};
    use proptest::prelude::*;

    fn layout(pieces: &[(u64, u64, u64)]) -> BlobLayout {
        BlobLayout::new(pieces.iter().map(|&(len, leaf, start)| {
            let d = Digest::from_bytes([7; 32]);
            let check = Check::Leaves { size: leaf, digest: HashAlgorithm::Blake3, list: d };
            (check, d, len, ObjectRange::new(start, len))
        }))
        .unwrap()
    }

    proptest! {
        #[test]
        fn cost_is_the_sum_over_parts_and_covers_every_block(
            pieces in proptest::collection::vec((1u64..60_000, prop_oneof![1u64..9000, Just(4096), Just(8192)], 0u64..60_000), 1..5),
            a in any::<u32>(), n in any::<u32>(),
        ) {
            let pieces: Vec<_> = pieces.into_iter().map(|(len, leaf, s)| (len, leaf.max(len / 50 + 1), s % len)).collect();
            let l = layout(&pieces);
            let start = a % l.part_count();
            let parts = PartRange { start, end: start + 1 + n % (l.part_count() - start) };
            let sum: u64 = parts.iter().map(|p| {
                let f = l.part(p).file;
                up(f.end()) - down(f.start())
            }).sum();
            prop_assert_eq!(cost(&l, parts), sum);
        }

        #[test]
        fn punching_frees_no_block_of_a_neighbour(
            present in proptest::collection::vec(any::<bool>(), 40), a in 0u32..40, n in 1u32..40,
        ) {
            let l = layout(&[(40 * 1000, 1000, 0)]);
            let end = (a + n).min(40);
            let taken = |r: PartRange| r.iter().any(|p| present[p.0 as usize] && !(a..end).contains(&p.0));
            let punched = punch_range(&l, PartRange { start: a, end }, taken);
            for p in l.all_parts().iter().filter(|p| present[p.0 as usize] && !(a..end).contains(&p.0)) {
                prop_assert!(punched.intersect(&l.part(p).file).is_empty());
            }
        }
    }

    #[test]
    fn a_shared_edge_block_goes_with_its_last_part() {
        let l = layout(&[(6000, 3000, 0)]);
        let first = PartRange { start: 0, end: 1 };
        assert_eq!(punch_range(&l, first, |p| !p.is_empty()), FileRange::new(0, 0));
        assert_eq!(punch_range(&l, first, |_| false), FileRange::new(0, 4096));
    }

    #[test]
    fn names_have_room_that_data_cannot_take() {
        let mut s = Accounting::new(64 << 20);
        assert_eq!(s.headroom(), 4 << 20);
        let free = s.limit - s.used();
        assert!(s.try_reserve(free));
        s.take_data(free);
        assert!(s.try_promise(3 << 20));
        assert_eq!((s.used(), s.unused_headroom()), (s.limit, 1 << 20), "counted already");
        s.promised = 0;
        s.other = 3 << 20;
        assert!(!s.try_promise((1 << 20) + 1));
        assert!(s.try_promise(1 << 20));
        assert_eq!((s.used(), s.unused_headroom()), (s.limit, 0));
        // a limit that was lowered below what is there
        s.limit = 32 << 20;
        s.promised = 0;
        s.other = 0;
        assert!(s.used() > s.limit && !s.try_reserve(1) && s.try_promise(2 << 20));
        // an index that takes more than it is counted for uses up its headroom
        s.promised = 0;
        s.measured = s.index_floor() + (1 << 20);
        assert_eq!(s.unused_headroom(), 1 << 20);
    }

    #[test]
    fn the_smallest_limit_has_room_for_data_beside_the_headroom() {
        let s = Accounting::new(MIN_LIMIT);
        assert!(s.room() >= LEAST_DATA && s.could_fit(LEAST_DATA) && s.lacking(LEAST_DATA) == 0);
        assert!(Accounting::new(MIN_LIMIT - (1 << 20)).lacking(LEAST_DATA) > 0);
    }

    #[test]
    fn promises_never_exceed_the_limit() {
        let mut s = Accounting::new(MIN_LIMIT);
        let free = MIN_LIMIT - s.used();
        assert!(!s.try_reserve(free + 1));
        assert!(s.try_reserve(free));
        assert_eq!((s.used(), s.lacking(1)), (MIN_LIMIT, 1));
        s.take_data(free);
        assert_eq!((s.reserved, s.used()), (0, MIN_LIMIT));
        assert!(!s.could_fit(u64::MAX));
    }
}
