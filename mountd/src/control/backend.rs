//! Where a command runs: in the daemon that holds the store, else here on the store itself.
//!
//! Invariant: a store has one user at a time; who holds it is asked of its lock, never guessed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use modelfs::fetch::{FetchOptions, Source};
use modelfs::store::{Holder, Store, StoreError};

use super::client::Client;
use super::ops::{Ask, Ops, Run, blocking};
use super::types::{GetStatus, ProgressSink};
use crate::error::{Failure, Kind};
use crate::handover::{self, TakeError};
use crate::service;

/// How often a store that another command holds is tried again, and for how long in all: commands
/// on a store are short, and a daemon says where it listens within moments of its start.
const AGAIN: Duration = Duration::from_millis(100);
const TRIES: u32 = 30;

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
    pub async fn open(root: &Path, registry: Option<&str>, ask: Ask) -> Result<Self, Failure> {
        let mut last = None;
        for _ in 0..TRIES {
            match holder(root).await? {
                Some(Holder { trouble: Some(trouble), .. }) => {
                    return Err(Failure::new(Kind::General, trouble));
                }
                Some(Holder { socket: Some(socket), .. }) => {
                    let client = Client::new(&socket);
                    if let Some(registry) = registry {
                        same_registry(&client, registry).await?;
                    }
                    return Ok(Self::Daemon(client));
                }
                Some(holder) => last = Some(holder),
                None => match local(root, registry, ask).await {
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

    /// Makes durable what was done here, also of what was stopped half-way.
    pub async fn close(self) -> Result<(), Failure> {
        match self {
            Self::Local(ops) => blocking(move || Ok(ops.store.commit()?)).await,
            Self::Daemon(_) => Ok(()),
        }
    }
}

/// Who holds the store at `root`.
pub async fn holder(root: &Path) -> Result<Option<Holder>, Failure> {
    let root: PathBuf = root.to_owned();
    blocking(move || Ok(Holder::of(&root))).await
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

async fn local(root: &Path, registry: Option<&str>, ask: Ask) -> Result<Ops, Opening> {
    let folder = registry.and_then(service::registry_folder);
    let registry = registry.map(modelfs::registry::open).transpose()?;
    let options = service::store_options(root, None);
    // The lock's error is kept apart from failures, so that the caller can try again.
    let opened = blocking(move || {
        Ok(match handover::take_as_owner(&options.root, folder.as_deref()) {
            Ok(lock) => Ok(Store::open_locked(options, lock)?),
            Err(TakeError::Store(StoreError::Locked { holder, .. })) => Err(holder),
            Err(TakeError::Store(error)) => return Err(error.into()),
            Err(TakeError::Failed(failure)) => return Err(failure),
        })
    });
    let store = opened.await?.map_err(Opening::Locked)?;
    let options = FetchOptions::default();
    let (source, fetcher) = match registry {
        None => (None, None),
        Some(registry) if ask == Ask::Memory => {
            let source = Source::new(registry.name(), None, store.clone(), &options);
            (Some(Arc::new(source)), None)
        }
        Some(registry) => {
            let fetcher = service::fetcher(registry.clone(), &store, &options);
            service::first_catalog(&*registry, fetcher.source()).await?;
            (Some(fetcher.source().clone()), Some(fetcher))
        }
    };
    Ok(Ops { store, source, fetcher, daemon: None, options })
}
