//! `.views/hf`: the layout of the Hugging Face cache.
//!
//! Every version that a model has is a commit; every name of a version is a reference to one. Commits of
//! sources that know none are made of the manifest's hash.
//! Invariant: a listed reference leads to a listed commit; only versions whose manifest is kept are listed,
//! so listing asks no registry. `.no_exist` says that a file is missing only where the manifest has all
//! files of the commit. Concurrency: no state but a cache.

mod names;
mod repositories;
mod tree_document;

use std::sync::{Arc, Mutex};

use bytes::Bytes;

pub use self::names::{DEFAULT_REF, is_commit, repository_folder};

use self::names::commit_of;
use self::repositories::Repositories;
use super::place::{HASHES, HfPlace, RepoPart, View};
use crate::base::weighted::Weighted;
use crate::model::hash::blake3;
use crate::model::{Digest, Manifest};
use crate::store::{NodeId, NodeKey};
use crate::vfs::content::Content;
use crate::vfs::metadata_cache::{Pending, Ready};
use crate::vfs::resolve::SHARED;
use crate::vfs::sync::lock;
use crate::vfs::tree::Position;
use crate::vfs::types::{Attr, Entry, Found, Ino, Kind, VfsError, stable_folder, stable_time};
use crate::vfs::versions::{Version, Versions, check_position, folder_attr};

/// Marks the folder as a cache, for programs that make backups (bford.info/cachedir).
const TAG: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55\n\
    # The models of a modelfs mount, as the Hugging Face cache has them. Read-only.\n";
const TAG_NAME: &str = "CACHEDIR.TAG";
const LOCKS_NAME: &str = ".locks";
/// Length of the file of a reference: a commit without a line feed, which would make downloads fail.
const REF_LEN: u64 = 40;
const JSON: &str = ".json";
/// Bytes of tree documents in memory: each is read once or twice as a program starts.
const DOCUMENTS: usize = 4 << 20;

/// The folders of a repository that are listed, and one that is only found by name.
const PARTS: [(&str, RepoPart); 4] = [
    ("blobs", RepoPart::Blobs),
    ("refs", RepoPart::Refs),
    ("snapshots", RepoPart::Snapshots),
    ("trees", RepoPart::Trees),
];
const NO_EXIST: (&str, RepoPart) = (".no_exist", RepoPart::NoExist);

/// The view.
pub(super) struct HuggingFaceCache {
    versions: Arc<Versions>,
    repos: Repositories,
    documents: Mutex<Weighted<Digest, Bytes>>,
}

impl HuggingFaceCache {
    /// The view of these versions.
    pub(super) fn new(versions: Arc<Versions>) -> Self {
        let repos = Repositories::new(Arc::clone(&versions));
        Self { versions, repos, documents: Mutex::new(Weighted::new(DOCUMENTS)) }
    }

