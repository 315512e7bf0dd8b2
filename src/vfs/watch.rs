//! The task that looks for changes of the catalog and tells the kernel.
//!
//! Invariant: what the listener was told leads from the catalog it last knew to the one now, even
//! if somebody else refreshed in between: the watcher compares with what it told last, not with
//! what the last refresh says. Concurrency: one task per mount.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};

use super::changes::{Changed, Folder, difference};
use super::namespace::Namespace;
use super::types::{Invalidation, VfsError};
use crate::fetch::Source;

/// Makes the watcher look at once.
#[derive(Debug, Default)]
pub(super) struct Poke {
    poked: Notify,
    /// Whether every name is to be told.
    all: AtomicBool,
}

impl Poke {
    /// Every name that there is: what a former process told is not known.
    pub(super) fn tell_all(&self) {
        self.all.store(true, Ordering::Relaxed);
        self.poked.notify_one();
    }
}

/// Looks for changes every time to live, or when poked, until aborted, and tells them.
pub(super) async fn watch(
    source: Arc<Source>,
    names: Arc<Namespace>,
    poke: Arc<Poke>,
    tell: mpsc::UnboundedSender<Invalidation>,
) {
    // What an earlier run last saw is what the kernel may still know from it.
    let mut told = source.take_catalog_at_start().or_else(|| source.catalog_now());
    let (ttl, mut first) = (source.catalog_ttl(), true);
    // At once if nobody has asked yet. While a registry keeps us waiting, the rest goes on.
    let wait = source.asked().map_or(Duration::ZERO, |_| ttl);
    let mut refreshed = pin!(refresh(&source, wait));
    loop {
        tokio::select! {
            () = std::future::ready(()), if std::mem::take(&mut first) => {}
            () = &mut refreshed => refreshed.set(refresh(&source, ttl)),
            () = poke.poked.notified() => {}
            () = source.changed() => {}
        }
        if poke.all.swap(false, Ordering::Relaxed) {
            told = None;
        }
        let Some(now) = source.catalog_now() else { continue };
        let before = told.clone().unwrap_or_default();
        if Arc::ptr_eq(&before, &now) {
            continue;
        }
        match invalidations(&difference(&before, &now), &names) {
            Ok(list) => {
                if !list.is_empty() {
                    tracing::info!(changes = list.len(), "the catalog changed");
                }
                if list.into_iter().any(|change| tell.send(change).is_err()) {
                    return;
                }
                told = Some(now);
            }
            Err(error) => tracing::warn!(%error, "the catalog's changes wait for the index"),
        }
    }
}

async fn refresh(source: &Source, after: Duration) {
    tokio::time::sleep(after).await;
    if let Err(error) = source.refresh().await {
        tracing::debug!(%error, "the catalog could not be refreshed");
    }
}

fn invalidations(
    changes: &BTreeMap<Folder, Changed>,
    names: &Namespace,
) -> Result<Vec<Invalidation>, VfsError> {
    let inos = names.folders(changes.keys())?;
    let mut out = Vec::new();
    for (ino, changed) in inos.into_iter().zip(changes.values()) {
        let names = changed.names.iter().cloned();
        out.extend(names.map(|name| Invalidation::Entry { parent: ino, name }));
        if changed.list {
            out.push(Invalidation::Folder { ino });
        }
    }
    Ok(out)
}
