//! Several sources as one catalog: the first that has a model provides it.
//!
//! Invariant: a source is asked only about groups that it may be asked about. An outage of one source hides
//! no model of another, and never makes a model missing.
//! Concurrency: shared; the lock covers the merged catalog alone and is not held while a source is asked.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{join_all, select_all};
use parking_lot::Mutex;

use super::error::FetchError;
use super::source::{Knowledge, Source};
use crate::model::{
    Catalog, CatalogBuilder, GroupClaims, GroupPattern, ModelRef, SourceIx, SourceName,
};

/// A source and the groups that it is restricted to; none: it takes what no other source claims.
pub type SourceAndGroups = (Arc<Source>, Vec<GroupPattern>);

/// Which source provides a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Provider {
    /// This one.
    Source(SourceIx),
    /// No source has it.
    None,
    /// This one has to be asked first.
    Ask(SourceIx),
    /// A source that might have it cannot be reached.
    Unreachable {
        /// Why.
        why: String,
    },
}

/// The sources of a tree, in order of priority.
pub struct Sources {
    all: Vec<Arc<Source>>,
    claims: GroupClaims,
    merged: Mutex<Merged>,
}

/// The merged catalog, and what it was merged of.
#[derive(Default)]
struct Merged {
    of: Vec<Option<Arc<Catalog>>>,
    catalog: Option<Arc<Catalog>>,
}

impl Merged {
    fn is_of(&self, catalogs: &[Option<Arc<Catalog>>]) -> bool {
        let same = |a: &Option<Arc<Catalog>>, b: &Option<Arc<Catalog>>| match (a, b) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (a, b) => a.is_none() && b.is_none(),
        };
        self.of.len() == catalogs.len() && self.of.iter().zip(catalogs).all(|(a, b)| same(a, b))
    }
}

impl Sources {
    /// These sources, the first one first.
    pub fn new(sources: Vec<SourceAndGroups>) -> Self {
        let (all, patterns) = sources.into_iter().unzip();
        Self { all, claims: GroupClaims::new(patterns), merged: Mutex::default() }
    }

    /// One source that takes every group.
    pub fn one(source: Arc<Source>) -> Self {
        Self::new(vec![(source, Vec::new())])
    }

    /// The first source.
    pub fn first(&self) -> &Arc<Source> {
        &self.all[0]
    }

    /// The sources in order.
    pub fn iter(&self) -> impl Iterator<Item = (SourceIx, &Arc<Source>)> {
        (0..).map(SourceIx).zip(&self.all)
    }

    /// One of the sources.
    pub fn get(&self, ix: SourceIx) -> &Arc<Source> {
        &self.all[usize::from(ix.0)]
    }

    /// The source with this name.
    pub fn named(&self, name: &SourceName) -> Option<&Arc<Source>> {
        self.all.iter().find(|source| source.name() == name)
    }

