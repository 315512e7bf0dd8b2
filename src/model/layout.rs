//! The layout of a blob: a model file as pieces of objects, cut into the parts that are verified.
//!
//! A *piece* is a slice of an object at its place in the file. A *part* is what one leaf of that object
//! covers within the piece, or of an object that is verified as a whole and too large for memory, a fixed
//! share of the leaf: the unit of presence. A *segment* is a run of parts of one piece: the unit of
//! recency and eviction. Invariant: the [`ContentKey`] determines the layout completely, and commits to
//! exactly what verification checks.
//! Immutable values; pure arithmetic on offsets.

use std::ops::Range;

use super::digest::{ContentKey, Digest};
use super::hash;
use super::hash::HashAlgorithm;
use super::object::{Check, LARGE_PART};
use crate::base::{FileRange, ObjectRange};

/// Maximum size of a segment: small enough that eviction removes little more than requested, large enough
/// that a cache of terabytes has only a million segments.
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

    /// Number of parts.
    pub fn len(self) -> u32 {
        self.end.saturating_sub(self.start)
    }

    /// Whether the run is empty.
    pub fn is_empty(self) -> bool {
        self.start >= self.end
    }
}

/// A slice of an object at its place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// How the object is verified.
    pub check: Check,
    /// The object's published digest. A claim: not part of the key when leaves are checked.
    pub object: Digest,
    /// The object's length in bytes.
    pub object_len: u64,
    /// The offset in the object at which the piece begins.
    pub object_offset: u64,
    /// The bytes of the file that it supplies.
    pub file: FileRange,
    first_part: u32,
    first_segment: u32,
}

/// One part of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// The index of its piece in [`BlobLayout::pieces`].
    pub piece: usize,
    /// The leaf of the object that covers it.
    pub leaf: u64,
    /// Its bytes in the file.
    pub file: FileRange,
    /// Its bytes in the object.
    pub object: ObjectRange,
    /// The bytes of the whole leaf in the object.
    pub leaf_range: ObjectRange,
}

impl Part {
    /// Whether the whole leaf lies in this file, so that the part equals the leaf.
    pub fn is_whole_leaf(&self) -> bool {
        self.object == self.leaf_range
    }
}

/// Why bytes or pieces are not a valid layout.
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
    /// The bytes of the object that the piece uses.
    pub fn object_range(&self) -> ObjectRange {
        ObjectRange::at(self.object_offset, self.file.len())
    }

    /// Whether the piece is all of its object, which can be verified as a whole without being in memory.
    pub fn is_whole_large(&self) -> bool {
        matches!(self.check, Check::WholeLarge | Check::Proof { .. })
            && self.file.len() == self.object_len
    }

    /// Bytes of each part of the object but the last.
    pub fn part_size(&self) -> u64 {
        self.check.part_size(self.object_len)
    }

    /// Which part of the object the first part of the piece lies in.
    fn first_in_object(&self) -> u64 {
        self.object_offset / self.part_size()
    }

    fn part_count(&self) -> u64 {
        (self.object_range().end() - 1) / self.part_size() - self.first_in_object() + 1
    }

    fn parts_per_segment(&self) -> u64 {
        (SEGMENT_BYTES / self.part_size()).max(1)
    }

    /// The digest that verification checks for this piece's object: pieces with the same identity are
    /// ranges of the same verified bytes.
    pub fn identity(&self) -> Digest {
        match self.check {
            Check::Whole | Check::WholeLarge | Check::GitBlob => self.object,
            Check::Proof { root } => {
                hash::sha256(&[root.as_bytes().as_slice(), self.object.as_bytes()].concat())
            }
            Check::Leaves { list, .. } => list,
        }
    }
}

const MAGIC: &[u8; 8] = b"mfsblob1";

impl BlobLayout {
    /// Lays out pieces `(check, object, object_len, offset in the object, length)` one after another.
    ///
    /// They must be non-empty and lie within their objects. A validated manifest guarantees that, so an
    /// error means a damaged encoding or an absurdly fine-grained file.
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

