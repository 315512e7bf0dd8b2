//! A configured registry and what the index holds of it: catalogs (here) and `manifests`, also offline.
//!
//! Invariant: while a registry cannot be reached, the last catalog seen stays. The catalog is requested
//! at most once per time to live, whatever the answer, and earlier only for a name that the catalog lacks
//! (limited by `rate_limit`).
//! Concurrency: shared; one refresh at a time, and no lock that readers need is held during it.

mod look_ups;
mod manifests;
mod model_lookups;
mod rate_limit;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;

use look_ups::FAILED_FOR;
pub use look_ups::{Knowledge, LookUps, VersionKnowledge};
use manifests::{Manifests, warn_unless_saved};
use model_lookups::{ModelLookups, Shared};
use rate_limit::RateLimit;

use super::error::FetchError;
use super::options::FetchOptions;
use crate::base::blocking::blocking;
use crate::model::{
    Catalog, ContentKey, Digest, FileIx, Manifest, ModelRef, Name, SourceName, VersionEntry,
    VersionId, VersionRef,
};
use crate::registry::{
    Listing, Registry, RegistryError, RetryPolicy, Retrying, Validator, Wait, Waits, read_catalog,
    read_manifest,
};
use crate::store::{Formats, NodeKey, SavedCatalog, Store};

/// The log message for names in the catalog that are left out.
const LEFT_OUT: &str = "names in the catalog that no path can hold are left out";

/// A configured registry.
pub struct Source {
    name: SourceName,
    address: String,
    registry: Option<Arc<dyn Registry>>,
    /// The registry with retries, for documents.
    patient: Option<Arc<dyn Registry>>,
    store: Store,
    ttl: Duration,
    /// Maximum duration of a catalog request: a response that drips must not block later requests.
    catalog_deadline: Duration,
    /// Calls that wait for the registry, including those for objects.
    waits: Arc<Waits>,
    state: Mutex<State>,
    refreshing: tokio::sync::Mutex<()>,
    /// Notified when the catalog changes.
    changed: Arc<tokio::sync::Notify>,
    manifests: Arc<Manifests>,
    /// Where names lead to revisions instead of manifests.
    lookups: Option<Arc<ModelLookups>>,
}

#[derive(Default)]
struct State {
    catalog: Option<Arc<Catalog>>,
    validator: Validator,
    /// When the last request for the catalog ended, whatever the answer.
    asked: Option<Instant>,
    /// When that request began.
    begun: Option<Instant>,
    /// Limits requests before the time to live has elapsed.
    limit: RateLimit,
    trouble: Option<String>,
    /// When an attempt to reach the registry was given up: for a moment, callers get its error instead of
    /// asking again.
    given_up: Option<Instant>,
    /// The catalog that an earlier run left in the index.
    at_start: Option<Arc<Catalog>>,
}

/// A catalog before and after a change.
pub type CatalogChange = (Arc<Catalog>, Arc<Catalog>);

impl Source {
    /// `registry` = `None`: only what the index holds of the source called `name`.
    pub fn new(
        name: SourceName,
        registry: Option<Arc<dyn Registry>>,
        store: Store,
        options: &FetchOptions,
    ) -> Self {
        let waits = Arc::new(Waits::default());
        // Retries are wrapped around documents only, and here: they end at this source's read deadline and
        // are listed among its waits. A flight repeats by itself, and only what it still lacks. Other layers
        // concern every request and are wrapped where the registry is opened.
        let patient = registry.clone().map(|r| {
            let retrying = Retrying::new(r, RetryPolicy::default(), options.read_deadline);
            Arc::new(retrying.listed_in(waits.clone())) as Arc<dyn Registry>
        });
        let manifests = Arc::new(Manifests::new(patient.clone(), store.clone()));
        store.reads(&name, Formats { listed, blobs });
        let changed = Arc::new(tokio::sync::Notify::new());
        let asked = registry.clone().filter(|r| !r.capabilities().names_manifests);
        let lookups = asked.zip(patient.clone()).map(|(registry, patient)| {
            let shared = Shared {
                name: name.clone(),
                registry,
                patient,
                store: store.clone(),
                manifests: Arc::clone(&manifests),
                waits: Arc::clone(&waits),
                changed: Arc::clone(&changed),
            };
            Arc::new(ModelLookups::new(shared, options.catalog_ttl, options.read_deadline))
        });
        let address = registry.as_ref().map_or(name.as_str(), |r| r.name()).to_owned();
        Self {
            name,
            address,
            registry,
            patient,
            store,
            ttl: options.catalog_ttl,
            catalog_deadline: options.read_deadline,
            waits,
            state: Mutex::default(),
            refreshing: tokio::sync::Mutex::default(),
            changed,
            manifests,
            lookups,
        }
    }