    /// The sources that may be asked about a group, in order.
    pub fn allowed<'a>(
        &'a self,
        group: &'a str,
    ) -> impl Iterator<Item = (SourceIx, &'a Arc<Source>)> {
        self.claims.allowed(group).map(|ix| (ix, self.get(ix)))
    }

    /// Whether a group of this name may exist although no catalog has it: a source that cannot list may
    /// have models in it.
    pub fn may_have_group(&self, group: &str) -> bool {
        self.allowed(group).any(|(_, source)| !source.is_listable())
    }

    /// Which source provides a model, as far as it is known without a request.
    pub fn provider(&self, model: &ModelRef, now: Instant) -> Provider {
        let mut unreachable = None;
        for (ix, source) in self.allowed(model.group.as_str()) {
            match source.look_ups().map(|known| known.knowledge(model, now)) {
                None if source.lists(model) => return Provider::Source(ix),
                Some(Knowledge::Answered { has: true } | Knowledge::Failed { had: true, .. }) => {
                    return Provider::Source(ix);
                }
                Some(Knowledge::Ask { .. }) => return Provider::Ask(ix),
                Some(Knowledge::Failed { why, .. }) => {
                    unreachable.get_or_insert_with(|| format!("{}: {why}", source.name()));
                }
                None | Some(Knowledge::Answered { has: false }) => {}
            }
        }
        unreachable.map_or(Provider::None, |why| Provider::Unreachable { why })
    }

    /// The merged catalog in memory; none: no source has one yet.
    pub fn catalog_now(&self) -> Option<Arc<Catalog>> {
        if let ([only], true) = (self.all.as_slice(), self.claims.takes_everything()) {
            return only.catalog_now();
        }
        let catalogs: Vec<_> = self.all.iter().map(|source| source.catalog_now()).collect();
        self.merge(&catalogs)
    }

    fn merge(&self, catalogs: &[Option<Arc<Catalog>>]) -> Option<Arc<Catalog>> {
        if catalogs.iter().all(Option::is_none) {
            return None;
        }
        let mut merged = self.merged.lock();
        if !merged.is_of(catalogs) {
            merged.of = catalogs.to_vec();
            merged.catalog = Some(Arc::new(merge(&self.claims, catalogs)));
        }
        merged.catalog.clone()
    }

    /// The merged catalog that an earlier run last saw, if any; returned once.
    pub fn take_catalog_at_start(&self) -> Option<Arc<Catalog>> {
        let catalogs: Vec<_> = self.all.iter().map(|s| s.take_catalog_at_start()).collect();
        match catalogs.as_slice() {
            [only] => only.clone(),
            all if all.iter().all(Option::is_none) => None,
            all => Some(Arc::new(merge(&self.claims, all))),
        }
    }

    /// The merged catalog; sources that have none yet are asked, all at once. An error: there is none of
    /// any source.
    pub async fn catalog(&self) -> Result<Arc<Catalog>, FetchError> {
        let outcomes = join_all(self.all.iter().map(|source| source.catalog())).await;
        let error = outcomes.into_iter().find_map(Result::err);
        match (self.catalog_now(), error) {
            (Some(catalog), _) => Ok(catalog),
            (None, Some(error)) => Err(error),
            (None, None) => Ok(Arc::default()),
        }
    }

    /// Loads the catalogs that an earlier run last saw, without asking a registry.
    pub async fn recall(&self) -> Result<(), FetchError> {
        for source in &self.all {
            source.recall().await?;
        }
        Ok(())
    }

    /// Asks the listing sources that may have this group again before their time to live has elapsed, as
    /// far as their rate limits allow. Waits at most `patience`.
    pub async fn ask_again(&self, group: Option<&str>, patience: Duration) {
        join_all(self.listing(group).map(|source| source.ask_again(patience))).await;
    }

    /// The listing sources that may have this group; of no group: all.
    pub fn listing<'a>(&'a self, group: Option<&'a str>) -> impl Iterator<Item = &'a Arc<Source>> {
        let may = move |ix| group.is_none_or(|group| self.claims.allows(ix, group));
        self.iter().filter(move |(ix, source)| source.is_listable() && may(*ix)).map(|(_, s)| s)
    }

    /// Resolves when the catalog of a source has changed; for one listener.
    pub async fn changed(&self) {
        if self.all.is_empty() {
            return std::future::pending().await;
        }
        select_all(self.all.iter().map(|source| Box::pin(source.changed()))).await;
    }

    /// Refreshes every listing source each time its time to live has elapsed. Never ends.
    pub async fn refresh_when_due(&self) {
        join_all(self.all.iter().map(|source| source.refresh_when_due())).await;
        std::future::pending().await
    }

    /// Why sources could not be reached lately, if some could not; of several, each with its name.
    pub fn trouble(&self) -> Option<String> {
        if let [only] = self.all.as_slice() {
            return only.trouble();
        }
        let told = self.all.iter().filter_map(|s| Some(format!("{}: {}", s.name(), s.trouble()?)));
        let told: Vec<_> = told.collect();
        (!told.is_empty()).then(|| told.join("; "))
    }

    /// Whether the tree has a model from this source. A source that is not among these counts as one that
    /// has.
    pub fn provides(&self, name: &SourceName, model: &ModelRef) -> bool {
        let Some((ix, _)) = self.iter().find(|(_, source)| source.name() == name) else {
            return true;
        };
        let provider = self
            .catalog_now()
            .and_then(|catalog| catalog.source_of(model.group.as_str(), model.model.as_str()));
        provider == Some(ix)
    }

    /// The sources that have a model after the one that provides it, as far as that is known without a
    /// request. A source that may not be asked about its group is not among them.
    pub fn others_with<'a>(
        &'a self,
        model: &'a ModelRef,
        provider: &'a SourceName,
    ) -> impl Iterator<Item = &'a Arc<Source>> {
        let allowed = self.allowed(model.group.as_str()).map(|(_, source)| source);
        allowed.filter(move |source| source.name() != provider && source.lists(model))
    }

    /// Models of sources that cannot list whose answers have outlived their time to live since the last
    /// call.
    pub fn take_expired(&self, now: Instant) -> Vec<ModelRef> {
        let look_ups = self.all.iter().filter_map(|source| source.look_ups());
        look_ups.flat_map(|known| known.take_expired(now)).collect()
    }
}

