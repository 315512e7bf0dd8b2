//! Names, inodes, attributes and lists: the tree without open files.
//!
//! Every operation answers from memory and the index alone, or returns what has to be fetched first (see
//! `metadata_cache`). Invariant: only a catalog or manifest that was read yields `NotFound`; attributes
//! need no object. Concurrency: no state but caches.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

use super::changes::Folder;
use super::ino::Place;
use super::metadata_cache::{MetadataCache, Ready};
use super::resolve::{Node, Nodes, SHARED};
use super::tree::{Position, VersionTree};
use super::types::{Attr, Entry, Ino, Kind, VfsError, stable_time};
use crate::fetch::Source;
use crate::model::{Digest, FileIx, Manifest, SourceIx};
use crate::store::{NodeId, NodeKey};

/// The folder that modelfs adds to every version, and the file in it.
const OWN: &str = ".modelfs";
const DOCUMENT: &str = "manifest.json";

/// The hash of a version's node while it is not known which manifest its name leads to: a list can name it
/// without asking the registry. The kernel never keeps such a name, and what lies below belongs to the
/// node of the manifest.
const UNRESOLVED: Digest = Digest::from_bytes([0; 32]);

/// A version and the row of its node.
#[derive(Debug, Clone, Copy)]
struct Version<'a> {
    id: NodeId,
    source: SourceIx,
    group: &'a str,
    model: &'a str,
    version: &'a str,
    hash: Digest,
}

/// What a file consists of.
#[derive(Clone)]
pub(super) enum Content {
    /// A file of a version, and the source that the version comes from.
    File(Arc<Source>, Arc<Manifest>, FileIx),
    /// `manifest.json`.
    Document(Bytes),
}

/// The tree.
pub(super) struct Namespace {
    metadata: Arc<MetadataCache>,
    nodes: Nodes,
}

impl Namespace {
    /// The tree of these rows.
    pub(super) fn new(metadata: Arc<MetadataCache>, nodes: Nodes) -> Self {
        Self { metadata, nodes }
    }

    /// The entry of a folder with that name.
    pub(super) fn lookup(&self, parent: Ino, name: &str) -> Ready<Attr> {
        let place = Place::decode(parent).ok_or(VfsError::Stale)?;
        let id = match place {
            Place::Root => {
                self.metadata.group(name)?;
                self.nodes.id(SHARED, NodeKey::Group { group: name.into() })?
            }
            Place::Node(id) => {
                let node = self.nodes.node(id)?;
                match &node.key {
                    NodeKey::Group { group } => {
                        self.metadata.provider(group, name)?;
                        let key = NodeKey::Model { group: group.clone(), model: name.into() };
                        self.nodes.id(SHARED, key)?
                    }
                    NodeKey::Model { group, model } => {
                        let source = self.metadata.provider(group, model)?;
                        let hash = self.metadata.version(source, group, model, name)?;
                        let (group, model) = (group.clone(), model.clone());
                        let version = name.into();
                        let key = NodeKey::Version { group, model, version, hash };
                        self.nodes.id(source, key)?
                    }
                    NodeKey::Version { .. } => {
                        return self.lookup_inside(
                            self.version_of(id, &node)?,
                            Position::TOP,
                            name,
                        );
                    }
                }
            }
            Place::Inside(id, at) => {
                let node = self.nodes.node(id)?;
                return self.lookup_inside(self.version_of(id, &node)?, at, name);
            }
            Place::MetaFolder(id) if name == DOCUMENT => {
                return self.attr(Place::Document(id).encode());
            }
            Place::MetaFolder(_) => return Err(VfsError::NotFound.into()),
            Place::Document(_) => return Err(VfsError::NotFolder.into()),
        };
        self.attr(Place::Node(id).encode())
    }

    fn lookup_inside(&self, v: Version<'_>, at: Position, name: &str) -> Ready<Attr> {
        if at == Position::TOP && name == OWN {
            return self.attr(Place::MetaFolder(v.id).encode());
        }
        let tree = self.metadata.tree(v.source, &v.hash)?;
        check_position(&tree, at)?;
        if at != Position::TOP && tree.file(at).is_some() {
            return Err(VfsError::NotFolder.into());
        }
        let child = tree.child(at, name).ok_or(VfsError::NotFound)?;
        Ok(attr_of(v.id, &tree, child, self.published_of(v)))
    }

