//! The catalog of a registry: groups, models, versions.
//!
//! Invariant: names are legal, unique and sorted, so that every list has one order and every look-up is a
//! binary search. Compact: a catalog of 100,000 versions stays in memory as long as the mount. Immutable
//! once built.

use std::fmt;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::group_pattern::SourceIx;
use super::name::Name;
use super::reference::VersionRef;

/// The registry's own word for one immutable state of a model: a commit, the digest of an image.
/// Only the registry that gave it reads it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(Box<str>);

impl Revision {
    /// The revision with this text.
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What the name of a version leads to, as far as the registry said. A name may lead elsewhere the
/// next time it is asked for; a manifest and a revision stay what they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionTarget {
    /// The manifest whose document has this SHA-256.
    Manifest(Digest),
    /// A revision whose manifest document has to be made first (`Registry::resolve`): its SHA-256 is
    /// not known before.
    Revision(Revision),
    /// Nothing but the name was listed (a tag): `Registry::version` says what it leads to.
    Unknown,
}

/// A version of a model, as listed in the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionEntry {
    /// Its name.
    pub name: Name,
    /// What it is.
    pub target: VersionTarget,
    /// The version that it is an alias of.
    pub alias_of: Option<Name>,
    /// When it was published (`metadata.published_at`, RFC 3339), if known.
    pub published: Option<SystemTime>,
    /// The metadata, a JSON object as text, if there is any.
    pub metadata: Option<Box<str>>,
}

impl VersionEntry {
    /// The SHA-256 of its manifest, if the registry said it.
    pub fn hash(&self) -> Option<Digest> {
        match self.target {
            VersionTarget::Manifest(hash) => Some(hash),
            VersionTarget::Revision(_) | VersionTarget::Unknown => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Model {
    name: Name,
    source: SourceIx,
    versions: Vec<VersionEntry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    name: Name,
    models: Vec<Model>,
}

/// What a registry lists and cannot be presented: names of a catalog that no path can hold, files of a
/// version that cannot be verified. They are left out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LeftOut {
    /// Number of names left out.
    pub count: usize,
    /// The first ones, each with the reason in one short line.
    pub first: Vec<String>,
}

impl LeftOut {
    /// Maximum number kept with a reason: the reason is usually the same for all.
    const KEPT: usize = 5;

    /// Records one; `why` contains the name and is one short line.
    pub(super) fn add(&mut self, why: String) {
        self.count += 1;
        if self.first.len() < Self::KEPT {
            self.first.push(why);
        }
    }
}

/// The catalog of a registry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Catalog {
    groups: Vec<Group>,
    versions: usize,
    left_out: LeftOut,
}

impl Catalog {
    /// The groups, sorted.
    pub fn groups(&self) -> impl ExactSizeIterator<Item = &Name> {
        self.groups.iter().map(|g| &g.name)
    }

    /// The models of a group, sorted; `None` if there is no such group.
    pub fn models(&self, group: &str) -> Option<impl ExactSizeIterator<Item = &Name>> {
        Some(self.group(group)?.models.iter().map(|m| &m.name))
    }

    /// The versions of a model, sorted; `None` if there is no such model.
    pub fn versions(&self, group: &str, model: &str) -> Option<&[VersionEntry]> {
        let models = &self.group(group)?.models;
        let at = models.binary_search_by(|m| m.name.as_str().cmp(model)).ok()?;
        Some(&models[at].versions)
    }

    /// The source that provides a model, in a catalog merged of several; else the first.
    pub fn source_of(&self, group: &str, model: &str) -> Option<SourceIx> {
        let models = &self.group(group)?.models;
        let at = models.binary_search_by(|m| m.name.as_str().cmp(model)).ok()?;
        Some(models[at].source)
    }

    /// One version.
    pub fn version(&self, group: &str, model: &str, version: &str) -> Option<&VersionEntry> {
        let versions = self.versions(group, model)?;
        let at = versions.binary_search_by(|v| v.name.as_str().cmp(version)).ok()?;
        Some(&versions[at])
    }

    /// The version that a reference names.
    pub fn find(&self, r: &VersionRef) -> Option<&VersionEntry> {
        self.version(r.model.group.as_str(), r.model.model.as_str(), r.version.as_str())
    }

    /// Every version, in order: `(group, model, version)`.
    pub fn iter(&self) -> impl Iterator<Item = (&Name, &Name, &VersionEntry)> {
        self.groups.iter().flat_map(|g| {
            g.models.iter().flat_map(move |m| m.versions.iter().map(move |v| (&g.name, &m.name, v)))
        })
    }

    /// Number of versions.
    pub fn len(&self) -> usize {
        self.versions
    }

