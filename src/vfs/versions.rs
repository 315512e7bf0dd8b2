//! Versions behind rows of the index: which manifest a row stands for, and what lies in its tree.
//!
//! Invariant: files have one inode for each manifest of a model, whatever names lead to it, in the tree and
//! in views: that of the oldest row with this manifest. Folders have one for each row, since a kernel allows
//! a folder one name. Concurrency: no state but caches.

use std::sync::Arc;
use std::time::SystemTime;

use super::ino::Place;
use super::metadata_cache::{MetadataCache, Ready};
use super::resolve::{Node, Nodes};
use super::tree::{Position, VersionTree};
use super::types::{Attr, Ino, Kind, VfsError, stable_time};
use crate::fetch::Source;
use crate::model::{Digest, FileIx, Manifest, SourceIx};
use crate::store::{NodeId, NodeKey};

/// The hash of a version's node while it is not known which manifest its name leads to: a list can name it
/// without asking the registry. The kernel never keeps such a name, and what lies below belongs to the
/// node of the manifest.
pub(super) const UNRESOLVED: Digest = Digest::from_bytes([0; 32]);

/// A version and the row of its node.
#[derive(Debug, Clone, Copy)]
pub(super) struct Version<'a> {
    pub(super) id: NodeId,
    pub(super) source: SourceIx,
    pub(super) group: &'a str,
    pub(super) model: &'a str,
    pub(super) version: &'a str,
    pub(super) hash: Digest,
}

/// The versions of a tree.
pub(super) struct Versions {
    pub(super) metadata: Arc<MetadataCache>,
    pub(super) nodes: Nodes,
}

impl Versions {
    /// The versions of these rows.
    pub(super) fn new(metadata: Arc<MetadataCache>, nodes: Nodes) -> Self {
        Self { metadata, nodes }
    }

    /// The version of a node. Of a node that is not resolved: what its name leads to now.
    pub(super) fn version_of<'a>(&self, id: NodeId, node: &'a Node) -> Ready<Version<'a>> {
        let NodeKey::Version { group, model, version, hash } = &node.key else {
            return Err(VfsError::Stale.into());
        };
        let (source, hash) = (node.source, *hash);
        if hash != UNRESOLVED {
            return Ok(Version { id, source, group, model, version, hash });
        }
        let hash = self.metadata.version(source, group, model, version)?;
        let key = NodeKey::Version {
            group: group.clone(),
            model: model.clone(),
            version: version.clone(),
            hash,
        };
        let id = self.nodes.id(source, key)?;
        Ok(Version { id, source, group, model, version, hash })
    }

    /// The tree of a version.
    pub(super) fn tree(&self, v: Version<'_>) -> Ready<Arc<VersionTree>> {
        self.metadata.tree(v.source, &v.hash)
    }

    /// When a version with this manifest was published.
    pub(super) fn published(
        &self,
        group: &str,
        model: &str,
        version: &str,
        hash: &Digest,
    ) -> SystemTime {
        let catalog = self.metadata.catalog_now();
        let entry = catalog.as_ref().and_then(|c| c.version(group, model, version));
        let entry = entry.filter(|entry| entry.hash() == Some(*hash));
        entry.and_then(|entry| entry.published).unwrap_or(stable_time())
    }

    /// When a version was published.
    pub(super) fn published_of(&self, v: Version<'_>) -> SystemTime {
        self.published(v.group, v.model, v.version, &v.hash)
    }

    /// What the files of a version have in common.
    pub(super) fn files_of(&self, v: Version<'_>) -> Result<Files, VfsError> {
        let row = self.nodes.oldest(v.source, v.group, v.model, v.hash)?.unwrap_or(v.id);
        Ok(Files { row, mtime: self.date_of_files(v) })
    }

    /// When the first version, by name, with this manifest was published: the inode of a file has one date.
    fn date_of_files(&self, v: Version<'_>) -> SystemTime {
        let catalog = self.metadata.catalog_now();
        let all = catalog.as_ref().and_then(|catalog| catalog.versions(v.group, v.model));
        let mut same = all.into_iter().flatten().filter(|entry| entry.hash() == Some(v.hash));
        same.find_map(|entry| entry.published).unwrap_or(stable_time())
    }

    /// What a file of a version consists of.
    pub(super) fn file(
        &self,
        v: Version<'_>,
        at: Position,
    ) -> Ready<(Arc<Source>, Arc<Manifest>, FileIx)> {
        let tree = self.tree(v)?;
        check_position(&tree, at)?;
        let file = tree.file(at).ok_or(VfsError::IsFolder)?;
        let source = Arc::clone(self.metadata.sources().get(v.source));
        Ok((source, Arc::clone(tree.manifest()), file))
    }
}

/// What the files of a manifest have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct Files {
    /// The row of their inodes.
    row: NodeId,
    mtime: SystemTime,
}

impl Files {
    /// The attributes of one of them; `None` for a folder.
    pub(super) fn attr(&self, tree: &VersionTree, at: Position) -> Option<Attr> {
        let size = tree.manifest().file(tree.file(at)?).len;
        let ino = Place::Inside(self.row, at).encode();
        Some(Attr { ino, kind: Kind::File, size, mtime: self.mtime, links: 1 })
    }
}

/// The attributes of a folder of a version at an inode of its own.
pub(super) fn folder_attr(ino: Ino, tree: &VersionTree, at: Position, mtime: SystemTime) -> Attr {
    let links = links(tree.folders(at) as usize);
    Attr { ino, kind: Kind::Folder, size: 0, mtime, links }
}

/// Checks that a position from the kernel exists in this tree.
pub(super) fn check_position(tree: &VersionTree, at: Position) -> Result<(), VfsError> {
    if tree.has(at) { Ok(()) } else { Err(VfsError::Stale) }
}

/// The link count of a folder: itself, its name, and the `..` of each folder in it.
pub(super) fn links(folders: usize) -> u32 {
    u32::try_from(folders).unwrap_or(u32::MAX).saturating_add(2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ManifestBuilder;

    #[test]
    fn attributes_come_from_the_manifest() {
        let mut b = ManifestBuilder::new(Digest::from_bytes([0; 32]));
        b.file("a/b/c", None, []).unwrap();
        let tree = VersionTree::new(Arc::new(b.build().unwrap()));
        let files = Files { row: NodeId(5), mtime: stable_time() };
        assert_eq!(files.attr(&tree, Position(1)), None, "a folder");
        let a = folder_attr(Ino(7), &tree, Position(1), stable_time());
        assert_eq!((a.ino, a.kind, a.links), (Ino(7), Kind::Folder, 3));
        let c = files.attr(&tree, Position(3)).unwrap();
        assert_eq!((c.ino, c.kind, c.links, c.size), (Ino(5 << 32 | 3), Kind::File, 1, 0));
        assert_eq!(check_position(&tree, Position(4)), Err(VfsError::Stale));
    }
}
