//! The fetcher: reads from the store, and starts flights for what the store lacks.
//!
//! Invariant: one flight per leaf, however many readers wait for it.
//! Concurrency: `read_cached` waits for nothing but the disk; everything that may wait for a network runs
//! as a task of the runtime.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::cached_file::CachedFile;
use super::deliver::Target;
use super::dynamic_priority::Priority;
use super::error::FetchError;
use super::flight::{FlightKey, ObjectKey};
use super::model_loads::ModelLoads;
use super::options::{FetchOptions, Load, Traffic};
use super::source::Source;
use super::table::Claim;
use super::transfer::Transfers;
use crate::base::FileRange;
use crate::base::buffers::Buffer;
use crate::model::{FileIx, Manifest, ObjectIx, PartIx, PartRange};
use crate::store::{Blob, ReadState, Store};

/// Fetches the bytes of files. Shared; created within a multi-threaded tokio runtime.
pub struct Fetcher {
    source: Arc<Source>,
    pub(super) store: Store,
    pub(super) transfers: Arc<Transfers>,
    pub(super) loads: ModelLoads,
    pub(super) deadline: Duration,
    pub(super) runtime: tokio::runtime::Handle,
}

impl Fetcher {
    /// A fetcher for one source. Must be called within a tokio runtime.
    pub fn new(source: Arc<Source>, store: Store, options: FetchOptions) -> Arc<Self> {
        let (registry, waits) = (source.registry(), source.waits());
        let transfers = Arc::new(Transfers::new(store.clone(), registry, waits, &options));
        Arc::new(Self {
            source,
            store,
            transfers,
            loads: ModelLoads::default(),
            deadline: options.read_deadline,
            runtime: tokio::runtime::Handle::current(),
        })
    }

    /// The source of catalogs and manifests.
    pub fn source(&self) -> &Arc<Source> {
        &self.source
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
    pub fn load(&self) -> Load {
        self.transfers.load()
    }

    /// A buffer of `len` bytes.
    pub(crate) fn buffer(&self, len: usize) -> Buffer {
        self.transfers.buffers.take(len)
    }

    /// The runtime of its tasks.
    pub(crate) fn runtime(&self) -> &tokio::runtime::Handle {
        &self.runtime
    }

    /// Opens the blob of a file. Fetches nothing.
    pub fn file(
        &self,
        manifest: &Arc<Manifest>,
        file: FileIx,
    ) -> Result<Arc<CachedFile>, FetchError> {
        let empty = manifest.file(file).len == 0;
        let blob = (!empty).then(|| self.store.blob(manifest.layout(file))).transpose()?;
        Ok(Arc::new(CachedFile { manifest: manifest.clone(), file, blob }))
    }

    /// Fills `buf` from `offset` if the store has the whole range; never waits for a network. `false`: a
    /// part is missing, or must be verified against its checksum first, which may take long. The range
    /// must lie in the file.
    pub fn read_cached(
        &self,
        file: &CachedFile,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<bool, FetchError> {
        match &file.blob {
            Some(blob) if !buf.is_empty() => {
                let range = FileRange::at(offset, buf.len() as u64);
                Ok(blob.is_proven(range) && blob.read(offset, buf)? == ReadState::Hit)
            }
            _ => Ok(true),
        }
    }

    /// Starts fetching a range that will probably be read; returns at once. The read that needs it, if
    /// any, retries what fails. `ended` is called with success, or with the error of bytes that are still
    /// missing when their flight ends.
    pub fn readahead(
        self: &Arc<Self>,
        file: &Arc<CachedFile>,
        range: FileRange,
        ended: impl FnOnce(Result<(), FetchError>) + Send + 'static,
    ) {
        let Some(blob) = &file.blob else { return };
        let wanted = blob.layout().parts_in(range);
        let claims = self.claims(file, blob, blob.missing(wanted), Priority::Readahead);
        let flights: Vec<_> = claims
            .into_iter()
            .filter(|(_, claim)| claim.new)
            .map(|(_, claim)| claim.flight)
            .collect();
        if flights.is_empty() {
            return;
        }
        let blob = blob.clone();
        self.runtime.spawn(async move {
            let mut all = true;
            for flight in flights {
                match flight.finished().await {
                    Ok(()) => {}
                    // No space in the store: only the readahead is lost.
                    Err(error) if error.is_of_the_flight() => all = false,
                    Err(_) if blob.missing(wanted).is_empty() => {}
                    Err(error) => return ended(Err(error)),
                }
            }
            if all {
                ended(Ok(()));
            }
        });
    }

    /// Joins or starts flights for runs of parts. Returns each claim with its first part.
    pub(super) fn claims(
        self: &Arc<Self>,
        file: &CachedFile,
        blob: &Blob,
        runs: Vec<PartRange>,
        priority: Priority,
    ) -> Vec<(PartIx, Claim)> {
        let mut out = Vec::new();
        for run in runs {
            let mut at = run.start;
            while at < run.end {
                let first = blob.layout().part(PartIx(at));
                let end = blob.layout().parts_of_piece(first.piece).end.min(run.end);
                let object = file.manifest.slices(file.file)[first.piece].object;
                let leaves = first.leaf..first.leaf + u64::from(end - at);
                for claim in self.fly(&file.manifest, object, leaves, priority) {
                    let part = PartIx(at + (claim.leaves.start - first.leaf) as u32);
                    out.push((part, claim));
                }
                at = end;
            }
        }
        out
    }

    /// Joins or starts flights for these leaves.
    pub(super) fn fly(
        self: &Arc<Self>,
        manifest: &Arc<Manifest>,
        object: ObjectIx,
        leaves: std::ops::Range<u64>,
        priority: Priority,
    ) -> Vec<Claim> {
        let what = manifest.object(object);
        let key = FlightKey { source: self.source.name().clone(), object: ObjectKey::of(what) };
        let claims = self.transfers.table.claim(key, leaves, priority);
        for claim in claims.iter().filter(|r| r.new) {
            let (this, manifest, flight) = (self.clone(), manifest.clone(), claim.flight.clone());
            let what = what.clone();
            self.runtime.spawn(async move {
                let (fetcher, leaves) = (this.clone(), flight.leaves.clone());
                let targets = move || fetcher.targets(&manifest, object, &leaves);
                this.transfers.fly(flight, what, targets).await;
            });
        }
        claims
    }

    /// The blobs of all files of the version that contain these leaves. Reads the index.
    fn targets(
        &self,
        manifest: &Arc<Manifest>,
        object: ObjectIx,
        leaves: &std::ops::Range<u64>,
    ) -> Vec<Target> {
        let range = manifest.object(object).leaves_range(leaves);
        let mut targets: HashMap<_, Target> = HashMap::new();
        for user in manifest.uses(object) {
            let slice = manifest.slices(user.file)[user.piece as usize];
            if slice.range.intersect(&range).is_empty() {
                continue;
            }
            match self.store.blob(manifest.layout(user.file)) {
                Ok(blob) => {
                    let piece = user.piece as usize;
                    targets.insert((blob.key(), piece), Target { blob, piece });
                }
                Err(error) => {
                    tracing::warn!(%error, "a blob cannot be had; its bytes are not kept")
                }
            }
        }
        targets.into_values().collect()
    }
}
