//! What the repositories of the Hugging Face cache consist of: models, references, commits, and their rows.
//!
//! Invariant: a name is looked up as the tree looks it up, so an outage is never a missing name. Lists ask no
//! registry. Concurrency: no state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::names::{self, SLASH, commit_of, is_commit};
use crate::model::{Digest, Name, SourceIx, VersionEntry, VersionTarget};
use crate::store::{NodeId, NodeKey};
use crate::vfs::errors::of_store;
use crate::vfs::metadata_cache::{Pending, Ready};
use crate::vfs::resolve::SHARED;
use crate::vfs::types::VfsError;
use crate::vfs::versions::{UNRESOLVED, Versions};
use crate::vfs::views::place::{HfPlace, RepoPart};

/// The repositories of a tree.
pub struct Repositories {
    versions: Arc<Versions>,
}

/// An entry of a folder: its name, its place, and whether the kernel may keep the name.
pub type PlaceEntry = (String, HfPlace, bool);

/// A model and the source that provides it.
pub struct Model {
    source: SourceIx,
    group: Box<str>,
    model: Box<str>,
}

impl Model {
    fn key(&self, version: &str, hash: Digest) -> NodeKey {
        let (group, model) = (self.group.clone(), self.model.clone());
        NodeKey::Version { group, model, version: version.into(), hash }
    }
}

impl Repositories {
    /// The repositories of these versions.
    pub fn new(versions: Arc<Versions>) -> Self {
        Self { versions }
    }

    /// The row of the model whose repository has this folder.
    pub fn repository(&self, folder: &str) -> Ready<NodeId> {
        let metadata = &self.versions.metadata;
        let catalog = metadata.catalog()?;
        let listed = |(group, model): &(&str, &str)| catalog.source_of(group, model).is_some();
        let mut all: Vec<_> = names::models_of(folder).collect();
        if let Some(known) = all.iter().copied().find(listed) {
            all = vec![known];
        }
        for (group, model) in all {
            let asked = metadata.group(group).and_then(|()| metadata.provider(group, model));
            match asked {
                Err(Pending::Failed(VfsError::NotFound)) => {}
                Err(error) => return Err(error),
                Ok(_) => {
                    let key = NodeKey::Model { group: group.into(), model: model.into() };
                    return Ok(self.versions.nodes.id(SHARED, key)?);
                }
            }
        }
        Err(VfsError::NotFound.into())
    }

    /// The repositories that were used: those of models of which a manifest is kept.
    pub fn repositories(&self) -> Ready<Vec<PlaceEntry>> {
        let metadata = &self.versions.metadata;
        let catalog = metadata.catalog()?;
        let mut models = BTreeSet::new();
        for (ix, source) in metadata.sources().iter() {
            let used = metadata.store().used_versions(source.name(), None);
            for (version, _) in used.map_err(|e| of_store(&e))? {
                let (group, model) = (version.model.group, version.model.model);
                if catalog.source_of(group.as_str(), model.as_str()) == Some(ix) {
                    models.insert((group, model));
                }
            }
        }
        let key = |(group, model): &(Name, Name)| NodeKey::Model {
            group: group.as_str().into(),
            model: model.as_str().into(),
        };
        let keys: Vec<NodeKey> = models.iter().map(key).collect();
        let ids = self.versions.nodes.ids(SHARED, &keys)?;
        let folder = |((group, model), id): (&(Name, Name), NodeId)| {
            let folder = names::repository_folder(group.as_str(), model.as_str());
            (folder, HfPlace::Repo(id, RepoPart::Top), false)
        };
        let mut all: Vec<_> = models.iter().zip(ids).map(folder).collect();
        all.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Ok(all)
    }

    /// Group and model of a row.
    pub fn names_of_model(&self, id: NodeId) -> Result<(Box<str>, Box<str>), VfsError> {
        match &self.versions.nodes.node(id)?.key {
            NodeKey::Model { group, model } => Ok((group.clone(), model.clone())),
            NodeKey::Group { .. } | NodeKey::Version { .. } => Err(VfsError::Stale),
        }
    }

    /// The model of a row, and its source.
    pub fn model(&self, id: NodeId) -> Ready<Model> {
        let (group, model) = self.names_of_model(id)?;
        let source = self.versions.metadata.provider(&group, &model)?;
        Ok(Model { source, group, model })
    }

    /// The versions of a model that the registry lists or that were looked up.
    fn listed(&self, model: &Model) -> Ready<Vec<VersionEntry>> {
        let catalog = self.versions.metadata.sources().get(model.source).catalog_now();
        let catalog = catalog.ok_or(Pending::Catalog)?;
        Ok(catalog.versions(&model.group, &model.model).unwrap_or_default().to_vec())
    }

    /// What the row of a folder of references stands for.
    pub fn reference_folder(&self, id: NodeId) -> Ready<(Model, Box<str>)> {
        let node = self.versions.nodes.node(id)?;
        let NodeKey::Version { group, model, version, .. } = &node.key else {
            return Err(VfsError::Stale.into());
        };
        let (source, group, model) = (node.source, group.clone(), model.clone());
        Ok((Model { source, group, model }, version.clone()))
    }

