//! Inode numbers of views: a row of the index, which view's part it is, and a value.
//!
//! Invariant: as in `ino`: `decode` and `encode` are inverse, a number means the same in every process, and
//! none is a number of the tree. Pure values.

use crate::store::NodeId;
use crate::vfs::ino::POSITIONS;
use crate::vfs::tree::Position;
use crate::vfs::types::Ino;

/// What an inode number of a view refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// `.views`.
    Top,
    /// Something of `.views/hf`.
    HuggingFace(HfPlace),
}

/// A place in the layout of the Hugging Face cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HfPlace {
    /// The cache folder itself.
    Cache,
    /// `CACHEDIR.TAG`.
    Tag,
    /// `.locks`.
    Locks,
    /// A part of the repository that is this model.
    Repo(NodeId, RepoPart),
    /// `refs/<name>`, of a version.
    Ref(NodeId),
    /// A folder of references whose names begin with this version's name.
    RefFolder(NodeId),
    /// `trees/<commit>.json`, of a version.
    TreeDocument(NodeId),
    /// `snapshots/<commit>` of a version, or a folder in it. Its files are those of the tree.
    Snapshot(NodeId, Position),
    /// `.no_exist/<commit>` of a version, or a folder that the version has.
    NoExist(NodeId, Position),
    /// A folder below `.no_exist/<commit>` that the version does not have: a hash of its path.
    NoExistFolder(NodeId, u32),
    /// Any file below `.no_exist/<commit>`.
    NoExistFile(NodeId),
}

/// A folder of a repository in the Hugging Face cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepoPart {
    /// `models--ORG--NAME`.
    Top,
    /// `refs`.
    Refs,
    /// `snapshots`.
    Snapshots,
    /// `blobs`.
    Blobs,
    /// `trees`.
    Trees,
    /// `.no_exist`.
    NoExist,
    /// `.locks/models--ORG--NAME`.
    Lock,
}

impl RepoPart {
    const ALL: [Self; 7] = [
        Self::Top,
        Self::Refs,
        Self::Snapshots,
        Self::Blobs,
        Self::Trees,
        Self::NoExist,
        Self::Lock,
    ];
}

/// Limit of hashes of paths that lead to no folder of a version.
pub const HASHES: u32 = POSITIONS;

/// Numbers without a row.
const FIXED: [View; 4] = [
    View::Top,
    View::HuggingFace(HfPlace::Cache),
    View::HuggingFace(HfPlace::Tag),
    View::HuggingFace(HfPlace::Locks),
];
/// The first of them: the root of the mount is 1.
const FIRST_FIXED: u64 = 2;

/// Kinds of numbers with a row: the upper bits of the position.
const REPO: u32 = 1;
const OF_VERSION: u32 = 2;
const SNAPSHOT: u32 = 3;
const NO_EXIST: u32 = 4;
const NO_EXIST_FOLDER: u32 = 5;

/// Values of [`OF_VERSION`].
const OF_VERSION_PLACES: [fn(NodeId) -> HfPlace; 4] =
    [HfPlace::Ref, HfPlace::RefFolder, HfPlace::TreeDocument, HfPlace::NoExistFile];

impl View {
    /// Decodes a number; `None` for one that no view gives.
    pub fn decode(ino: Ino) -> Option<Self> {
        let (row, low) = ((ino.0 >> 32) as u32, ino.0 as u32);
        if row == 0 {
            let at = u64::from(low).checked_sub(FIRST_FIXED)?;
            return FIXED.get(usize::try_from(at).ok()?).copied();
        }
        let (node, kind, value) = (NodeId(row), low / POSITIONS, low % POSITIONS);
        let place = match kind {
            REPO => HfPlace::Repo(node, *RepoPart::ALL.get(value as usize)?),
            OF_VERSION => OF_VERSION_PLACES.get(value as usize)?(node),
            SNAPSHOT => HfPlace::Snapshot(node, Position(value)),
            NO_EXIST => HfPlace::NoExist(node, Position(value)),
            NO_EXIST_FOLDER => HfPlace::NoExistFolder(node, value),
            _ => return None,
        };
        Some(Self::HuggingFace(place))
    }

    /// The inode number.
    pub fn encode(self) -> Ino {
        let at = |node: NodeId, kind: u32, value: u32| {
            Ino(u64::from(node.0) << 32 | u64::from(kind * POSITIONS + value))
        };
        let Self::HuggingFace(place) = self else { return fixed(self) };
        match place {
            HfPlace::Cache | HfPlace::Tag | HfPlace::Locks => fixed(self),
            HfPlace::Repo(node, part) => {
                let value = RepoPart::ALL.iter().position(|p| *p == part).unwrap_or(0);
                at(node, REPO, value as u32)
            }
            HfPlace::Ref(node) => at(node, OF_VERSION, 0),
            HfPlace::RefFolder(node) => at(node, OF_VERSION, 1),
            HfPlace::TreeDocument(node) => at(node, OF_VERSION, 2),
            HfPlace::NoExistFile(node) => at(node, OF_VERSION, 3),
            HfPlace::Snapshot(node, position) => at(node, SNAPSHOT, position.0),
            HfPlace::NoExist(node, position) => at(node, NO_EXIST, position.0),
            HfPlace::NoExistFolder(node, hash) => at(node, NO_EXIST_FOLDER, hash % HASHES),
        }
    }
}

fn fixed(view: View) -> Ino {
    let at = FIXED.iter().position(|v| *v == view).expect("every place without a row is listed");
    Ino(FIRST_FIXED + at as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::ino::Place;

    #[test]
    fn numbers_there_and_back_and_none_of_the_tree() {
        let mut all: Vec<View> = FIXED.to_vec();
        for row in [1, 77, (1 << 31) - 1] {
            let node = NodeId(row);
            let mut places: Vec<HfPlace> =
                RepoPart::ALL.iter().map(|part| HfPlace::Repo(node, *part)).collect();
            places.extend([
                HfPlace::Ref(node),
                HfPlace::RefFolder(node),
                HfPlace::TreeDocument(node),
                HfPlace::NoExistFile(node),
                HfPlace::Snapshot(node, Position(0)),
                HfPlace::Snapshot(node, Position(64_000_000)),
                HfPlace::NoExist(node, Position(3)),
                HfPlace::NoExistFolder(node, HASHES - 1),
            ]);
            all.extend(places.into_iter().map(View::HuggingFace));
        }
        let mut numbers = std::collections::HashSet::new();
        for view in all {
            let ino = view.encode();
            assert_eq!(View::decode(ino), Some(view));
            assert_eq!(Place::decode(ino), None, "{view:?}");
            assert!(ino.0 <= i64::MAX as u64, "some programs read them signed");
            assert!(numbers.insert(ino), "{view:?}");
        }
    }

    #[test]
    fn numbers_of_the_tree_and_numbers_that_never_were() {
        for ino in [0, 1, 99, 7 << 32, 7 << 32 | 1, 7 << 32 | 9 << 27, (8 << 32) - 1] {
            assert_eq!(View::decode(Ino(ino)), None, "{ino}");
        }
    }
}
