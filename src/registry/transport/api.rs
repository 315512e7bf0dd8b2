//! What a format asks of a transport.
//!
//! Invariant of every implementation: a body is exactly the bytes that were asked for, or it ends in
//! an error; an outage is never "missing". Implementations are shared between tasks.

use async_trait::async_trait;
use bytes::Bytes;

use crate::base::ObjectRange;
use crate::registry::api::{ObjectBody, Validator};
use crate::registry::error::RegistryError;

/// A file of a registry.
#[derive(Debug, Clone, Copy)]
pub struct Resource<'a> {
    /// Where it lies below the registry's root, with slashes.
    pub path: &'a str,
    /// How errors name it.
    pub shown: &'a str,
}

/// The answer to a conditional request for a file.
#[derive(Debug)]
pub enum Document {
    /// The state that the caller knows is the current one.
    Unchanged,
    /// The whole file.
    Changed {
        /// Its bytes.
        body: Bytes,
        /// For the next conditional request.
        validator: Validator,
    },
}

/// A way to fetch files.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// The URL or folder, without credentials.
    fn name(&self) -> &str;

    /// A whole file of at most `limit` bytes, unless it is still the one that `known` identifies.
    async fn document(
        &self,
        file: Resource<'_>,
        limit: u64,
        known: &Validator,
    ) -> Result<Document, RegistryError>;

    /// A range, neither empty nor past the end, of a file that is `len` bytes long.
    async fn range(
        &self,
        file: Resource<'_>,
        len: u64,
        range: ObjectRange,
    ) -> Result<ObjectBody, RegistryError>;

    /// Opens another connection if that takes time; `path` names a file that is there.
    fn preconnect(&self, path: &str);
}

/// A range of a file as errors show it: the last byte inclusive, as in HTTP.
pub(in crate::registry) fn range_shown(file: Resource<'_>, range: ObjectRange) -> String {
    format!("{} bytes {}-{}", file.shown, range.start(), range.end().saturating_sub(1))
}
