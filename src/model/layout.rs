//! How one model file lies in its blob: pieces of objects, cut into the parts that are verified.
//!
//! A *piece* is one slice of an object at its place in the file. A *part* is what one leaf of that
//! object covers within the piece: the unit of presence. A *segment* is a run of parts of one
//! piece: the unit of recency and eviction. The layout is wholly determined by its
//! [`ContentKey`], and the key commits to exactly what verification checks.
//! Immutable values; everything is arithmetic on offsets.

use std::ops::Range;

use super::digest::{ContentKey, Digest, LeafDigest};
use super::manifest::Check;
use crate::base::{FileRange, ObjectRange, hash};

/// The most bytes of a segment: small enough that eviction does not take much more than was asked
/// for, large enough that a cache of terabytes has a list of a million.
const SEGMENT_BYTES: u64 = 16 << 20;

/// The index of a part in its blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartIx(pub u32);

/// The index of a segment in its blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentIx(pub u32);

/// A run of parts, half open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PartRange {
    /// The first part.
    pub start: u32,
    /// One past the last part.
    pub end: u32,
}

impl PartRange {
    /// The parts, one by one.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = PartIx> + ExactSizeIterator {
        (self.start..self.end).map(PartIx)
    }

    /// How many.
    pub fn len(self) -> u32 {
        self.end.saturating_sub(self.start)
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.start >= self.end
    }
}

/// A slice of an object at its place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// How the object is verified.
    pub check: Check,
    /// The object's published name. Not part of the key when leaves are what is checked: a claim.
    pub object: Digest,
    /// The object's length in bytes.
    pub object_len: u64,
    /// Where in the object the piece begins.
    pub object_offset: u64,
    /// The bytes of the file that it makes up.
    pub file: FileRange,
    first_part: u32,
    first_segment: u32,
}

/// One part of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Which piece it belongs to: an index into [`BlobLayout::pieces`].
    pub piece: usize,
    /// Which leaf of that piece's object covers it.
    pub leaf: u64,
    /// Its bytes in the file.
    pub file: FileRange,
    /// Its bytes in the object.
    pub object: ObjectRange,
    /// The bytes of the whole leaf in the object.
    pub leaf_range: ObjectRange,
}

impl Part {
    /// Whether the leaf lies wholly in this file, so that the part is the leaf.
    pub fn is_whole_leaf(&self) -> bool {
        self.object == self.leaf_range
    }
}

/// Why bytes are not an encoded layout, or pieces make none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a blob layout: {0}")]
pub struct LayoutError(&'static str);

/// The layout of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobLayout {
    key: ContentKey,
    len: u64,
    pieces: Vec<Piece>,
    parts: u32,
    segments: u32,
}

impl Piece {
    /// The bytes of the object that it takes.
    pub fn object_range(&self) -> ObjectRange {
        ObjectRange::at(self.object_offset, self.file.len())
    }

    fn leaf_size(&self) -> u64 {
        self.check.leaf_size(self.object_len)
    }

    fn first_leaf(&self) -> u64 {
        self.object_offset / self.leaf_size()
    }

    fn part_count(&self) -> u64 {
        (self.object_range().end() - 1) / self.leaf_size() - self.first_leaf() + 1
    }

    fn parts_per_segment(&self) -> u64 {
        (SEGMENT_BYTES / self.leaf_size()).max(1)
    }

    /// The digest by which this piece's object is known to verification: two pieces with the same
    /// identity hold ranges of the same verified bytes.
    pub fn identity(&self) -> Digest {
        match self.check {
            Check::Whole => self.object,
            Check::Leaves { list, .. } => list,
        }
    }
}

const MAGIC: &[u8; 8] = b"mfsblob1";

impl BlobLayout {
    /// Lays pieces `(check, object, object_len, offset in the object, length)` one after another.
    ///
    /// They must be non-empty and lie within their objects; what a manifest was validated for
    /// holds, so an error means an encoded layout was damaged or a file is absurdly fine-grained.
    pub fn new(
        parts: impl IntoIterator<Item = (Check, Digest, u64, ObjectRange)>,
    ) -> Result<Self, LayoutError> {
        let mut out = Self {
            key: ContentKey::new(Digest::from_bytes([0; 32])),
            len: 0,
            pieces: Vec::new(),
            parts: 0,
            segments: 0,
        };
        let (mut part_count, mut segment_count) = (0u64, 0u64);
        for (check, object, object_len, range) in parts {
            if range.is_empty() || range.end() > object_len || check.leaf_size(object_len) == 0 {
                return Err(LayoutError("a piece lies outside its object"));
            }
            let file = FileRange::at(out.len, range.len());
            if file.len() != range.len() {
                return Err(LayoutError("too long"));
            }
            let piece = Piece {
                check,
                object,
                object_len,
                object_offset: range.start(),
                file,
                first_part: part_count as u32,
                first_segment: segment_count as u32,
            };
            part_count += piece.part_count();
            segment_count += piece.part_count().div_ceil(piece.parts_per_segment());
            if part_count > u64::from(u32::MAX) {
                return Err(LayoutError("too many parts"));
            }
            out.len = file.end();
            out.pieces.push(piece);
        }
        out.parts = part_count as u32;
        out.segments = segment_count as u32;
        out.key = ContentKey::new(hash::sha256(&out.encode()));
        Ok(out)
    }

