//! A registry whose documents are asked for again when an answer may come later.
//!
//! Invariant: no call takes longer than its deadline, whatever the registry does. Stateless between
//! calls.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{sleep, timeout_at};

use super::retry::{Attempts, RetryPolicy};
use super::waits::Waits;
use crate::base::ObjectRange;
use crate::model::{Leaves, ModelRef, Name, Object, Revision, VersionEntry, VersionId};
use crate::registry::api::{
    Capabilities, Listing, ManifestDocument, ObjectBody, ProvenBody, Registry, Validator, Versions,
};
use crate::registry::error::RegistryError;

/// How long a call may take, attempts and pauses together: what people wait for before they look.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// A registry that is asked again for catalogs and manifests. Objects and their leaves are retried
/// by the flights of `fetch`, which know what they have already and who is waiting.
pub struct Retrying {
    inner: Arc<dyn Registry>,
    policy: RetryPolicy,
    deadline: Duration,
    waits: Arc<Waits>,
}

impl Retrying {
    /// Around `inner`, each call within `deadline`.
    pub fn new(inner: Arc<dyn Registry>, policy: RetryPolicy, deadline: Duration) -> Self {
        Self { inner, policy, deadline, waits: Arc::default() }
    }

    /// The same, and its calls are listed there while they wait.
    pub fn listed_in(self, waits: Arc<Waits>) -> Self {
        Self { waits, ..self }
    }

    async fn run<T, F>(
        &self,
        what: impl Fn() -> String,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, RegistryError>
    where
        F: Future<Output = Result<T, RegistryError>>,
    {
        let mut attempts = Attempts::new(self.policy, self.deadline);
        attempts.list_in(&self.waits);
        let mut last = None;
        loop {
            let error = match timeout_at(attempts.end(), attempt()).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => error,
                // What failed before says more than that the time is up.
                Err(_) => {
                    let why = format!("no answer within {:?}", self.deadline);
                    return Err(
                        last.unwrap_or_else(|| RegistryError::Unreachable { what: what(), why })
                    );
                }
            };
            let Some(pause) = attempts.failed(error.retry(), &error) else { return Err(error) };
            tracing::debug!(registry = self.inner.name(), ?pause, %error, "asking again");
            last = Some(error);
            sleep(pause).await;
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Registry for Retrying {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn list(&self, known: &Validator) -> Result<Listing, RegistryError> {
        self.run(|| "the catalog".into(), || self.inner.list(known)).await
    }

    async fn lookup(&self, model: &ModelRef, known: &Validator) -> Result<Versions, RegistryError> {
        self.run(|| format!("model {model}"), || self.inner.lookup(model, known)).await
    }

    async fn version(
        &self,
        model: &ModelRef,
        name: &Name,
    ) -> Result<Option<VersionEntry>, RegistryError> {
        let what = || format!("version {name} of model {model}");
        self.run(what, || self.inner.version(model, name)).await
    }

    async fn resolve(
        &self,
        model: &ModelRef,
        revision: &Revision,
    ) -> Result<ManifestDocument, RegistryError> {
        let what = || format!("model {model} at {revision}");
        self.run(what, || self.inner.resolve(model, revision)).await
    }

    async fn manifest(&self, version: &VersionId) -> Result<ManifestDocument, RegistryError> {
        self.run(|| version.to_string(), || self.inner.manifest(version)).await
    }

    async fn leaves(&self, object: &Object, range: ObjectRange) -> Result<Leaves, RegistryError> {
        self.inner.leaves(object, range).await
    }

    async fn read(&self, object: &Object, range: ObjectRange) -> Result<ObjectBody, RegistryError> {
        self.inner.read(object, range).await
    }

    async fn read_proven(
        &self,
        object: &Object,
        range: ObjectRange,
    ) -> Result<ProvenBody, RegistryError> {
        self.inner.read_proven(object, range).await
    }

    fn preconnect(&self, version: &VersionId) {
        self.inner.preconnect(version);
    }
}

#[cfg(test)]
#[path = "retrying_tests.rs"]
mod tests;
