//! Fetching: from a read to the leaves wanted, to verified bytes, in the store and in the reader's
//! hands.
//!
//! Invariant: no byte leaves this layer before the digest that covers it has matched. One flight
//! per leaf, whoever asks; demand goes before readahead, readahead before prefetch.
//! Concurrency: `read_cached` never waits for anything but the disk; everything that may wait for
//! a network is `async` and holds no lock while it does.

mod deliver;
mod error;
mod flight;
mod gather;
mod lists;
mod memory;
mod prefetch;
mod readahead;
mod slots;
mod source;
mod transfer;
mod urgency;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use deliver::Target;
pub use error::FetchError;
use flight::{Flight, ObjectKey, Outcome};
use gather::Gather;
pub use prefetch::PrefetchProgress;
pub use readahead::Readahead;
pub use source::{CatalogChange, Source};
use transfer::Transfers;
pub use urgency::Priority;
use urgency::Urgency;

use crate::base::FileRange;
use crate::base::units::ByteSize;
use crate::model::{FileIx, Manifest, ObjectIx, PartIx, PartRange};
use crate::store::{Blob, ReadState, Store};

/// How often a read starts over without having got on, because what it waited for was evicted or
/// ended for a reason that was not its own, before it fails.
const ROUNDS: u32 = 16;

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

