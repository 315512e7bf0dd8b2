//! Tests of `layout.rs`.

use super::*;
use proptest::prelude::*;

fn d(n: u8) -> Digest {
    Digest::from_bytes([n; 32])
}

fn leaves(n: u8, size: u64) -> Check {
    Check::Leaves { size, digest: HashAlgorithm::Blake3, list: d(n) }
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
    assert_eq!(l.parts_of_leaf(0, 3), PartRange { start: 3, end: 4 });
    assert!(l.parts_of_leaf(0, 4).is_empty());
}

#[test]
fn the_key_commits_to_what_is_checked_and_to_nothing_claimed() {
    let of =
        |check, object, len, range| BlobLayout::new([(check, object, len, range)]).unwrap().key();
    let r = ObjectRange::new(0, 600);
    let base = of(leaves(1, 300), d(9), 600, r);
    assert_eq!(base, of(leaves(1, 300), d(8), 600, r), "a claimed chunk name joins nothing");
    assert_ne!(base, of(leaves(2, 300), d(9), 600, r), "another leaf list");
    assert_ne!(base, of(leaves(1, 600), d(9), 600, r), "another leaf size");
    assert_ne!(base, of(leaves(1, 300), d(9), 900, r), "another object length");
    assert_ne!(base, of(leaves(1, 300), d(9), 900, ObjectRange::new(300, 900)), "another offset");
    assert_ne!(of(Check::Whole, d(1), 600, r), of(Check::Whole, d(2), 600, r));
    assert_ne!(of(Check::Whole, d(1), 600, r), of(leaves(1, 600), d(1), 600, r));
    assert_ne!(of(Check::Whole, d(1), 600, r), of(Check::GitBlob, d(1), 600, r));
    assert_ne!(of(Check::GitBlob, d(2), 600, r), of(Check::GitBlob, d(1), 600, r));
}

#[test]
fn a_git_blob_is_one_part_and_is_read_back_as_one() {
    let all = ObjectRange::new(0, 600);
    let layout = BlobLayout::new([(Check::GitBlob, d(1), 600, all)]).unwrap();
    assert_eq!((layout.part_count(), layout.pieces()[0].identity()), (1, d(1)));
    assert_eq!(BlobLayout::decode(&layout.encode()), Ok(layout));
}

