//! How a reference is found: in the catalog of the configured registry, else among what the index
//! remembers of any registry.
//!
//! Invariant: a registry is asked only with [`Lookup::Online`]; a reference that several registries know
//! is never guessed. No state of its own: functions over a shared [`Manager`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::error::{ErrorKind, ManagerError};
use super::manager::Manager;
use super::suggest;
use crate::base::blocking::blocking;
use crate::fetch::{Knowledge, Source, Sources};
use crate::model::{
    Catalog, ContentKey, Digest, FileIx, LeftOut, Manifest, ModelRef, VersionEntry, VersionRef,
};
use crate::store::{NodeKey, Store};

/// Whether a lookup may ask the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// Memory and index only.
    Offline,
    /// The registry as well, where memory and index are too old.
    Online,
}

/// A version that exists, as far as is known.
pub struct FoundVersion {
    /// In which registry.
    pub source: Arc<Source>,
    /// Its name.
    pub version: VersionRef,
    /// Its manifest's digest.
    pub hash: Digest,
    /// Its entry in the catalog; none: the registry no longer offers it.
    pub entry: Option<VersionEntry>,
}

/// A version with its manifest.
pub struct ResolvedVersion {
    /// Which.
    pub found: FoundVersion,
    /// Its files.
    pub manifest: Arc<Manifest>,
}

impl ResolvedVersion {
    /// The blobs of its files; empty files have none.
    pub fn blobs(&self) -> Vec<ContentKey> {
        self.files().filter_map(|(_, key)| key).collect()
    }

    /// Its files, each with its blob.
    pub fn files(&self) -> impl Iterator<Item = (FileIx, Option<ContentKey>)> + '_ {
        let count = self.manifest.files().len() as u32;
        (0..count).map(FileIx).map(|ix| {
            let empty = self.manifest.file(ix).len == 0;
            (ix, (!empty).then(|| self.manifest.layout(ix).key()))
        })
    }

    /// Cached bytes of each file, in the manifest's order.
    pub fn cached(&self, store: &Store) -> Vec<u64> {
        self.files().map(|(_, key)| key.map_or(0, |k| store.presence(&k).0.0)).collect()
    }
}

/// The configured registries, or an error that says that `action` needs one.
pub fn configured(manager: &Manager, action: &str) -> Result<Arc<Sources>, ManagerError> {
    let none = || ManagerError::NoRegistry { action: action.to_owned() };
    manager.sources().cloned().ok_or_else(none)
}

/// The configured registries first, then all others that the index remembers.
fn all_sources(manager: &Manager) -> Result<Vec<Arc<Source>>, ManagerError> {
    let configured = manager.sources().into_iter().flat_map(|sources| sources.iter());
    let mut sources: Vec<_> = configured.map(|(_, source)| source.clone()).collect();
    for name in manager.store().sources()? {
        if sources.iter().all(|s| *s.name() != name) {
            let (store, options) = (manager.store().clone(), manager.fetch_options());
            sources.push(Arc::new(Source::new(name, None, store, options)));
        }
    }
    Ok(sources)
}

/// The catalog of a registry, if one is known or the registry may be asked.
pub async fn catalog(source: &Source, lookup: Lookup) -> Result<Arc<Catalog>, ManagerError> {
    match (lookup, source.catalog_now()) {
        (Lookup::Offline, Some(catalog)) => Ok(catalog),
        _ => Ok(source.catalog().await?),
    }
}

/// Has a daemon ask its registry out of turn. A command without a daemon began with that.
pub async fn ask_again(manager: &Manager, source: &Arc<Source>, patience: Duration) {
    if manager.daemon().is_some() {
        source.ask_again(patience).await;
    }
}

/// The catalog of a registry and its entry for a version. A version that was published a moment ago is
/// not in the catalog yet, so the registry is asked again.
async fn entry(
    manager: &Manager,
    source: &Arc<Source>,
    version: &VersionRef,
    lookup: Lookup,
) -> (Result<Arc<Catalog>, ManagerError>, Option<VersionEntry>) {
    let entry = |catalog: &Result<Arc<Catalog>, ManagerError>| {
        catalog.as_ref().ok().and_then(|c| c.find(version).cloned())
    };
    if !source.is_listable()
        && lookup == Lookup::Online
        && let Err(error) = look_up(source, version).await
    {
        return (Err(error), None);
    }
    let first = catalog(source, lookup).await;
    match entry(&first) {
        None if lookup == Lookup::Online && first.is_ok() => {
            ask_again(manager, source, source.patience()).await;
            let second = catalog(source, lookup).await;
            let entry = entry(&second);
            (second, entry)
        }
        entry => (first, entry),
    }
}