    /// With the address of a registry that is not asked.
    pub fn at(self, address: String) -> Self {
        Self { address, ..self }
    }

    /// Shows these models from the start, and these versions of them, where models are looked up by name.
    pub fn show(&self, models: impl IntoIterator<Item = (ModelRef, Option<Name>)>) {
        if let Some(lookups) = &self.lookups {
            lookups.show(models);
        }
    }

    /// Its name: its key in the index.
    pub fn name(&self) -> &SourceName {
        &self.name
    }

    /// Its URL or folder, without credentials.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The registry, if one is configured.
    pub fn registry(&self) -> Option<Arc<dyn Registry>> {
        self.registry.clone()
    }

    /// Whether its list says all that it offers. If not, models are looked up by name.
    pub fn is_listable(&self) -> bool {
        self.lookups.is_none()
    }

    /// What was looked up, where models are looked up by name.
    pub fn look_ups(&self) -> Option<&LookUps> {
        self.lookups.as_ref().map(|lookups| lookups.known())
    }

    /// Whether the catalog in memory has a model.
    pub fn lists(&self, model: &ModelRef) -> bool {
        let catalog = self.catalog_now();
        catalog.is_some_and(|c| c.versions(model.group.as_str(), model.model.as_str()).is_some())
    }

    /// Asks the registry about a model that it does not list, unless an answer counts still. Waits at
    /// most `patience` where an earlier answer is known. [`LookUps::knowledge`] tells the outcome.
    pub async fn look_up(&self, model: &ModelRef, patience: Duration) {
        if let Some(lookups) = &self.lookups {
            lookups.model(model, patience).await;
        }
    }

    /// The manifest that a version's name leads to; none: there is no such version. Waits at most
    /// `patience` where an earlier answer is known.
    pub async fn resolve(
        &self,
        version: &VersionRef,
        patience: Duration,
    ) -> Result<Option<Digest>, FetchError> {
        match &self.lookups {
            Some(lookups) => lookups.version(version, patience).await,
            None => {
                let catalog = self.catalog().await?;
                Ok(catalog.find(version).and_then(VersionEntry::hash))
            }
        }
    }

    /// The catalog: from memory while it is younger than the time to live, else from the registry; if
    /// that cannot be reached, the last one seen.
    pub async fn catalog(&self) -> Result<Arc<Catalog>, FetchError> {
        if let Some(lookups) = &self.lookups {
            self.recall().await?;
            lookups.begin().await;
            return Ok(lookups.catalog());
        }
        let fresh = |state: &State| {
            let young = state.asked.is_some_and(|at| at.elapsed() < self.ttl);
            state.catalog.clone().filter(|_| young)
        };
        if let Some(catalog) = fresh(&self.state()) {
            return Ok(catalog);
        }
        if let Some(error) = self.given_up() {
            return Err(error);
        }
        let _one = self.refreshing.lock().await;
        if let Some(catalog) = fresh(&self.state()) {
            return Ok(catalog);
        }
        let outcome = self.ask().await;
        match (self.catalog_now(), outcome) {
            (Some(catalog), _) => Ok(catalog),
            (None, Err(error)) => Err(error),
            (None, Ok(_)) => Err(self.not_known()),
        }
    }

