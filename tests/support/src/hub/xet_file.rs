//! A file as Xet keeps it: its chunks, the tree over them, and the xorbs that they are in.
//!
//! Its bytes are in memory, or generated when they are needed, so that a large file costs nothing but the
//! hashing. The tree is built by the program's own rule of grouping, which published vectors check.

use std::io::Write;
use std::ops::Range;

use modelfs::model::hash::{Hasher, sha256};
use modelfs::model::{Digest, HashAlgorithm};
use modelfs::trust::xet::{Node, XetHash, parents};
use serde_json::{Value, json};

use crate::bytes;

/// Minimum size of a chunk that a boundary is looked for in, and the bits that are 0 where one is.
const MIN_CHUNK: usize = 8 << 10;
const BOUNDARY: u64 = 0xFFFF_0000_0000_0000;
const MAX_CHUNK: usize = 128 << 10;
/// Sizes of chunks of which two in a row end a window.
const GOOD: Range<u64> = 16 << 10..120 << 10;

/// How the chunks lie in xorbs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XetPlaces {
    /// In order, so many in a xorb.
    InOrder(usize),
    /// In turns in two xorbs, and in each with a chunk of another file between two of them.
    Scattered,
}

/// How chunks are compressed: the number of the scheme.
pub type XetScheme = u8;

/// A file.
#[derive(Debug, Clone)]
pub struct XetFile {
    content: Content,
    /// Of all its bytes.
    pub sha256: Digest,
    /// Its Xet hash.
    pub hash: XetHash,
    /// From the chunks to the root.
    levels: Vec<Vec<Node>>,
    /// Where each chunk begins, and the length of the file.
    starts: Vec<u64>,
    places: XetPlaces,
    scheme: XetScheme,
}

#[derive(Debug, Clone)]
enum Content {
    Memory(Vec<u8>),
    /// The bytes of chunk `i` are random of this seed and `i`.
    Generated(u64),
}

impl XetFile {
    /// A file of these bytes, cut as an uploader cuts it.
    pub fn new(bytes: Vec<u8>, places: XetPlaces, scheme: XetScheme) -> Self {
        let ends = cut(&bytes);
        let mut starts = vec![0];
        starts.extend(ends.iter().map(|end| *end as u64));
        let chunks = starts.windows(2).map(|w| {
            let chunk = &bytes[w[0] as usize..w[1] as usize];
            Node { hash: XetHash::of_chunk(chunk), size: chunk.len() as u64 }
        });
        let levels = levels(chunks.collect());
        let sha256 = sha256(&bytes);
        Self::with(Content::Memory(bytes), sha256, levels, starts, places, scheme)
    }

    /// A file of random bytes of at least this length, whose chunks have 16 to 112 KiB, 64 in the mean.
    pub fn generated(seed: u64, len: u64, places: XetPlaces) -> Self {
        let mut hasher = Hasher::new(HashAlgorithm::Sha256);
        let (mut starts, mut chunks) = (vec![0], Vec::new());
        let mut end = 0;
        while end < len {
            let size = 16 * 1024 + (chunks.len() as u64).wrapping_mul(0x9E37_79B9) % (96 * 1024);
            let chunk = bytes(seed + chunks.len() as u64, size as usize);
            hasher.update(&chunk);
            chunks.push(Node { hash: XetHash::of_chunk(&chunk), size });
            end += size;
            starts.push(end);
        }
        let content = Content::Generated(seed);
        Self::with(content, hasher.finish(), levels(chunks), starts, places, 0)
    }

    fn with(
        content: Content,
        sha256: Digest,
        levels: Vec<Vec<Node>>,
        starts: Vec<u64>,
        places: XetPlaces,
        scheme: XetScheme,
    ) -> Self {
        let hash = levels[levels.len() - 1][0].hash.sealed();
        Self { content, sha256, hash, levels, starts, places, scheme }
    }