/// Asks a registry that does not list about a model, and about a version of it.
async fn look_up(source: &Arc<Source>, version: &VersionRef) -> Result<(), ManagerError> {
    // What an earlier run knew counts until there is a newer answer.
    source.catalog().await?;
    source.look_up(&version.model, source.patience()).await;
    let known = source.look_ups().map(|known| known.knowledge(&version.model, Instant::now()));
    match known {
        Some(Knowledge::Failed { had: false, why }) => {
            Err(ManagerError::CatalogUnavailable { reason: format!("{}: {why}", source.name()) })
        }
        Some(Knowledge::Answered { has: false }) | None => Ok(()),
        Some(_) => Ok(source.resolve(version, source.patience()).await.map(drop)?),
    }
}

/// The registries to look for a version in: of the configured ones those that may have its group, else all
/// that the index remembers.
fn candidates(manager: &Manager, version: &VersionRef) -> Result<Vec<Arc<Source>>, ManagerError> {
    let group = version.model.group.as_str();
    match manager.sources() {
        Some(sources) => Ok(sources.allowed(group).map(|(_, source)| source.clone()).collect()),
        None => all_sources(manager),
    }
}

/// Finds a version: in the catalog, else among what the index remembers. Of the configured registries the
/// first that has the model provides it.
pub async fn find(
    manager: &Manager,
    version: &VersionRef,
    lookup: Lookup,
) -> Result<FoundVersion, ManagerError> {
    let mut found = Vec::new();
    let mut seen: Option<(Arc<Source>, Arc<Catalog>)> = None;
    let mut unreachable = None;
    for source in candidates(manager, version)? {
        let (catalog, entry) = entry(manager, &source, version, lookup).await;
        let hash = match entry.as_ref().and_then(VersionEntry::hash) {
            Some(hash) => Some(hash),
            None => remembered(manager.store(), &source, version)?,
        };
        if let Some(hash) = hash {
            found.push(FoundVersion { source, version: version.clone(), hash, entry });
            match manager.sources() {
                Some(_) => break,
                None => continue,
            }
        }
        match (catalog, manager.sources()) {
            (Ok(catalog), configured) => {
                let has_model = source.lists(&version.model);
                seen = Some((source, catalog));
                if has_model && configured.is_some() {
                    break;
                }
            }
            // Not even a catalog is remembered: that it is not cached is all there is to say.
            (Err(error), _)
                if lookup == Lookup::Offline && error.kind() == ErrorKind::NotCached => {}
            // An outage of one source hides no model of another, as in the tree.
            (Err(error), Some(_)) => drop(unreachable.get_or_insert(error)),
            (Err(_), None) => {}
        }
    }
    match (found.pop(), found.pop()) {
        (Some(one), None) => Ok(one),
        (Some(a), Some(b)) => Err(ManagerError::Ambiguous {
            version: version.clone(),
            first: a.source.name().to_string(),
            second: b.source.name().to_string(),
        }),
        (None, _) => match unreachable {
            Some(error) => Err(error),
            None => Err(not_found(manager, version, lookup, seen)),
        },
    }
}

fn not_found(
    manager: &Manager,
    version: &VersionRef,
    lookup: Lookup,
    seen: Option<(Arc<Source>, Arc<Catalog>)>,
) -> ManagerError {
    let version = version.clone();
    let suggestions = seen.as_ref().map(|(_, c)| suggest::nearest(c, &version));
    let suggestions = suggestions.unwrap_or_default();
    match (manager.sources(), seen) {
        (Some(sources), Some(_)) => {
            let allowed = || sources.allowed(version.model.group.as_str()).map(|(_, s)| s);
            let names: Vec<_> = allowed().map(|source| source.name().as_str()).collect();
            let registry = names.join(", ");
            let trouble = allowed().find_map(|source| source.trouble());
            match trouble {
                // It may have it by now.
                Some(reason) if lookup == Lookup::Online => {
                    ManagerError::NotInLastCatalog { version, registry, reason }
                }
                _ => ManagerError::NotInRegistry { version, registry, suggestions },
            }
        }
        _ if lookup == Lookup::Online => ManagerError::NoRegistry {
            action: format!("{version} is not known here: to look it up"),
        },
        _ => ManagerError::NotCached { version, suggestions },
    }
}