    /// The blob's name.
    pub fn key(&self) -> ContentKey {
        self.key
    }

    /// The file's length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the file has no byte, hence no part and no blob on disk.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The slices, in file order.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// How many parts there are.
    pub fn part_count(&self) -> u32 {
        self.parts
    }

    /// How many segments there are.
    pub fn segment_count(&self) -> u32 {
        self.segments
    }

    /// All parts.
    pub fn all_parts(&self) -> PartRange {
        PartRange { start: 0, end: self.parts }
    }

    fn piece_of_part(&self, part: PartIx) -> usize {
        self.pieces.partition_point(|p| p.first_part <= part.0) - 1
    }

    /// One part. It must exist: `part.0 < part_count()`.
    pub fn part(&self, ix: PartIx) -> Part {
        assert!(ix.0 < self.parts, "part {} of {}", ix.0, self.parts);
        let at = self.piece_of_part(ix);
        let piece = &self.pieces[at];
        let leaf = piece.first_leaf() + u64::from(ix.0 - piece.first_part);
        let leaf_range = piece.check.leaf_range(leaf, piece.object_len);
        let object = leaf_range.intersect(&piece.object_range());
        let file = FileRange::at(
            piece.file.start() + (object.start() - piece.object_offset),
            object.len(),
        );
        Part { piece: at, leaf, file, object, leaf_range }
    }

    /// The parts that have a byte of the range; bytes past the end have none.
    pub fn parts_in(&self, range: FileRange) -> PartRange {
        let range = range.intersect(&FileRange::new(0, self.len));
        if range.is_empty() {
            return PartRange { start: 0, end: 0 };
        }
        PartRange { start: self.part_at(range.start()).0, end: self.part_at(range.end() - 1).0 + 1 }
    }

    /// The part that has the byte at `offset`, which must be less than `len()`.
    pub fn part_at(&self, offset: u64) -> PartIx {
        assert!(offset < self.len, "offset {offset} of {}", self.len);
        let piece = &self.pieces[self.pieces.partition_point(|p| p.file.start() <= offset) - 1];
        let in_object = piece.object_offset + (offset - piece.file.start());
        PartIx(piece.first_part + (in_object / piece.leaf_size() - piece.first_leaf()) as u32)
    }

    /// The parts of one piece.
    pub fn parts_of_piece(&self, piece: usize) -> PartRange {
        let start = self.pieces[piece].first_part;
        PartRange { start, end: self.pieces.get(piece + 1).map_or(self.parts, |p| p.first_part) }
    }

    /// The part of `piece` that lies in `leaf` of its object, if the piece touches that leaf.
    pub fn part_of_leaf(&self, piece: usize, leaf: u64) -> Option<PartIx> {
        let parts = self.parts_of_piece(piece);
        let ix = leaf.checked_sub(self.pieces[piece].first_leaf())?;
        (ix < u64::from(parts.len())).then(|| PartIx(parts.start + ix as u32))
    }

    /// The bytes of the file that a run of parts covers.
    pub fn file_range(&self, parts: PartRange) -> FileRange {
        if parts.is_empty() {
            return FileRange::new(0, 0);
        }
        FileRange::new(
            self.part(PartIx(parts.start)).file.start(),
            self.part(PartIx(parts.end - 1)).file.end(),
        )
    }

    /// The segment that a part belongs to.
    pub fn segment_of(&self, part: PartIx) -> SegmentIx {
        let piece = &self.pieces[self.piece_of_part(part)];
        let within = u64::from(part.0 - piece.first_part) / piece.parts_per_segment();
        SegmentIx(piece.first_segment + within as u32)
    }