    /// Its length.
    pub fn len(&self) -> u64 {
        self.starts[self.starts.len() - 1]
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its chunks.
    pub fn chunks(&self) -> &[Node] {
        &self.levels[0]
    }

    /// The bytes of one chunk.
    fn chunk(&self, i: usize) -> Vec<u8> {
        let (start, end) = (self.starts[i], self.starts[i + 1]);
        match &self.content {
            Content::Memory(bytes) => bytes[start as usize..end as usize].to_vec(),
            Content::Generated(seed) => bytes(seed + i as u64, (end - start) as usize),
        }
    }

    /// Some of its bytes.
    pub fn bytes(&self, range: Range<u64>) -> Vec<u8> {
        let mut out = Vec::with_capacity((range.end - range.start) as usize);
        for i in self.chunks_in(range.clone()) {
            let start = self.starts[i];
            let chunk = self.chunk(i);
            let from = range.start.saturating_sub(start) as usize;
            let to = (range.end - start).min(chunk.len() as u64) as usize;
            out.extend_from_slice(&chunk[from..to]);
        }
        out
    }

    /// The chunks that a range, which is not empty, touches.
    fn chunks_in(&self, range: Range<u64>) -> Range<usize> {
        let first = self.starts.partition_point(|s| *s <= range.start) - 1;
        first..self.starts.partition_point(|s| *s < range.end).min(self.chunks().len())
    }

    /// The window for a range: whole chunks, up to two in a row of a good size.
    fn window(&self, range: Range<u64>) -> Range<usize> {
        let chunks = self.chunks_in(range);
        let good = |i: usize| self.chunks().get(i).is_none_or(|c| GOOD.contains(&c.size));
        let mut end = chunks.end;
        while end < self.chunks().len() && !(good(end) && good(end + 1)) {
            end += 1;
        }
        chunks.start..(end + 2).min(self.chunks().len())
    }

    /// The proof of a window for a range.
    pub fn proof(&self, range: Range<u64>) -> Value {
        self.proof_of_chunks(self.window(range))
    }

    /// The proof of the whole file as one window.
    pub fn proof_of_all(&self) -> Value {
        self.proof_of_chunks(0..self.chunks().len())
    }

    fn proof_of_chunks(&self, window: Range<usize>) -> Value {
        let all = self.chunks().len();
        json!({
            "totalChunks": all,
            "fileSize": self.len(),
            "windows": [{"dirtyByteRange": [self.starts[window.start], self.starts[window.end]]}],
            "hashRanges": [self.gap(0..window.start), self.gap(window.end..all)],
            "gapVerification": [],
        })
    }

    /// The nodes of a run of chunks: on each level those beside the groups that lie in it whole.
    fn gap(&self, chunks: Range<usize>) -> Value {
        if chunks.is_empty() {
            return Value::Null;
        }
        let (at_start, at_end) = (chunks.start == 0, chunks.end == self.chunks().len());
        let (mut left, mut right) = (Vec::new(), Vec::new());
        let (mut from, mut to) = (chunks.start, chunks.end);
        for level in 0.. {
            let nodes = &self.levels[level];
            let groups = self.groups(level);
            let first = groups.partition_point(|start| *start < from);
            let last = groups.partition_point(|start| *start <= to).saturating_sub(1);
            if first >= last {
                left.push(&nodes[from..to]);
                right.push(&nodes[..0]);
                break;
            }
            left.push(&nodes[from..groups[first]]);
            right.push(&nodes[groups[last]..to]);
            (from, to) = (first, last);
        }
        let levels: Vec<_> = left.iter().zip(&right).map(|(l, r)| [l.len(), r.len()]).collect();
        let nodes = left.iter().copied().flatten().chain(right.iter().rev().copied().flatten());
        let nodes: Vec<_> =
            nodes.map(|n| json!({"hash": n.hash.to_string(), "size": n.size})).collect();
        json!({"nodes": nodes, "levels": levels, "at_start": at_start, "at_end": at_end})
    }

    /// Where the groups of a level begin, and the number of nodes.
    fn groups(&self, level: usize) -> Vec<usize> {
        let (nodes, mut at) = (&self.levels[level], 0);
        let mut out = vec![0];
        for parent in self.levels.get(level + 1).map(Vec::as_slice).unwrap_or_default() {
            let mut size = 0;
            while size < parent.size {
                size += nodes[at].size;
                at += 1;
            }
            out.push(at);
        }
        out
    }

    /// The xorb of a chunk and its index there.
    fn place(&self, chunk: usize) -> (usize, usize) {
        match self.places {
            XetPlaces::InOrder(each) => (chunk / each, chunk % each),
            XetPlaces::Scattered => (chunk % 2, chunk / 2 * 2),
        }
    }

    /// The chunk at a place; `None`: one of another file.
    fn chunk_at(&self, xorb: usize, index: usize) -> Option<usize> {
        match self.places {
            XetPlaces::InOrder(each) => Some(xorb * each + index),
            XetPlaces::Scattered => index.is_multiple_of(2).then_some(index + xorb),
        }
    }

    /// A name for a xorb, of the form of its hash.
    pub fn xorb_name(&self, xorb: usize) -> String {
        XetHash::of_chunk(format!("{} {xorb}", self.hash).as_bytes()).to_string()
    }

    /// A chunk as it is stored, with its header.
    fn stored(&self, xorb: usize, index: usize) -> Vec<u8> {
        let chunk = match self.chunk_at(xorb, index) {
            Some(i) => self.chunk(i),
            None => bytes(index as u64, 9000),
        };
        stored_chunk(&chunk, self.scheme)
    }

    fn stored_len(&self, xorb: usize, index: usize) -> u64 {
        match (self.scheme, self.chunk_at(xorb, index)) {
            (0, Some(i)) => self.chunks()[i].size + 8,
            _ => self.stored(xorb, index).len() as u64,
        }
    }

    /// Bytes before a chunk of a xorb.
    fn offset(&self, xorb: usize, index: usize) -> u64 {
        (0..index).map(|i| self.stored_len(xorb, i)).sum()
    }

    /// Some bytes of a xorb, which begin and end with chunks.
    pub fn xorb_bytes(&self, xorb: usize, range: Range<u64>) -> Vec<u8> {
        let (mut index, mut at) = (0, 0);
        while at < range.start {
            at += self.stored_len(xorb, index);
            index += 1;
        }
        assert_eq!(at, range.start, "a range begins with a chunk");
        let mut out = Vec::new();
        while at + (out.len() as u64) < range.end {
            out.extend(self.stored(xorb, index));
            index += 1;
        }
        at += out.len() as u64;
        assert_eq!(at, range.end, "a range ends with a chunk");
        out
    }

    /// What a range consists of: bytes of the first chunk before it, and runs of chunks of xorbs (xorb,
    /// chunks there, their length).
    pub fn terms(&self, range: Range<u64>) -> (u64, Vec<(usize, Range<usize>, u64)>) {
        let chunks = self.chunks_in(range.clone());
        let skip = range.start - self.starts[chunks.start];
        let mut out: Vec<(usize, Range<usize>, u64)> = Vec::new();
        for chunk in chunks {
            let ((xorb, index), size) = (self.place(chunk), self.chunks()[chunk].size);
            match out.last_mut() {
                Some((x, run, len)) if *x == xorb && run.end == index => {
                    run.end += 1;
                    *len += size;
                }
                _ => out.push((xorb, index..index + 1, size)),
            }
        }
        (skip, out)
    }

    /// The bytes of a run of chunks of a xorb, end inclusive.
    pub fn byte_range(&self, xorb: usize, run: &Range<usize>) -> (u64, u64) {
        let start = self.offset(xorb, run.start);
        let len: u64 = run.clone().map(|i| self.stored_len(xorb, i)).sum();
        (start, start + len - 1)
    }
}

/// A chunk with its header.
fn stored_chunk(chunk: &[u8], scheme: XetScheme) -> Vec<u8> {
    let lz4 = |bytes: &[u8]| {
        let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
        encoder.write_all(bytes).expect("into memory");
        encoder.finish().expect("into memory")
    };
    let data = match scheme {
        0 => chunk.to_vec(),
        1 => lz4(chunk),
        2 => {
            let group = |first| chunk.iter().skip(first).step_by(4).copied();
            lz4(&(0..4).flat_map(group).collect::<Vec<_>>())
        }
        other => panic!("scheme {other}"),
    };
    let ([a, b, c, _], [x, y, z, _]) =
        ((data.len() as u32).to_le_bytes(), (chunk.len() as u32).to_le_bytes());
    let mut out = vec![0, a, b, c, scheme, x, y, z];
    out.extend(data);
    out
}

fn levels(chunks: Vec<Node>) -> Vec<Vec<Node>> {
    let mut out = vec![chunks];
    while out[out.len() - 1].len() > 1 {
        let above = parents(&out[out.len() - 1]).expect("sizes of a file do not overflow");
        out.push(above);
    }
    out
}

/// The ends of the chunks that an uploader makes.
fn cut(bytes: &[u8]) -> Vec<usize> {
    let (mut ends, mut start, mut hash) = (Vec::new(), 0, 0u64);
    for (at, byte) in bytes.iter().enumerate() {
        hash = (hash << 1).wrapping_add(gearhash::DEFAULT_TABLE[usize::from(*byte)]);
        let size = at + 1 - start;
        if size >= MIN_CHUNK && hash & BOUNDARY == 0 || size == MAX_CHUNK {
            (start, hash) = (at + 1, 0);
            ends.push(start);
        }
    }
    if start < bytes.len() {
        ends.push(bytes.len());
    }
    ends
}

#[cfg(test)]
mod tests {
    use modelfs::trust::xet::{Proof, verify};

