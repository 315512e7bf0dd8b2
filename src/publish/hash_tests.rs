//! Tests of `hash.rs`.

use super::super::{plan, scan};
use super::*;

fn tree() -> (tempfile::TempDir, Vec<Found>, Vec<Vec<u8>>) {
    let dir = tempfile::tempdir().unwrap();
    let contents: Vec<Vec<u8>> = [0usize, 1, 70_000, 1_500_000, 99]
        .iter()
        .map(|n| (0..*n).map(|i| (i * 31 % 253) as u8).collect())
        .collect();
    for (i, bytes) in contents.iter().enumerate() {
        fs::write(dir.path().join(format!("f{i}")), bytes).unwrap();
    }
    let files = scan::scan(dir.path()).unwrap().files;
    (dir, files, contents)
}

fn chunks(files: &[Found], size: u64) -> Vec<Chunk> {
    plan::fixed(&files.iter().map(|f| f.stamp.size).collect::<Vec<_>>(), size)
}

#[test]
fn digests_are_those_of_the_bytes() {
    let (_dir, files, contents) = tree();
    let stream = contents.concat();
    for size in [999u64, 65_536, 2_000_000] {
        let chunks = chunks(&files, size);
        let kept = Mutex::new(BTreeMap::new());
        let keep = |d: &Digest, b: &[u8]| Ok(kept.lock().unwrap().insert(*d, b.to_vec()).is_none());
        let leaf = Some((4096, HashAlgorithm::Blake3));
        let job = Job { files: &files, chunks: &chunks, chunk_size: size, leaf, keep: &keep };
        let last = std::cell::Cell::default();
        let out = hash_all(&job, &|p| last.set(p)).unwrap();
        let want: Vec<_> = stream.chunks(size as usize).map(sha256).collect();
        assert_eq!(out.chunks, want);
        assert_eq!(out.files, contents.iter().map(|c| sha256(c)).collect::<Vec<_>>());
        assert_eq!(out.new, distinct(&want));
        let list = kept.lock().unwrap()[&out.leaves.unwrap()[0]].clone();
        let first = &stream[..stream.len().min(size as usize).min(4096)];
        assert_eq!(list[..32], *HashAlgorithm::Blake3.hash(first).as_bytes());
        let total = stream.len() as u64;
        let want =
            Progress { bytes_done: total, bytes_total: total, files_done: 5, files_total: 5 };
        assert_eq!(last.get(), want);
    }
}

#[test]
fn the_first_write_error_ends_publishing() {
    let (_dir, files, _) = tree();
    let chunks = chunks(&files, 500);
    let keep = |_: &Digest, _: &[u8]| {
        Err(PublishError::Io { path: "x".into(), source: ErrorKind::StorageFull.into() })
    };
    let job = Job { files: &files, chunks: &chunks, chunk_size: 500, leaf: None, keep: &keep };
    let error = hash_all(&job, &|_| ()).unwrap_err();
    assert!(matches!(error, PublishError::Io { .. }), "{error}");
}

#[test]
fn a_file_that_changes_is_noticed() {
    let change: [fn(&std::path::Path); 4] = [
        |f| fs::write(f, "shorter").unwrap(),
        |f| fs::remove_file(f).unwrap(),
        |f| fs::write(f, vec![1; 1_500_001]).unwrap(),
        |f| {
            File::options()
                .write(true)
                .open(f)
                .unwrap()
                .set_modified(std::time::UNIX_EPOCH)
                .unwrap()
        },
    ];
    for change in change {
        let (dir, files, _) = tree();
        let chunks = chunks(&files, 500_000);
        let once = std::sync::Once::new();
        let keep = |_: &Digest, _: &[u8]| {
            once.call_once(|| change(&dir.path().join("f3")));
            Ok(true)
        };
        let job =
            Job { files: &files, chunks: &chunks, chunk_size: 500_000, leaf: None, keep: &keep };
        let error = hash_all(&job, &|_| ()).unwrap_err();
        assert!(matches!(&error, PublishError::Changed(f) if f.ends_with("f3")), "{error}");
    }
}
