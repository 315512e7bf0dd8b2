//! The task that watches the catalog for changes and tells the kernel.
//!
//! Invariant: the announced changes lead from the catalog last announced to the current one, even if
//! another task refreshed in between: the watcher compares with what it announced last, not with the
//! result of the last refresh. Concurrency: one task per mount.

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

/// Wakes the watcher.
#[derive(Debug, Default)]
pub(super) struct Poke {
    poked: Notify,
    /// Whether to announce every name.
    all: AtomicBool,
}

impl Poke {
    /// Announces every name: what a previous process announced is unknown.
    pub(super) fn tell_all(&self) {
        self.all.store(true, Ordering::Relaxed);
        self.poked.notify_one();
    }
}

/// Announces changes every time to live, or when woken, until aborted.
pub(super) async fn watch(
    source: Arc<Source>,
    names: Arc<Namespace>,
    poke: Arc<Poke>,
    tell: mpsc::UnboundedSender<Invalidation>,
) {
    // The kernel may still hold names from the catalog that an earlier run last saw.
    let mut announced = source.take_catalog_at_start().or_else(|| source.catalog_now());
    let (ttl, mut first) = (source.catalog_ttl(), true);
    // At once if the registry was not asked yet. The loop continues while the registry is slow.
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
            announced = None;
        }
        let Some(now) = source.catalog_now() else { continue };
        let before = announced.clone().unwrap_or_default();
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
                announced = Some(now);
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