    /// The attributes for `stat`.
    pub(super) fn attr(&self, ino: Ino) -> Ready<Attr> {
        let folder = |links| Attr { ino, kind: Kind::Folder, size: 0, mtime: stable_time(), links };
        let place = Place::decode(ino).ok_or(VfsError::Stale)?;
        let id = match place {
            Place::Root => return Ok(folder(links(self.metadata.catalog()?.groups().len()))),
            Place::Node(id)
            | Place::Inside(id, _)
            | Place::MetaFolder(id)
            | Place::Document(id) => id,
        };
        let node = self.nodes.node(id)?;
        if let Place::Node(_) = place {
            return self.attr_of_node(id, &node.key);
        }
        let v = self.version_of(id, &node)?;
        let mtime = self.published_of(v);
        match place {
            Place::Root | Place::Node(_) => Ok(Attr { mtime, ..folder(1) }),
            Place::MetaFolder(_) => Ok(Attr { mtime, ..folder(2) }),
            Place::Document(_) => {
                let size = self.metadata.document(v.source, &v.hash)?.len() as u64;
                Ok(Attr { ino, kind: Kind::File, size, mtime, links: 1 })
            }
            Place::Inside(_, at) => {
                let tree = self.metadata.tree(v.source, &v.hash)?;
                check_position(&tree, at)?;
                Ok(attr_of(v.id, &tree, at, mtime))
            }
        }
    }

    /// The attributes of a group, a model, or a version's top folder.
    fn attr_of_node(&self, id: NodeId, key: &NodeKey) -> Ready<Attr> {
        let (links, mtime) = match key {
            NodeKey::Group { group } => {
                let models = self.metadata.catalog()?.models(group).map_or(0, |m| m.len());
                (links(models), stable_time())
            }
            NodeKey::Model { group, model } => {
                let catalog = self.metadata.catalog()?;
                let versions = catalog.versions(group, model).map_or(0, <[_]>::len);
                (links(versions), stable_time())
            }
            NodeKey::Version { group, model, version, hash } => {
                (1, self.published(group, model, version, hash))
            }
        };
        Ok(Attr { ino: Place::Node(id).encode(), kind: Kind::Folder, size: 0, mtime, links })
    }

    /// A folder's entries, sorted.
    pub(super) fn list(&self, ino: Ino) -> Ready<Arc<[Entry]>> {
        let place = Place::decode(ino).ok_or(VfsError::Stale)?;
        let id = match place {
            Place::Root => {
                let catalog = self.metadata.catalog()?;
                let names = catalog.groups().map(|g| g.as_str());
                return self.list_nodes(SHARED, names, |g| NodeKey::Group { group: g.into() });
            }
            Place::Node(id)
            | Place::Inside(id, _)
            | Place::MetaFolder(id)
            | Place::Document(id) => id,
        };
        let node = self.nodes.node(id)?;
        match (place, &node.key) {
            (Place::Node(_), NodeKey::Group { group }) => {
                let catalog = self.metadata.catalog()?;
                let names = catalog.models(group).into_iter().flatten().map(|m| m.as_str());
                self.list_nodes(SHARED, names, |model| NodeKey::Model {
                    group: group.clone(),
                    model: model.into(),
                })
            }
            (Place::Node(_), NodeKey::Model { group, model }) => {
                let catalog = self.metadata.catalog()?;
                let versions = catalog.versions(group, model).unwrap_or_default();
                let source = catalog.source_of(group, model).unwrap_or_default();
                let mut hashes = versions.iter().map(|v| v.hash().unwrap_or(UNRESOLVED));
                let names = versions.iter().map(|v| v.name.as_str());
                self.list_nodes(source, names, |version| NodeKey::Version {
                    group: group.clone(),
                    model: model.clone(),
                    version: version.into(),
                    hash: hashes.next().expect("one for each name"),
                })
            }
            (Place::Document(_), _) => Err(VfsError::NotFolder.into()),
            (Place::MetaFolder(_), _) => {
                let attr = self.attr(Place::Document(id).encode())?;
                Ok([Entry { name: DOCUMENT.into(), attr, keeps: true }].into())
            }
            (Place::Root | Place::Node(_) | Place::Inside(..), _) => {
                let v = self.version_of(id, &node)?;
                let at = if let Place::Inside(_, at) = place { at } else { Position::TOP };
                let tree = self.metadata.tree(v.source, &v.hash)?;
                check_position(&tree, at)?;
                if tree.file(at).is_some() {
                    return Err(VfsError::NotFolder.into());
                }
                let mtime = self.published_of(v);
                let entry = |child| Entry {
                    name: tree.name(child).into(),
                    attr: attr_of(v.id, &tree, child, mtime),
                    keeps: true,
                };
                Ok(tree.children(at).map(entry).collect())
            }
        }
    }

