//! From missing parts of a file to runs of leaves of objects, and back. Pure.

use std::ops::Range;

use crate::model::{BlobLayout, FileIx, Manifest, ObjectIx, PartIx, PartRange};

/// Consecutive leaves of one object that a file lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafRun {
    /// The object.
    pub object: ObjectIx,
    /// Its leaves.
    pub leaves: Range<u64>,
    /// The first of these parts of the file. Each leaf covers one, or a single leaf all of them.
    pub first: PartIx,
    /// Whether the leaves are parts of the object, whose checksums were learned.
    pub learned: bool,
}

impl LeafRun {
    /// The part of the file that one of these leaves covers.
    pub fn part_of(&self, leaf: u64) -> PartIx {
        PartIx(self.first.0 + (leaf - self.leaves.start) as u32)
    }
}

/// The leaves that bring the missing parts of a file with this layout: a run for each piece that a run of
/// parts touches, in the file's order. Of a piece that is `learned`, each part is a leaf.
pub fn leaf_runs(
    manifest: &Manifest,
    file: FileIx,
    layout: &BlobLayout,
    missing: &[PartRange],
    learned: impl Fn(usize) -> bool,
) -> Vec<LeafRun> {
    let mut out = Vec::new();
    for run in missing {
        let mut at = run.start;
        while at < run.end {
            let first = layout.part(PartIx(at));
            let all = layout.parts_of_piece(first.piece);
            let end = all.end.min(run.end);
            let object = manifest.slices(file)[first.piece].object;
            let learned = learned(first.piece);
            let leaves = match learned {
                true => u64::from(at - all.start)..u64::from(end - all.start),
                false => first.leaf..layout.part(PartIx(end - 1)).leaf + 1,
            };
            out.push(LeafRun { object, leaves, first: PartIx(at), learned });
            at = end;
        }
    }
    out
}

/// The parts of a piece of a file that these leaves cover.
pub fn parts_of_leaves(layout: &BlobLayout, piece: usize, leaves: &Range<u64>) -> PartRange {
    let parts = leaves.clone().map(|leaf| layout.parts_of_leaf(piece, leaf));
    let mut parts = parts.filter(|parts| !parts.is_empty());
    match (parts.next(), parts.next_back()) {
        (Some(first), last) => PartRange { start: first.start, end: last.unwrap_or(first).end },
        (None, _) => PartRange { start: 0, end: 0 },
    }
}

/// Joins ascending numbers into runs.
pub fn runs(numbers: impl Iterator<Item = u64>) -> Vec<Range<u64>> {
    let mut out: Vec<Range<u64>> = Vec::new();
    for n in numbers {
        match out.last_mut() {
            Some(last) if last.end == n => last.end += 1,
            _ => out.push(n..n + 1),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ObjectRange;
    use crate::model::{Check, Digest, HashAlgorithm, LARGE_PART, ManifestBuilder, Object, Slice};

    const LEAF: u64 = 4096;

    /// A file of the leaves 1 to 3 of one object, of which the first and last are cut, and all of another.
    fn two_objects() -> (Manifest, BlobLayout) {
        let digest = |n| Digest::from_bytes([n; 32]);
        let check =
            |n| Check::Leaves { size: LEAF, digest: HashAlgorithm::Blake3, list: digest(n) };
        let mut builder = ManifestBuilder::new(digest(9));
        let a = builder.object(Object::new(digest(1), 10 * LEAF, check(3))).unwrap();
        let b = builder.object(Object::new(digest(2), 2 * LEAF, check(4))).unwrap();
        let cut = ObjectRange::new(LEAF + 100, 3 * LEAF + 50);
        let slices = [
            Slice { object: a, range: cut },
            Slice { object: b, range: ObjectRange::new(0, 2 * LEAF) },
        ];
        builder.file("w", None, slices).unwrap();
        let manifest = builder.build().unwrap();
        let layout = manifest.layout(FileIx(0));
        (manifest, layout)
    }

    #[test]
    fn missing_parts_across_two_objects_become_a_run_of_leaves_of_each() {
        let (manifest, layout) = two_objects();
        let missing = [PartRange { start: 1, end: 4 }, PartRange { start: 4, end: 5 }];
        let found = leaf_runs(&manifest, FileIx(0), &layout, &missing, |_| false);
        let run = |object, leaves, first| LeafRun {
            object: ObjectIx(object),
            leaves,
            first: PartIx(first),
            learned: false,
        };
        assert_eq!(found, [run(0, 2..4, 1), run(1, 0..1, 3), run(1, 1..2, 4)]);
        assert_eq!(found[0].part_of(3), PartIx(2));
        for found in found {
            let piece = found.object.0 as usize;
            let parts = parts_of_leaves(&layout, piece, &found.leaves);
            assert_eq!(parts.start, found.first.0, "and back");
            assert_eq!(parts.len() as u64, found.leaves.end - found.leaves.start);
        }
    }

    #[test]
    fn of_a_learned_piece_each_part_is_a_leaf_and_of_any_other_whole_one_there_is_one_leaf() {
        const LEN: u64 = 5 * LARGE_PART;
        let mut builder = ManifestBuilder::new(Digest::from_bytes([9; 32]));
        let mut slices = Vec::new();
        for n in [1, 2] {
            let object = Object::new(Digest::from_bytes([n; 32]), LEN, Check::WholeLarge);
            let object = builder.object(object).unwrap();
            slices.push(Slice { object, range: ObjectRange::new(0, LEN) });
        }
        builder.file("w", None, slices).unwrap();
        let manifest = builder.build().unwrap();
        let layout = manifest.layout(FileIx(0));
        let missing = [PartRange { start: 3, end: 7 }];
        let found = leaf_runs(&manifest, FileIx(0), &layout, &missing, |piece| piece == 1);
        let found: Vec<_> = found
            .into_iter()
            .map(|r| (r.object.0, r.leaves.clone(), r.first.0, r.learned))
            .collect();
        assert_eq!(found, [(0, 0..1, 3, false), (1, 0..2, 5, true)]);
    }

    #[test]
    fn leaves_outside_a_piece_cover_no_part_of_it() {
        let (_, layout) = two_objects();
        assert!(parts_of_leaves(&layout, 0, &(5..9)).is_empty());
        assert_eq!(parts_of_leaves(&layout, 0, &(0..9)), PartRange { start: 0, end: 3 });
    }

    #[test]
    fn ascending_numbers_are_joined_into_runs() {
        assert_eq!(runs([1, 2, 3, 7, 9, 10].into_iter()), [1..4, 7..8, 9..11]);
        assert_eq!(runs(std::iter::empty()), []);
    }
}
