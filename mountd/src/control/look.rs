//! Commands that only look: status, list, info, path, refresh.
//!
//! Invariant: nothing is fetched but a catalog or a manifest, and that only when asked for.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use modelfs::base::units::ByteSize;
use modelfs::fetch::Source;
use modelfs::model::{Catalog, LeftOut, ModelRef, VersionRef};
use modelfs::store::Usage;

use super::answers::{
    CacheStatus, FileInfo, Info, List, ListedVersion, MountedPath, Refreshed, RegistryStatus,
    Status, Waiting,
};
use super::ops::{Ask, Found, Known, Ops, Run, blocking, rfc3339};
use super::types::{GetInfo, GetList, GetPath, GetStatus, ProgressSink, Refresh};
use crate::error::{Failure, Kind};
use crate::paths;

/// Who pinned what: by source and version.
type Owners = HashMap<(String, VersionRef), Vec<String>>;

impl Run for GetStatus {
    async fn run(self, ops: Arc<Ops>, _: ProgressSink) -> Result<Status, Failure> {
        if let (Some(source), None) = (&ops.source, &ops.daemon) {
            // Brings the remembered catalog to memory; that there is none is seen below. A daemon has
            // it, or waits for it, which this answer must not.
            let _ = Ops::catalog(source, Ask::Memory).await;
        }
        blocking(move || {
            let live = ops.daemon.is_some();
            Ok(Status {
                daemon: ops.daemon.as_ref().map(|d| d.status.clone()),
                registry: registry_status(&ops)?,
                cache: cache_status(&ops),
                traffic: ops.fetcher.as_ref().filter(|_| live).map(|f| f.traffic()),
            })
        })
        .await
    }
}

fn cache_status(ops: &Ops) -> CacheStatus {
    let usage = ops.store.usage();
    match &ops.scratch {
        None => CacheStatus { folder: ops.store.root().to_owned(), absent: false, usage },
        Some(scratch) => {
            let folder = scratch.instead_of.clone();
            let disk_free = ByteSize(paths::free_at(&folder).unwrap_or(0));
            let usage = Usage { limit: usage.limit, disk_free, ..Usage::default() };
            CacheStatus { folder, absent: true, usage }
        }
    }
}

/// What is being waited for, as answers have it.
pub fn waiting(source: &Source) -> Option<Waiting> {
    source.waiting().map(|wait| Waiting { why: wait.why, seconds_left: wait.left.as_secs() })
}

fn registry_status(ops: &Ops) -> Result<Option<RegistryStatus>, Failure> {
    let Some(source) = &ops.source else { return Ok(None) };
    let checked = ops.store.catalog_last_checked(source.name())?;
    let age = checked.and_then(|at| SystemTime::now().duration_since(at).ok());
    let catalog = source.catalog_now();
    Ok(Some(RegistryStatus {
        name: source.name().to_owned(),
        versions: catalog.as_ref().map(|c| c.len()),
        left_out: catalog.and_then(|c| left_out(&c)),
        catalog_age_seconds: age.map(|a| a.as_secs()),
        trouble: source.trouble().filter(|_| ops.fetcher.is_some()),
        waiting: waiting(source),
    }))
}

/// Names that are left out, if there are any.
fn left_out(catalog: &Catalog) -> Option<LeftOut> {
    Some(catalog.left_out().clone()).filter(|left| left.count > 0)
}

impl Ops {
    fn owners(&self) -> Result<Owners, Failure> {
        let mut owners = Owners::new();
        for pin in self.store.pins()? {
            owners.entry((pin.source, pin.version)).or_default().push(pin.owner);
        }
        Ok(owners)
    }

    /// What is cached of each file, in the manifest's order.
    fn cached(&self, known: &Known) -> Vec<u64> {
        known.files().map(|(_, key)| key.map_or(0, |k| self.store.presence(&k).0.0)).collect()
    }

    fn listed(found: &Found, size: Option<(u64, u64)>, owners: &Owners) -> ListedVersion {
        let source = found.source.name().to_owned();
        let (total, cached) = size.unzip();
        ListedVersion {
            reference: (&found.version).into(),
            hash: found.hash,
            total,
            cached: cached.unwrap_or(0),
            complete: total.is_some() && total == cached,
            offered: found.entry.is_some(),
            alias_of: found
                .entry
                .as_ref()
                .and_then(|e| e.alias_of.as_ref())
                .map(|n| n.as_str().to_owned()),
            pinned_by: owners
                .get(&(source.clone(), found.version.clone()))
                .cloned()
                .unwrap_or_default(),
            registry: source,
        }
    }

    fn listed_known(&self, known: &Known, owners: &Owners) -> ListedVersion {
        let cached = self.cached(known).iter().sum();
        Self::listed(&known.found, Some((known.manifest.total(), cached)), owners)
    }
}

