//! Registries: where catalogs, manifests and objects come from.
//!
//! This file holds the layer's trait and types; each kind of registry has a file of its own and
//! knows nothing of the others. What comes out of here is still only claimed, but for documents,
//! whose digest has matched: objects are verified by `fetch`, leaf by leaf.
//! Implementations are shared between tasks and hold no lock while they wait for the network.

pub(crate) mod beneath;
mod connect;
mod faulty;
mod folder;
mod hedge;
mod http;
mod http_answer;
mod memory;
mod retry;
mod unanswering;
mod waits;
pub mod xprim;

pub use connect::{is_url, open, open_with};
pub use faulty::{Call, Fault, Faulty, When};
pub use folder::Folder;
pub use hedge::Hedged;
pub use http::{Http, HttpTimeouts};
pub use memory::{Counts, Cut, Memory};
pub use retry::{DEADLINE, RetryPolicy, Retrying, random};
pub use unanswering::Unanswering;
pub use waits::{Wait, Waiting, Waits};

use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};

use crate::base::ObjectRange;
use crate::base::text::{MESSAGE, brief};
use crate::model::hash::sha256;
use crate::model::{Catalog, Digest, ManifestError};

/// What identifies a version of a document to the server that gave it, for conditional requests.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Validator {
    /// The `ETag`, as sent.
    pub etag: Option<String>,
    /// The `Last-Modified`, as sent (a folder's: its modification time and size).
    pub last_modified: Option<String>,
}

/// The answer to a conditional request for the catalog.
#[derive(Debug)]
pub enum CatalogAnswer {
    /// What the caller has is still right.
    Unchanged,
    /// A catalog.
    Changed {
        /// What it offers.
        catalog: Catalog,
        /// The document as it came, for keeping.
        body: Bytes,
        /// For the next conditional request.
        validator: Validator,
    },
}

/// An object's bytes as they arrive. Ends after exactly the bytes asked for, or with an error.
pub type ObjectBody = Pin<Box<dyn Stream<Item = Result<Bytes, RegistryError>> + Send>>;

/// A place that offers models.
#[async_trait]
pub trait Registry: Send + Sync + 'static {
    /// What names this registry in the index and to people: its URL or folder, without credentials.
    fn name(&self) -> &str;

    /// The catalog, unless it is still the one that `known` identifies.
    async fn catalog(&self, known: &Validator) -> Result<CatalogAnswer, RegistryError>;

    /// A document (manifest, leaf list) of at most `limit` bytes; its SHA-256 has matched.
    async fn document(&self, digest: &Digest, limit: u64) -> Result<Bytes, RegistryError>;

    /// A range of an object, which is `object_len` bytes long. Unverified.
    async fn object(
        &self,
        digest: &Digest,
        object_len: u64,
        range: ObjectRange,
    ) -> Result<ObjectBody, RegistryError>;

    /// Objects will be asked for soon, several at once: a registry that is far may open another
    /// connection meanwhile. `document` is one that it has. Waits for nothing and never fails.
    fn expect_reads(&self, _document: &Digest) {}
}