    /// The entry of a folder with that name.
    pub(super) fn lookup(&self, at: HfPlace, name: &str) -> Ready<Found> {
        let not_found = || Pending::from(VfsError::NotFound);
        let (child, keeps) = match at {
            HfPlace::Cache if name == TAG_NAME => (HfPlace::Tag, true),
            HfPlace::Cache if name == LOCKS_NAME => (HfPlace::Locks, true),
            // Models come and go, and references move: the kernel keeps neither.
            HfPlace::Cache => (HfPlace::Repo(self.repos.repository(name)?, RepoPart::Top), false),
            HfPlace::Locks => (HfPlace::Repo(self.repos.repository(name)?, RepoPart::Lock), false),
            HfPlace::Repo(id, RepoPart::Top) => {
                let mut parts = PARTS.into_iter().chain([NO_EXIST]);
                let (_, part) = parts.find(|(part, _)| *part == name).ok_or_else(not_found)?;
                (HfPlace::Repo(id, part), true)
            }
            HfPlace::Repo(id, RepoPart::Refs) => {
                (self.repos.reference(self.repos.model(id)?, "", name)?, false)
            }
            HfPlace::RefFolder(id) => {
                let (model, folder) = self.repos.reference_folder(id)?;
                (self.repos.reference(model, &folder, name)?, false)
            }
            HfPlace::Repo(id, RepoPart::Snapshots) => {
                (HfPlace::Snapshot(self.repos.commit(id, name)?, Position::TOP), true)
            }
            HfPlace::Repo(id, RepoPart::Trees) => {
                let commit = name.strip_suffix(JSON).ok_or_else(not_found)?;
                (HfPlace::TreeDocument(self.repos.commit(id, commit)?), true)
            }
            HfPlace::Repo(id, RepoPart::NoExist) => {
                (HfPlace::NoExist(self.repos.commit(id, name)?, Position::TOP), true)
            }
            HfPlace::Repo(_, RepoPart::Blobs | RepoPart::Lock) => return Err(not_found()),
            HfPlace::Snapshot(id, at) => return self.in_snapshot(id, at, name),
            HfPlace::NoExist(id, at) => (self.not_in_version(id, at, name)?, true),
            HfPlace::NoExistFolder(id, folder) => (no_exist(id, folder, name), true),
            HfPlace::Tag | HfPlace::Ref(_) | HfPlace::TreeDocument(_) | HfPlace::NoExistFile(_) => {
                return Err(VfsError::NotFolder.into());
            }
        };
        Ok(Found { attr: self.attr(child)?, keeps })
    }

    /// The attributes for `stat`.
    pub(super) fn attr(&self, at: HfPlace) -> Ready<Attr> {
        let ino = View::HuggingFace(at).encode();
        let file = |size| Attr { ino, kind: Kind::File, size, mtime: stable_time(), links: 1 };
        Ok(match at {
            HfPlace::Cache | HfPlace::Locks => stable_folder(ino),
            HfPlace::Tag => file(TAG.len() as u64),
            HfPlace::Repo(id, _) => {
                self.repos.names_of_model(id)?;
                stable_folder(ino)
            }
            HfPlace::RefFolder(id) => {
                self.repos.reference_folder(id)?;
                stable_folder(ino)
            }
            HfPlace::Ref(id) => {
                self.versions.nodes.node(id)?;
                file(REF_LEN)
            }
            HfPlace::TreeDocument(id) => file(self.tree_document(id)?.len() as u64),
            HfPlace::NoExist(id, at) => {
                let node = self.versions.nodes.node(id)?;
                check_position(&*self.versions.tree(self.versions.version_of(id, &node)?)?, at)?;
                stable_folder(ino)
            }
            HfPlace::NoExistFolder(id, _) => {
                self.versions.nodes.node(id)?;
                stable_folder(ino)
            }
            HfPlace::NoExistFile(id) => {
                self.versions.nodes.node(id)?;
                file(0)
            }
            HfPlace::Snapshot(id, at) => {
                let node = self.versions.nodes.node(id)?;
                let v = self.versions.version_of(id, &node)?;
                let tree = self.versions.tree(v)?;
                check_position(&tree, at)?;
                if at != Position::TOP && tree.file(at).is_some() {
                    return Err(VfsError::Stale.into());
                }
                folder_attr(ino, &tree, at, self.versions.published_of(v))
            }
        })
    }