    /// The names that were left out.
    pub fn left_out(&self) -> &LeftOut {
        &self.left_out
    }

    /// Whether there are no versions.
    pub fn is_empty(&self) -> bool {
        self.versions == 0
    }

    fn group(&self, group: &str) -> Option<&Group> {
        let at = self.groups.binary_search_by(|g| g.name.as_str().cmp(group)).ok()?;
        Some(&self.groups[at])
    }
}

/// Builds a catalog from entries in any order.
///
/// Each list is collected outside the catalog and moved into it once its length is known: lists that grow
/// in place leave gaps as large as the catalog.
#[derive(Debug, Default)]
pub struct CatalogBuilder {
    out: Catalog,
    models: Vec<Model>,
    versions: Vec<VersionEntry>,
}

impl CatalogBuilder {
    /// Starts a group; its models follow. Groups without models are kept and listed as empty.
    pub fn group(&mut self, name: Name) {
        self.end_group();
        self.out.groups.push(Group { name, models: Vec::new() });
    }

    /// Starts a model of the latest group. Without a group: ignored.
    pub fn model(&mut self, name: Name) {
        self.model_of(name, SourceIx::default());
    }

    /// Starts a model of the latest group that this source provides. Without a group: ignored.
    pub fn model_of(&mut self, name: Name, source: SourceIx) {
        self.end_model();
        if !self.out.groups.is_empty() {
            self.models.push(Model { name, source, versions: Vec::new() });
        }
    }

    /// Adds a version to the latest model. Without a model: ignored.
    pub fn version(&mut self, entry: VersionEntry) {
        if !self.models.is_empty() {
            self.versions.push(entry);
            self.out.versions += 1;
        }
    }

    fn end_model(&mut self) {
        if let Some(model) = self.models.last_mut() {
            model.versions = self.versions.drain(..).collect();
        }
    }

    fn end_group(&mut self) {
        self.end_model();
        if let Some(group) = self.out.groups.last_mut() {
            group.models = self.models.drain(..).collect();
        }
    }

    /// Records a name that is left out; `why` contains it and is one short line.
    pub fn left_out(&mut self, why: String) {
        self.out.left_out.add(why);
    }

    /// Records the names that another catalog left out.
    pub fn all_left_out(&mut self, left_out: &LeftOut) {
        let unnamed = left_out.count - left_out.first.len();
        left_out.first.iter().cloned().for_each(|why| self.left_out(why));
        self.out.left_out.count += unnamed;
    }

    /// The sorted catalog, or the first name that occurs twice in its list.
    pub fn build(mut self) -> Result<Catalog, Name> {
        self.end_group();
        fn sort<T>(list: &mut Vec<T>, name: impl Fn(&T) -> &Name) -> Result<(), Name> {
            list.sort_unstable_by(|a, b| name(a).cmp(name(b)));
            list.shrink_to_fit();
            match list.windows(2).find(|w| name(&w[0]) == name(&w[1])) {
                Some(twice) => Err(name(&twice[0]).clone()),
                None => Ok(()),
            }
        }
        sort(&mut self.out.groups, |g| &g.name)?;
        for group in &mut self.out.groups {
            sort(&mut group.models, |m| &m.name)?;
            for model in &mut group.models {
                sort(&mut model.versions, |v| &v.name)?;
            }
        }
        Ok(self.out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(s: &str) -> Name {
        Name::new(s).unwrap()
    }

    fn entry(s: &str) -> VersionEntry {
        let target = VersionTarget::Manifest(Digest::from_bytes([1; 32]));
        VersionEntry { name: name(s), target, alias_of: None, published: None, metadata: None }
    }

    #[test]
    fn sorted_and_found() {
        let mut b = CatalogBuilder::default();
        b.group(name("z"));
        b.group(name("a"));
        b.model(name("m"));
        b.version(entry("v2"));
        b.version(entry("v1"));
        let c = b.build().unwrap();
        assert_eq!(c.groups().map(Name::as_str).collect::<Vec<_>>(), ["a", "z"]);
        assert_eq!(c.versions("a", "m").unwrap()[0].name.as_str(), "v1");
        assert!(c.find(&"a/m@v2".parse().unwrap()).is_some());
        assert!(c.version("a", "m", "v3").is_none());
        assert_eq!(c.models("z").unwrap().len(), 0);
        assert_eq!((c.len(), c.iter().count()), (2, 2));
    }

    #[test]
    fn duplicate_entries_are_refused() {
        let mut b = CatalogBuilder::default();
        b.group(name("a"));
        b.model(name("m"));
        b.version(entry("v1"));
        b.version(entry("v1"));
        assert_eq!(b.build(), Err(name("v1")));
    }
}
