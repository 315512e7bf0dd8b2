//! Prefetch: fetches a whole version into the store, a few objects at a time.
//!
//! Invariant: on success every byte of the version was in the store, durably, when it ended. If the
//! caller stops, flights under way continue and no new ones start. Objects with the same bytes are
//! fetched once and copied to their other places.
//! Concurrency: part of the caller's task; flights run as tasks, disk work on the blocking pool.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};

use crate::base::blocking::blocking;
use crate::fetch::error::FetchError;
use crate::fetch::plan::{ObjectKey, runs};
use crate::fetch::schedule::Priority;
use crate::fetch::source::Source;
use crate::fetch::transfer::{Transfers, is_learned};
use crate::model::{File, FileIx, Manifest, ObjectIx};
use crate::store::{Blob, Store};

/// Number of different objects fetched at once: prefetch may use half of the default 16 slots.
const AT_ONCE: usize = 8;
/// Interval of progress reports: smooth for the eye, negligible CPU cost.
const REPORT_EVERY: Duration = Duration::from_millis(100);
/// Maximum number of attempts at what other flights did not bring.
const PASSES: u32 = 4;

/// Progress of a prefetch, in bytes of model data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct PrefetchProgress {
    /// Size of the version.
    pub total: u64,
    /// Here now, verified or not yet.
    pub present: u64,
    /// Present before the prefetch began.
    pub at_start: u64,
}

/// Fetches one whole version.
pub struct VersionPrefetch {
    source: Arc<Source>,
    manifest: Arc<Manifest>,
    store: Store,
    transfers: Arc<Transfers>,
}

impl VersionPrefetch {
    /// Of this version of this source, into this store.
    pub fn new(
        source: Arc<Source>,
        manifest: Arc<Manifest>,
        store: Store,
        transfers: Arc<Transfers>,
    ) -> Self {
        Self { source, manifest, store, transfers }
    }

    /// Fetches all of it. Dropping the future stops it; stored bytes stay.
    pub async fn run(
        &self,
        progress: &(dyn Fn(PrefetchProgress) + Send + Sync),
    ) -> Result<PrefetchProgress, FetchError> {
        let manifest = &self.manifest;
        let blobs = self.blobs().await?;
        let present = |blobs: &[Option<Arc<Blob>>]| {
            blobs.iter().flatten().map(|b| b.present_bytes()).sum::<u64>()
        };
        let here = |blobs: &[Option<Arc<Blob>>]| {
            present(blobs) + blobs.iter().flatten().map(|b| b.unverified_bytes()).sum::<u64>()
        };
        let at_start = here(&blobs);
        let report = |present| PrefetchProgress { total: manifest.total(), present, at_start };
        progress(report(at_start));
        self.check_room(&blobs)?;
        let lanes = lanes(manifest);
        let mut trouble = None;
        for _ in 0..PASSES {
            let bring = |lane: &'_ Vec<ObjectIx>| self.bring(lane.clone(), &blobs);
            let mut coming = stream::iter(lanes.iter().map(bring)).buffer_unordered(AT_ONCE);
            let mut tick = tokio::time::interval(REPORT_EVERY);
            loop {
                tokio::select! {
                    lane = coming.next() => match lane {
                        None => break,
                        Some(troubled) => trouble = troubled?.or(trouble),
                    },
                    _ = tick.tick() => progress(report(here(&blobs))),
                }
            }
            if present(&blobs) == manifest.total() {
                break;
            }
        }
        let store = self.store.clone();
        blocking(move || store.commit()).await??;
        let done = report(present(&blobs));
        progress(done);
        if done.present < done.total {
            let lacking = || self.store.full(done.total - done.present).into();
            return Err(trouble.unwrap_or_else(lacking));
        }
        Ok(done)
    }

