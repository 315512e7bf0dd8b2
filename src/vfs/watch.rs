//! The task that watches the catalog for changes and tells the kernel.
//!
//! Invariant: the announced changes lead from the catalog last announced to the current one, even if
//! another task refreshed in between: the watcher compares with what it announced last, not with the
//! result of the last refresh. Concurrency: one task per mount.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};

use super::changes::{Changed, Folder, difference};
use super::lists::Lists;
use super::namespace::Namespace;
use super::types::{Ino, Invalidation, VfsError};
use super::views::{self, View};
use crate::fetch::Sources;
use crate::model::ModelRef;

/// How often to look for answers that have outlived their time to live: shorter than any useful one.
const EXPIRY: Duration = Duration::from_secs(1);

/// Wakes the watcher.
#[derive(Debug, Default)]
pub(super) struct Poke {
    poked: Notify,
    /// Whether to announce every name.
    all: AtomicBool,
    /// Whether the lists of views may have changed.
    views: AtomicBool,
}

impl Poke {
    /// Announces every name: what a previous process announced is unknown.
    pub(super) fn tell_all(&self) {
        self.all.store(true, Ordering::Relaxed);
        self.tell_views();
    }

    /// Announces the lists of views.
    pub(super) fn tell_views(&self) {
        self.views.store(true, Ordering::Relaxed);
        self.poked.notify_one();
    }
}

/// Announces changes every time to live, or when woken, until aborted.
pub(super) async fn watch(
    sources: Arc<Sources>,
    names: Arc<Namespace>,
    lists: Arc<Lists>,
    poke: Arc<Poke>,
    tell: mpsc::UnboundedSender<Invalidation>,
) {
    // The kernel may still hold names from the catalog that an earlier run last saw.
    let mut announced = sources.take_catalog_at_start().or_else(|| sources.catalog_now());
    let mut first = true;
    // The loop continues while a registry is slow.
    let mut refreshing = pin!(sources.refresh_when_due());
    let mut expiry = tokio::time::interval(EXPIRY);
    loop {
        tokio::select! {
            () = std::future::ready(()), if std::mem::take(&mut first) => {}
            () = &mut refreshing => {}
            _ = expiry.tick() => {
                if !announce_expired(&sources, &names, &tell) {
                    return;
                }
            }
            () = poke.poked.notified() => {}
            () = sources.changed() => poke.views.store(true, Ordering::Relaxed),
        }
        if poke.views.swap(false, Ordering::Relaxed) {
            let mut listed = lists.listed(|ino| View::decode(ino).is_some()).into_iter();
            if listed.any(|ino| tell.send(Invalidation::Folder { ino }).is_err()) {
                return;
            }
        }
        if poke.all.swap(false, Ordering::Relaxed) {
            announced = None;
            // Below it, everything that a previous process listed.
            let (parent, name) = (Ino::ROOT, views::FOLDER.into());
            if tell.send(Invalidation::Entry { parent, name }).is_err() {
                return;
            }
        }
        let Some(now) = sources.catalog_now() else { continue };
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

/// Invalidates the versions of models whose answers have outlived their time to live: the next lookup asks
/// the registry. `false`: there is no listener any more.
fn announce_expired(
    sources: &Sources,
    names: &Namespace,
    tell: &mpsc::UnboundedSender<Invalidation>,
) -> bool {
    let Some(catalog) = sources.catalog_now() else { return true };
    for ModelRef { group, model } in sources.take_expired(Instant::now()) {
        let (group, model) = (group.as_str(), model.as_str());
        let folder = Folder::Model(group.into(), model.into());
        let ino = match names.folders(std::iter::once(&folder)) {
            Ok(inos) => inos.into_iter().next(),
            Err(error) => {
                tracing::warn!(%error, "names that may lead elsewhere by now stay in the kernel");
                None
            }
        };
        let Some(parent) = ino else { continue };
        for version in catalog.versions(group, model).unwrap_or_default() {
            let name = version.name.as_str().into();
            if tell.send(Invalidation::Entry { parent, name }).is_err() {
                return false;
            }
        }
    }
    true
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
