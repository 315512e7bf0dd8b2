//! Asks a registry that cannot list about models and versions by name, and keeps what it said.
//!
//! Invariant: a name is asked for once at a time, and not again while an answer counts (`look_ups`). A
//! failed request leaves what was known, in memory and in the index.
//! Concurrency: shared; no lock is held while the registry is asked, but the turn of the name.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::look_ups::{Knowledge, LookUps, VersionKnowledge};
use super::manifests::{Manifests, warn_unless_saved};
use crate::base::blocking::blocking;
use crate::fetch::error::FetchError;
use crate::model::{Catalog, Digest, ModelRef, Name, SourceName, VersionRef, VersionTarget};
use crate::registry::{Listing, Registry, RegistryError, Validator, Waits};
use crate::store::{SavedCatalog, Store};

/// One holder at a time for each key.
struct Turns<K>(Mutex<HashMap<K, Weak<tokio::sync::Mutex<()>>>>);

impl<K: Hash + Eq + Clone> Turns<K> {
    fn new() -> Self {
        Self(Mutex::default())
    }

    async fn of(&self, key: &K) -> tokio::sync::OwnedMutexGuard<()> {
        let turn = {
            let mut all = self.0.lock();
            all.retain(|_, turn| turn.strong_count() > 0);
            let running = all.get(key).and_then(Weak::upgrade);
            running.unwrap_or_else(|| {
                let new = Arc::new(tokio::sync::Mutex::new(()));
                all.insert(key.clone(), Arc::downgrade(&new));
                new
            })
        };
        turn.lock_owned().await
    }
}

/// Looks models and versions up in one registry.
pub struct ModelLookups {
    name: SourceName,
    registry: Arc<dyn Registry>,
    /// The registry with retries.
    patient: Arc<dyn Registry>,
    store: Store,
    manifests: Arc<Manifests>,
    waits: Arc<Waits>,
    /// Maximum duration of a request.
    deadline: Duration,
    known: LookUps,
    catalog: Mutex<Arc<Catalog>>,
    /// Notified when the catalog changes.
    changed: Arc<Notify>,
    models: Turns<ModelRef>,
    versions: Turns<VersionRef>,
    contact: Mutex<Contact>,
    recalled: AtomicBool,
    begun: tokio::sync::OnceCell<()>,
}

/// How the last request ended.
#[derive(Debug, Default)]
struct Contact {
    /// Why it failed, if it did.
    trouble: Option<String>,
    /// When the registry last answered.
    answered: Option<SystemTime>,
}

/// What lookups share with the rest of their source.
pub struct Shared {
    /// The source's name.
    pub name: SourceName,
    /// The registry.
    pub registry: Arc<dyn Registry>,
    /// The registry with retries.
    pub patient: Arc<dyn Registry>,
    /// Where answers are kept.
    pub store: Store,
    /// The manifests of the source.
    pub manifests: Arc<Manifests>,
    /// Where requests are listed.
    pub waits: Arc<Waits>,
    /// Notified when the catalog changes.
    pub changed: Arc<Notify>,
}

impl ModelLookups {
    /// Nothing was looked up yet. Answers count for `ttl`; a request takes at most `deadline`.
    pub fn new(shared: Shared, ttl: Duration, deadline: Duration) -> Self {
        let Shared { name, registry, patient, store, manifests, waits, changed } = shared;
        Self {
            name,
            registry,
            patient,
            store,
            manifests,
            waits,
            deadline,
            known: LookUps::new(ttl),
            catalog: Mutex::default(),
            changed,
            models: Turns::new(),
            versions: Turns::new(),
            contact: Mutex::default(),
            recalled: AtomicBool::new(false),
            begun: tokio::sync::OnceCell::new(),
        }
    }

    /// What is known.
    pub fn known(&self) -> &LookUps {
        &self.known
    }

