//! Tests of `manifest.rs`: the rules that hold for every kind of registry.

use super::*;
use crate::model::{GitId, LARGE_PART};

fn d(n: u8) -> Digest {
    Digest::from_bytes([n; 32])
}

fn builder() -> (ManifestBuilder, Slice) {
    let mut b = ManifestBuilder::new(d(0));
    let object = b.object(Object::new(d(1), 100, Check::Whole)).unwrap();
    (b, Slice { object, range: ObjectRange::new(0, 100) })
}

#[test]
fn a_path_is_never_both_file_and_folder_nor_twice() {
    for (a, b) in [("a", "a/b"), ("a/b", "a"), ("x", "x"), ("a/b", "a/b/c/d")] {
        let (mut m, s) = builder();
        m.file(a, None, [s]).unwrap();
        m.file(b, None, [s]).unwrap();
        assert!(m.build().is_err(), "{a} {b}");
    }
    let (mut m, s) = builder();
    m.file("a-b", None, [s]).unwrap();
    m.file("a/c", None, [s]).unwrap();
    m.file("a.d", None, []).unwrap();
    assert_eq!(m.build().unwrap().total(), 200);
}

#[test]
fn the_files_that_use_an_object_are_found() {
    let (mut m, s) = builder();
    let second = m.object(Object::new(d(2), 7, Check::Whole)).unwrap();
    let t = Slice { object: second, range: ObjectRange::new(0, 7) };
    m.file("a", None, [s, t]).unwrap();
    m.file("b", None, []).unwrap();
    m.file("c", None, [t]).unwrap();
    let m = m.build().unwrap();
    let user = |file, piece| ObjectUse { file: FileIx(file), piece };
    assert_eq!(m.uses(s.object), [user(0, 0)]);
    assert_eq!(m.uses(second), [user(0, 1), user(2, 0)]);
}

#[test]
fn slices_stay_in_their_object() {
    for range in [ObjectRange::new(0, 101), ObjectRange::new(50, 50), ObjectRange::at(99, 2)] {
        let (mut m, s) = builder();
        assert!(m.file("a", None, [Slice { range, ..s }]).is_err());
    }
    let (mut m, s) = builder();
    assert!(m.file("a", None, [Slice { object: ObjectIx(7), ..s }]).is_err());
}

#[test]
fn sizes_have_limits() {
    let mut m = ManifestBuilder::new(d(0));
    let leaves = |size| Check::Leaves { size, digest: HashAlgorithm::Sha256, list: d(3) };
    for (len, check) in [
        (0, Check::Whole),
        (MAX_LEAF + 1, Check::Whole),
        (u64::MAX, leaves(MAX_LEAF)),
        (1 << 20, leaves(0)),
        (1 << 20, leaves(MIN_LEAF - 1)),
        (1 << 40, leaves(MAX_LEAF + 1)),
        (1 << 60, leaves(MIN_LEAF)),
    ] {
        assert!(m.object(Object::new(d(1), len, check)).is_err(), "{len} {check:?}");
    }
    let long = Object::new(d(1), MAX_TOTAL + 1, leaves(MAX_LEAF));
    assert!(m.object(long).is_err());
    // Without leaves, what is too large for memory is counted in parts.
    let large = |len| Object::new(d(1), len, Check::of_whole(len));
    ManifestBuilder::new(d(0)).object(large(50 << 30)).unwrap();
    assert!(m.object(large(MAX_OBJECT_LEAVES * LARGE_PART + 1)).is_err());
    // The number of leaves is limited for an object, and for all objects of a version together.
    let most = Object::new(d(1), MAX_OBJECT_LEAVES * MIN_LEAF, leaves(MIN_LEAF));
    assert!(m.object(Object { len: most.len + 1, ..most.clone() }).is_err());
    for _ in 0..MAX_LEAVES / MAX_OBJECT_LEAVES {
        m.object(most.clone()).unwrap();
    }
    let error = m.object(Object { len: 1, ..most }).unwrap_err().to_string();
    assert!(error.contains("leaves in all"), "{error}");
}

#[test]
fn objects_are_named_by_sha256() {
    let mut m = ManifestBuilder::new(d(0));
    let object = Object::new(d(1), 10, Check::Whole);
    let blake3 = Object { algorithm: HashAlgorithm::Blake3, ..object.clone() };
    assert!(m.object(blake3).unwrap_err().to_string().contains("SHA-256"));
    m.object(object.clone()).unwrap();
    let blob = Object::git_blob(GitId::from_bytes([1; 20]), 10, "o/n/x".into());
    m.object(blob.clone()).unwrap();
    for mixed in [
        Object { check: Check::Whole, ..blob.clone() },
        Object { check: Check::GitBlob, ..object.clone() },
    ] {
        assert!(m.object(mixed).unwrap_err().to_string().contains("SHA-256"));
    }
    let large = Object { len: MAX_LEAF + 1, ..blob };
    assert!(m.object(large).unwrap_err().to_string().contains("without leaves"));
    let digest = HashAlgorithm::GitBlobSha1;
    let leaves = Check::Leaves { size: 4096, digest, list: d(2) };
    assert!(m.object(Object { check: leaves, ..object }).is_err());
}
