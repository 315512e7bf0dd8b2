//! Where a command runs: in the daemon that holds the store, else here on the store itself.
//!
//! Invariant: one process at a time uses a store, and its lock says which. Where there is no store, none is
//! created unless the command is to keep something in it. Shared between tasks.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use modelfs::base::blocking::blocking;
use modelfs::base::units::ByteSize;
use modelfs::fetch::{FetchOptions, Source, Sources};
use modelfs::manager::{
    AbsentCache, GetStatus, Lookup, Manager, ProgressSink, Waiting, no_progress,
};
use modelfs::model::SourceName;
use modelfs::store::{Holder, Store, StoreError};

use super::client::Client;
use super::routes::Route;
use crate::error::{Failure, Kind};
use crate::handover::{self, TakeError};
use crate::{paths, wiring};

/// The pause between attempts to open a store that another command holds, and how many there are: such
/// commands are short, and a daemon announces its socket within moments of its start.
const PAUSE: Duration = Duration::from_millis(100);
const ATTEMPTS: u32 = 30;

/// What to do where there is no cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfAbsent {
    /// Create one: the command is to keep something.
    Create,
    /// Treat it as empty and create nothing.
    TreatAsEmpty,
}

/// Carries out commands.
pub enum Backend {
    /// On the store itself.
    Local(Manager),
    /// In the daemon.
    Daemon(Client),
}

impl Backend {
    /// For the store at `root`. `registry` is as the user gave it; `lookup` says whether the command may
    /// have to ask it.
    pub async fn open(
        root: &Path,
        registry: Option<&str>,
        lookup: Lookup,
        if_absent: IfAbsent,
    ) -> Result<Self, Failure> {
        let mut last = None;
        for _ in 0..ATTEMPTS {
            match holder(root).await? {
                Some(Holder { trouble: Some(trouble), .. }) => {
                    return Err(Failure::new(Kind::General, trouble));
                }
                Some(Holder { socket: Some(socket), .. }) => {
                    return Ok(Self::Daemon(Client::new(&socket)));
                }
                Some(holder) => last = Some(holder),
                None => match local(root, registry, lookup, if_absent).await {
                    Ok(manager) => return Ok(Self::Local(manager)),
                    Err(Opening::Locked(holder)) => last = Some(holder),
                    Err(Opening::Failed(failure)) => return Err(failure),
                },
            }
            tokio::time::sleep(PAUSE).await;
        }
        let pid = last.map_or_else(String::new, |h| format!(" by process {}", h.pid));
        Err(Failure::new(
            Kind::Storage,
            format!("{}: the store is in use{pid}, another modelfs command", root.display()),
        )
        .hint("wait until it has ended"))
    }

    /// Carries out a command.
    pub async fn call<R: Route>(
        &self,
        command: R,
        progress: ProgressSink,
    ) -> Result<R::Answer, Failure> {
        match self {
            Self::Local(manager) => Ok(command.run(manager.clone(), progress).await?),
            Self::Daemon(client) => client.call(&command, &progress).await,
        }
    }

    /// Makes sure that there is a catalog where the command may ask the registry here. May wait.
    pub async fn first_catalog(&self) -> Result<(), Failure> {
        let Self::Local(manager) = self else { return Ok(()) };
        let Some(source) = manager.fetcher().map(|f| f.sources().first()) else { return Ok(()) };
        match source.registry() {
            Some(registry) => wiring::first_catalog(&*registry, source).await,
            None => Ok(()),
        }
    }

    /// The request that is being waited for at this moment, and the registry that it went to.
    pub async fn waiting(&self) -> Option<(String, Waiting)> {
        match self {
            Self::Local(manager) => manager.waiting(),
            Self::Daemon(client) => {
                let status = client.call(&GetStatus {}, &no_progress()).await;
                let registry = status.ok()?.registry?;
                Some((registry.name, registry.waiting?))
            }
        }
    }

    /// Fails if a daemon holds the store and serves another registry than this one.
    pub async fn check_registry(&self, registry: &str) -> Result<(), Failure> {
        let Self::Daemon(client) = self else { return Ok(()) };
        same_registry(client, registry).await
    }

    /// Makes durable what was done here, also what was stopped half-way.
    pub async fn close(self) -> Result<(), Failure> {
        match self {
            Self::Local(manager) => Ok(manager.commit().await?),
            Self::Daemon(_) => Ok(()),
        }
    }
}

/// Who holds the store at `root`, as its lock says.
pub async fn holder(root: &Path) -> Result<Option<Holder>, Failure> {
    let root: PathBuf = root.to_owned();
    blocking(move || handover::holder(&root)).await?
}

async fn same_registry(client: &Client, given: &str) -> Result<(), Failure> {
    let given = modelfs::registry::open(given)?;
    let status = client.call(&GetStatus {}, &no_progress()).await?;
    match status.registry {
        Some(theirs) if theirs.name != given.name() => Err(Failure::usage(format!(
            "the daemon that holds this cache serves {}, not {}",
            theirs.name,
            given.name()
        ))
        .hint("use another cache with --cache-dir, or leave out --registry")),
        _ => Ok(()),
    }
}

enum Opening {
    Locked(Holder),
    Failed(Failure),
}

impl<E: Into<Failure>> From<E> for Opening {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// An empty store in a temporary folder, which stands for the cache that does not exist at `root`.
fn scratch(root: &Path) -> Result<(Store, AbsentCache), Failure> {
    let failed =
        |e: std::io::Error| Failure::storage(&std::env::temp_dir(), "creating a folder in it", &e);
    let folder = tempfile::Builder::new().prefix("modelfs.").tempdir().map_err(failed)?;
    let store = Store::open(wiring::store_options(folder.path(), None))?;
    let disk_free = ByteSize(paths::free_at(root).unwrap_or(0));
    Ok((store, AbsentCache { folder: root.to_owned(), disk_free, scratch: Box::new(folder) }))
}

async fn local(
    root: &Path,
    registry: Option<&str>,
    lookup: Lookup,
    if_absent: IfAbsent,
) -> Result<Manager, Opening> {
    let folder = registry.and_then(wiring::registry_folder);
    let registry = registry.map(modelfs::registry::open).transpose()?;
    let options = wiring::store_options(root, None);
    // A held lock is kept apart from failures, so that the caller can try again.
    let opened = blocking(move || {
        if if_absent == IfAbsent::TreatAsEmpty && !Store::is_at(&options.root)? {
            let (store, scratch) = scratch(&options.root)?;
            return Ok(Ok((store, Some(scratch))));
        }
        Ok(match handover::take_as_owner(&options.root, folder.as_deref()) {
            Ok(lock) => Ok((Store::open_locked(options, lock)?, None)),
            Err(TakeError::Store(StoreError::Locked { holder, .. })) => Err(holder),
            Err(TakeError::Store(error)) => return Err(error.into()),
            Err(TakeError::Failed(failure)) => return Err(failure),
        })
    });
    let (store, scratch) = opened.await.map_err(Failure::from)??.map_err(Opening::Locked)?;
    let options = FetchOptions::default();
    let mut manager = Manager::new(store.clone(), options.clone());
    if let Some(scratch) = scratch {
        manager = manager.standing_for(scratch);
    }
    Ok(match registry {
        None => manager,
        Some(registry) if lookup == Lookup::Offline => {
            let name = SourceName::of_address(registry.name());
            let source = Arc::new(Source::new(name, None, store, &options));
            manager.with_sources(Arc::new(Sources::one(source)))
        }
        Some(registry) => manager.with_fetcher(wiring::fetcher(registry, &store, &options)?),
    })
}