    /// Fetches the missing leaves of these objects in turn. Returns an error of a joined flight, if any.
    async fn bring(
        &self,
        lane: Vec<ObjectIx>,
        blobs: &[Option<Arc<Blob>>],
    ) -> Result<Option<FetchError>, FetchError> {
        let mut trouble = None;
        for object in lane {
            for _ in 0..PASSES {
                let runs = missing_leaves(&self.manifest, object, blobs).into_iter();
                let claim = |(run, learned)| {
                    let (source, manifest) = (&self.source, &self.manifest);
                    let priority = Priority::Prefetch;
                    self.transfers.claim(source, manifest, object, run, learned, priority)
                };
                let claims: Vec<_> = runs.flat_map(claim).collect();
                let _wanted: Vec<_> = claims.iter().map(|claim| claim.flight.want()).collect();
                for claim in &claims {
                    match claim.flight.finished().await {
                        Ok(()) => {}
                        Err(error) if claim.new => return Err(error),
                        // Started by another caller: its failure does not fail this prefetch yet.
                        Err(error) => trouble = Some(error),
                    }
                }
                // Another flight may have filled only other places of the object.
                if claims.iter().all(|claim| claim.new) {
                    break;
                }
            }
        }
        Ok(trouble)
    }

    /// The blob of every file, by index; `None` for empty files. Present parts are verified first, so a
    /// completely fetched file is known to be whole.
    async fn blobs(&self) -> Result<Vec<Option<Arc<Blob>>>, FetchError> {
        let (store, manifest) = (self.store.clone(), Arc::clone(&self.manifest));
        blocking(move || {
            let files = (0u32..).map(FileIx).zip(manifest.files());
            let blob = |(ix, file): (FileIx, &File)| {
                if file.len == 0 {
                    return Ok(None);
                }
                let blob = store.blob(manifest.layout(ix))?;
                blob.prove(blob.layout().all_parts())?;
                // Counts as a use: the prefetch would evict the rest of what it completes if that was older
                // than everything else.
                drop(blob.hold(blob.layout().all_parts()));
                Ok(Some(blob))
            };
            files.map(blob).collect()
        })
        .await?
    }

    /// Rejects a version that cannot fit: it would evict its own beginning.
    fn check_room(&self, blobs: &[Option<Arc<Blob>>]) -> Result<(), FetchError> {
        let (mut seen, mut cost) = (BTreeSet::new(), 0u64);
        for blob in blobs.iter().flatten() {
            if !self.store.is_pinned(&blob.key()) && seen.insert(blob.key()) {
                cost = cost.saturating_add(blob.cost(blob.layout().all_parts()));
            }
        }
        let store = &self.store;
        let room = store.room().0.saturating_sub(store.usage().pinned.0);
        if cost > room { Err(store.full(cost).into()) } else { Ok(()) }
    }
}

/// Groups the objects of a version into lanes by content. Objects of one lane are processed in turn: the
/// second is copied from the first, and no two share a flight, which fills the places of one object only.
fn lanes(manifest: &Manifest) -> Vec<Vec<ObjectIx>> {
    let mut lanes: Vec<Vec<ObjectIx>> = Vec::new();
    let mut lane_of = HashMap::new();
    for (ix, object) in (0u32..).map(ObjectIx).zip(manifest.objects()) {
        let lane = *lane_of.entry(ObjectKey::of(object)).or_insert(lanes.len());
        match lanes.get_mut(lane) {
            Some(lane) => lane.push(ix),
            None => lanes.push(vec![ix]),
        }
    }
    lanes
}

/// The leaves of an object that some file of the version lacks, as runs; whether they are learned.
fn missing_leaves(
    manifest: &Manifest,
    object: ObjectIx,
    blobs: &[Option<Arc<Blob>>],
) -> Vec<(std::ops::Range<u64>, bool)> {
    let (mut leaves, mut parts_learned) = (BTreeSet::new(), BTreeSet::new());
    for user in manifest.uses(object) {
        let Some(blob) = &blobs[user.file.0 as usize] else { continue };
        let piece = user.piece as usize;
        let (parts, learned) = (blob.layout().parts_of_piece(piece), is_learned(blob, piece));
        for part in blob.missing(parts).into_iter().flat_map(|run| run.iter()) {
            match learned {
                true => parts_learned.insert(u64::from(part.0 - parts.start)),
                false => leaves.insert(blob.layout().part(part).leaf),
            };
        }
    }
    let of = |found: BTreeSet<u64>, learned| {
        runs(found.into_iter()).into_iter().map(move |run| (run, learned))
    };
    of(leaves, false).chain(of(parts_learned, true)).collect()
}