impl Default for FetchOptions {
    fn default() -> Self {
        Self {
            read_deadline: Duration::from_secs(60),
            catalog_ttl: Duration::from_secs(60),
            // One full readahead window and as much again on its way through hashing.
            memory: ByteSize::mib(48),
            connections: 16,
        }
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

/// A file of a version, ready to be read.
#[derive(Debug)]
pub struct CachedFile {
    /// The version.
    pub manifest: Arc<Manifest>,
    /// Which of its files.
    pub file: FileIx,
    /// Its blob; none if the file is empty.
    pub blob: Option<Arc<Blob>>,
}

/// Brings the bytes of files. Shared; made within a tokio runtime with several threads.
pub struct Fetcher {
    source: Arc<Source>,
    store: Store,
    transfers: Arc<Transfers>,
    deadline: Duration,
    runtime: tokio::runtime::Handle,
}

impl Fetcher {
    /// A fetcher for one source. Must be called within a tokio runtime.
    pub fn new(source: Arc<Source>, store: Store, options: FetchOptions) -> Arc<Self> {
        let transfers = Arc::new(Transfers::new(store.clone(), source.registry(), &options));
        Arc::new(Self {
            source,
            store,
            transfers,
            deadline: options.read_deadline,
            runtime: tokio::runtime::Handle::current(),
        })
    }

    /// Where catalogs and manifests come from.
    pub fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// Where bytes are kept.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Bytes and requests that came over the network so far.
    pub fn traffic(&self) -> Traffic {
        self.transfers.traffic()
    }

    /// Makes a file ready to be read. Fetches nothing.
    pub fn file(
        &self,
        manifest: &Arc<Manifest>,
        file: FileIx,
    ) -> Result<Arc<CachedFile>, FetchError> {
        let empty = manifest.file(file).len == 0;
        let blob = (!empty).then(|| self.store.blob(manifest.layout(file))).transpose()?;
        Ok(Arc::new(CachedFile { manifest: manifest.clone(), file, blob }))
    }

    /// Fills `buf` from `offset` if all of it is in the store: never waits for a network. `false`:
    /// something is missing. The range must lie in the file.
    pub fn read_cached(
        &self,
        file: &CachedFile,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<bool, FetchError> {
        match &file.blob {
            Some(blob) if !buf.is_empty() => Ok(blob.read(offset, buf)? == ReadState::Hit),
            _ => Ok(true),
        }
    }

    /// The bytes of a range that lies in the file, fetched as needed, within the read deadline.
    pub async fn read(
        self: &Arc<Self>,
        file: &Arc<CachedFile>,
        range: FileRange,
    ) -> Result<Bytes, FetchError> {
        let Some(blob) = file.blob.as_ref().filter(|_| !range.is_empty()) else {
            return Ok(Bytes::new());
        };
        let deadline = Instant::now() + self.deadline;
        let mut gather = self.fill(Gather::new(blob.clone(), range)).await?;
        let (mut idle, mut last) = (0, None);
        while gather.count() > 0 && idle < ROUNDS {
            let before = gather.count();
            let mut awaited = Vec::new();
            for run in gather.missing() {
                awaited.append(&mut self.claim(file, blob, *run, Priority::Demand)?);
            }
            (gather, last) = self.collect(awaited, gather, deadline).await?;
            gather = self.fill(gather).await?;
            idle = if gather.count() < before { 0 } else { idle + 1 };
        }
        if gather.count() == 0 {
            return Ok(gather.into_bytes());
        }
        Err(last.unwrap_or(FetchError::TimedOut {
            after: self.deadline,
            last: "what arrives is evicted before it can be read".to_owned(),
        }))
    }

    async fn fill(&self, mut gather: Gather) -> Result<Gather, FetchError> {
        transfer::blocking(move || gather.fill().map(|()| gather)).await?
    }

    /// Starts fetching a range that will probably be read; returns at once. What fails is tried
    /// again by the read that needs it, which then says why.
    pub fn readahead(self: &Arc<Self>, file: &Arc<CachedFile>, range: FileRange) {
        if let Some(blob) = &file.blob {
            let wanted = blob.layout().parts_in(range);
            if let Err(error) = self.claim(file, blob, wanted, Priority::Readahead) {
                tracing::debug!(%error, "readahead");
            }
        }
    }

    /// Flights for what is missing of these parts, started where they are new.
    fn claim(
        self: &Arc<Self>,
        file: &CachedFile,
        blob: &Arc<Blob>,
        wanted: PartRange,
        priority: Priority,
    ) -> Result<Vec<Awaited>, FetchError> {
        let mut out = Vec::new();
        for run in blob.missing(wanted) {
            let mut at = run.start;
            while at < run.end {
                let first = blob.layout().part(PartIx(at));
                let end = blob.layout().parts_of_piece(first.piece).end.min(run.end);
                let object = file.manifest.slices(file.file)[first.piece].object;
                let leaves = first.leaf..first.leaf + u64::from(end - at);
                for flight in self.fly(&file.manifest, object, leaves.clone(), priority)? {
                    for leaf in leaves.clone().filter(|l| flight.leaves.contains(l)) {
                        let part = PartIx(at + (leaf - leaves.start) as u32);
                        let leaf_start = blob.layout().part(part).leaf_range.start();
                        out.push(Awaited { part, leaf, leaf_start, flight: flight.clone() });
                    }
                }
                at = end;
            }
        }
        Ok(out)
    }

    /// Flights that bring these leaves, started where they are new.
    fn fly(
        self: &Arc<Self>,
        manifest: &Arc<Manifest>,
        object: ObjectIx,
        leaves: std::ops::Range<u64>,
        priority: Priority,
    ) -> Result<Vec<Arc<Flight>>, FetchError> {
        let what = *manifest.object(object);
        let mut claim = self.transfers.table.claim(ObjectKey::of(&what), leaves, priority);
        for flight in &claim.new {
            let (this, manifest, flight) = (self.clone(), manifest.clone(), flight.clone());
            self.runtime.spawn(async move {
                let targets = this.targets(&manifest, object, &flight);
                this.transfers.fly(flight, what, targets).await;
            });
        }
        claim.joined.append(&mut claim.new);
        Ok(claim.joined)
    }

    /// The blobs of all files of the version that a flight's bytes belong to.
    fn targets(&self, manifest: &Arc<Manifest>, object: ObjectIx, flight: &Flight) -> Vec<Target> {
        let what = manifest.object(object);
        let start = what.check.leaf_range(flight.leaves.start, what.len).start();
        let end = what.check.leaf_range(flight.leaves.end - 1, what.len).end();
        let range = crate::base::ObjectRange::new(start, end);
        let mut targets: HashMap<_, Target> = HashMap::new();
        for user in manifest.users(object) {
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

    /// Waits for the outcomes and takes what they bring. Besides the read so far: why a flight
    /// failed that says nothing about what another would bring, if there is one.
    async fn collect(
        &self,
        awaited: Vec<Awaited>,
        mut gather: Gather,
        deadline: Instant,
    ) -> Result<(Gather, Option<FetchError>), FetchError> {
        let mut of_a_flight = None;
        for group in awaited.chunk_by(|a, b| Arc::ptr_eq(&a.flight, &b.flight)) {
            let mut stored = false;
            for a in group {
                let outcome = tokio::time::timeout_at(deadline, a.flight.outcome(a.leaf)).await;
                match outcome {
                    Ok(Outcome::Ready(bytes)) => gather.put(a.part, a.leaf_start, &bytes),
                    Ok(Outcome::Stored) => stored = true,
                    Ok(Outcome::Failed(error)) if error.is_of_the_flight() => {
                        of_a_flight = Some(error);
                    }
                    Ok(Outcome::Failed(error)) => return Err(error),
                    Err(_) => {
                        return Err(a.flight.last_trouble().unwrap_or(FetchError::TimedOut {
                            after: self.deadline,
                            last: "the registry is silent".to_owned(),
                        }));
                    }
                }
            }
            // At once, since the next flight's bytes may need the room of these.
            if stored {
                gather = self.fill(gather).await?;
            }
        }
        Ok((gather, of_a_flight))
    }
}

/// A part and the flight that brings its leaf.
struct Awaited {
    part: PartIx,
    leaf: u64,
    /// Where the leaf begins in its object.
    leaf_start: u64,
    flight: Arc<Flight>,
}
