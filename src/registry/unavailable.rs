//! Stands for a registry that is known not to answer.
//!
//! Invariant: every request fails at once with [`RegistryError::Unreachable`], so that a caller who
//! can wait retries. Stateless.

use async_trait::async_trait;

use super::api::{
    Capabilities, Listing, ManifestDocument, ObjectBody, ProvenBody, Registry, Validator, Versions,
};
use super::error::RegistryError;
use crate::base::ObjectRange;
use crate::model::{Leaves, ModelRef, Name, Object, Revision, VersionEntry, VersionId};

/// A registry that does not answer.
#[derive(Debug, Clone)]
pub struct Unavailable {
    name: String,
    capabilities: Capabilities,
    why: String,
}

impl Unavailable {
    /// In the place of `registry`.
    pub fn new(registry: &dyn Registry, why: &str) -> Self {
        Self {
            name: registry.name().to_owned(),
            capabilities: registry.capabilities(),
            why: why.to_owned(),
        }
    }

    fn unreachable<T>(&self, what: String) -> Result<T, RegistryError> {
        Err(RegistryError::Unreachable { what, why: self.why.clone() })
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Registry for Unavailable {
    fn name(&self) -> &str {
        &self.name
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    async fn list(&self, _: &Validator) -> Result<Listing, RegistryError> {
        self.unreachable("the catalog".into())
    }

    async fn lookup(&self, model: &ModelRef, _: &Validator) -> Result<Versions, RegistryError> {
        self.unreachable(format!("model {model}"))
    }

    async fn version(
        &self,
        model: &ModelRef,
        name: &Name,
    ) -> Result<Option<VersionEntry>, RegistryError> {
        self.unreachable(format!("version {name} of model {model}"))
    }

    async fn resolve(
        &self,
        model: &ModelRef,
        revision: &Revision,
    ) -> Result<ManifestDocument, RegistryError> {
        self.unreachable(format!("model {model} at {revision}"))
    }

    async fn manifest(&self, version: &VersionId) -> Result<ManifestDocument, RegistryError> {
        self.unreachable(version.to_string())
    }

    async fn leaves(&self, object: &Object, _: ObjectRange) -> Result<Leaves, RegistryError> {
        self.unreachable(object.to_string())
    }

    async fn read(&self, object: &Object, _: ObjectRange) -> Result<ObjectBody, RegistryError> {
        self.unreachable(object.to_string())
    }

    async fn read_proven(
        &self,
        object: &Object,
        _: ObjectRange,
    ) -> Result<ProvenBody, RegistryError> {
        self.unreachable(object.to_string())
    }

    fn preconnect(&self, _: &VersionId) {}
}