    /// Notes that an attempt to reach the registry was given up: it counts as one that failed.
    pub fn give_up(&self, why: String) {
        let mut state = self.state();
        (state.asked, state.given_up) = (Some(Instant::now()), Some(Instant::now()));
        state.trouble = Some(why);
    }

    /// The error of an attempt that was given up a moment ago, while there is no catalog.
    fn given_up(&self) -> Option<FetchError> {
        let state = self.state();
        let lately = state.given_up.is_some_and(|at| at.elapsed() < FAILED_FOR);
        let why = state.trouble.clone().filter(|_| lately && state.catalog.is_none())?;
        Some(RegistryError::Unreachable { what: "the catalog".to_owned(), why }.into())
    }

    /// The catalog in memory, however old.
    pub fn catalog_now(&self) -> Option<Arc<Catalog>> {
        if let Some(lookups) = &self.lookups {
            return Some(lookups.catalog());
        }
        self.state().catalog.clone()
    }

    /// The catalog that an earlier run last saw; returned once.
    pub fn take_catalog_at_start(&self) -> Option<Arc<Catalog>> {
        self.state().at_start.take()
    }

    /// Loads the catalog that an earlier run last saw, if any, without asking the registry.
    pub(crate) async fn recall(&self) -> Result<(), FetchError> {
        let _one = self.refreshing.lock().await;
        self.load_saved().await
    }

    /// Requests the catalog now, conditionally. Returns the catalog before and after, if it changed.
    pub async fn refresh(&self) -> Result<Option<CatalogChange>, FetchError> {
        if let Some(lookups) = &self.lookups {
            let before = lookups.catalog();
            self.recall().await?;
            lookups.refresh().await;
            let after = lookups.catalog();
            return Ok((before != after).then_some((before, after)));
        }
        let _one = self.refreshing.lock().await;
        self.ask().await
    }

    /// Whether the rate limit allows a request now for something that the catalog lacks.
    pub fn may_ask_again(&self) -> bool {
        self.lookups.is_none()
            && self.registry.is_some()
            && self.state().limit.allows(Instant::now())
    }

    /// Requests the catalog before the time to live has elapsed, if the rate limit allows it. Waits at
    /// most `patience`; the request continues. `catalog_now` and `trouble` tell the outcome.
    pub async fn ask_again(self: &Arc<Self>, patience: Duration) {
        let (this, since) = (Arc::clone(self), Instant::now());
        let asking = tokio::spawn(async move {
            let _one = this.refreshing.lock().await;
            let due = {
                let mut state = this.state();
                // A request begun meanwhile answers this one, too.
                let answered = state.begun.is_some_and(|begun| begun >= since);
                !answered && this.registry.is_some() && state.limit.take(Instant::now())
            };
            if due && let Err(error) = this.ask().await {
                tracing::debug!(%error, "the catalog could not be refreshed");
            }
        });
        let _ = tokio::time::timeout(patience, asking).await;
    }

    /// Resolves when the catalog has changed since the last call returned; for one listener.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Maximum duration of a catalog request.
    pub fn patience(&self) -> Duration {
        self.catalog_deadline
    }

    /// Why the last request for the catalog failed, if it did.
    pub fn trouble(&self) -> Option<String> {
        if let Some(lookups) = &self.lookups {
            return lookups.trouble();
        }
        self.state().trouble.clone()
    }

    /// When a registry that looks models up by name last answered; none: not since the start, or it lists.
    pub fn answered(&self) -> Option<SystemTime> {
        self.lookups.as_ref()?.answered()
    }

    /// Whether the registry was asked anything since the start.
    pub fn was_asked(&self) -> bool {
        match &self.lookups {
            Some(lookups) => lookups.answered().is_some() || lookups.trouble().is_some(),
            None => self.state().asked.is_some() && self.registry.is_some(),
        }
    }