    fn list_nodes<'a>(
        &self,
        source: SourceIx,
        names: impl Iterator<Item = &'a str>,
        mut key: impl FnMut(&str) -> NodeKey,
    ) -> Ready<Arc<[Entry]>> {
        let names: Vec<&str> = names.collect();
        let keys: Vec<NodeKey> = names.iter().map(|name| key(name)).collect();
        let ids = self.nodes.ids(source, &keys)?;
        let entry = |((name, key), id): ((&&str, &NodeKey), NodeId)| {
            let attr = self.attr_of_node(id, key)?;
            Ok(Entry { name: (*name).into(), attr, keeps: !is_unresolved(key) })
        };
        names.iter().zip(&keys).zip(ids).map(entry).collect()
    }

    /// The parent folder of an inode; the root if finding it needs a network.
    pub(super) fn parent(&self, ino: Ino) -> Ino {
        let parent = || -> Ready<Ino> {
            let place = Place::decode(ino).ok_or(VfsError::Stale)?;
            Ok(match place {
                Place::Root => Ino::ROOT,
                Place::MetaFolder(id) => Place::Node(id).encode(),
                Place::Document(id) => Place::MetaFolder(id).encode(),
                Place::Inside(id, at) => {
                    let node = self.nodes.node(id)?;
                    let v = self.version_of(id, &node)?;
                    let tree = self.metadata.tree(v.source, &v.hash)?;
                    check_position(&tree, at)?;
                    match tree.parent(at) {
                        Position::TOP => Place::Node(id).encode(),
                        folder => Place::Inside(id, folder).encode(),
                    }
                }
                Place::Node(id) => match &self.nodes.node(id)?.key {
                    NodeKey::Group { .. } => Ino::ROOT,
                    NodeKey::Model { group, .. } => {
                        let key = NodeKey::Group { group: group.clone() };
                        Place::Node(self.nodes.id(SHARED, key)?).encode()
                    }
                    NodeKey::Version { group, model, .. } => {
                        let (group, model) = (group.clone(), model.clone());
                        let key = NodeKey::Model { group, model };
                        Place::Node(self.nodes.id(SHARED, key)?).encode()
                    }
                },
            })
        };
        parent().unwrap_or(Ino::ROOT)
    }

    /// What a file consists of.
    pub(super) fn content(&self, ino: Ino) -> Ready<Content> {
        match Place::decode(ino).ok_or(VfsError::Stale)? {
            Place::Root | Place::Node(_) | Place::MetaFolder(_) => Err(VfsError::IsFolder.into()),
            Place::Document(id) => {
                let node = self.nodes.node(id)?;
                let v = self.version_of(id, &node)?;
                Ok(Content::Document(self.metadata.document(v.source, &v.hash)?))
            }
            Place::Inside(id, at) => {
                let node = self.nodes.node(id)?;
                let v = self.version_of(id, &node)?;
                let tree = self.metadata.tree(v.source, &v.hash)?;
                check_position(&tree, at)?;
                let file = tree.file(at).ok_or(VfsError::IsFolder)?;
                let source = Arc::clone(self.metadata.sources().get(v.source));
                Ok(Content::File(source, Arc::clone(tree.manifest()), file))
            }
        }
    }

    /// The hash of a version, if the inode is its top folder and the manifest is known.
    pub(super) fn version_hash(&self, ino: Ino) -> Result<Option<Digest>, VfsError> {
        let Some(Place::Node(id)) = Place::decode(ino) else { return Ok(None) };
        match &self.nodes.node(id)?.key {
            NodeKey::Version { hash, .. } => Ok(Some(*hash).filter(|hash| *hash != UNRESOLVED)),
            NodeKey::Group { .. } | NodeKey::Model { .. } => Ok(None),
        }
    }

    /// Whether the inode is a folder that the catalog alone defines: the root, a group, a model.
    pub(super) fn is_of_the_catalog(&self, ino: Ino) -> Result<bool, VfsError> {
        Ok(match Place::decode(ino) {
            Some(Place::Root) => true,
            Some(Place::Node(id)) => !matches!(self.nodes.node(id)?.key, NodeKey::Version { .. }),
            _ => false,
        })
    }

    /// The inodes of folders of the catalog, in order.
    pub(super) fn folders<'a>(
        &self,
        folders: impl Iterator<Item = &'a Folder>,
    ) -> Result<Vec<Ino>, VfsError> {
        let keys: Vec<Option<NodeKey>> = folders.map(Folder::key).collect();
        let known: Vec<NodeKey> = keys.iter().flatten().cloned().collect();
        let mut ids = self.nodes.ids(SHARED, &known)?.into_iter();
        let ino = |key: Option<NodeKey>| match key {
            None => Some(Ino::ROOT),
            Some(_) => ids.next().map(|id| Place::Node(id).encode()),
        };
        Ok(keys.into_iter().filter_map(ino).collect())
    }

    /// When a version with this manifest was published.
    fn published(&self, group: &str, model: &str, version: &str, hash: &Digest) -> SystemTime {
        let catalog = self.metadata.catalog_now();
        let entry = catalog.as_ref().and_then(|c| c.version(group, model, version));
        let entry = entry.filter(|entry| entry.hash() == Some(*hash));
        entry.and_then(|entry| entry.published).unwrap_or(stable_time())
    }

    fn published_of(&self, v: Version<'_>) -> SystemTime {
        self.published(v.group, v.model, v.version, &v.hash)
    }

    /// The version of a node. Of a node that is not resolved: what its name leads to now.
    fn version_of<'a>(&self, id: NodeId, node: &'a Node) -> Ready<Version<'a>> {
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
}