    /// A folder's entries, sorted.
    pub(super) fn list(&self, at: HfPlace) -> Ready<Arc<[Entry]>> {
        let entry = |(name, place, keeps): (String, HfPlace, bool)| -> Ready<Entry> {
            Ok(Entry { name: name.into(), attr: self.attr(place)?, keeps })
        };
        let places = match at {
            HfPlace::Cache => self.repos.repositories()?,
            HfPlace::Repo(id, RepoPart::Top) => {
                let part =
                    |(name, part): (&str, _)| (name.to_owned(), HfPlace::Repo(id, part), true);
                PARTS.into_iter().map(part).collect()
            }
            HfPlace::Repo(id, RepoPart::Refs) => {
                self.repos.references(&self.repos.model(id)?, "")?
            }
            HfPlace::RefFolder(id) => {
                let (model, folder) = self.repos.reference_folder(id)?;
                self.repos.references(&model, &folder)?
            }
            HfPlace::Repo(id, RepoPart::Snapshots) => {
                let commits = self.repos.commits(&self.repos.model(id)?)?.into_iter();
                let top = |id| HfPlace::Snapshot(id, Position::TOP);
                commits.map(|(commit, id)| (commit, top(id), true)).collect()
            }
            HfPlace::Repo(id, RepoPart::Trees) => {
                let commits = self.repos.commits(&self.repos.model(id)?)?.into_iter();
                let document = |id| HfPlace::TreeDocument(id);
                commits.map(|(commit, id)| (commit + JSON, document(id), true)).collect()
            }
            HfPlace::Snapshot(id, at) => return self.list_snapshot(id, at),
            HfPlace::Locks
            | HfPlace::Repo(_, RepoPart::Blobs | RepoPart::Lock | RepoPart::NoExist)
            | HfPlace::NoExist(..)
            | HfPlace::NoExistFolder(..) => Vec::new(),
            HfPlace::Tag | HfPlace::Ref(_) | HfPlace::TreeDocument(_) | HfPlace::NoExistFile(_) => {
                return Err(VfsError::NotFolder.into());
            }
        };
        places.into_iter().map(entry).collect()
    }

    /// What a file consists of.
    pub(super) fn content(&self, at: HfPlace) -> Ready<Content> {
        Ok(Content::Document(match at {
            HfPlace::Tag => Bytes::from_static(TAG),
            HfPlace::Ref(id) => commit_of(&*self.manifest(id)?).into(),
            HfPlace::TreeDocument(id) => self.tree_document(id)?,
            HfPlace::NoExistFile(_) => Bytes::new(),
            HfPlace::Cache
            | HfPlace::Locks
            | HfPlace::Repo(..)
            | HfPlace::RefFolder(_)
            | HfPlace::Snapshot(..)
            | HfPlace::NoExist(..)
            | HfPlace::NoExistFolder(..) => return Err(VfsError::IsFolder.into()),
        }))
    }

    /// The parent folder of an inode; the cache if finding it needs a network.
    pub(super) fn parent(&self, at: HfPlace) -> Ino {
        let cache = View::HuggingFace(HfPlace::Cache).encode();
        let part = |id, part| -> Ready<HfPlace> {
            let node = self.versions.nodes.node(id)?;
            let v = self.versions.version_of(id, &node)?;
            let (group, model) = (v.group.into(), v.model.into());
            Ok(HfPlace::Repo(
                self.versions.nodes.id(SHARED, NodeKey::Model { group, model })?,
                part,
            ))
        };
        let above = |id, at| -> Ready<Position> {
            let tree = {
                let node = self.versions.nodes.node(id)?;
                self.versions.tree(self.versions.version_of(id, &node)?)?
            };
            check_position(&tree, at)?;
            Ok(tree.parent(at))
        };
        let parent = || -> Ready<HfPlace> {
            Ok(match at {
                HfPlace::Repo(_, RepoPart::Lock) => HfPlace::Locks,
                HfPlace::Cache
                | HfPlace::Tag
                | HfPlace::Locks
                | HfPlace::Repo(_, RepoPart::Top) => HfPlace::Cache,
                HfPlace::Repo(id, _) => HfPlace::Repo(id, RepoPart::Top),
                HfPlace::Ref(id) | HfPlace::RefFolder(id) => part(id, RepoPart::Refs)?,
                HfPlace::TreeDocument(id) => part(id, RepoPart::Trees)?,
                HfPlace::Snapshot(id, Position::TOP) => part(id, RepoPart::Snapshots)?,
                HfPlace::Snapshot(id, at) => HfPlace::Snapshot(id, above(id, at)?),
                HfPlace::NoExist(id, Position::TOP) => part(id, RepoPart::NoExist)?,
                HfPlace::NoExist(id, at) => HfPlace::NoExist(id, above(id, at)?),
                HfPlace::NoExistFolder(id, _) | HfPlace::NoExistFile(id) => {
                    HfPlace::NoExist(id, Position::TOP)
                }
            })
        };
        parent().map_or(cache, |place| View::HuggingFace(place).encode())
    }