    /// Time since the last request for the catalog ended.
    pub fn asked(&self) -> Option<Duration> {
        self.state().asked.map(|at| at.elapsed())
    }

    /// Refreshes the catalog each time its time to live has elapsed. Models that are looked up by name are
    /// asked for when they are used instead. Never ends.
    pub async fn refresh_when_due(&self) {
        if self.lookups.is_some() {
            if let Err(error) = self.catalog().await {
                tracing::warn!(%error, source = %self.name, "the lookups kept in the index cannot be read");
            }
            return std::future::pending().await;
        }
        let mut after = self.asked().map_or(Duration::ZERO, |_| self.ttl);
        loop {
            tokio::time::sleep(after).await;
            if let Err(error) = self.refresh().await {
                tracing::debug!(%error, source = %self.name, "the catalog could not be refreshed");
            }
            after = self.ttl;
        }
    }

    /// The request to the registry that has been waited for longest.
    pub fn waiting(&self) -> Option<Wait> {
        self.waits.longest()
    }

    /// Where a call that waits for this registry is listed.
    pub(super) fn waits(&self) -> &Arc<Waits> {
        &self.waits
    }

    fn not_known(&self) -> FetchError {
        FetchError::NotKnown { what: format!("the catalog of {}", self.name) }
    }

    /// Requires the `refreshing` lock.
    async fn ask(&self) -> Result<Option<CatalogChange>, FetchError> {
        self.state().begun = Some(Instant::now());
        self.load_saved().await?;
        let Some(registry) = &self.registry else {
            self.state().asked = Some(Instant::now());
            return self.catalog_now().map(|_| None).ok_or_else(|| self.not_known());
        };
        let known = self.state().validator.clone();
        // With a catalog in memory, callers should not wait through retries for a newer one.
        let offline = self.catalog_now().is_some();
        let asked = if offline { registry } else { self.patient.as_ref().unwrap_or(registry) };
        let _listed = self.waits.begin(tokio::time::Instant::now() + self.catalog_deadline);
        let answer = tokio::time::timeout(self.catalog_deadline, asked.list(&known)).await;
        let answer = answer.unwrap_or_else(|_| {
            let why = format!("not all there within {:?}", self.catalog_deadline);
            Err(RegistryError::Unreachable { what: "the catalog".to_owned(), why })
        });
        let now = SystemTime::now();
        let mut news = None;
        let outcome = match answer {
            Ok(Listing::Unchanged) => {
                let (store, name) = (self.store.clone(), self.name.clone());
                warn_unless_saved(
                    "the catalog",
                    blocking(move || store.catalog_checked(&name, now)).await,
                );
                Ok(())
            }
            Ok(Listing::Changed { catalog, document, validator }) => {
                let saved = SavedCatalog {
                    body: document.into(),
                    etag: validator.etag.clone(),
                    last_modified: validator.last_modified.clone(),
                    checked: now,
                };
                let (store, name) = (self.store.clone(), self.name.clone());
                warn_unless_saved(
                    "the catalog",
                    blocking(move || store.save_catalog(&name, &saved)).await,
                );
                news = Some((Arc::new(catalog), validator));
                Ok(())
            }
            Err(error) => Err(FetchError::from(error)),
        };
        let mut state = self.state();
        state.asked = Some(Instant::now());
        state.trouble = outcome.as_ref().err().map(ToString::to_string);
        outcome?;
        let Some((catalog, validator)) = news else { return Ok(None) };
        state.validator = validator;
        let before = state.catalog.replace(catalog.clone()).unwrap_or_default();
        drop(state);
        if before.left_out() != catalog.left_out()
            && let Some(first) = catalog.left_out().first.first()
        {
            let (registry, count) = (self.name().as_str(), catalog.left_out().count);
            tracing::warn!(registry, count, first, "{LEFT_OUT}");
        }
        let change = (before != catalog).then_some((before, catalog));
        if change.is_some() {
            self.changed.notify_one();
        }
        Ok(change)
    }