fn is_unresolved(key: &NodeKey) -> bool {
    matches!(key, NodeKey::Version { hash, .. } if *hash == UNRESOLVED)
}

/// Checks that a position from the kernel exists in this tree.
fn check_position(tree: &VersionTree, at: Position) -> Result<(), VfsError> {
    if tree.has(at) { Ok(()) } else { Err(VfsError::Stale) }
}

/// The link count of a folder: itself, its name, and the `..` of each folder in it.
fn links(folders: usize) -> u32 {
    u32::try_from(folders).unwrap_or(u32::MAX).saturating_add(2)
}

fn attr_of(id: NodeId, tree: &VersionTree, at: Position, mtime: SystemTime) -> Attr {
    let ino = Place::Inside(id, at).encode();
    match tree.file(at) {
        Some(file) => {
            Attr { ino, kind: Kind::File, size: tree.manifest().file(file).len, mtime, links: 1 }
        }
        None => {
            let links = links(tree.folders(at) as usize);
            Attr { ino, kind: Kind::Folder, size: 0, mtime, links }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{FilePath, ManifestBuilder};

    #[test]
    fn no_version_has_a_file_where_modelfs_puts_its_own() {
        assert!(
            FilePath::new(OWN).is_err() && FilePath::new(&format!("{OWN}/{DOCUMENT}")).is_err()
        );
    }

    #[test]
    fn attributes_come_from_the_manifest() {
        let mut b = ManifestBuilder::new(Digest::from_bytes([0; 32]));
        b.file("a/b/c", None, []).unwrap();
        let tree = VersionTree::new(Arc::new(b.build().unwrap()));
        let a = attr_of(NodeId(5), &tree, Position(1), stable_time());
        assert_eq!((a.ino, a.kind, a.links), (Ino(5 << 32 | 1), Kind::Folder, 3));
        let c = attr_of(NodeId(5), &tree, Position(3), stable_time());
        assert_eq!((c.ino, c.kind, c.links, c.size), (Ino(5 << 32 | 3), Kind::File, 1, 0));
        assert_eq!(check_position(&tree, Position(4)), Err(VfsError::Stale));
    }
}
