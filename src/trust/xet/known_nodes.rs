//! What is known of the tree over one file: nodes that an accepted proof had, at their places.
//!
//! Invariant: the nodes tile the file, or nothing is known; each is the finest that is known at its place,
//! and each was authenticated. Pure.

use std::collections::BTreeMap;
use std::ops::Range;

use super::tree::{MAX_CHUNK, Node, leads_to};

/// Consecutive nodes, from a place of the file on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cover {
    /// Where the first begins.
    pub start: u64,
    /// The nodes, in file order.
    pub nodes: Vec<Node>,
}

/// The known nodes of one file.
#[derive(Debug, Clone, Default)]
pub struct KnownNodes {
    /// By the offset that they begin at.
    nodes: BTreeMap<u64, Node>,
}

impl Cover {
    /// The bytes of the file that the nodes cover.
    pub fn range(&self) -> Range<u64> {
        self.start..self.start + self.nodes.iter().map(|node| node.size).sum::<u64>()
    }

    /// Whether these chunks, in file order, are what lies below the nodes.
    pub fn accepts(&self, chunks: &[Node]) -> bool {
        let mut rest = chunks;
        for node in &self.nodes {
            let mut size = 0u64;
            let mut count = 0;
            while size < node.size {
                let Some(chunk) = rest.get(count) else { return false };
                if !(1..=MAX_CHUNK).contains(&chunk.size) {
                    return false;
                }
                size += chunk.size;
                count += 1;
            }
            let (below, after) = rest.split_at(count);
            if size != node.size || !leads_to(below, node) {
                return false;
            }
            rest = after;
        }
        rest.is_empty()
    }
}

impl KnownNodes {
    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The nodes that cover a range, which must not be empty, if together they have at most `most` bytes.
    pub fn cover(&self, range: Range<u64>, most: u64) -> Option<Cover> {
        let (start, _) = self.nodes.range(..=range.start).next_back()?;
        let mut cover = Cover { start: *start, nodes: Vec::new() };
        let mut end = *start;
        for (at, node) in self.nodes.range(start..) {
            if end >= range.end {
                break;
            }
            if *at != end || end - start + node.size > most {
                return None;
            }
            cover.nodes.push(*node);
            end += node.size;
        }
        (end >= range.end).then_some(cover)
    }

    /// Learns authenticated nodes, in file order from `start` on: those of a whole file, or those below
    /// known ones.
    pub fn learn(&mut self, start: u64, nodes: &[Node]) {
        let mut at = start;
        // Up to there something as fine is known. Nodes of one tree are nested or apart.
        let mut fine_up_to = start;
        for node in nodes {
            let end = at + node.size;
            if at >= fine_up_to {
                match self.nodes.get(&at) {
                    Some(known) if known.size <= node.size => fine_up_to = end,
                    _ => drop(self.nodes.insert(at, *node)),
                }
            }
            at = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::hash::XetHash;
    use super::super::tree::parents;
    use super::*;

    fn chunks(sizes: &[u64]) -> Vec<Node> {
        let chunk = |(i, size): (usize, &u64)| {
            let hash = XetHash::of_chunk(&i.to_le_bytes());
            Node { hash, size: *size }
        };
        sizes.iter().enumerate().map(chunk).collect()
    }

    /// The chunks of a file, and the levels above.
    fn tree() -> Vec<Vec<Node>> {
        let mut levels = vec![chunks(&[100; 200])];
        while levels[levels.len() - 1].len() > 1 {
            levels.push(parents(&levels[levels.len() - 1]).unwrap());
        }
        levels
    }

    #[test]
    fn nodes_cover_a_range_if_they_are_small_enough() {
        let levels = tree();
        let mut known = KnownNodes::default();
        assert_eq!(known.cover(0..1, u64::MAX), None, "nothing is known");
        known.learn(0, &levels[2]);
        let first = levels[2][0].size;
        let cover = known.cover(first - 1..first + 1, u64::MAX).unwrap();
        assert_eq!((cover.start, &cover.nodes[..]), (0, &levels[2][..2]));
        let both = cover.range().end;
        assert_eq!(known.cover(first - 1..first + 1, both - 1), None);
        assert!(known.cover(first - 1..first + 1, both).is_some());
        assert_eq!(known.cover(first..first + 1, u64::MAX).unwrap().start, first);
        assert_eq!(known.cover(19_999..20_001, u64::MAX), None, "past the end");
    }

    #[test]
    fn chunks_are_accepted_below_their_node_and_nowhere_else() {
        let levels = tree();
        for level in &levels {
            let mut known = KnownNodes::default();
            known.learn(0, level);
            let (mut at, mut first) = (0, 0);
            for node in level {
                let cover = known.cover(at..at + 1, u64::MAX).unwrap();
                let count = (node.size / 100) as usize;
                let below = &levels[0][first..first + count];
                assert!(cover.accepts(below));
                assert!(!cover.accepts(&below[1..]) && !cover.accepts(&[]));
                let mut other = below.to_vec();
                other[0] = chunks(&[100; 201])[200];
                assert!(!cover.accepts(&other), "another chunk");
                let mut split = below.to_vec();
                split.splice(..1, chunks(&[50, 50]));
                assert!(!cover.accepts(&split), "the same size in two chunks");
                let mut more = below.to_vec();
                more.push(below[0]);
                assert!(!cover.accepts(&more), "a chunk after the last node");
                (at, first) = (at + node.size, first + count);
            }
        }
    }

    #[test]
    fn a_node_with_a_single_child_accepts_the_chunks_below_that_child() {
        let chunks = chunks(&[5, 6]);
        let once = parents(&chunks).unwrap();
        let twice = parents(&once).unwrap();
        assert_ne!(once, twice);
        assert!(Cover { start: 0, nodes: twice }.accepts(&chunks));
    }

    #[test]
    fn the_finest_nodes_are_kept_in_whichever_order_they_are_learned() {
        let levels = tree();
        // Of two proofs: one knows the begin finely, the other the end.
        let split = levels[2][0].size;
        let begin: Vec<_> = [below(&levels, 0, split), levels[2][1..].to_vec()].concat();
        let end: Vec<_> = [&levels[2][..1], &below(&levels, split, 20_000)[..]].concat();
        for (a, b) in [(&begin, &end), (&end, &begin)] {
            let mut known = KnownNodes::default();
            known.learn(0, a);
            known.learn(0, b);
            assert_eq!(known.len(), 200);
            assert_eq!(known.cover(0..20_000, 20_000).unwrap().nodes, levels[0]);
            known.learn(0, &levels[3]);
            assert_eq!(known.len(), 200, "coarser nodes add nothing");
        }
    }

    /// The chunks of a range.
    fn below(levels: &[Vec<Node>], start: u64, end: u64) -> Vec<Node> {
        levels[0][(start / 100) as usize..(end / 100) as usize].to_vec()
    }

    #[test]
    fn chunks_below_a_known_node_take_its_place() {
        let levels = tree();
        let mut known = KnownNodes::default();
        known.learn(0, &levels[1]);
        let size = levels[1][1].size;
        let start = levels[1][0].size;
        known.learn(start, &below(&levels, start, start + size));
        assert_eq!(known.len() as u64, levels[1].len() as u64 - 1 + size / 100);
        assert_eq!(known.cover(start..start + 1, 100).unwrap().nodes.len(), 1);
    }
}
