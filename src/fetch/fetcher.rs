//! The fetcher: wires flights, readahead and traces, and makes readers of files.
//!
//! Invariant: all readers that it makes share one table of flights and one budget. Concurrency: shared;
//! no state of its own.

use std::sync::Arc;
use std::time::Duration;

use super::cached_file::CachedFile;
use super::error::FetchError;
use super::file_reader::FileReader;
use super::options::{FetchOptions, InFlight, Traffic};
use super::prefetch::{
    Ahead, FileReadahead, ModelLoads, OnReadahead, PrefetchProgress, Readahead, VersionPrefetch,
};
use super::source::Source;
use super::sources::Sources;
use super::transfer::Transfers;
use crate::base::buffers::Buffers;
use crate::model::{FileIx, Manifest};
use crate::store::Store;

/// Fetches the bytes of files, of any number of sources. Shared.
pub struct Fetcher {
    /// For the layers above; nothing here uses them.
    sources: Arc<Sources>,
    store: Store,
    transfers: Arc<Transfers>,
    ahead: Ahead,
    loads: Arc<ModelLoads>,
    buffers: Buffers,
    deadline: Duration,
}

/// Who reads through a [`FileReader`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    /// The threads that share one handle.
    OfOneHandle,
    /// Any process that reads the file without a handle; they cannot be told apart.
    WithoutHandle,
}

impl Fetcher {
    /// A fetcher into this store. Must be called within a multi-threaded tokio runtime.
    pub fn new(sources: Arc<Sources>, store: Store, options: FetchOptions) -> Arc<Self> {
        let buffers = Buffers::default();
        let transfers = Transfers::new(store.clone(), buffers.clone(), &options);
        let ahead = Ahead::new(Arc::clone(&transfers));
        let loads = ModelLoads::new(store.clone(), ahead.clone());
        let deadline = options.read_deadline;
        Arc::new(Self { sources, store, transfers, ahead, loads, buffers, deadline })
    }

    /// The sources of catalogs and manifests.
    pub fn sources(&self) -> &Arc<Sources> {
        &self.sources
    }

    /// The store of cached bytes.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Bytes and requests over the network so far.
    pub fn traffic(&self) -> Traffic {
        self.transfers.traffic()
    }

    /// What is under way.
    pub fn in_flight(&self) -> InFlight {
        self.transfers.in_flight()
    }

    /// Opens the blob of a file of a version of this source. Fetches nothing.
    pub fn file(
        &self,
        source: &Arc<Source>,
        manifest: &Arc<Manifest>,
        file: FileIx,
    ) -> Result<Arc<CachedFile>, FetchError> {
        CachedFile::open(source, manifest, file, &self.store)
    }

    /// A reader of a file that nothing was read of so far. `ended` is called with each range that was
    /// fetched ahead: success, or the error of bytes that are still missing.
    pub fn reader(
        &self,
        file: &Arc<CachedFile>,
        readers: Readers,
        ended: OnReadahead,
    ) -> Arc<FileReader> {
        if let Some(blob) = file.uncompared() {
            self.transfers.check_whole(blob);
        }
        let room = self.store.room().0;
        let policy = match readers {
            Readers::OfOneHandle => Readahead::within(room),
            Readers::WithoutHandle => Readahead::shared_within(room),
        };
        let (ahead, buffers) = (self.ahead.clone(), self.buffers.clone());
        let readahead = FileReadahead::new(Arc::clone(file), policy, ahead, buffers.clone(), ended);
        let (loads, transfers) = (Arc::clone(&self.loads), Arc::clone(&self.transfers));
        FileReader::new(Arc::clone(file), readahead, loads, transfers, buffers, self.deadline)
    }

    /// Fetches a whole version of this source into the store. Dropping the future stops it; stored bytes
    /// stay.
    pub async fn prefetch(
        &self,
        source: &Arc<Source>,
        manifest: &Arc<Manifest>,
        progress: &(dyn Fn(PrefetchProgress) + Send + Sync),
    ) -> Result<PrefetchProgress, FetchError> {
        let (source, manifest) = (Arc::clone(source), Arc::clone(manifest));
        let (store, transfers) = (self.store.clone(), Arc::clone(&self.transfers));
        VersionPrefetch::new(source, manifest, store, transfers).run(progress).await
    }

    /// Saves the traces of loads under way. Writes the index.
    pub fn save_traces(&self) {
        self.loads.save();
    }
}
