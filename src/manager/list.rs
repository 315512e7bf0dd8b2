//! `list`: the versions that are cached, or that the registry offers.
//!
//! Invariant: nothing is fetched but a catalog, and that only when asked for.

use serde::{Deserialize, Serialize};

use super::error::ManagerError;
use super::listed::{ListedVersion, Owners};
use super::lookup::{self, FoundVersion, ResolvedVersion, all_resolved, offered};
use super::manager::{Command, Manager};
use super::progress::ProgressSink;
use crate::base::blocking::blocking;
use crate::model::{VersionEntry, VersionRef};

/// Asks for versions.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct GetList {
    /// All that the registry offers, not only what is cached.
    #[serde(default)]
    pub remote: bool,
}

/// Versions, in order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct List {
    /// The versions.
    pub versions: Vec<ListedVersion>,
    /// Why what the registry offers may be out of date.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

impl Command for GetList {
    type Answer = List;

    async fn run(self, manager: Manager, _: ProgressSink) -> Result<List, ManagerError> {
        match self.remote {
            true => remote(manager).await,
            false => local(manager).await,
        }
    }
}

async fn local(manager: Manager) -> Result<List, ManagerError> {
    let resolved = all_resolved(&manager).await?;
    blocking(move || {
        let store = manager.store();
        let owners = Owners::of(store)?;
        let all = resolved.iter().map(|v| ListedVersion::resolved(v, store, &owners));
        let versions = all.filter(|v| v.cached > 0 || !v.pinned_by.is_empty()).collect();
        Ok(List { versions, trouble: None })
    })
    .await?
}

async fn remote(manager: Manager) -> Result<List, ManagerError> {
    let sources = lookup::configured(&manager, "`list --remote`")?;
    for source in sources.listing(None) {
        lookup::ask_again(&manager, source, source.patience()).await;
    }
    let catalog = sources.catalog().await?;
    let trouble = sources.trouble();
    let versions = blocking(move || {
        let store = manager.store();
        let owners = Owners::of(store)?;
        let listed = |(version, entry): (VersionRef, &VersionEntry)| {
            // What no manifest is known of yet has nothing that a list shows.
            let Some(hash) = entry.hash() else { return Ok(None) };
            let (group, model) = (version.model.group.as_str(), version.model.model.as_str());
            let source = sources.get(catalog.source_of(group, model).unwrap_or_default()).clone();
            let entry = entry.clone();
            let found = FoundVersion { source, version, hash, entry: Some(entry) };
            Ok(Some(match found.source.manifest_now(&found.hash)? {
                Some(manifest) => {
                    ListedVersion::resolved(&ResolvedVersion { found, manifest }, store, &owners)
                }
                None => ListedVersion::unresolved(&found, &owners),
            }))
        };
        offered(&catalog).filter_map(|v| listed(v).transpose()).collect::<Result<_, ManagerError>>()
    })
    .await??;
    Ok(List { versions, trouble })
}