/// What went wrong with a registry. Texts never hold credentials.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RegistryError {
    /// No answer: refused, reset, timed out, cut off, name not found, TLS.
    #[error("{what}: {why}")]
    Unreachable {
        /// What was asked for.
        what: String,
        /// What happened, in one line.
        why: String,
    },
    /// The folder that a local registry lies in is not there: not mounted, moved or mistyped.
    #[error("the folder {root} is not there")]
    NoFolder {
        /// The folder.
        root: String,
    },
    /// The server answered with a status that is its own trouble (5xx) or asks for patience (429).
    #[error("{what}: the server answered {status}")]
    Busy {
        /// What was asked for.
        what: String,
        /// The HTTP status.
        status: u16,
        /// `Retry-After`, if given.
        retry_after: Option<Duration>,
    },
    /// The server says that it does not have it.
    #[error("{what}: not found in the registry")]
    Missing {
        /// What was asked for.
        what: String,
    },
    /// The server refuses: 401, 403 or another 4xx.
    #[error("{what}: the server refused with {status}")]
    Refused {
        /// What was asked for.
        what: String,
        /// The HTTP status (a folder's: 403).
        status: u16,
    },
    /// The bytes do not match their digest.
    #[error("{what}: {why}")]
    WrongBytes {
        /// What was asked for.
        what: String,
        /// For example `SHA-256 mismatch`.
        why: String,
    },
    /// The answer makes no sense: a bad document, range or length.
    #[error("invalid registry response: {what}: {why}")]
    Invalid {
        /// The document and field, or the request.
        what: String,
        /// What is wrong.
        why: String,
    },
    /// The registry's URL or folder cannot be one.
    #[error("'{name}' is not a registry: {why}")]
    BadName {
        /// As given.
        name: String,
        /// What is wrong.
        why: String,
    },
}

impl RegistryError {
    /// Whether the same request may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::NoFolder { .. } | Self::Busy { .. })
    }

    /// Whether it is worth waiting until then. A network gets over a hiccup; a folder that is missing
    /// stays so until somebody does something about it.
    pub fn is_worth_waiting(&self) -> bool {
        self.is_transient() && !matches!(self, Self::NoFolder { .. })
    }

    /// A manifest that breaks a rule.
    pub fn manifest(hash: &Digest, error: &ManifestError) -> Self {
        Self::Invalid { what: format!("manifest {hash}"), why: brief(&error.to_string(), MESSAGE) }
    }
}

/// All bytes of a range of an object, at once.
pub async fn read_object(
    registry: &(impl Registry + ?Sized),
    digest: &Digest,
    object_len: u64,
    range: ObjectRange,
) -> Result<Vec<u8>, RegistryError> {
    let mut body = registry.object(digest, object_len, range).await?;
    let mut out = Vec::new();
    while let Some(piece) = body.next().await {
        out.extend_from_slice(&piece?);
    }
    Ok(out)
}

/// A range of an object as errors show it: the last byte inclusive, as in HTTP.
fn range_shown(digest: &Digest, range: ObjectRange) -> String {
    let object = xprim::object_shown(digest);
    format!("{object} bytes {}-{}", range.start(), range.end().saturating_sub(1))
}

/// Reads a catalog on a thread that may be busy for a while: a large one takes seconds.
async fn parse_catalog(body: Bytes) -> Result<Catalog, RegistryError> {
    let parsed = tokio::task::spawn_blocking(move || xprim::parse_catalog(&body)).await;
    let stopped = |_| RegistryError::Unreachable {
        what: xprim::CATALOG.into(),
        why: "the reader was stopped".into(),
    };
    parsed.map_err(stopped)?
}

fn check_sha256(digest: &Digest, body: &[u8]) -> Result<(), RegistryError> {
    match sha256(body) == *digest {
        true => Ok(()),
        false => Err(RegistryError::WrongBytes {
            what: xprim::object_shown(digest),
            why: "SHA-256 mismatch".into(),
        }),
    }
}

/// Whoever asks for bytes past an object's end has it from a manifest, hence from a registry.
fn check_range(digest: &Digest, object_len: u64, range: ObjectRange) -> Result<(), RegistryError> {
    match range.end() <= object_len {
        true => Ok(()),
        false => Err(RegistryError::Invalid {
            what: range_shown(digest, range),
            why: format!("past the end of an object of {object_len} bytes"),
        }),
    }
}

/// The registry's file has the length that the manifest says.
fn check_len(digest: &Digest, want: u64, have: u64) -> Result<(), RegistryError> {
    match want == have {
        true => Ok(()),
        false => Err(RegistryError::Invalid {
            what: xprim::object_shown(digest),
            why: format!("is {have} bytes, not {want}"),
        }),
    }
}