    /// The key of the blob.
    pub fn key(&self) -> ContentKey {
        self.key
    }

    /// The file's length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the file is empty, hence has no part and no blob on disk.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The pieces, in file order.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Whether the file is all of one object whose ranges are proved.
    pub fn is_proved_file(&self) -> bool {
        let [piece] = &self.pieces[..] else { return false };
        matches!(piece.check, Check::Proof { .. }) && piece.file.len() == piece.object_len
    }

    /// Number of parts.
    pub fn part_count(&self) -> u32 {
        self.parts
    }

    /// Number of segments.
    pub fn segment_count(&self) -> u32 {
        self.segments
    }

    /// All parts.
    pub fn all_parts(&self) -> PartRange {
        PartRange { start: 0, end: self.parts }
    }

    /// The piece that contains number `n` of `all`; `first` returns the first number of a piece.
    fn piece_with(&self, n: u32, all: u32, first: impl Fn(&Piece) -> u32) -> usize {
        // pieces are mostly alike, so the proportional guess is mostly right
        let guess = (u64::from(n) * self.pieces.len() as u64 / u64::from(all)) as usize;
        let ends = self.pieces.get(guess + 1).map_or(all, &first);
        if (first(&self.pieces[guess])..ends).contains(&n) {
            return guess;
        }
        self.pieces.partition_point(|p| first(p) <= n) - 1
    }

    fn piece_of_part(&self, part: PartIx) -> usize {
        self.piece_with(part.0, self.parts, |p| p.first_part)
    }

    /// A part, which must exist: `part.0 < part_count()`.
    pub fn part(&self, ix: PartIx) -> Part {
        assert!(ix.0 < self.parts, "part {} of {}", ix.0, self.parts);
        let at = self.piece_of_part(ix);
        let piece = &self.pieces[at];
        let in_object = piece.first_in_object() + u64::from(ix.0 - piece.first_part);
        let size = piece.part_size();
        let object = ObjectRange::at(in_object * size, size).intersect(&piece.object_range());
        let leaf = if piece.check == Check::WholeLarge { 0 } else { in_object };
        let leaf_range = piece.check.leaf_range(leaf, piece.object_len);
        let file = FileRange::at(
            piece.file.start() + (object.start() - piece.object_offset),
            object.len(),
        );
        Part { piece: at, leaf, file, object, leaf_range }
    }

    /// The parts that intersect the range; bytes past the end are ignored.
    pub fn parts_in(&self, range: FileRange) -> PartRange {
        let range = range.intersect(&FileRange::new(0, self.len));
        if range.is_empty() {
            return PartRange { start: 0, end: 0 };
        }
        PartRange { start: self.part_at(range.start()).0, end: self.part_at(range.end() - 1).0 + 1 }
    }

    /// The part that contains the byte at `offset`, which must be less than `len()`.
    pub fn part_at(&self, offset: u64) -> PartIx {
        assert!(offset < self.len, "offset {offset} of {}", self.len);
        let piece = &self.pieces[self.pieces.partition_point(|p| p.file.start() <= offset) - 1];
        let in_object = piece.object_offset + (offset - piece.file.start());
        PartIx(piece.first_part + (in_object / piece.part_size() - piece.first_in_object()) as u32)
    }

    /// The parts of one piece.
    pub fn parts_of_piece(&self, piece: usize) -> PartRange {
        let start = self.pieces[piece].first_part;
        PartRange { start, end: self.pieces.get(piece + 1).map_or(self.parts, |p| p.first_part) }
    }

