//! Inode numbers: the row of a node in the index, and a position in that version's tree.
//!
//! Invariant: `decode` and `encode` are inverse, and a number means the same in every process: 1 is the
//! root; `row << 32` is a group, model or version; `row << 32 | position` lies in a version. Numbers with a
//! position from [`POSITIONS`] to below `.modelfs`, and small numbers without a row, belong to `views`.
//! Pure values.

use super::tree::Position;
use super::types::Ino;
use crate::store::NodeId;

/// Limit of the positions of a tree: a version has at most a million files in folders at most 64 deep.
pub(super) const POSITIONS: u32 = 1 << 27;
/// The position of `.modelfs` in every version.
const OWN: u32 = u32::MAX - 1;
/// The position of `.modelfs/manifest.json`.
const DOCUMENT: u32 = u32::MAX;

/// The row of a number, whatever it refers to there.
pub(super) fn row_of(ino: Ino) -> Option<NodeId> {
    let row = (ino.0 >> 32) as u32;
    (row > 0).then_some(NodeId(row))
}

/// What an inode number of the tree refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The root of the mount.
    Root,
    /// A group, model or version; the index knows which.
    Node(NodeId),
    /// A file or folder within a version.
    Inside(NodeId, Position),
    /// `.modelfs` of a version.
    MetaFolder(NodeId),
    /// `.modelfs/manifest.json` of a version.
    Document(NodeId),
}

impl Place {
    /// Decodes a number; `None` for a number that this tree never gives.
    pub(super) fn decode(ino: Ino) -> Option<Self> {
        if ino == Ino::ROOT {
            return Some(Self::Root);
        }
        let (row, position) = ((ino.0 >> 32) as u32, ino.0 as u32);
        let node = NodeId(row);
        match (row, position) {
            (0, _) => None,
            (_, 0) => Some(Self::Node(node)),
            (_, OWN) => Some(Self::MetaFolder(node)),
            (_, DOCUMENT) => Some(Self::Document(node)),
            (_, at) if at < POSITIONS => Some(Self::Inside(node, Position(at))),
            (_, _) => None,
        }
    }

    /// The inode number.
    pub(super) fn encode(self) -> Ino {
        let at = |node: NodeId, position: u32| Ino(u64::from(node.0) << 32 | u64::from(position));
        match self {
            Self::Root => Ino::ROOT,
            Self::Node(node) => at(node, 0),
            Self::Inside(node, position) => at(node, position.0),
            Self::MetaFolder(node) => at(node, OWN),
            Self::Document(node) => at(node, DOCUMENT),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inode_numbers_round_trip() {
        for row in [1, 2, 77, (1 << 31) - 1] {
            let node = NodeId(row);
            for place in [
                Place::Root,
                Place::Node(node),
                Place::Inside(node, Position(1)),
                Place::Inside(node, Position(64_000_000)),
                Place::MetaFolder(node),
                Place::Document(node),
            ] {
                assert_eq!(Place::decode(place.encode()), Some(place));
                assert!(place.encode().0 <= i64::MAX as u64, "some programs read them signed");
            }
        }
    }

    #[test]
    fn inode_numbers_that_were_never_given_are_invalid() {
        for ino in [0, 2, 3, u64::from(u32::MAX), 7 << 32 | u64::from(POSITIONS)] {
            assert_eq!(Place::decode(Ino(ino)), None);
        }
    }
}
