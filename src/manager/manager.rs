//! The manager: a store, the registry that feeds it, and what a command is.
//!
//! Invariant: the parts never change once a manager is built. Clones share them; commands may run on any
//! number of clones and tasks at once.

use std::any::Any;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::daemon::DaemonControl;
use super::error::ManagerError;
use super::progress::ProgressSink;
use super::waiting::Waiting;
use crate::base::blocking::blocking;
use crate::base::units::ByteSize;
use crate::fetch::{FetchOptions, Fetcher, Sources};
use crate::store::Store;

/// A request that a manager can carry out.
pub trait Command: Serialize + DeserializeOwned + Send + 'static {
    /// The answer.
    type Answer: Serialize + DeserializeOwned + Send + 'static;

    /// Carries it out. Dropping the future stops the work; what is done by then stays.
    fn run(
        self,
        manager: Manager,
        progress: ProgressSink,
    ) -> impl Future<Output = Result<Self::Answer, ManagerError>> + Send;
}

/// Stands for a cache that does not exist: a command that only looks works on an empty scratch store and
/// creates nothing in the folder that was named.
pub struct AbsentCache {
    /// The folder that was named.
    pub folder: PathBuf,
    /// Free space on that folder's disk.
    pub disk_free: ByteSize,
    /// Removes the scratch store's folder when dropped.
    pub scratch: Box<dyn Any + Send + Sync>,
}

/// What commands work on. Cloning is cheap.
#[derive(Clone)]
pub struct Manager {
    store: Store,
    sources: Option<Arc<Sources>>,
    fetcher: Option<Arc<Fetcher>>,
    daemon: Option<Arc<dyn DaemonControl>>,
    fetch_options: FetchOptions,
    // Declared after the store, so that the scratch folder outlives it.
    absent: Option<Arc<AbsentCache>>,
}

impl Manager {
    /// A manager of this store that knows no registry but those that the store's index remembers.
    /// `fetch_options` apply to these.
    pub fn new(store: Store, fetch_options: FetchOptions) -> Self {
        Self { store, sources: None, fetcher: None, daemon: None, fetch_options, absent: None }
    }

    /// With configured registries that are looked up in memory and index only.
    pub fn with_sources(self, sources: Arc<Sources>) -> Self {
        Self { sources: Some(sources), ..self }
    }

    /// With configured registries to fetch from.
    pub fn with_fetcher(self, fetcher: Arc<Fetcher>) -> Self {
        Self { sources: Some(fetcher.sources().clone()), fetcher: Some(fetcher), ..self }
    }

    /// With the daemon that this process is.
    pub fn with_daemon(self, daemon: Arc<dyn DaemonControl>) -> Self {
        Self { daemon: Some(daemon), ..self }
    }

    /// With a store that stands for a cache that does not exist.
    pub fn standing_for(self, absent: AbsentCache) -> Self {
        Self { absent: Some(Arc::new(absent)), ..self }
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The configured registries.
    pub fn sources(&self) -> Option<&Arc<Sources>> {
        self.sources.as_ref()
    }

    /// What fetches from the configured registries.
    pub fn fetcher(&self) -> Option<&Arc<Fetcher>> {
        self.fetcher.as_ref()
    }

    /// The daemon that this process is.
    pub fn daemon(&self) -> Option<&Arc<dyn DaemonControl>> {
        self.daemon.as_ref()
    }

    /// How registries that only the index remembers behave.
    pub(super) fn fetch_options(&self) -> &FetchOptions {
        &self.fetch_options
    }

    /// The cache that does not exist, if the store stands for one.
    pub(super) fn absent(&self) -> Option<&AbsentCache> {
        self.absent.as_deref()
    }

    /// The request that is being waited for at this moment, and the registry that it went to.
    pub fn waiting(&self) -> Option<(String, Waiting)> {
        let sources = self.sources.as_ref()?;
        let mut waiting = sources.iter().filter_map(|(_, source)| {
            Some((source.name().to_string(), Waiting::from(source.waiting()?)))
        });
        waiting.next()
    }

    /// Makes everything durable that was done so far.
    pub async fn commit(&self) -> Result<(), ManagerError> {
        let store = self.store.clone();
        Ok(blocking(move || store.commit()).await??)
    }
}
