//! Where a command runs: in the daemon that holds the store, else here on the store itself.
//!
//! Invariant: one process at a time uses a store, and its lock says which. Where there is no store, none is
//! created unless the command is to keep something in it. Shared between tasks.

use std::path::{Path, PathBuf};
use std::time::Duration;

use modelfs::base::blocking::blocking;
use modelfs::base::units::ByteSize;
use modelfs::fetch::FetchOptions;
use modelfs::manager::{
    AbsentCache, GetStatus, Lookup, Manager, ProgressSink, Waiting, no_progress,
};
use modelfs::registry::HttpOptions;
use modelfs::store::{Holder, Store, StoreError};

use super::client::Client;
use super::routes::Route;
use crate::cache_ownership::{self, TakeError};
use crate::error::{Failure, Kind};
use crate::sources::SourcePlan;
use crate::wiring::OpenSource;
use crate::{logins, paths, sources, wiring};

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

/// The sources that a command was configured with.
#[derive(Debug, Default)]
pub struct SourcesToUse {
    /// The sources, in order of priority; none: those that the index remembers.
    pub plans: Vec<SourcePlan>,
    /// How servers are asked.
    pub http: HttpOptions,
}

/// Carries out commands.
pub enum Backend {
    /// On the store itself.
    Local(Manager),
    /// In the daemon.
    Daemon(Client),
}

impl Backend {
    /// For the store at `root`. `lookup` says whether the command may have to ask `sources`.
    pub async fn open(
        root: &Path,
        sources: &SourcesToUse,
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
                None => match local(root, sources, lookup, if_absent).await {
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
    pub async fn first_catalogs(&self) -> Result<(), Failure> {
        let Self::Local(manager) = self else { return Ok(()) };
        match manager.fetcher() {
            Some(fetcher) => wiring::first_catalogs(fetcher.sources()).await,
            None => Ok(()),
        }
    }

    /// The request that is being waited for at this moment, and the registry that it went to.
    pub async fn waiting(&self) -> Option<(String, Waiting)> {
        match self {
            Self::Local(manager) => manager.waiting(),
            Self::Daemon(client) => {
                let status = client.call(&GetStatus {}, &no_progress()).await;
                let sources = status.ok()?.sources.into_iter();
                sources.filter_map(|source| Some((source.name, source.waiting?))).next()
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
    blocking(move || cache_ownership::holder(&root)).await?
}

async fn same_registry(client: &Client, given: &str) -> Result<(), Failure> {
    let given = modelfs::registry::open(given)?;
    let status = client.call(&GetStatus {}, &no_progress()).await?;
    if status.sources.iter().any(|theirs| theirs.is_at(given.name())) {
        return Ok(());
    }
    let theirs: Vec<_> = status.sources.iter().map(|theirs| theirs.shown()).collect();
    let (theirs, given) = (theirs.join(", "), given.name());
    Err(Failure::usage(format!("the daemon that holds this cache serves {theirs}, not {given}"))
        .hint("use another cache with --cache-dir, or leave out --registry"))
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
    sources: &SourcesToUse,
    lookup: Lookup,
    if_absent: IfAbsent,
) -> Result<Manager, Opening> {
    let folders = sources::folders(&sources.plans);
    let loses_rights = lookup == Lookup::Online && cache_ownership::makes_another(root)?;
    let mut open = Vec::new();
    for plan in &sources.plans {
        let mut from = logins::of_source(plan)?;
        if loses_rights {
            from = logins::looked_up(&*from).await;
        }
        open.push(OpenSource::open(plan.clone(), &sources.http, from)?);
    }
    let options = wiring::store_options(root, None);
    // A held lock is kept apart from failures, so that the caller can try again.
    let opened = blocking(move || {
        if if_absent == IfAbsent::TreatAsEmpty && !Store::is_at(&options.root)? {
            let (store, scratch) = scratch(&options.root)?;
            return Ok(Ok((store, Some(scratch))));
        }
        Ok(match cache_ownership::take_as_owner(&options.root, &folders) {
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
    Ok(match (open.is_empty(), lookup) {
        (true, _) => manager,
        (false, Lookup::Offline) => {
            manager.with_sources(wiring::remembered(&open, &store, &options))
        }
        (false, Lookup::Online) => manager.with_fetcher(wiring::fetcher(&open, &store, &options)?),
    })
}