    /// Loads the catalog of an earlier run from the index, if none is in memory.
    async fn load_saved(&self) -> Result<(), FetchError> {
        if let Some(lookups) = &self.lookups {
            if !lookups.is_recalled() {
                let (store, name) = (self.store.clone(), self.name.clone());
                let saved = blocking(move || store.saved_catalog(&name)).await??;
                let catalog = lookups.recall(saved.as_ref().map(|saved| saved.body.as_slice()));
                self.state().at_start = Some(catalog);
            }
            return Ok(());
        }
        if self.catalog_now().is_some() {
            return Ok(());
        }
        let (store, name) = (self.store.clone(), self.name.clone());
        let loaded = blocking(move || -> Result<_, FetchError> {
            let Some(saved) = store.saved_catalog(&name)? else { return Ok(None) };
            match read_saved(&saved.body) {
                Ok(catalog) => Ok(Some((
                    catalog,
                    Validator { etag: saved.etag, last_modified: saved.last_modified },
                ))),
                Err(error) => {
                    tracing::warn!(%error, "the catalog kept in the index cannot be read");
                    Ok(None)
                }
            }
        })
        .await??;
        if let Some((catalog, validator)) = loaded {
            if let Some(first) = catalog.left_out().first.first() {
                // Not new: logged by the daemon only, printed by no command.
                let (registry, count) = (self.name().as_str(), catalog.left_out().count);
                tracing::info!(registry, count, first, "{LEFT_OUT}");
            }
            let mut state = self.state();
            let catalog = Arc::new(catalog);
            state.at_start = Some(catalog.clone());
            state.catalog = Some(catalog);
            state.validator = validator;
        }
        Ok(())
    }

    /// A manifest from memory or the index, without asking the registry.
    pub fn manifest_now(&self, hash: &Digest) -> Result<Option<Arc<Manifest>>, FetchError> {
        self.manifests.now(hash)
    }

    /// A manifest from memory, the index, or the registry.
    pub async fn manifest(&self, hash: &Digest) -> Result<Arc<Manifest>, FetchError> {
        self.manifests.get(hash).await
    }

    /// The manifest document as published.
    pub async fn manifest_document(&self, hash: &Digest) -> Result<Bytes, FetchError> {
        self.manifests.document(hash).await
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("holders do not panic")
    }
}

/// The catalog in a document that was kept.
fn read_saved(body: &[u8]) -> Result<Catalog, RegistryError> {
    match look_ups::read(body) {
        Some(lookups) => Ok(lookups.catalog()),
        None => read_catalog(body),
    }
}

/// Lists the nodes of a catalog document, for the store, which does not know the format.
fn listed(body: &[u8], tell: &mut dyn FnMut(NodeKey)) -> bool {
    let Ok(catalog) = read_saved(body) else { return false };
    for group in catalog.groups() {
        let name = || -> Box<str> { group.as_str().into() };
        tell(NodeKey::Group { group: name() });
        for model in catalog.models(group.as_str()).into_iter().flatten() {
            tell(NodeKey::Model { group: name(), model: model.as_str().into() });
            for v in catalog.versions(group.as_str(), model.as_str()).unwrap_or_default() {
                // What no manifest is known of has no node.
                let Some(hash) = v.hash() else { continue };
                let (model, version) = (model.as_str().into(), v.name.as_str().into());
                tell(NodeKey::Version { group: name(), model, version, hash });
            }
        }
    }
    true
}

/// The blobs of a manifest document's files, for the store.
fn blobs(hash: &Digest, body: &[u8]) -> Option<Vec<ContentKey>> {
    let manifest = read_manifest(VersionId::new(*hash), body).ok()?;
    let files = (0u32..).map(FileIx).zip(manifest.files()).filter(|(_, file)| file.len > 0);
    Some(files.map(|(ix, _)| manifest.layout(ix).key()).collect())
}
