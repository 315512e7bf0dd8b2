//! `refresh`: ask the registry for its catalog now.
//!
//! Invariant: nothing but the remembered catalog changes.

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};

use super::error::ManagerError;
use super::lookup::{self, left_out, offered};
use super::manager::{Command, Manager};
use super::progress::ProgressSink;
use crate::model::{Catalog, LeftOut, VersionRef};

/// Asks the registry for its catalog now.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Refresh {}

/// What the registries offer, and what has changed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Refreshed {
    /// Their names, without credentials.
    pub registry: String,
    /// Versions that it offers.
    pub versions: usize,
    /// Of them, those that were not offered before, or with other content.
    pub new: usize,
    /// Versions that it offered before and no longer offers.
    pub gone: usize,
    /// Names in its catalog that no path can hold, if there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<LeftOut>,
}

impl Command for Refresh {
    type Answer = Refreshed;

    async fn run(self, manager: Manager, _: ProgressSink) -> Result<Refreshed, ManagerError> {
        let sources = lookup::configured(&manager, "`refresh`")?;
        let before = match manager.daemon() {
            Some(_) => {
                let before = sources.catalog_now();
                let all = sources.iter().map(|(_, source)| source.refresh());
                // One that fails keeps no other from being asked.
                for outcome in join_all(all).await {
                    outcome?;
                }
                before
            }
            // The registries were asked when the command began.
            None => sources.take_catalog_at_start(),
        };
        let catalog = sources.catalog().await?;
        let names: Vec<&str> = sources.iter().map(|(_, source)| source.name().as_str()).collect();
        match sources.trouble() {
            Some(reason) => Err(ManagerError::CatalogUnavailable { reason }),
            None => Ok(difference(&names.join(", "), &before.unwrap_or_default(), &catalog)),
        }
    }
}

fn difference(registry: &str, before: &Catalog, now: &Catalog) -> Refreshed {
    let target = |version: &VersionRef| before.find(version).map(|v| &v.target);
    let new = offered(now).filter(|(v, entry)| target(v) != Some(&entry.target)).count();
    let gone = offered(before).filter(|(v, _)| now.find(v).is_none()).count();
    let registry = registry.to_owned();
    Refreshed { registry, versions: now.len(), new, gone, left_out: left_out(now) }
}