impl Run for GetList {
    async fn run(self, ops: Arc<Ops>, _: ProgressSink) -> Result<List, Failure> {
        if self.remote {
            return remote(ops).await;
        }
        let known = ops.known_everywhere().await?;
        blocking(move || {
            let owners = ops.owners()?;
            let all = known.iter().map(|k| ops.listed_known(k, &owners));
            let versions = all.filter(|v| v.cached > 0 || !v.pinned_by.is_empty()).collect();
            Ok(List { versions, trouble: None })
        })
        .await
    }
}

async fn remote(ops: Arc<Ops>) -> Result<List, Failure> {
    let source = ops.source.clone().ok_or_else(|| Failure::no_registry("`list --remote`"))?;
    ops.ask_again(&source, source.patience()).await;
    let catalog = Ops::catalog(&source, Ask::Registry).await?;
    let trouble = source.trouble();
    let versions = blocking(move || {
        let owners = ops.owners()?;
        offered(&catalog)
            .map(|(version, entry)| {
                let found = Found {
                    source: source.clone(),
                    version,
                    hash: entry.hash,
                    entry: Some(entry.clone()),
                };
                Ok(match source.manifest_now(&entry.hash)? {
                    Some(manifest) => ops.listed_known(&Known { found, manifest }, &owners),
                    None => Ops::listed(&found, None, &owners),
                })
            })
            .collect::<Result<_, Failure>>()
    })
    .await?;
    Ok(List { versions, trouble })
}

fn offered(catalog: &Catalog) -> impl Iterator<Item = (VersionRef, &modelfs::model::VersionEntry)> {
    catalog.iter().map(|(group, model, entry)| {
        let model = ModelRef { group: group.clone(), model: model.clone() };
        (VersionRef { model, version: entry.name.clone() }, entry)
    })
}

impl Run for GetInfo {
    async fn run(self, ops: Arc<Ops>, _: ProgressSink) -> Result<Info, Failure> {
        let version = self.reference.parse()?;
        let known = ops.find_known(&version, Ask::Registry).await?;
        blocking(move || {
            let cached = ops.cached(&known);
            let entry = known.found.entry.as_ref();
            let text = entry.and_then(|e| e.metadata.as_deref());
            let files = known.manifest.files().iter().zip(&cached);
            Ok(Info {
                summary: ops.listed_known(&known, &ops.owners()?),
                published: entry.and_then(|e| e.published).map(rfc3339),
                metadata: text.and_then(|t| serde_json::from_str(t).ok()).unwrap_or_default(),
                pins: ops.pins_of(&known.found)?,
                path: ops.mounted_at(&known.found.version).ok(),
                files: files
                    .map(|(file, &cached)| FileInfo {
                        path: file.path.as_str().to_owned(),
                        size: file.len,
                        cached,
                        sha256: file.sha256,
                    })
                    .collect(),
            })
        })
        .await
    }
}

impl Ops {
    fn mounted_at(&self, version: &VersionRef) -> Result<std::path::PathBuf, Failure> {
        let daemon = self.daemon.as_ref().ok_or_else(|| {
            Failure::new(Kind::NotCached, format!("{version} is not mounted"))
                .hint("mount it: modelfs mount MOUNTPOINT --registry URL|FOLDER --background")
        })?;
        let model = daemon.status.mountpoint.join(version.model.group.as_str());
        Ok(model.join(version.model.model.as_str()).join(version.version.as_str()))
    }
}

impl Run for GetPath {
    async fn run(self, ops: Arc<Ops>, _: ProgressSink) -> Result<MountedPath, Failure> {
        let version = self.reference.parse()?;
        let path = ops.mounted_at(&version)?;
        let found = ops.find(&version, Ask::Registry).await?;
        if found.entry.is_none() {
            return Err(Failure::new(
                Kind::NotFound,
                format!("{version} is cached, but the registry does not offer it any more"),
            ));
        }
        Ok(MountedPath { path })
    }
}

impl Run for Refresh {
    async fn run(self, ops: Arc<Ops>, _: ProgressSink) -> Result<Refreshed, Failure> {
        let source = ops.source.clone().ok_or_else(|| Failure::no_registry("`refresh`"))?;
        let before = match &ops.daemon {
            Some(_) => {
                let before = source.catalog_now();
                source.refresh().await?;
                before
            }
            // It was asked when the command began.
            None => source.take_catalog_at_start(),
        };
        let catalog = source.catalog().await?;
        if let Some(trouble) = source.trouble() {
            return Err(Failure::new(Kind::Network, trouble));
        }
        Ok(refreshed(source.name(), &before.unwrap_or_default(), &catalog))
    }
}

fn refreshed(registry: &str, before: &Catalog, now: &Catalog) -> Refreshed {
    let hash = |catalog: &Catalog, version: &VersionRef| catalog.find(version).map(|v| v.hash);
    let new = offered(now).filter(|(v, entry)| hash(before, v) != Some(entry.hash)).count();
    let gone = offered(before).filter(|(v, _)| hash(now, v).is_none()).count();
    let registry = registry.to_owned();
    Refreshed { registry, versions: now.len(), new, gone, left_out: left_out(now) }
}