#[test]
fn damaged_encodings_are_refused() {
    let l = BlobLayout::new([(leaves(1, 300), d(9), 1000, ObjectRange::new(250, 1000))]).unwrap();
    let good = l.encode();
    assert!(BlobLayout::decode(&good[..good.len() - 1]).is_err());
    assert!(BlobLayout::decode(b"").is_err());
    let mut bad = good.clone();
    bad[57..65].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(BlobLayout::decode(&bad[..]).is_err());
    // A layout has one encoding: the key of a decoded layout is the key of the decoded bytes.
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

#[test]
fn an_object_that_is_too_large_for_memory_is_one_leaf_of_many_parts() {
    const LEN: u64 = 50 << 30;
    assert_eq!((Check::of_whole(LEN), Check::of_whole(1 << 20)), (Check::WholeLarge, Check::Whole));
    let of = |check, object| BlobLayout::new([(check, object, LEN, ObjectRange::new(0, LEN))]);
    let l = of(Check::WholeLarge, d(1)).unwrap();
    assert_eq!((l.part_count(), l.segment_count()), (50 << 10, 50 << 6));
    assert!(l.pieces()[0].is_whole_large());
    assert_eq!(Check::WholeLarge.leaf_count(LEN), 1);
    let part = l.part(PartIx(7));
    assert_eq!(part.file, FileRange::at(7 * LARGE_PART, LARGE_PART));
    assert_eq!((part.leaf, part.leaf_range), (0, ObjectRange::new(0, LEN)));
    assert!(!part.is_whole_leaf());
    assert_eq!(l.parts_of_leaf(0, 0), l.all_parts());
    assert!(l.parts_of_leaf(0, 1).is_empty());
    let keys = [Check::WholeLarge, Check::Whole, leaves(1, LARGE_PART)]
        .map(|c| of(c, d(1)).unwrap().key());
    assert!(keys[0] != keys[1] && keys[0] != keys[2], "checked in another way");
    assert_ne!(l.key(), of(Check::WholeLarge, d(2)).unwrap().key());
    let mut bad = l.encode();
    bad[9] = 1;
    assert!(BlobLayout::decode(&bad).is_err(), "parts of another size");
    // a slice of it has the parts of the object, and cannot be verified alone
    let slice = (Check::WholeLarge, d(1), LEN, ObjectRange::new(LARGE_PART - 1, LARGE_PART + 1));
    let slice = BlobLayout::new([slice]).unwrap();
    assert_eq!(slice.part_count(), 2);
    assert!(!slice.pieces()[0].is_whole_large());
}

#[test]
fn an_object_with_proofs_is_known_by_both_of_its_digests() {
    const LEN: u64 = 5 << 30;
    let of = |root, object| {
        let piece = (Check::Proof { root }, object, LEN, ObjectRange::new(0, LEN));
        BlobLayout::new([piece]).unwrap()
    };
    let l = of(d(1), d(2));
    assert_eq!((l.part_count(), l.segment_count()), (5 << 10, 5 << 6));
    assert_eq!((l.part(PartIx(7)).leaf, l.parts_of_leaf(0, 7).start), (7, 7));
    assert!(l.part(PartIx(7)).is_whole_leaf());
    let back = BlobLayout::decode(&l.encode()).unwrap();
    assert_eq!(back, l);
    // A source that asserts a hash for another file must not fill the blob of that file.
    for other in [of(d(1), d(3)), of(d(3), d(2)), of(d(2), d(1))] {
        assert_ne!(other.key(), l.key());
        assert_ne!(other.pieces()[0].identity(), l.pieces()[0].identity());
    }
    let mut bad = l.encode();
    bad.truncate(8 + 65);
    assert!(BlobLayout::decode(&bad).is_err(), "the digest of the whole is missing");
    let mut bad = l.encode();
    bad[8 + 65 + 9] ^= 1;
    assert!(BlobLayout::decode(&bad).is_err(), "it is that of another object");
    bad = l.encode();
    bad[8] = 6;
    assert!(BlobLayout::decode(&bad).is_err());
}

#[test]
fn layouts_of_before_have_the_keys_of_before() {
    let l = BlobLayout::new([
        (leaves(1, 300), d(9), 1000, ObjectRange::new(250, 1000)),
        (Check::Whole, d(2), 64, ObjectRange::new(0, 64)),
    ]);
    let key = "e14c1c8a345caf674bf0a88a7d138360e6d8c56ec82d90f0deba17b85ec2d54d";
    assert_eq!(l.unwrap().key().to_string(), key);
}

fn any_layout() -> impl Strategy<Value = BlobLayout> {
    let piece = (1u64..5000, 1u64..2000, 0u8..4, 0u64..5000, 1u64..5000, any::<u8>());
    proptest::collection::vec(piece, 1..8).prop_map(|pieces| {
        BlobLayout::new(pieces.into_iter().map(|(len, leaf, kind, a, b, n)| {
            let len = if kind >= 2 { len * 1000 } else { len };
            let start = a % len;
            let proof = Check::Proof { root: d(n.wrapping_add(1)) };
            let checks = [Check::Whole, leaves(n, leaf), Check::WholeLarge, proof];
            let check = checks[usize::from(kind)];
            let b = if kind >= 2 { b * 1000 } else { b };
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
            let of_leaf = l.parts_of_leaf(part.piece, part.leaf);
            let only = PartRange { start: ix.0, end: ix.0 + 1 };
            if l.pieces()[part.piece].check == Check::WholeLarge {
                prop_assert_eq!(of_leaf, l.parts_of_piece(part.piece));
            } else {
                prop_assert_eq!(of_leaf, only);
            }
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
        for (back, piece) in back.pieces().iter().zip(l.pieces()) {
            prop_assert_eq!((back.check, back.identity()), (piece.check, piece.identity()));
        }
    }

    #[test]
    fn decoding_anything_does_not_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if bytes.len() >= 8 { bytes[..8].copy_from_slice(MAGIC); }
        let cut = bytes.len().saturating_sub(8) % 65;
        bytes.truncate(bytes.len() - cut);
        let _ = BlobLayout::decode(&bytes);
    }
}