/// The catalogs of several sources as one: each model with the versions of the first source that has it.
fn merge(claims: &GroupClaims, catalogs: &[Option<Arc<Catalog>>]) -> Catalog {
    use std::collections::BTreeMap;
    let mut tree: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    for (ix, catalog) in (0..).map(SourceIx).zip(catalogs) {
        let Some(catalog) = catalog else { continue };
        for group in catalog.groups().filter(|group| claims.allows(ix, group.as_str())) {
            let models = tree.entry(group).or_default();
            for model in catalog.models(group.as_str()).into_iter().flatten() {
                models.entry(model).or_insert((ix, catalog));
            }
        }
    }
    let mut out = CatalogBuilder::default();
    for (group, models) in tree {
        out.group(group.clone());
        for (model, (ix, catalog)) in models {
            out.model_of(model.clone(), ix);
            let versions = catalog.versions(group.as_str(), model.as_str()).unwrap_or_default();
            versions.iter().for_each(|version| out.version(version.clone()));
        }
    }
    for left_out in catalogs.iter().flatten().map(|catalog| catalog.left_out()) {
        out.all_left_out(left_out);
    }
    // Names are keys of the maps, so none occurs twice.
    out.build().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Digest, Name, VersionEntry, VersionTarget};

    fn catalog(models: &[(&str, &str, u8)]) -> Option<Arc<Catalog>> {
        let name = |text: &str| Name::new(text).unwrap();
        let mut out = CatalogBuilder::default();
        let mut last = "";
        for (group, model, byte) in models {
            if *group != last {
                out.group(name(group));
                last = group;
            }
            out.model(name(model));
            let target = VersionTarget::Manifest(Digest::from_bytes([*byte; 32]));
            let (alias_of, published, metadata) = (None, None, None);
            out.version(VersionEntry { name: name("v"), target, alias_of, published, metadata });
        }
        Some(Arc::new(out.build().unwrap()))
    }

    #[test]
    fn the_first_source_that_has_a_model_provides_it() {
        let claims = GroupClaims::new(vec![vec![], vec![]]);
        let all = [
            catalog(&[("a", "x", 1), ("c", "y", 1)]),
            catalog(&[("a", "x", 2), ("a", "z", 2), ("b", "y", 2)]),
        ];
        let merged = merge(&claims, &all);
        let provided = |group, model| {
            let hash = merged.version(group, model, "v")?.hash()?;
            Some((merged.source_of(group, model)?.0, hash.as_bytes()[0]))
        };
        assert_eq!(provided("a", "x"), Some((0, 1)));
        assert_eq!(provided("a", "z"), Some((1, 2)));
        assert_eq!(provided("b", "y"), Some((1, 2)));
        assert_eq!(merged.len(), 4);
    }

    #[test]
    fn a_claimed_group_of_another_source_is_not_in_the_tree() {
        let acme = vec!["acme*".parse().unwrap()];
        let claims = GroupClaims::new(vec![vec![], acme]);
        let all = [
            catalog(&[("acme", "x", 1), ("acme-labs", "y", 1), ("other", "z", 1)]),
            catalog(&[("acme", "x", 2), ("other", "w", 2)]),
        ];
        let merged = merge(&claims, &all);
        assert_eq!(merged.source_of("acme", "x"), Some(SourceIx(1)));
        assert_eq!(merged.source_of("acme-labs", "y"), None, "dependency confusion");
        assert_eq!(merged.source_of("other", "z"), Some(SourceIx(0)));
        assert_eq!(merged.source_of("other", "w"), None);
    }
}
