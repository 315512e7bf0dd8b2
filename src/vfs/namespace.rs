//! Names, inodes, attributes and lists: the tree without open files.
//!
//! Every operation answers from memory and the index alone, or returns what has to be fetched first (see
//! `metadata_cache`). Invariant: only a catalog or manifest that was read yields `NotFound`; attributes
//! need no object. Concurrency: no state but caches.

use std::sync::Arc;

use super::changes::Folder;
use super::content::Content;
use super::ino::Place;
use super::metadata_cache::Ready;
use super::resolve::SHARED;
use super::tree::Position;
use super::types::{Attr, Entry, Ino, Kind, VfsError, stable_time};
use super::versions::{UNRESOLVED, Version, Versions, check_position, folder_attr, links};
use crate::model::{Digest, SourceIx};
use crate::store::{NodeId, NodeKey};

/// The folder that modelfs adds to every version, and the file in it.
const OWN: &str = ".modelfs";
const DOCUMENT: &str = "manifest.json";

/// The tree.
pub(super) struct Namespace {
    versions: Arc<Versions>,
}

impl Namespace {
    /// The tree of these versions.
    pub(super) fn new(versions: Arc<Versions>) -> Self {
        Self { versions }
    }

    /// The entry of a folder with that name.
    pub(super) fn lookup(&self, parent: Ino, name: &str) -> Ready<Attr> {
        let place = Place::decode(parent).ok_or(VfsError::Stale)?;
        let id = match place {
            Place::Root => {
                self.versions.metadata.group(name)?;
                self.versions.nodes.id(SHARED, NodeKey::Group { group: name.into() })?
            }
            Place::Node(id) => {
                let node = self.versions.nodes.node(id)?;
                match &node.key {
                    NodeKey::Group { group } => {
                        self.versions.metadata.provider(group, name)?;
                        let key = NodeKey::Model { group: group.clone(), model: name.into() };
                        self.versions.nodes.id(SHARED, key)?
                    }
                    NodeKey::Model { group, model } => {
                        let source = self.versions.metadata.provider(group, model)?;
                        let hash = self.versions.metadata.version(source, group, model, name)?;
                        let (group, model) = (group.clone(), model.clone());
                        let version = name.into();
                        let key = NodeKey::Version { group, model, version, hash };
                        self.versions.nodes.id(source, key)?
                    }
                    NodeKey::Version { .. } => {
                        return self.lookup_inside(
                            self.versions.version_of(id, &node)?,
                            Position::TOP,
                            name,
                        );
                    }
                }
            }
            Place::Inside(id, at) => {
                let node = self.versions.nodes.node(id)?;
                return self.lookup_inside(self.versions.version_of(id, &node)?, at, name);
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
        let tree = self.versions.tree(v)?;
        check_position(&tree, at)?;
        if at != Position::TOP && tree.file(at).is_some() {
            return Err(VfsError::NotFolder.into());
        }
        let child = tree.child(at, name).ok_or(VfsError::NotFound)?;
        if let Some(attr) = self.versions.files_of(v)?.attr(&tree, child) {
            return Ok(attr);
        }
        let ino = Place::Inside(v.id, child).encode();
        Ok(folder_attr(ino, &tree, child, self.versions.published_of(v)))
    }

    /// The attributes for `stat`.
    pub(super) fn attr(&self, ino: Ino) -> Ready<Attr> {
        let folder = |links| Attr { ino, kind: Kind::Folder, size: 0, mtime: stable_time(), links };
        let place = Place::decode(ino).ok_or(VfsError::Stale)?;
        let id = match place {
            Place::Root => {
                return Ok(folder(links(self.versions.metadata.catalog()?.groups().len())));
            }
            Place::Node(id)
            | Place::Inside(id, _)
            | Place::MetaFolder(id)
            | Place::Document(id) => id,
        };
        let node = self.versions.nodes.node(id)?;
        if let Place::Node(_) = place {
            return self.attr_of_node(id, &node.key);
        }
        let v = self.versions.version_of(id, &node)?;
        let mtime = self.versions.published_of(v);
        match place {
            Place::Root | Place::Node(_) => Ok(Attr { mtime, ..folder(1) }),
            Place::MetaFolder(_) => Ok(Attr { mtime, ..folder(2) }),
            Place::Document(_) => {
                let size = self.versions.metadata.document(v.source, &v.hash)?.len() as u64;
                Ok(Attr { ino, kind: Kind::File, size, mtime, links: 1 })
            }
            Place::Inside(_, at) => {
                let tree = self.versions.tree(v)?;
                check_position(&tree, at)?;
                // A file keeps the number that it was given by an earlier program.
                let file = self.versions.files_of(v)?.attr(&tree, at).map(|a| Attr { ino, ..a });
                Ok(file.unwrap_or_else(|| folder_attr(ino, &tree, at, mtime)))
            }
        }
    }

    /// The attributes of a group, a model, or a version's top folder.
    fn attr_of_node(&self, id: NodeId, key: &NodeKey) -> Ready<Attr> {
        let (links, mtime) = match key {
            NodeKey::Group { group } => {
                let models = self.versions.metadata.catalog()?.models(group).map_or(0, |m| m.len());
                (links(models), stable_time())
            }
            NodeKey::Model { group, model } => {
                let catalog = self.versions.metadata.catalog()?;
                let versions = catalog.versions(group, model).map_or(0, <[_]>::len);
                (links(versions), stable_time())
            }
            NodeKey::Version { group, model, version, hash } => {
                (1, self.versions.published(group, model, version, hash))
            }
        };
        Ok(Attr { ino: Place::Node(id).encode(), kind: Kind::Folder, size: 0, mtime, links })
    }

    /// A folder's entries, sorted.
    pub(super) fn list(&self, ino: Ino) -> Ready<Arc<[Entry]>> {
        let place = Place::decode(ino).ok_or(VfsError::Stale)?;
        let id = match place {
            Place::Root => {
                let catalog = self.versions.metadata.catalog()?;
                let names = catalog.groups().map(|g| g.as_str());
                return self.list_nodes(SHARED, names, |g| NodeKey::Group { group: g.into() });
            }
            Place::Node(id)
            | Place::Inside(id, _)
            | Place::MetaFolder(id)
            | Place::Document(id) => id,
        };
        let node = self.versions.nodes.node(id)?;
        match (place, &node.key) {
            (Place::Node(_), NodeKey::Group { group }) => {
                let catalog = self.versions.metadata.catalog()?;
                let names = catalog.models(group).into_iter().flatten().map(|m| m.as_str());
                self.list_nodes(SHARED, names, |model| NodeKey::Model {
                    group: group.clone(),
                    model: model.into(),
                })
            }
            (Place::Node(_), NodeKey::Model { group, model }) => {
                let catalog = self.versions.metadata.catalog()?;
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
                let v = self.versions.version_of(id, &node)?;
                let at = if let Place::Inside(_, at) = place { at } else { Position::TOP };
                let tree = self.versions.tree(v)?;
                check_position(&tree, at)?;
                if tree.file(at).is_some() {
                    return Err(VfsError::NotFolder.into());
                }
                let (mtime, files) = (self.versions.published_of(v), self.versions.files_of(v)?);
                let attr = |child| {
                    let folder = Place::Inside(v.id, child).encode();
                    let file = files.attr(&tree, child);
                    file.unwrap_or_else(|| folder_attr(folder, &tree, child, mtime))
                };
                let name = |child| tree.name(child).into();
                let entry = |child| Entry { name: name(child), attr: attr(child), keeps: true };
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
        let ids = self.versions.nodes.ids(source, &keys)?;
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
                    let node = self.versions.nodes.node(id)?;
                    let v = self.versions.version_of(id, &node)?;
                    let tree = self.versions.tree(v)?;
                    check_position(&tree, at)?;
                    match tree.parent(at) {
                        Position::TOP => Place::Node(id).encode(),
                        folder => Place::Inside(id, folder).encode(),
                    }
                }
                Place::Node(id) => match &self.versions.nodes.node(id)?.key {
                    NodeKey::Group { .. } => Ino::ROOT,
                    NodeKey::Model { group, .. } => {
                        let key = NodeKey::Group { group: group.clone() };
                        Place::Node(self.versions.nodes.id(SHARED, key)?).encode()
                    }
                    NodeKey::Version { group, model, .. } => {
                        let (group, model) = (group.clone(), model.clone());
                        let key = NodeKey::Model { group, model };
                        Place::Node(self.versions.nodes.id(SHARED, key)?).encode()
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
                let node = self.versions.nodes.node(id)?;
                let v = self.versions.version_of(id, &node)?;
                Ok(Content::Document(self.versions.metadata.document(v.source, &v.hash)?))
            }
            Place::Inside(id, at) => {
                let node = self.versions.nodes.node(id)?;
                let v = self.versions.version_of(id, &node)?;
                let (source, manifest, file) = self.versions.file(v, at)?;
                Ok(Content::File(source, manifest, file))
            }
        }
    }

    /// The hash of a version, if the inode is its top folder and the manifest is known.
    pub(super) fn version_hash(&self, ino: Ino) -> Result<Option<Digest>, VfsError> {
        let Some(Place::Node(id)) = Place::decode(ino) else { return Ok(None) };
        match &self.versions.nodes.node(id)?.key {
            NodeKey::Version { hash, .. } => Ok(Some(*hash).filter(|hash| *hash != UNRESOLVED)),
            NodeKey::Group { .. } | NodeKey::Model { .. } => Ok(None),
        }
    }

    /// Whether the inode is a folder that the catalog alone defines: the root, a group, a model.
    pub(super) fn is_of_the_catalog(&self, ino: Ino) -> Result<bool, VfsError> {
        Ok(match Place::decode(ino) {
            Some(Place::Root) => true,
            Some(Place::Node(id)) => {
                !matches!(self.versions.nodes.node(id)?.key, NodeKey::Version { .. })
            }
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
        let mut ids = self.versions.nodes.ids(SHARED, &known)?.into_iter();
        let ino = |key: Option<NodeKey>| match key {
            None => Some(Ino::ROOT),
            Some(_) => ids.next().map(|id| Place::Node(id).encode()),
        };
        Ok(keys.into_iter().filter_map(ino).collect())
    }
}

fn is_unresolved(key: &NodeKey) -> bool {
    matches!(key, NodeKey::Version { hash, .. } if *hash == UNRESOLVED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::FilePath;

    #[test]
    fn no_version_has_a_file_where_modelfs_puts_its_own() {
        assert!(
            FilePath::new(OWN).is_err() && FilePath::new(&format!("{OWN}/{DOCUMENT}")).is_err()
        );
    }
}
