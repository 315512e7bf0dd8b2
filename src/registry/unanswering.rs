//! What stands for a registry that is known not to answer.
//!
//! Invariant: every question is answered at once by [`RegistryError::Unreachable`], so whoever can wait
//! asks again. Stateless.

use async_trait::async_trait;
use bytes::Bytes;

use super::xprim::{CATALOG, object_shown};
use super::{CatalogAnswer, ObjectBody, Registry, RegistryError, Validator};
use crate::base::ObjectRange;
use crate::model::Digest;

/// A registry that does not answer.
#[derive(Debug, Clone)]
pub struct Unanswering {
    name: String,
    why: String,
}

impl Unanswering {
    /// In the place of the registry of this name.
    pub fn new(name: &str, why: &str) -> Self {
        Self { name: name.to_owned(), why: why.to_owned() }
    }

    fn none<T>(&self, what: String) -> Result<T, RegistryError> {
        Err(RegistryError::Unreachable { what, why: self.why.clone() })
    }
}

#[async_trait]
impl Registry for Unanswering {
    fn name(&self) -> &str {
        &self.name
    }

    async fn catalog(&self, _: &Validator) -> Result<CatalogAnswer, RegistryError> {
        self.none(CATALOG.to_owned())
    }

    async fn document(&self, digest: &Digest, _: u64) -> Result<Bytes, RegistryError> {
        self.none(object_shown(digest))
    }

    async fn object(
        &self,
        digest: &Digest,
        _: u64,
        _: ObjectRange,
    ) -> Result<ObjectBody, RegistryError> {
        self.none(object_shown(digest))
    }
}
