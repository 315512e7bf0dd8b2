//! Where a command runs: in the daemon that holds the store, else here on the store itself.
//!
//! Invariant: a store has one user at a time; who holds it is asked of its lock, never guessed. Where
//! there is no store, nothing is made unless the command is to keep something.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use modelfs::fetch::{FetchOptions, Source};
use modelfs::store::{Holder, Store, StoreError};

use super::answers::Waiting;
use super::client::Client;
use super::look;
use super::ops::{Ask, Ops, Run, Scratch, blocking};
use super::types::{GetStatus, ProgressSink};
use crate::error::{Failure, Kind};
use crate::handover::{self, TakeError};
use crate::service;

/// How often a store that another command holds is tried again, and for how long in all: commands
/// on a store are short, and a daemon says where it listens within moments of its start.
const AGAIN: Duration = Duration::from_millis(100);
const TRIES: u32 = 30;

/// What is done where there is no cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// Make one: the command is to keep something.
    Make,
    /// Take it for an empty one, and make nothing.
    IsEmpty,
}

/// Does what a command asks for.
pub enum Backend {
    /// On the store itself.
    Local(Arc<Ops>),
    /// In the daemon.
    Daemon(Client),
}

impl Backend {
    /// For the store at `root`; `registry` as given by the user, `ask` whether the command may
    /// have to ask it.
    pub async fn open(
        root: &Path,
        registry: Option<&str>,
        ask: Ask,
        absent: Absent,
    ) -> Result<Self, Failure> {
        let mut last = None;
        for _ in 0..TRIES {
            match holder(root).await? {
                Some(Holder { trouble: Some(trouble), .. }) => {
                    return Err(Failure::new(Kind::General, trouble));
                }
                Some(Holder { socket: Some(socket), .. }) => {
                    return Ok(Self::Daemon(Client::new(&socket)));
                }
                Some(holder) => last = Some(holder),
                None => match local(root, registry, ask, absent).await {
                    Ok(ops) => return Ok(Self::Local(Arc::new(ops))),
                    Err(Opening::Locked(holder)) => last = Some(holder),
                    Err(Opening::Failed(failure)) => return Err(failure),
                },
            }
            tokio::time::sleep(AGAIN).await;
        }
        let pid = last.map_or_else(String::new, |h| format!(" by process {}", h.pid));
        Err(Failure::new(
            Kind::Storage,
            format!("{}: the store is in use{pid}, another modelfs command", root.display()),
        )
        .hint("wait until it has ended"))
    }

    /// Does it.
    pub async fn call<C: Run>(
        &self,
        call: C,
        progress: ProgressSink,
    ) -> Result<C::Answer, Failure> {
        match self {
            Self::Local(ops) => call.run(ops.clone(), progress).await,
            Self::Daemon(client) => client.call(&call, &progress).await,
        }
    }

    /// Makes sure that there is a catalog, where the command may ask for one here: this may wait.
    pub async fn first_catalog(&self) -> Result<(), Failure> {
        let Self::Local(ops) = self else { return Ok(()) };
        let Some(source) = ops.fetcher.as_ref().map(|f| f.source()) else { return Ok(()) };
        match source.registry() {
            Some(registry) => service::first_catalog(&*registry, source).await,
            None => Ok(()),
        }
    }

    /// What is being waited for at this moment, and from which registry.
    pub async fn waiting(&self) -> Option<(String, Waiting)> {
        match self {
            Self::Local(ops) => {
                let source = ops.source.as_ref()?;
                Some((source.name().to_owned(), look::waiting(source)?))
            }
            Self::Daemon(client) => {
                let registry = client.call(&GetStatus {}, &none()).await.ok()?.registry?;
                Some((registry.name, registry.waiting?))
            }
        }
    }

    /// Fails if a daemon has the store that serves another registry than this one.
    pub async fn serves(&self, registry: &str) -> Result<(), Failure> {
        let Self::Daemon(client) = self else { return Ok(()) };
        same_registry(client, registry).await
    }

    /// Makes durable what was done here, also of what was stopped half-way.
    pub async fn close(self) -> Result<(), Failure> {
        match self {
            Self::Local(ops) => blocking(move || Ok(ops.store.commit()?)).await,
            Self::Daemon(_) => Ok(()),
        }
    }
}

/// Who holds the store at `root`: asked of its lock.
pub async fn holder(root: &Path) -> Result<Option<Holder>, Failure> {
    let root: PathBuf = root.to_owned();
    blocking(move || handover::holder(&root)).await
}

async fn same_registry(client: &Client, given: &str) -> Result<(), Failure> {
    let given = modelfs::registry::open(given)?;
    let status = client.call(&GetStatus {}, &none()).await?;
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

/// Nobody wants to know how far it is.
pub fn none() -> ProgressSink {
    Arc::new(|_| {})
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

/// A store that lies somewhere else for a moment, where there is none.
fn scratch(root: &Path) -> Result<(Store, Scratch), Failure> {
    let failed = |e: std::io::Error| Failure::storage(&std::env::temp_dir(), "a folder in it", &e);
    let folder = tempfile::Builder::new().prefix("modelfs.").tempdir().map_err(failed)?;
    let store = Store::open(service::store_options(folder.path(), None))?;
    Ok((store, Scratch { folder, instead_of: root.to_owned() }))
}

async fn local(
    root: &Path,
    registry: Option<&str>,
    ask: Ask,
    absent: Absent,
) -> Result<Ops, Opening> {
    let folder = registry.and_then(service::registry_folder);
    let registry = registry.map(modelfs::registry::open).transpose()?;
    let options = service::store_options(root, None);
    // The lock's error is kept apart from failures, so that the caller can try again.
    let opened = blocking(move || {
        if absent == Absent::IsEmpty && !Store::is_at(&options.root)? {
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
    let (store, scratch) = opened.await?.map_err(Opening::Locked)?;
    let options = FetchOptions::default();
    let (source, fetcher) = match registry {
        None => (None, None),
        Some(registry) if ask == Ask::Memory => {
            let source = Source::new(registry.name(), None, store.clone(), &options);
            (Some(Arc::new(source)), None)
        }
        Some(registry) => {
            let fetcher = service::fetcher(registry, &store, &options);
            (Some(fetcher.source().clone()), Some(fetcher))
        }
    };
    Ok(Ops { store, source, fetcher, daemon: None, options, scratch })
}