    /// The parts of `piece` that lie in `leaf` of its object; empty if the piece does not touch that leaf.
    pub fn parts_of_leaf(&self, piece: usize, leaf: u64) -> PartRange {
        let parts = self.parts_of_piece(piece);
        let none = PartRange { start: parts.start, end: parts.start };
        if self.pieces[piece].check == Check::WholeLarge {
            return if leaf == 0 { parts } else { none };
        }
        match leaf.checked_sub(self.pieces[piece].first_in_object()) {
            Some(ix) if ix < u64::from(parts.len()) => {
                let start = parts.start + ix as u32;
                PartRange { start, end: start + 1 }
            }
            _ => none,
        }
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
        let at = self.piece_with(segment.0, self.segments, |p| p.first_segment);
        let piece = &self.pieces[at];
        let all = self.parts_of_piece(at);
        let per = piece.parts_per_segment().min(u64::from(u32::MAX)) as u32;
        let start = all.start + (segment.0 - piece.first_segment) * per;
        PartRange { start, end: start.saturating_add(per).min(all.end) }
    }

    /// The encoding whose SHA-256 is the key. [`BlobLayout::decode`] reads it back.
    ///
    /// All numbers little endian: magic, then for each piece: kind (0 whole, 1 SHA-256 leaves, 2 BLAKE3
    /// leaves, 3 whole in parts, 4 git blob, 5 by proofs), leaf size (0 when whole; of kinds 3 and 5 the size
    /// of a part), object length, the digest that is checked, offset in the object, length. After a piece of
    /// kind 5, whose digest is the one that proofs are checked by, comes the same of kind 6 with the digest
    /// of the whole object.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(8 + self.pieces.len() * 65);
        out.extend_from_slice(MAGIC);
        let mut push = |p: &Piece, kind, leaf_size: u64, digest: Digest| {
            out.push(kind);
            out.extend_from_slice(&leaf_size.to_le_bytes());
            out.extend_from_slice(&p.object_len.to_le_bytes());
            out.extend_from_slice(digest.as_bytes());
            out.extend_from_slice(&p.object_offset.to_le_bytes());
            out.extend_from_slice(&p.file.len().to_le_bytes());
        };
        for p in &self.pieces {
            match p.check {
                Check::Whole => push(p, 0, 0, p.object),
                Check::GitBlob => push(p, 4, 0, p.object),
                Check::WholeLarge => push(p, 3, LARGE_PART, p.object),
                Check::Proof { root } => {
                    push(p, 5, LARGE_PART, root);
                    push(p, 6, LARGE_PART, p.object);
                }
                Check::Leaves { size, digest: HashAlgorithm::Sha256, list } => {
                    push(p, 1, size, list)
                }
                Check::Leaves { size, list, .. } => push(p, 2, size, list),
            }
        }
        out
    }

    /// Decodes a layout. The encoding lacks the published digests of leaf-checked objects:
    /// [`Piece::object`] is then the leaf list's digest.
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
        let digest = |r: &[u8]| Digest::from_slice(&r[17..49]).expect("32 bytes by construction");
        let mut records = rest.chunks_exact(65);
        while let Some(r) = records.next() {
            let (list, size) = (digest(r), number(r, 1..9));
            let mut object = list;
            let check = match r[0] {
                0 if size == 0 => Check::Whole,
                4 if size == 0 => Check::GitBlob,
                1 => Check::Leaves { size, digest: HashAlgorithm::Sha256, list },
                2 => Check::Leaves { size, digest: HashAlgorithm::Blake3, list },
                3 if size == LARGE_PART => Check::WholeLarge,
                5 if size == LARGE_PART => {
                    let same = |other: &&[u8]| {
                        other[0] == 6 && other[1..17] == r[1..17] && other[49..] == r[49..]
                    };
                    let whole = records.next().filter(same);
                    object = digest(whole.ok_or(LayoutError("a digest of a whole is missing"))?);
                    Check::Proof { root: list }
                }
                _ => return Err(LayoutError("unknown kind of check")),
            };
            let (object_len, offset, len) =
                (number(r, 9..17), number(r, 49..57), number(r, 57..65));
            let range = ObjectRange::at(offset, len);
            if range.len() != len {
                return Err(LayoutError("a piece lies outside its object"));
            }
            pieces.push((check, object, object_len, range));
        }
        Self::new(pieces)
    }
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