    use super::*;

    #[test]
    fn a_file_is_cut_as_the_published_vectors_say() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../vectors/xet-proofs.json");
        let vectors: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let case = &vectors["chunker"][0];
        let mut state = case["splitmix64_seed"].as_u64().unwrap();
        let words = std::iter::repeat_with(|| {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            (z ^ (z >> 31)).to_le_bytes()
        });
        let bytes: Vec<u8> = words.flatten().take(1_000_000).collect();
        let ends: Vec<_> = cut(&bytes).into_iter().map(|end| json!(end)).collect();
        assert_eq!(Value::from(ends), case["ends"]);
        let file = XetFile::new(bytes, XetPlaces::InOrder(100), 0);
        assert_eq!(file.hash.to_string(), case["file_hash"]);
    }

    #[test]
    fn the_proofs_that_are_served_are_accepted() {
        let file = XetFile::generated(3, 60 << 20, XetPlaces::InOrder(500));
        let all = file.len();
        for start in [0, 1, 5_000_000, all / 2, all - 70_000, all - 1] {
            let range = start..(start + 50_000).min(all);
            let window = file.window(range.clone());
            let proof: Proof = serde_json::from_value(file.proof(range)).unwrap();
            let chunks = file.chunks()[window].to_vec();
            verify(&file.hash, all, &proof, &[chunks]).unwrap();
        }
    }

    #[test]
    fn terms_lead_to_the_bytes_of_their_chunks() {
        for places in [XetPlaces::InOrder(7), XetPlaces::Scattered] {
            let file = XetFile::generated(3, 2 << 20, places);
            let (skip, terms) = file.terms(100_000..900_000);
            let mut stored = Vec::new();
            for (xorb, run, len) in terms {
                let (first, last) = file.byte_range(xorb, &run);
                let bytes = file.xorb_bytes(xorb, first..last + 1);
                assert_eq!(bytes.len() as u64, len + 8 * run.len() as u64);
                stored.push(bytes);
            }
            assert!(skip < 200_000 && stored.len() > 1);
        }
    }
}