    /// A reference in a folder of references.
    pub fn reference(&self, model: Model, folder: &str, name: &str) -> Ready<HfPlace> {
        if is_commit(name) {
            return Err(VfsError::NotFound.into());
        }
        let (metadata, whole) = (&self.versions.metadata, names::reference(folder, name));
        let listable = metadata.sources().get(model.source).is_listable();
        let versions = self.listed(&model)?;
        if names::is_reference_folder(&whole, &versions, !listable) {
            let key = model.key(&whole, UNRESOLVED);
            return Ok(HfPlace::RefFolder(self.versions.nodes.id(model.source, key)?));
        }
        let lead = |name: &str| metadata.version(model.source, &model.group, &model.model, name);
        let has = |name: &str| versions.iter().any(|version| version.name.as_str() == name);
        let default = || names::default_version(&versions).map(|v| v.name.as_str().to_owned());
        let (version, hash) = match whole.as_str() {
            names::DEFAULT_REF if !has(&whole) && listable && default().is_some() => {
                let name = default().unwrap_or_default();
                (name.clone(), lead(&name)?)
            }
            _ => match lead(&whole) {
                Err(Pending::Failed(VfsError::NotFound)) if whole == names::DEFAULT_REF => {
                    let name = default().ok_or(VfsError::NotFound)?;
                    (name.clone(), lead(&name)?)
                }
                found => (whole, found?),
            },
        };
        // The commit is known only once the manifest is.
        metadata.tree(model.source, &hash)?;
        let key = model.key(&version, hash);
        Ok(HfPlace::Ref(self.versions.nodes.id(model.source, key)?))
    }

    /// The references of a folder that lead to versions that were used.
    pub fn references(&self, model: &Model, folder: &str) -> Ready<Vec<PlaceEntry>> {
        let used: BTreeSet<Digest> = self.used(model)?.into_iter().map(|(_, hash)| hash).collect();
        let versions = self.listed(model)?;
        let mut all: BTreeMap<String, HfPlace> = BTreeMap::new();
        let mut add = |name: &str, version: &str, hash: Digest| -> Ready<()> {
            let place = match name.split_once(SLASH) {
                Some((first, _)) if !first.is_empty() => {
                    let key = model.key(&names::reference(folder, first), UNRESOLVED);
                    let place = HfPlace::RefFolder(self.versions.nodes.id(model.source, key)?);
                    all.entry(first.to_owned()).or_insert(place);
                    return Ok(());
                }
                _ => self.versions.nodes.id(model.source, model.key(version, hash))?,
            };
            all.insert(name.to_owned(), HfPlace::Ref(place));
            Ok(())
        };
        let used_hash = |v: &VersionEntry| v.hash().filter(|hash| used.contains(hash));
        for version in &versions {
            let name = version.name.as_str();
            let inside = match folder {
                "" => Some(name),
                _ => name.strip_prefix(folder).and_then(|rest| rest.strip_prefix(SLASH)),
            };
            if let (Some(inside), Some(hash)) = (inside, used_hash(version))
                && !is_commit(name)
            {
                add(inside, name, hash)?;
            }
        }
        let has_main = versions.iter().any(|v| v.name.as_str() == names::DEFAULT_REF);
        if folder.is_empty()
            && !has_main
            && let Some(version) = names::default_version(&versions)
            && let Some(hash) = used_hash(version)
        {
            add(names::DEFAULT_REF, version.name.as_str(), hash)?;
        }
        Ok(all.into_iter().map(|(name, place)| (name, place, false)).collect())
    }

    /// The versions of a model that were used: names and hashes.
    fn used(&self, model: &Model) -> Ready<Vec<(String, Digest)>> {
        let source = self.versions.metadata.sources().get(model.source).name();
        let of_model = Some((&*model.group, &*model.model));
        let used = self.versions.metadata.store().used_versions(source, of_model);
        let used = used.map_err(|e| of_store(&e))?.into_iter();
        Ok(used.map(|(version, hash)| (version.version.as_str().to_owned(), hash)).collect())
    }

    /// The commits of versions that were used, each with the row of its snapshot.
    pub fn commits(&self, model: &Model) -> Ready<BTreeMap<String, NodeId>> {
        let mut all = BTreeMap::new();
        for (version, hash) in self.used(model)? {
            // A kept manifest that cannot be read is asked for when its version is.
            let Ok(tree) = self.versions.metadata.tree(model.source, &hash) else { continue };
            all.insert(commit_of(tree.manifest()), self.row(model, &version, hash)?);
        }
        Ok(all)
    }

    /// The row that a model's snapshot with this manifest has.
    fn row(&self, model: &Model, version: &str, hash: Digest) -> Result<NodeId, VfsError> {
        let nodes = &self.versions.nodes;
        match nodes.oldest(model.source, &model.group, &model.model, hash)? {
            Some(row) => Ok(row),
            None => nodes.id(model.source, model.key(version, hash)),
        }
    }

    /// The row of the version that is this commit, whether or not a reference leads to it.
    pub fn commit(&self, repo: NodeId, commit: &str) -> Ready<NodeId> {
        if !is_commit(commit) {
            return Err(VfsError::NotFound.into());
        }
        let (metadata, model) = (&self.versions.metadata, self.model(repo)?);
        if let Some(row) = self.commits(&model)?.remove(commit) {
            return Ok(row);
        }
        let made = |v: &VersionEntry| match v.target {
            VersionTarget::Manifest(hash) if names::is_made_of(commit, &hash) => Some(hash),
            _ => None,
        };
        let listed = self.listed(&model)?;
        let made = listed.iter().find_map(|v| Some((v.name.as_str(), made(v)?)));
        let (name, hash) = match made {
            Some(found) => found,
            None if metadata.sources().get(model.source).is_listable() => {
                return Err(VfsError::NotFound.into());
            }
            None => {
                let hash = metadata.version(model.source, &model.group, &model.model, commit)?;
                (commit, hash)
            }
        };
        match commit_of(metadata.tree(model.source, &hash)?.manifest()) == commit {
            true => Ok(self.row(&model, name, hash)?),
            false => Err(VfsError::NotFound.into()),
        }
    }
}
