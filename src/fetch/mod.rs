//! Fetching: from a read to the leaves wanted, to verified bytes, in the store and in the reader's hands.
//!
//! Invariant: no byte leaves this layer before the digest that covers it has matched. One flight
//! per leaf, whoever asks; demand goes before readahead, readahead before prefetch.
//! Concurrency: `read_cached` never waits for anything but the disk; everything that may wait for
//! a network is `async` and holds no lock while it does.
#![allow(missing_docs, clippy::todo, unused_variables)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::base::FileRange;
use crate::base::units::ByteSize;
use crate::model::{Catalog, Digest, FileIx, Manifest};
use crate::registry::{Registry, RegistryError};
use crate::store::{Blob, Store, StoreError};

/// How fetching behaves.
#[derive(Debug, Clone)]
pub struct FetchOptions {
    /// How long a read may wait before it fails.
    pub read_deadline: Duration,
    /// How old the catalog may get before the registry is asked again.
    pub catalog_ttl: Duration,
    /// The most bytes of fetched data held in memory.
    pub memory: ByteSize,
    /// The most requests under way at once.
    pub connections: usize,
}

/// Why bytes could not be had. Every text is one line and names what was asked for.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FetchError {
    /// The registry could not be reached, or has trouble, until the deadline or for good.
    #[error("{0}")]
    Registry(#[from] RegistryError),
    /// What came does not match its digest.
    #[error("{what}: {why}")]
    Corrupt { what: String, why: String },
    /// The deadline passed.
    #[error("no answer within {}: {last}", humantime::format_duration(*after))]
    TimedOut { after: Duration, last: String },
    /// The store failed.
    #[error("{0}")]
    Store(Arc<StoreError>),
    /// The catalog has no such thing.
    #[error("{what} is not in the registry {registry}")]
    NotFound { what: String, registry: String },
    /// Never seen, and the registry cannot be asked (offline commands).
    #[error("{what} is not known here and no registry was given to ask")]
    NotKnown { what: String },
}

/// Which bytes go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    Demand,
    Readahead,
    Prefetch,
}

/// A configured registry with what the index remembers of it: catalogs and manifests, also offline.
pub struct Source {}

/// Brings the bytes of files. Shared; must be made within a tokio runtime.
pub struct Fetcher {}

/// A file of a version, ready to be read.
#[derive(Debug)]
pub struct CachedFile {
    pub manifest: Arc<Manifest>,
    pub file: FileIx,
    /// None if the file is empty.
    pub blob: Option<Arc<Blob>>,
}

/// How far a prefetch is. Bytes of model data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PrefetchProgress {
    /// Of the version in all.
    pub total: u64,
    /// Present now.
    pub present: u64,
    /// Of it, present before the prefetch began.
    pub at_start: u64,
}

impl Source {
    /// `registry` = `None`: only what the index knows of the source called `name`.
    pub fn new(
        name: &str,
        registry: Option<Arc<dyn Registry>>,
        store: Store,
        options: &FetchOptions,
    ) -> Self {
        todo!()
    }

    /// The registry's name, without credentials; the key in the index.
    pub fn name(&self) -> &str {
        todo!()
    }

    /// The catalog: in memory while it is younger than the time to live, else asked for again;
    /// if the registry cannot be asked, the last one seen.
    pub async fn catalog(&self) -> Result<Arc<Catalog>, FetchError> {
        todo!()
    }

    /// The catalog in memory, however old.
    pub fn catalog_now(&self) -> Option<Arc<Catalog>> {
        todo!()
    }

    /// Asks the registry now, conditionally. Returns the catalog before and after when it changed.
    pub async fn refresh(&self) -> Result<Option<(Arc<Catalog>, Arc<Catalog>)>, FetchError> {
        todo!()
    }

    /// Why the last refresh failed; none if it did not.
    pub fn trouble(&self) -> Option<String> {
        todo!()
    }

    /// A manifest from memory or the index, without asking the registry.
    pub fn manifest_now(&self, hash: &Digest) -> Result<Option<Arc<Manifest>>, FetchError> {
        todo!()
    }

    /// A manifest: memory, index, registry.
    pub async fn manifest(&self, hash: &Digest) -> Result<Arc<Manifest>, FetchError> {
        todo!()
    }

    /// The manifest document as published.
    pub async fn manifest_document(&self, hash: &Digest) -> Result<Bytes, FetchError> {
        todo!()
    }
}

impl Fetcher {
    pub fn new(source: Arc<Source>, store: Store, options: FetchOptions) -> Arc<Self> {
        todo!()
    }

    pub fn source(&self) -> &Arc<Source> {
        todo!()
    }

    pub fn store(&self) -> &Store {
        todo!()
    }

    /// Makes a file ready to be read. Fetches nothing.
    pub fn file(
        &self,
        manifest: &Arc<Manifest>,
        file: FileIx,
    ) -> Result<Arc<CachedFile>, FetchError> {
        todo!()
    }

    /// Fills `buf` from `offset` if all of it is in the store: never waits for a network. `false`:
    /// something is missing. The range must lie in the file.
    pub fn read_cached(
        &self,
        file: &CachedFile,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<bool, FetchError> {
        todo!()
    }

    /// The bytes of a range that lies in the file, fetched as needed, within the read deadline.
    pub async fn read(
        self: &Arc<Self>,
        file: &Arc<CachedFile>,
        range: FileRange,
    ) -> Result<Bytes, FetchError> {
        todo!()
    }

    /// Starts fetching a range that will probably be read; returns at once. Failures are only
    /// remembered as the file's last error.
    pub fn readahead(self: &Arc<Self>, file: &Arc<CachedFile>, range: FileRange) {
        todo!()
    }

    /// Fetches all of these files of a version into the store; drop the future to stop.
    pub async fn prefetch(
        self: &Arc<Self>,
        manifest: &Arc<Manifest>,
        progress: &(dyn Fn(PrefetchProgress) + Send + Sync),
    ) -> Result<PrefetchProgress, FetchError> {
        todo!()
    }

    /// Bytes and requests that came over the network so far, for status and tests.
    pub fn traffic(&self) -> Traffic {
        todo!()
    }
}

/// What came from the registry since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Traffic {
    /// Object bytes received.
    pub bytes: u64,
    /// Object and leaf list requests made.
    pub requests: u64,
}

/// The readahead policy: pure, one value per open file handle.
#[derive(Debug, Clone, Default)]
pub struct Readahead {}

impl Readahead {
    /// A read of `range` in a file of `len` bytes: what should be fetched ahead now, if anything.
    pub fn on_read(&mut self, range: FileRange, len: u64) -> Option<FileRange> {
        todo!()
    }
}