    /// The parts of a segment, which must exist.
    pub fn parts_of_segment(&self, segment: SegmentIx) -> PartRange {
        assert!(segment.0 < self.segments, "segment {} of {}", segment.0, self.segments);
        let at = self.pieces.partition_point(|p| p.first_segment <= segment.0) - 1;
        let piece = &self.pieces[at];
        let all = self.parts_of_piece(at);
        let per = piece.parts_per_segment().min(u64::from(u32::MAX)) as u32;
        let start = all.start + (segment.0 - piece.first_segment) * per;
        PartRange { start, end: start.saturating_add(per).min(all.end) }
    }

    /// What the key is the SHA-256 of. [`BlobLayout::decode`] reads it back.
    ///
    /// All numbers little endian: magic, then for each piece: kind (0 whole, 1 SHA-256 leaves,
    /// 2 BLAKE3 leaves), leaf size (0 when whole), object length, the digest that is checked,
    /// offset in the object, length.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(8 + self.pieces.len() * 65);
        out.extend_from_slice(MAGIC);
        for p in &self.pieces {
            let (kind, leaf_size, digest) = match p.check {
                Check::Whole => (0, 0, p.object),
                Check::Leaves { size, digest, list } => {
                    (if digest == LeafDigest::Sha256 { 1 } else { 2 }, size, list)
                }
            };
            out.push(kind);
            out.extend_from_slice(&leaf_size.to_le_bytes());
            out.extend_from_slice(&p.object_len.to_le_bytes());
            out.extend_from_slice(digest.as_bytes());
            out.extend_from_slice(&p.object_offset.to_le_bytes());
            out.extend_from_slice(&p.file.len().to_le_bytes());
        }
        out
    }

    /// Reads what [`BlobLayout::encode`] wrote. Published names of leaf-checked objects are not in
    /// it: [`Piece::object`] is then the leaf list's digest.
    pub fn decode(bytes: &[u8]) -> Result<Self, LayoutError> {
        let Some((MAGIC, rest)) = bytes.split_first_chunk() else {
            return Err(LayoutError("unknown format"));
        };
        if rest.len() % 65 != 0 {
            return Err(LayoutError("cut short"));
        }
        let number = |r: &[u8], range: Range<usize>| {
            u64::from_le_bytes(r[range].try_into().expect("eight bytes by construction"))
        };
        let mut pieces = Vec::with_capacity(rest.len() / 65);
        for r in rest.chunks_exact(65) {
            let list = Digest::from_slice(&r[17..49]).expect("32 bytes by construction");
            let size = number(r, 1..9);
            let check = match r[0] {
                0 if size == 0 => Check::Whole,
                1 => Check::Leaves { size, digest: LeafDigest::Sha256, list },
                2 => Check::Leaves { size, digest: LeafDigest::Blake3, list },
                _ => return Err(LayoutError("unknown kind of check")),
            };
            let (object_len, offset, len) =
                (number(r, 9..17), number(r, 49..57), number(r, 57..65));
            let range = ObjectRange::at(offset, len);
            if range.len() != len {
                return Err(LayoutError("a piece lies outside its object"));
            }
            pieces.push((check, list, object_len, range));
        }
        Self::new(pieces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn d(n: u8) -> Digest {
        Digest::from_bytes([n; 32])
    }

    fn leaves(n: u8, size: u64) -> Check {
        Check::Leaves { size, digest: LeafDigest::Blake3, list: d(n) }
    }

    #[test]
    fn a_file_that_starts_in_the_middle_of_a_leaf() {
        // object 1 of 1000 bytes, leaves of 300; the file takes 250..1000, then all of object 2
        let l = BlobLayout::new([
            (leaves(1, 300), d(9), 1000, ObjectRange::new(250, 1000)),
            (Check::Whole, d(2), 64, ObjectRange::new(0, 64)),
        ])
        .unwrap();
        assert_eq!((l.len(), l.part_count(), l.segment_count()), (814, 5, 2));
        let first = l.part(PartIx(0));
        assert_eq!(
            (first.leaf, first.file, first.object),
            (0, FileRange::new(0, 50), ObjectRange::new(250, 300))
        );
        assert!(!first.is_whole_leaf());
        assert!(l.part(PartIx(1)).is_whole_leaf());
        assert_eq!(l.part(PartIx(3)).file, FileRange::new(650, 750));
        assert_eq!(l.part(PartIx(4)).file, FileRange::new(750, 814));
        assert_eq!(l.parts_in(FileRange::new(49, 51)), PartRange { start: 0, end: 2 });
        assert!(l.parts_in(FileRange::new(814, 900)).is_empty());
        assert_eq!(l.part_of_leaf(0, 3), Some(PartIx(3)));
        assert_eq!(l.part_of_leaf(0, 4), None);
    }

    #[test]
    fn the_key_commits_to_what_is_checked_and_to_nothing_claimed() {
        let of = |check, object, len, range| {
            BlobLayout::new([(check, object, len, range)]).unwrap().key()
        };
        let r = ObjectRange::new(0, 600);
        let base = of(leaves(1, 300), d(9), 600, r);
        assert_eq!(base, of(leaves(1, 300), d(8), 600, r), "a claimed chunk name joins nothing");
        assert_ne!(base, of(leaves(2, 300), d(9), 600, r), "another leaf list");
        assert_ne!(base, of(leaves(1, 600), d(9), 600, r), "another leaf size");
        assert_ne!(base, of(leaves(1, 300), d(9), 900, r), "another object length");
        assert_ne!(
            base,
            of(leaves(1, 300), d(9), 900, ObjectRange::new(300, 900)),
            "another offset"
        );
        assert_ne!(of(Check::Whole, d(1), 600, r), of(Check::Whole, d(2), 600, r));
        assert_ne!(of(Check::Whole, d(1), 600, r), of(leaves(1, 600), d(1), 600, r));
    }

    #[test]
    fn damaged_encodings_are_refused() {
        let l =
            BlobLayout::new([(leaves(1, 300), d(9), 1000, ObjectRange::new(250, 1000))]).unwrap();
        let good = l.encode();
        assert!(BlobLayout::decode(&good[..good.len() - 1]).is_err());
        assert!(BlobLayout::decode(b"").is_err());
        let mut bad = good.clone();
        bad[57..65].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(BlobLayout::decode(&bad[..]).is_err());
        // A layout has one encoding: whatever is accepted has the key of its bytes.
        bad = good.clone();
        bad[17..25].copy_from_slice(&u64::MAX.to_le_bytes());
        bad[57..65].copy_from_slice(&(u64::MAX - 5).to_le_bytes());
        bad[65..73].copy_from_slice(&9u64.to_le_bytes());
        assert!(BlobLayout::decode(&bad[..]).is_err(), "past the largest offset");
        let whole = BlobLayout::new([(Check::Whole, d(2), 64, ObjectRange::new(0, 64))]).unwrap();
        let mut bad = whole.encode();
        bad[9] = 1;
        assert!(BlobLayout::decode(&bad[..]).is_err(), "a whole object with a leaf size");
        bad = good;
        bad[9..17].copy_from_slice(&0u64.to_le_bytes());
        assert!(BlobLayout::decode(&bad[..]).is_err());
    }

    fn any_layout() -> impl Strategy<Value = BlobLayout> {
        let piece = (1u64..5000, 1u64..2000, any::<bool>(), 0u64..5000, 1u64..5000, any::<u8>());
        proptest::collection::vec(piece, 1..8).prop_map(|pieces| {
            BlobLayout::new(pieces.into_iter().map(|(len, leaf, whole, a, b, n)| {
                let start = a % len;
                let check = if whole { Check::Whole } else { leaves(n, leaf) };
                (check, d(n), len, ObjectRange::new(start, start + 1 + b % (len - start)))
            }))
            .unwrap()
        })
    }

    proptest! {
        #[test]
        fn parts_tile_the_file(l in any_layout()) {
            let mut at = 0;
            for ix in l.all_parts().iter() {
                let part = l.part(ix);
                prop_assert_eq!(part.file.start(), at);
                prop_assert!(!part.file.is_empty());
                prop_assert!(part.leaf_range.contains(&part.object));
                prop_assert_eq!(l.part_at(at), ix);
                prop_assert_eq!(l.part_of_leaf(part.piece, part.leaf), Some(ix));
                let seg = l.segment_of(ix);
                let r = l.parts_of_segment(seg);
                prop_assert!(r.start <= ix.0 && ix.0 < r.end);
                at = part.file.end();
            }
            prop_assert_eq!(at, l.len());
            let covered: u32 = (0..l.segment_count()).map(|s| l.parts_of_segment(SegmentIx(s)).len()).sum();
            prop_assert_eq!(covered, l.part_count());
        }

        #[test]
        fn encoding_round_trips(l in any_layout()) {
            let back = BlobLayout::decode(&l.encode()).unwrap();
            prop_assert_eq!(back.key(), l.key());
            prop_assert_eq!(back.part_count(), l.part_count());
        }

        #[test]
        fn decoding_anything_does_not_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if bytes.len() >= 8 { bytes[..8].copy_from_slice(MAGIC); }
            let cut = bytes.len().saturating_sub(8) % 65;
            bytes.truncate(bytes.len() - cut);
            let _ = BlobLayout::decode(&bytes);
        }
    }
}
