//! `status`: daemon, registry and cache at a glance.
//!
//! Invariant: nothing is fetched, and nothing waited for.

use std::path::PathBuf;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::daemon::DaemonStatus;
use super::error::ManagerError;
use super::lookup::{self, Lookup, left_out};
use super::manager::{Command, Manager};
use super::progress::ProgressSink;
use super::waiting::Waiting;
use crate::base::blocking::blocking;
use crate::fetch::{Source, Traffic};
use crate::model::LeftOut;
use crate::store::Usage;

/// Asks for the state of daemon, registry and cache.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct GetStatus {}

/// The state of daemon, registry and cache.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// The daemon; none: not mounted.
    pub daemon: Option<DaemonStatus>,
    /// The first registry, if one is configured.
    pub registry: Option<RegistryStatus>,
    /// All configured registries, in order of priority.
    #[serde(default)]
    pub sources: Vec<RegistryStatus>,
    /// The cache.
    pub cache: CacheStatus,
    /// What came over the network since the daemon's start.
    pub traffic: Option<Traffic>,
}

/// A configured registry.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RegistryStatus {
    /// Its name: as configured, or its address.
    pub name: String,
    /// Its URL or folder, without credentials.
    #[serde(default)]
    pub address: String,
    /// Whether it lists what it has; if not, models are looked up by name.
    #[serde(default)]
    pub lists: bool,
    /// Whether it answered when it was last asked; none: it was not asked since the start.
    #[serde(default)]
    pub reachable: Option<bool>,
    /// Versions it offers; none: never asked.
    pub versions: Option<usize>,
    /// Age in seconds of what is served of it: since it last confirmed its catalog, or answered a look-up.
    pub catalog_age_seconds: Option<u64>,
    /// Why it could not be reached lately.
    pub trouble: Option<String>,
    /// What is being waited for at this moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
    /// Names in its catalog that no path can hold, if there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<LeftOut>,
}

impl RegistryStatus {
    /// Whether it is the registry at this address.
    pub fn is_at(&self, address: &str) -> bool {
        self.name == address || self.address == address
    }

    /// Its name, with its address where that is another text.
    pub fn shown(&self) -> String {
        match self.name == self.address || self.address.is_empty() {
            true => self.name.clone(),
            false => format!("{} ({})", self.name, self.address),
        }
    }
}

/// How full the cache is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CacheStatus {
    /// Its folder.
    pub folder: PathBuf,
    /// Whether the folder holds no cache.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub absent: bool,
    /// Bytes on disk, and files.
    #[serde(flatten)]
    pub usage: Usage,
}

impl Command for GetStatus {
    type Answer = Status;

    async fn run(self, manager: Manager, _: ProgressSink) -> Result<Status, ManagerError> {
        if let (Some(sources), None) = (manager.sources(), manager.daemon()) {
            // Loads the remembered catalogs; whether there is one is seen below. A daemon has them, or waits
            // for them, which this answer must not.
            for (_, source) in sources.iter() {
                let _ = lookup::catalog(source, Lookup::Offline).await;
            }
        }
        blocking(move || {
            let daemon = manager.daemon().map(|daemon| daemon.status());
            let traffic = manager.fetcher().filter(|_| daemon.is_some()).map(|f| f.traffic());
            let sources = manager.sources().into_iter().flat_map(|sources| sources.iter());
            let sources = sources.map(|(_, source)| registry_status(&manager, source));
            let sources = sources.collect::<Result<Vec<_>, _>>()?;
            let (registry, cache) = (sources.first().cloned(), cache_status(&manager));
            Ok(Status { daemon, registry, sources, cache, traffic })
        })
        .await?
    }
}

fn cache_status(manager: &Manager) -> CacheStatus {
    let usage = manager.store().usage();
    match manager.absent() {
        None => CacheStatus { folder: manager.store().root().to_owned(), absent: false, usage },
        Some(absent) => {
            let disk_free = absent.disk_free;
            let usage = Usage { limit: usage.limit, disk_free, ..Usage::default() };
            CacheStatus { folder: absent.folder.clone(), absent: true, usage }
        }
    }
}

fn registry_status(manager: &Manager, source: &Source) -> Result<RegistryStatus, ManagerError> {
    let checked = manager.store().catalog_last_checked(source.name())?;
    let confirmed = source.answered().max(checked);
    let age = confirmed.and_then(|at| SystemTime::now().duration_since(at).ok());
    let trouble = source.trouble().filter(|_| manager.fetcher().is_some());
    let catalog = source.catalog_now();
    Ok(RegistryStatus {
        name: source.name().to_string(),
        address: source.address().to_owned(),
        lists: source.is_listable(),
        reachable: source.was_asked().then_some(trouble.is_none()),
        versions: catalog.as_ref().map(|c| c.len()),
        left_out: catalog.and_then(|c| left_out(&c)),
        catalog_age_seconds: age.map(|a| a.as_secs()),
        trouble,
        waiting: source.waiting().map(Waiting::from),
    })
}
