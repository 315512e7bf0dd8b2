//! Differences between two catalogs, by folder. Pure.

use std::collections::BTreeMap;

use crate::model::{Catalog, Name, VersionEntry};
use crate::store::NodeKey;

/// A folder of the catalog.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Folder {
    /// The list of groups.
    Root,
    /// A group's list of models.
    Group(Box<str>),
    /// A model's list of versions.
    Model(Box<str>, Box<str>),
}

impl Folder {
    /// The key of its row in the index; the root has none.
    pub(super) fn key(&self) -> Option<NodeKey> {
        match self {
            Self::Root => None,
            Self::Group(group) => Some(NodeKey::Group { group: group.clone() }),
            Self::Model(group, model) => {
                Some(NodeKey::Model { group: group.clone(), model: model.clone() })
            }
        }
    }
}

/// The changes in one folder.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changed {
    /// Names that were added or removed, or that now mean something else.
    pub(super) names: Vec<Box<str>>,
    /// Whether the list of names differs.
    pub(super) list: bool,
}

/// The differences between two catalogs, by folder. Everything below an added or removed name is reported
/// too, since the kernel may hold inodes there. Uses memory for differences only.
pub(super) fn difference(old: &Catalog, new: &Catalog) -> BTreeMap<Folder, Changed> {
    let mut out = BTreeMap::new();
    for (group, had, has) in both(old.groups(), new.groups()) {
        if had != has {
            note(&mut out, Folder::Root, group, true);
        }
        for (model, had, has) in both(models(old, group), models(new, group)) {
            if had != has {
                note(&mut out, Folder::Group(group.into()), model, true);
            }
            let folder = || Folder::Model(group.into(), model.into());
            let had = old.versions(group, model).unwrap_or_default();
            let has = new.versions(group, model).unwrap_or_default();
            versions(had, has, |name, list| note(&mut out, folder(), name, list));
        }
    }
    out
}

fn models<'a>(catalog: &'a Catalog, group: &str) -> impl Iterator<Item = &'a Name> {
    catalog.models(group).into_iter().flatten()
}

/// Merges two sorted lists: each name once, and whether the first and the second have it.
fn both<'a>(
    old: impl Iterator<Item = &'a Name>,
    new: impl Iterator<Item = &'a Name>,
) -> impl Iterator<Item = (&'a str, bool, bool)> {
    let (mut old, mut new) = (old.peekable(), new.peekable());
    std::iter::from_fn(move || {
        let name = [old.peek(), new.peek()].into_iter().flatten().min().copied()?;
        let had = old.next_if_eq(&name).is_some();
        let has = new.next_if_eq(&name).is_some();
        Some((name.as_str(), had, has))
    })
}

fn note(out: &mut BTreeMap<Folder, Changed>, folder: Folder, name: &str, list: bool) {
    let changed = out.entry(folder).or_default();
    changed.names.push(name.into());
    changed.list |= list;
}

/// Compares two lists sorted by name. Another hash is another inode, so the list differs too.
fn versions(old: &[VersionEntry], new: &[VersionEntry], mut note: impl FnMut(&str, bool)) {
    let (mut a, mut b) = (old.iter().peekable(), new.iter().peekable());
    while let Some(name) = [a.peek(), b.peek()].into_iter().flatten().map(|v| &v.name).min() {
        let before = a.next_if(|v| v.name == *name);
        let after = b.next_if(|v| v.name == *name);
        let list = before.map(|v| &v.target) != after.map(|v| &v.target);
        if list || before.map(|v| v.published) != after.map(|v| v.published) {
            note(name.as_str(), list);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::model::{CatalogBuilder, Digest, VersionTarget};

    fn catalog(lines: &[(&str, &str, &str, u8)]) -> Catalog {
        let name = |s: &str| Name::new(s).unwrap();
        type Versions<'a> = Vec<(&'a str, u8)>;
        let mut tree: BTreeMap<&str, BTreeMap<&str, Versions<'_>>> = BTreeMap::new();
        for (g, m, v, hash) in lines {
            tree.entry(g).or_default().entry(m).or_default().push((v, *hash));
        }
        let mut b = CatalogBuilder::default();
        for (g, models) in tree {
            b.group(name(g));
            for (m, versions) in models {
                b.model(name(m));
                for (v, hash) in versions {
                    b.version(VersionEntry {
                        name: name(v),
                        target: VersionTarget::Manifest(Digest::from_bytes([hash; 32])),
                        alias_of: None,
                        published: None,
                        metadata: None,
                    });
                }
            }
        }
        b.build().unwrap()
    }

    fn found(old: &Catalog, new: &Catalog) -> Vec<(Folder, Vec<String>, bool)> {
        let names = |c: Changed| c.names.iter().map(|n| n.to_string()).collect();
        let each = |(folder, c): (Folder, Changed)| (folder, c.list, c);
        difference(old, new).into_iter().map(each).map(|(f, l, c)| (f, names(c), l)).collect()
    }

    fn model(g: &str, m: &str) -> Folder {
        Folder::Model(g.into(), m.into())
    }

    #[test]
    fn equal_catalogs_have_no_difference() {
        let c = catalog(&[("g", "m", "v", 1), ("g", "n", "v", 2)]);
        assert!(difference(&c, &c.clone()).is_empty());
        assert!(difference(&Catalog::default(), &Catalog::default()).is_empty());
    }

    #[test]
    fn moved_new_and_removed_versions_are_reported() {
        let old = catalog(&[("g", "m", "a", 1), ("g", "m", "b", 2), ("g", "m", "latest", 2)]);
        let new = catalog(&[("g", "m", "b", 2), ("g", "m", "c", 3), ("g", "m", "latest", 3)]);
        let want = vec![(model("g", "m"), vec!["a".into(), "c".into(), "latest".into()], true)];
        assert_eq!(found(&old, &new), want);
        assert_eq!(found(&new, &old), want, "the same names the other way round");
    }

    #[test]
    fn removing_a_group_reports_its_models_and_versions() {
        let old = catalog(&[("g", "m", "v", 1), ("h", "m", "v", 1)]);
        let new = catalog(&[("h", "m", "v", 1)]);
        let want = vec![
            (Folder::Root, vec!["g".into()], true),
            (Folder::Group("g".into()), vec!["m".into()], true),
            (model("g", "m"), vec!["v".into()], true),
        ];
        assert_eq!(found(&old, &new), want);
        assert_eq!(found(&old, &Catalog::default()).len(), 5, "an emptied catalog is obeyed");
    }

    #[test]
    fn a_changed_date_does_not_invalidate_the_listing() {
        let old = catalog(&[("g", "m", "v", 1)]);
        let mut b = CatalogBuilder::default();
        b.group(Name::new("g").unwrap());
        b.model(Name::new("m").unwrap());
        let entry = old.version("g", "m", "v").unwrap().clone();
        b.version(VersionEntry { published: Some(SystemTime::UNIX_EPOCH), ..entry });
        let want = vec![(model("g", "m"), vec!["v".into()], false)];
        assert_eq!(found(&old, &b.build().unwrap()), want);
    }
}