    fn manifest(&self, id: NodeId) -> Ready<Arc<Manifest>> {
        let node = self.versions.nodes.node(id)?;
        let tree = self.versions.tree(self.versions.version_of(id, &node)?)?;
        Ok(Arc::clone(tree.manifest()))
    }

    fn tree_document(&self, id: NodeId) -> Ready<Bytes> {
        let manifest = self.manifest(id)?;
        let kept = lock(&self.documents).get(&manifest.hash());
        Ok(kept.unwrap_or_else(|| {
            let document = Bytes::from(tree_document::write(&manifest));
            lock(&self.documents).put(manifest.hash(), document.len(), document.clone());
            document
        }))
    }

    /// The attributes of an entry of a snapshot: files are those of the tree.
    fn snapshot_entry(&self, v: Version<'_>, at: Position) -> Ready<Attr> {
        let tree = self.versions.tree(v)?;
        Ok(match self.versions.files_of(v)?.attr(&tree, at) {
            Some(file) => file,
            None => {
                let ino = View::HuggingFace(HfPlace::Snapshot(v.id, at)).encode();
                folder_attr(ino, &tree, at, self.versions.published_of(v))
            }
        })
    }

    fn in_snapshot(&self, id: NodeId, at: Position, name: &str) -> Ready<Found> {
        let node = self.versions.nodes.node(id)?;
        let v = self.versions.version_of(id, &node)?;
        let tree = self.versions.tree(v)?;
        check_position(&tree, at)?;
        let child = tree.child(at, name).ok_or(VfsError::NotFound)?;
        Ok(Found { attr: self.snapshot_entry(v, child)?, keeps: true })
    }

    fn list_snapshot(&self, id: NodeId, at: Position) -> Ready<Arc<[Entry]>> {
        let node = self.versions.nodes.node(id)?;
        let v = self.versions.version_of(id, &node)?;
        let tree = self.versions.tree(v)?;
        check_position(&tree, at)?;
        let entry = |child| {
            let name = tree.name(child).into();
            Ok(Entry { name, attr: self.snapshot_entry(v, child)?, keeps: true })
        };
        tree.children(at).map(entry).collect()
    }

    /// What `.no_exist` has for a name in a folder of a version: nothing where the version has a file.
    fn not_in_version(&self, id: NodeId, at: Position, name: &str) -> Ready<HfPlace> {
        let node = self.versions.nodes.node(id)?;
        let tree = self.versions.tree(self.versions.version_of(id, &node)?)?;
        check_position(&tree, at)?;
        // The commit has files that the manifest lacks.
        if tree.manifest().left_out().count > 0 {
            return Err(VfsError::NotFound.into());
        }
        match tree.child(at, name) {
            None => Ok(no_exist(id, at.0, name)),
            Some(child) if tree.file(child).is_none() => Ok(HfPlace::NoExist(id, child)),
            Some(_) => Err(VfsError::NotFound.into()),
        }
    }
}

/// What `.no_exist` has for a name in a folder, of which a version has nothing of that name.
fn no_exist(id: NodeId, folder: u32, name: &str) -> HfPlace {
    if names::is_file_name(name) {
        return HfPlace::NoExistFile(id);
    }
    // Two folders with one number are one to the kernel. Both have the same entries, so the worst is that it
    // forgets the one for the other, once in 100 million.
    let hash = blake3(format!("{folder}/{name}").as_bytes());
    let [a, b, c, d, ..] = *hash.as_bytes();
    HfPlace::NoExistFolder(id, u32::from_le_bytes([a, b, c, d]) % HASHES)
}
