//! A registry in XPRIM, over any transport.
//!
//! Invariant: a document that is named by its SHA-256 matches it before it is read. Concurrency:
//! shared; large documents are parsed on the blocking pool.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::{
    CATALOG, DIGEST_LEN, MAX_CATALOG, MAX_MANIFEST, object_path, object_shown, parse_catalog,
    parse_leaves, parse_manifest,
};
use crate::base::ObjectRange;
use crate::model::hash::sha256;
use crate::model::{Check, Digest, Leaves, Locator, Object, VersionId};
use crate::registry::api::{
    Capabilities, Listing, ManifestDocument, ObjectBody, Registry, Validator,
};
use crate::registry::error::RegistryError;
use crate::registry::transport::{Document, Resource, Transport};

/// A registry in XPRIM.
pub struct Xprim {
    transport: Arc<dyn Transport>,
}

impl Xprim {
    /// The registry whose files come over `transport`.
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        Self { transport }
    }

    /// A document of at most `limit` bytes; its SHA-256 has matched.
    pub async fn document(&self, digest: &Digest, limit: u64) -> Result<Bytes, RegistryError> {
        let (path, shown) = (object_path(digest), object_shown(digest));
        let file = Resource { path: &path, shown: &shown };
        let none = Validator::default();
        let Document::Changed { body, .. } = self.transport.document(file, limit, &none).await?
        else {
            let why = "unchanged, although no state of it was known".to_owned();
            return Err(RegistryError::Invalid { what: shown, why });
        };
        match sha256(&body) == *digest {
            true => Ok(body),
            false => Err(RegistryError::WrongBytes { what: shown, why: "SHA-256 mismatch".into() }),
        }
    }
}

/// Parses on the blocking pool: a large document takes seconds.
async fn parsed<T: Send + 'static>(
    what: impl FnOnce() -> String,
    parse: impl FnOnce() -> Result<T, RegistryError> + Send + 'static,
) -> Result<T, RegistryError> {
    let stopped =
        |_| RegistryError::Unreachable { what: what(), why: "the process is shutting down".into() };
    tokio::task::spawn_blocking(parse).await.map_err(stopped)?
}

/// Where an object lies below the registry's root.
fn path_of(object: &Object) -> String {
    match &object.locator {
        Locator::Digest => object_path(&object.digest),
        Locator::Path(path) => path.to_string(),
    }
}

/// How errors name an object.
fn shown(object: &Object) -> String {
    match &object.locator {
        Locator::Digest => object_shown(&object.digest),
        Locator::Path(path) => super::shown(path),
    }
}

#[async_trait]
impl Registry for Xprim {
    fn name(&self) -> &str {
        self.transport.name()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            listable: true,
            names_manifests: true,
            ranged_reads: true,
            leaves_in_advance: true,
        }
    }

    async fn list(&self, known: &Validator) -> Result<Listing, RegistryError> {
        let file = Resource { path: CATALOG, shown: CATALOG };
        match self.transport.document(file, MAX_CATALOG, known).await? {
            Document::Unchanged => Ok(Listing::Unchanged),
            Document::Changed { body: document, validator } => {
                let body = document.clone();
                let catalog = parsed(|| CATALOG.into(), move || parse_catalog(&body)).await?;
                Ok(Listing::Changed { catalog, document, validator })
            }
        }
    }

    async fn manifest(&self, version: &VersionId) -> Result<ManifestDocument, RegistryError> {
        let hash = version.digest();
        let document = self.document(&hash, MAX_MANIFEST).await?;
        let body = document.clone();
        let what = || format!("manifest {hash}");
        let manifest = parsed(what, move || parse_manifest(hash, &body)).await?;
        Ok(ManifestDocument { document, manifest })
    }

    /// All leaves, whatever the range: a list is one document.
    async fn leaves(&self, object: &Object, _: ObjectRange) -> Result<Leaves, RegistryError> {
        let Check::Leaves { digest, list, .. } = object.check else {
            return Ok(Leaves::whole(object));
        };
        let count = object.leaf_count();
        let body = self.document(&list, count.saturating_mul(DIGEST_LEN)).await?;
        Ok(Leaves::new(digest, 0, parse_leaves(&list, &body, count)?))
    }

    async fn read(&self, object: &Object, range: ObjectRange) -> Result<ObjectBody, RegistryError> {
        let (path, shown) = (path_of(object), shown(object));
        // The range comes from a manifest, hence from a registry.
        if range.end() > object.len {
            let last = range.end().saturating_sub(1);
            return Err(RegistryError::Invalid {
                what: format!("{shown} bytes {}-{last}", range.start()),
                why: format!("past the end of an object of {} bytes", object.len),
            });
        }
        if range.is_empty() {
            return Ok(stream::empty().boxed());
        }
        self.transport.range(Resource { path: &path, shown: &shown }, object.len, range).await
    }

    fn preconnect(&self, version: &VersionId) {
        self.transport.preconnect(&object_path(&version.digest()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::transport::MemoryTransport;
    use crate::registry::{Versions, read_object};

    fn registry() -> (Arc<MemoryTransport>, Xprim) {
        let files = Arc::new(MemoryTransport::new("mem"));
        let registry = Xprim::new(files.clone());
        (files, registry)
    }

    #[tokio::test]
    async fn an_object_is_read_from_its_locator_whatever_its_digest() {
        let (files, r) = registry();
        let bytes = Bytes::from_static(b"elsewhere");
        files.put("blobs/7".into(), bytes.clone());
        let object = Object::new(sha256(&bytes), 9, Check::Whole);
        let all = ObjectRange::new(0, 9);
        let error = read_object(&r, &object, all).await.unwrap_err();
        assert!(matches!(error, RegistryError::Missing { .. }), "{error}");
        let there = Object { locator: Locator::Path("blobs/7".into()), ..object };
        assert_eq!(read_object(&r, &there, all).await.unwrap(), bytes);
        let leaves = r.leaves(&there, all).await.unwrap();
        assert!(leaves.matches(0, &bytes) && !leaves.matches(0, b"Elsewhere"));
        assert!(!leaves.matches(1, &bytes));
    }

    #[tokio::test]
    async fn a_model_is_looked_up_in_the_list() {
        let (files, r) = registry();
        let hash = sha256(b"");
        let catalog = format!(r#"{{"g":{{"m":{{"v":{{"hash":"{hash}"}}}}}}}}"#);
        files.put(CATALOG.into(), catalog.into());
        let none = Validator::default();
        let found = r.lookup(&"g/m".parse().unwrap(), &none).await.unwrap();
        let Versions::Changed { versions, validator } = found else { panic!("nothing was known") };
        assert_eq!(versions.iter().map(|v| v.hash()).collect::<Vec<_>>(), [Some(hash)]);
        let again = r.lookup(&"g/m".parse().unwrap(), &validator).await.unwrap();
        assert!(matches!(again, Versions::Unchanged));
        let other = r.lookup(&"g/other".parse().unwrap(), &none).await.unwrap();
        assert!(matches!(other, Versions::Changed { versions, .. } if versions.is_empty()));
    }
}
