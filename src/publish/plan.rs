//! Cuts files into chunks. Pure arithmetic.
//!
//! Invariant: the chunks, in order, are the files, in order, byte for byte; no chunk is empty or longer
//! than the limit. The same files give the same chunks, and the chunks of a large file depend on that
//! file alone.

use crate::base::FileRange;

/// Minimum size of a file with chunks of its own: small enough to include every weight file, large enough
/// that a thousand tokenizer files do not need a thousand requests.
pub const OWN_CHUNKS: u64 = 1 << 20;

/// A range of one file's bytes within a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// The file: an index into the order of the plan.
    pub file: usize,
    /// The bytes, never empty.
    pub range: FileRange,
}

/// A chunk: a sequence of segments.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chunk {
    /// The segments.
    pub segments: Vec<Segment>,
    /// Length in bytes.
    pub len: u64,
}

impl Chunk {
    fn push(&mut self, file: usize, range: FileRange) {
        self.segments.push(Segment { file, range });
        self.len += range.len();
    }
}

/// Whether a file has chunks of its own.
pub fn has_own_chunks(size: u64, chunk_size: u64) -> bool {
    size >= OWN_CHUNKS.min(chunk_size)
}

/// Sorts the files of a manifest: first those that share chunks, then those with chunks of their own,
/// both by path. So a run of small files is never interrupted, their shared chunks are full, and what is
/// read first (configuration, tokenizer) needs few requests.
pub fn order<T>(files: &mut [T], size: impl Fn(&T) -> u64, path: impl Fn(&T) -> &str, chunk: u64) {
    files.sort_by(|a, b| {
        let key = |f| has_own_chunks(size(f), chunk);
        key(a).cmp(&key(b)).then_with(|| path(a).cmp(path(b)))
    });
}

/// Chunks that end at file boundaries. Files that share chunks are never cut: a chunk ends before a file
/// that does not fit.
pub fn cut(sizes: &[u64], chunk_size: u64) -> Vec<Chunk> {
    let mut out = Vec::new();
    let mut open = Chunk::default();
    let mut close = |open: &mut Chunk| {
        if open.len > 0 {
            out.push(std::mem::take(open));
        }
    };
    for (file, &size) in sizes.iter().enumerate() {
        let own = has_own_chunks(size, chunk_size);
        if own || open.len + size > chunk_size {
            close(&mut open);
        }
        let mut at = 0;
        while at < size {
            let range = FileRange::new(at, size.min(at + chunk_size));
            open.push(file, range);
            at = range.end();
            if own {
                close(&mut open);
            }
        }
    }
    close(&mut open);
    out
}

/// Chunks of one size, except the last, regardless of file boundaries: the plain format.
pub fn fixed(sizes: &[u64], chunk_size: u64) -> Vec<Chunk> {
    let mut out = Vec::new();
    let mut open = Chunk::default();
    for (file, &size) in sizes.iter().enumerate() {
        let mut at = 0;
        while at < size {
            let range = FileRange::new(at, size.min(at + (chunk_size - open.len)));
            open.push(file, range);
            at = range.end();
            if open.len == chunk_size {
                out.push(std::mem::take(&mut open));
            }
        }
    }
    if open.len > 0 {
        out.push(open);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    fn lens(chunks: &[Chunk]) -> Vec<u64> {
        chunks.iter().map(|c| c.len).collect()
    }

    #[test]
    fn large_files_have_their_own_chunks_and_small_ones_share() {
        let chunks = cut(&[100, 0, MIB - 1, 9 * MIB, MIB, 25 * MIB], 10 * MIB);
        let want = [100 + MIB - 1, 9 * MIB, MIB, 10 * MIB, 10 * MIB, 5 * MIB];
        assert_eq!(lens(&chunks), want);
        assert_eq!(chunks[0].segments.len(), 2, "an empty file has no segment");
        assert_eq!(lens(&fixed(&[MIB, 25 * MIB], 10 * MIB)), [10 * MIB, 10 * MIB, 6 * MIB]);
        assert!(cut(&[0, 0], 10).is_empty() && fixed(&[0], 10).is_empty());
    }

    #[test]
    fn small_files_come_first_and_are_not_cut() {
        let mut files = vec![("b", 5 * MIB), ("z", 3), ("a", MIB), ("y", 0)];
        order(&mut files, |f| f.1, |f| f.0, 10 * MIB);
        assert_eq!(files.iter().map(|f| f.0).collect::<String>(), "yzab");
        assert_eq!(lens(&cut(&[6, 5, 4, 9], 10)), [6, 9, 9]);
        assert_eq!(lens(&cut(&[25], 10)), [10, 10, 5], "a chunk size below a MiB is a limit too");
    }

    proptest! {
        #[test]
        fn chunks_are_the_files_in_order(
            mut sizes in proptest::collection::vec(0u64..4000, 0..20),
            scale in 1u64..3000,
            chunk_size in 1u64..50_000,
        ) {
            for (i, s) in sizes.iter_mut().enumerate() { if i % 3 == 0 { *s *= scale; } }
            // Few chunks, so that the test is quick.
            let chunk_size = chunk_size.max(sizes.iter().sum::<u64>() / 5000);
            for (is_fixed, chunks) in [(false, cut(&sizes, chunk_size)), (true, fixed(&sizes, chunk_size))] {
                let mut files = sizes.iter().enumerate().filter(|(_, s)| **s > 0).peekable();
                let mut at = 0;
                for (i, chunk) in chunks.iter().enumerate() {
                    prop_assert!(chunk.len > 0 && chunk.len <= chunk_size);
                    prop_assert_eq!(chunk.len, chunk.segments.iter().map(|s| s.range.len()).sum::<u64>());
                    prop_assert!(!is_fixed || chunk.len == chunk_size || i + 1 == chunks.len());
                    for s in &chunk.segments {
                        let (file, size) = *files.peek().expect("a file for every segment");
                        prop_assert_eq!((s.file, s.range.start()), (file, at));
                        at = s.range.end();
                        if !is_fixed && has_own_chunks(*size, chunk_size) {
                            prop_assert_eq!(chunk.segments.len(), 1);
                        }
                        if at == *size { files.next(); at = 0; }
                    }
                }
                prop_assert!(files.next().is_none(), "every byte is in a chunk");
            }
        }

        #[test]
        fn a_large_files_chunks_do_not_depend_on_the_others(
            before in proptest::collection::vec(0u64..100, 0..10),
            other in proptest::collection::vec(0u64..100, 0..10),
            size in 50u64..500,
        ) {
            let of = |before: &[u64]| {
                let sizes = [before, &[size]].concat();
                let mine = |c: &Chunk| c.segments[0].file == before.len();
                cut(&sizes, 50).iter().filter(|c| mine(c))
                    .map(|c| c.segments[0].range).collect::<Vec<_>>()
            };
            prop_assert_eq!(of(&before), of(&other));
        }
    }
}