/// The newest manifest of a version that is not in the catalog but was used here.
fn remembered(
    store: &Store,
    source: &Source,
    version: &VersionRef,
) -> Result<Option<Digest>, ManagerError> {
    for (known, hash) in store.known_versions(source.name())?.into_iter().rev() {
        if known == *version && source.manifest_now(&hash)?.is_some() {
            return Ok(Some(hash));
        }
    }
    Ok(None)
}

/// Finds a version with its manifest, which comes from the registry if it has to and may.
pub async fn resolve(
    manager: &Manager,
    version: &VersionRef,
    lookup: Lookup,
) -> Result<ResolvedVersion, ManagerError> {
    let found = find(manager, version, lookup).await?;
    let manifest = match lookup {
        Lookup::Online => found.source.manifest(&found.hash).await?,
        Lookup::Offline => found
            .source
            .manifest_now(&found.hash)?
            .ok_or_else(|| ManagerError::NothingCached { version: version.clone() })?,
    };
    Ok(ResolvedVersion { found, manifest })
}

/// Every version of a registry whose manifest is here, also those that are no longer offered.
fn resolved(
    store: &Store,
    source: &Arc<Source>,
    catalog: &Catalog,
    provides: impl Fn(&ModelRef) -> bool,
) -> Result<Vec<ResolvedVersion>, ManagerError> {
    let mut all = store.known_versions(source.name())?;
    let provided = offered(catalog).filter(|(version, _)| provides(&version.model));
    all.extend(provided.filter_map(|(version, entry)| Some((version, entry.hash()?))));
    all.sort_unstable();
    all.dedup();
    let mut resolved = Vec::new();
    for (version, hash) in all {
        if let Some(manifest) = source.manifest_now(&hash)? {
            let entry = catalog.find(&version).filter(|e| e.hash() == Some(hash)).cloned();
            let found = FoundVersion { source: source.clone(), version, hash, entry };
            resolved.push(ResolvedVersion { found, manifest });
        }
    }
    Ok(resolved)
}

/// Every version of every registry whose manifest is here.
pub async fn all_resolved(manager: &Manager) -> Result<Vec<ResolvedVersion>, ManagerError> {
    let mut catalogs = Vec::new();
    for source in all_sources(manager)? {
        let catalog = catalog(&source, Lookup::Offline).await.unwrap_or_default();
        catalogs.push((source, catalog));
    }
    let mut all = Vec::new();
    for (source, catalog) in catalogs {
        let (store, sources) = (manager.store().clone(), manager.sources().cloned());
        let found = blocking(move || {
            // What another source provides is not listed twice.
            let provides = |model: &ModelRef| {
                sources.as_ref().is_none_or(|sources| sources.provides(source.name(), model))
            };
            resolved(&store, &source, &catalog, provides)
        });
        all.extend(found.await??);
    }
    Ok(all)
}

/// All versions that a catalog offers.
pub fn offered(catalog: &Catalog) -> impl Iterator<Item = (VersionRef, &VersionEntry)> {
    catalog.iter().map(|(group, model, entry)| {
        let model = ModelRef { group: group.clone(), model: model.clone() };
        (VersionRef { model, version: entry.name.clone() }, entry)
    })
}

/// Names of a catalog that no path can hold, if there are any.
pub fn left_out(catalog: &Catalog) -> Option<LeftOut> {
    Some(catalog.left_out().clone()).filter(|left| left.count > 0)
}

/// Gives a version its row in the index, so that what is cached of it is listed without the registry.
pub fn remember(store: &Store, found: &FoundVersion) -> Result<(), ManagerError> {
    let r = &found.version;
    let key = NodeKey::Version {
        group: r.model.group.as_str().into(),
        model: r.model.model.as_str().into(),
        version: r.version.as_str().into(),
        hash: found.hash,
    };
    store.nodes(found.source.name(), &[key])?;
    Ok(())
}
