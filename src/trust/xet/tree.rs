//! The tree over a file's chunks: how nodes are grouped and become their parents. Pure.

use std::fmt::Write;

use serde::Deserialize;

use super::hash::XetHash;

/// Maximum number of bytes of a chunk.
pub const MAX_CHUNK: u64 = 128 << 10;
/// Maximum number of levels: each has at most half as many nodes as the one below, and a length has 64
/// bits.
pub(super) const MAX_LEVELS: usize = 64;
/// Maximum number of children of a node.
const MAX_GROUP: usize = 9;

/// A node: a chunk, or what stands for several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Node {
    /// Its hash.
    pub hash: XetHash,
    /// The bytes of the file below it.
    pub size: u64,
}

/// The parents of a run of nodes that begins and ends with a group; `None` if their sizes overflow.
pub fn parents(mut run: &[Node]) -> Option<Vec<Node>> {
    let mut out = Vec::with_capacity(run.len().div_ceil(3));
    let mut lines = String::with_capacity(MAX_GROUP * 84);
    while !run.is_empty() {
        let (group, rest) = run.split_at(group_len(run));
        lines.clear();
        let mut size = 0u64;
        for node in group {
            size = size.checked_add(node.size)?;
            writeln!(lines, "{} : {}", node.hash, node.size).expect("a string takes everything");
        }
        out.push(Node { hash: XetHash::of_children(lines.as_bytes()), size });
        run = rest;
    }
    Some(out)
}

/// Whether these chunks are what lies below the node: whether they lead to it, level by level.
///
/// How nodes are grouped depends on nothing outside of a group, so that the tree below a node is the same
/// without the rest of the file. At the end of a file a node can have a single child.
pub(super) fn leads_to(chunks: &[Node], node: &Node) -> bool {
    let mut level = chunks.to_vec();
    for _ in 0..MAX_LEVELS {
        if level[..] == [*node] {
            return true;
        }
        match parents(&level) {
            Some(above) if !above.is_empty() => level = above,
            _ => return false,
        }
    }
    false
}

/// How many of the nodes that are left are the next group.
fn group_len(left: &[Node]) -> usize {
    let most = left.len().min(MAX_GROUP);
    if left.len() <= 2 {
        return left.len();
    }
    (2..most).find(|i| left[*i].hash.ends_group()).map_or(most, |last| last + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes that the test vectors are made of.
    fn splitmix64(seed: u64, len: usize) -> Vec<u8> {
        let mut state = seed;
        let words = std::iter::repeat_with(|| {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            (z ^ (z >> 31)).to_le_bytes()
        });
        words.flatten().take(len).collect()
    }

    fn vectors() -> serde_json::Value {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/xet-proofs.json");
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    #[test]
    fn chunks_hash_as_the_published_vectors_say() {
        let vectors = vectors();
        let cases = vectors["chunk_hash"].as_array().unwrap();
        assert_eq!(cases.len(), 6);
        for case in cases {
            let (seed, len) = (case["splitmix64_seed"].as_u64(), case["len"].as_u64());
            let bytes = splitmix64(seed.unwrap(), len.unwrap() as usize);
            assert_eq!(XetHash::of_chunk(&bytes).to_string(), case["chunk_hash"], "{case}");
        }
    }

    #[test]
    fn a_file_of_known_chunks_has_its_published_hash() {
        let case = &vectors()["chunker"][0];
        let bytes = splitmix64(case["splitmix64_seed"].as_u64().unwrap(), 1_000_000);
        let ends = case["ends"].as_array().unwrap().iter().map(|e| e.as_u64().unwrap() as usize);
        let mut start = 0;
        let mut nodes = Vec::new();
        for end in ends {
            let chunk = &bytes[std::mem::replace(&mut start, end)..end];
            nodes.push(Node { hash: XetHash::of_chunk(chunk), size: chunk.len() as u64 });
        }
        while nodes.len() > 1 {
            nodes = parents(&nodes).unwrap();
        }
        assert_eq!(nodes[0].size, 1_000_000);
        assert_eq!(nodes[0].hash.sealed().to_string(), case["file_hash"]);
    }

    #[test]
    fn sizes_that_overflow_have_no_parent() {
        let node = |size| Node { hash: XetHash::EMPTY_FILE, size };
        assert_eq!(parents(&[node(u64::MAX), node(1)]), None);
        assert_eq!(parents(&[]), Some(Vec::new()));
    }
}