    /// What was looked up, as a catalog.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.catalog.lock().clone()
    }

    /// Why the last request failed, if it did.
    pub fn trouble(&self) -> Option<String> {
        self.contact.lock().trouble.clone()
    }

    /// When the registry last answered, since the start.
    pub fn answered(&self) -> Option<SystemTime> {
        self.contact.lock().answered
    }

    /// Shows these models from the start, and these versions of them.
    pub fn show(&self, models: impl IntoIterator<Item = (ModelRef, Option<Name>)>) {
        for (model, version) in models {
            self.known.show(&model, version);
        }
        *self.catalog.lock() = Arc::new(self.known.catalog());
    }

    /// Whether what an earlier run kept was taken.
    pub fn is_recalled(&self) -> bool {
        self.recalled.load(Ordering::Relaxed)
    }

    /// Takes what an earlier run kept, if it did.
    pub fn recall(&self, document: Option<&[u8]>) -> Arc<Catalog> {
        self.recalled.store(true, Ordering::Relaxed);
        if let Some(document) = document
            && let Err(error) = self.known.recall(document)
        {
            tracing::warn!(%error, source = %self.name, "the lookups kept in the index cannot be read");
        }
        let catalog = Arc::new(self.known.catalog());
        *self.catalog.lock() = catalog.clone();
        catalog
    }

    /// Asks a registry that can list for its list, once.
    pub async fn begin(&self) {
        if !self.registry.capabilities().listable {
            return;
        }
        let list = || async {
            let nothing = Validator::default();
            let asked = self.registry.list(&nothing);
            match self.in_time(&"the catalog", asked).await {
                Ok(Listing::Changed { catalog, .. }) => {
                    self.known.listed(&catalog, Instant::now());
                    self.publish().await;
                    Ok(())
                }
                Ok(Listing::Unchanged) => Ok(()),
                Err(error) => {
                    tracing::warn!(%error, source = %self.name, "the registry cannot be listed");
                    Err(error)
                }
            }
        };
        // After a failure the next caller lists.
        let _: Result<&(), FetchError> = self.begun.get_or_try_init(list).await;
    }

    /// Asks the registry again about every model that it had.
    pub async fn refresh(self: &Arc<Self>) {
        self.known.expire();
        for model in self.known.models() {
            self.model(&model, self.deadline).await;
        }
    }

    /// Asks the registry about a model, unless an answer counts still. Waits at most `patience` where an
    /// earlier answer is known; the request continues then. [`LookUps::knowledge`] tells the outcome.
    pub async fn model(self: &Arc<Self>, model: &ModelRef, patience: Duration) {
        let had = match self.known.knowledge(model, Instant::now()) {
            Knowledge::Ask { had } => had,
            Knowledge::Answered { .. } | Knowledge::Failed { .. } => return,
        };
        let (this, asked) = (Arc::clone(self), model.clone());
        let asking = tokio::spawn(async move { this.ask_about_model(&asked).await });
        let patience = if had { patience } else { self.deadline };
        if tokio::time::timeout(patience, asking).await.is_err() {
            self.known.failed(model, format!("no answer within {patience:?}"), Instant::now());
        }
    }

    async fn ask_about_model(&self, model: &ModelRef) {
        let _turn = self.models.of(model).await;
        let Knowledge::Ask { had } = self.known.knowledge(model, Instant::now()) else { return };
        // With an earlier answer, callers should not wait through retries for a newer one.
        let registry = if had { &self.registry } else { &self.patient };
        let validator = self.known.validator(model);
        let answer = self.in_time(model, registry.lookup(model, &validator)).await;
        match answer {
            Ok(versions) => {
                if self.known.answered(model, versions, Instant::now()) {
                    self.publish().await;
                }
            }
            Err(error) => self.known.failed(model, error.to_string(), Instant::now()),
        }
    }

    /// The manifest that a version's name leads to; asks the registry unless an answer counts still. `None`:
    /// there is no such version. Waits at most `patience` where an earlier answer is known.
    pub async fn version(
        self: &Arc<Self>,
        version: &VersionRef,
        patience: Duration,
    ) -> Result<Option<Digest>, FetchError> {
        let before = match self.known.version(&version.model, &version.version, Instant::now()) {
            VersionKnowledge::Known(VersionTarget::Manifest(hash)) => return Ok(Some(hash)),
            VersionKnowledge::Missing => return Ok(None),
            VersionKnowledge::Ask(Some(VersionTarget::Manifest(hash))) => Some(hash),
            VersionKnowledge::Known(_) | VersionKnowledge::Ask(_) => None,
        };
        let (this, asked) = (Arc::clone(self), version.clone());
        let asking = tokio::spawn(async move { this.ask_about_version(&asked).await });
        let Some(before) = before else {
            return asking.await.unwrap_or(Err(FetchError::Stopped));
        };
        match tokio::time::timeout(patience, asking).await {
            Ok(Ok(Ok(found))) => Ok(found),
            late_or_failed => {
                if let Ok(Ok(Err(error))) = late_or_failed {
                    tracing::debug!(%error, %version, "the version last seen is served");
                }
                self.known.version_failed(&version.model, &version.version, Instant::now());
                Ok(Some(before))
            }
        }
    }

    async fn ask_about_version(&self, version: &VersionRef) -> Result<Option<Digest>, FetchError> {
        let _turn = self.versions.of(version).await;
        let VersionRef { model, version: name } = version;
        let known = self.known.version(model, name, Instant::now());
        let target = match known {
            VersionKnowledge::Missing => return Ok(None),
            VersionKnowledge::Known(target) => target,
            VersionKnowledge::Ask(before) => {
                let registry = if before.is_some() { &self.registry } else { &self.patient };
                let entry = self.in_time(version, registry.version(model, name)).await?;
                self.known.version_answered(model, name, entry, Instant::now());
                match self.known.version(model, name, Instant::now()) {
                    VersionKnowledge::Known(target) => target,
                    VersionKnowledge::Missing | VersionKnowledge::Ask(_) => return Ok(None),
                }
            }
        };
        let hash = match target {
            VersionTarget::Manifest(hash) => hash,
            VersionTarget::Unknown => return Ok(None),
            VersionTarget::Revision(revision) => {
                let made = self.in_time(version, self.patient.resolve(model, &revision)).await?;
                let manifest = self.manifests.save(made).await;
                self.known.resolved(model, &revision, manifest.hash());
                manifest.hash()
            }
        };
        self.publish().await;
        Ok(Some(hash))
    }

    /// The registry's answer, within the deadline.
    async fn in_time<T>(
        &self,
        what: &impl std::fmt::Display,
        answer: impl Future<Output = Result<T, RegistryError>>,
    ) -> Result<T, FetchError> {
        let _listed = self.waits.begin(tokio::time::Instant::now() + self.deadline);
        let answer = tokio::time::timeout(self.deadline, answer).await.unwrap_or_else(|_| {
            let why = format!("not all there within {:?}", self.deadline);
            Err(RegistryError::Unreachable { what: what.to_string(), why })
        });
        let mut contact = self.contact.lock();
        contact.trouble =
            answer.as_ref().err().filter(|error| error.is_transient()).map(ToString::to_string);
        if contact.trouble.is_none() {
            contact.answered = Some(SystemTime::now());
        }
        drop(contact);
        Ok(answer?)
    }

    /// Makes the catalog anew, saves what is known, and says that it changed.
    async fn publish(&self) {
        let catalog = Arc::new(self.known.catalog());
        let before = std::mem::replace(&mut *self.catalog.lock(), catalog.clone());
        if before == catalog {
            return;
        }
        let saved = SavedCatalog {
            body: self.known.document(),
            etag: None,
            last_modified: None,
            checked: SystemTime::now(),
        };
        let (store, name) = (self.store.clone(), self.name.clone());
        warn_unless_saved("the lookups", blocking(move || store.save_catalog(&name, &saved)).await);
        self.changed.notify_one();
    }
}
