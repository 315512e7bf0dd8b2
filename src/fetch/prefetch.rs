//! Prefetch: all of a version into the store, a few objects at a time.
//!
//! Invariant: success means that every byte of the version was in the store, durably, when it
//! ended. What was begun goes on when the caller stops, and nothing new is begun.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::flight::runs;
use super::transfer::blocking;
use super::urgency::Priority;
use super::{FetchError, Fetcher};
use crate::base::units::ByteSize;
use crate::model::{FileIx, Manifest, ObjectIx};
use crate::store::{Blob, StoreError};

/// How many objects are fetched at once: prefetch has half of the usual 16 places.
const AT_ONCE: usize = 8;
/// How often progress is told: smooth for the eye, nothing for the processor.
const TELL: Duration = Duration::from_millis(100);
/// How often what other flights did not bring is asked for again.
const PASSES: u32 = 4;

/// How far a prefetch is. Bytes of model data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct PrefetchProgress {
    /// Of the version in all.
    pub total: u64,
    /// Present now.
    pub present: u64,
    /// Of it, present before the prefetch began.
    pub at_start: u64,
}

impl Fetcher {
    /// Fetches all of a version into the store. Dropping the future stops it; what is there stays.
    pub async fn prefetch(
        self: &Arc<Self>,
        manifest: &Arc<Manifest>,
        progress: &(dyn Fn(PrefetchProgress) + Send + Sync),
    ) -> Result<PrefetchProgress, FetchError> {
        let blobs = self.blobs(manifest).await?;
        let present = |blobs: &[Option<Arc<Blob>>]| {
            blobs.iter().flatten().map(|b| b.present_bytes()).sum::<u64>()
        };
        let at_start = present(&blobs);
        let told = |present| PrefetchProgress { total: manifest.total(), present, at_start };
        progress(told(at_start));
        self.check_room(&blobs)?;
        let mut trouble = None;
        for _ in 0..PASSES {
            let mut flights = FuturesUnordered::new();
            let mut tick = tokio::time::interval(TELL);
            let mut objects = (0..manifest.objects().len() as u32).map(ObjectIx);
            let mut exhausted = false;
            loop {
                while !exhausted && flights.len() < AT_ONCE {
                    let Some(object) = objects.next() else {
                        exhausted = true;
                        break;
                    };
                    for run in missing_leaves(manifest, object, &blobs) {
                        for ride in self.fly(manifest, object, run, Priority::Prefetch) {
                            flights.push(async move { (ride.flight.landed().await, ride.new) });
                        }
                    }
                }
                if flights.is_empty() {
                    break;
                }
                tokio::select! {
                    Some((landed, own)) = flights.next() => match landed {
                        Ok(()) => {}
                        Err(error) if own => return Err(error),
                        // Begun for somebody else, perhaps with less hope: the next pass sees.
                        Err(error) => trouble = Some(error),
                    },
                    _ = tick.tick() => progress(told(present(&blobs))),
                }
            }
            if present(&blobs) == manifest.total() {
                break;
            }
        }
        let store = self.store().clone();
        blocking(move || store.commit()).await??;
        let done = told(present(&blobs));
        progress(done);
        if done.present < done.total {
            let wanted = ByteSize(done.total - done.present);
            return Err(trouble.unwrap_or(StoreError::NoSpace { wanted }.into()));
        }
        Ok(done)
    }

    /// The blob of every file, by index; none for empty files. What is there is proven: a file that is
    /// fetched completely is known to be whole.
    async fn blobs(
        self: &Arc<Self>,
        manifest: &Arc<Manifest>,
    ) -> Result<Vec<Option<Arc<Blob>>>, FetchError> {
        let (this, manifest) = (self.clone(), manifest.clone());
        blocking(move || {
            let files = (0..manifest.files().len() as u32).map(FileIx);
            let blob = |ix| {
                let file = this.file(&manifest, ix)?;
                if let Some(blob) = &file.blob {
                    blob.prove(blob.layout().all_parts())?;
                }
                Ok(file.blob.clone())
            };
            files.map(blob).collect()
        })
        .await?
    }

    /// Refuses at once what can never fit: it would evict its own beginning.
    fn check_room(&self, blobs: &[Option<Arc<Blob>>]) -> Result<(), FetchError> {
        let (mut seen, mut cost) = (BTreeSet::new(), 0u64);
        for blob in blobs.iter().flatten() {
            if !self.store().is_pinned(&blob.key()) && seen.insert(blob.key()) {
                cost = cost.saturating_add(blob.cost(blob.layout().all_parts()));
            }
        }
        let usage = self.store().usage();
        let room = usage.limit.0.saturating_sub(usage.pinned.0);
        if cost > room {
            return Err(StoreError::NoSpace { wanted: ByteSize(cost - room) }.into());
        }
        Ok(())
    }
}

/// The leaves of an object that some file of the version lacks, as runs.
fn missing_leaves(
    manifest: &Manifest,
    object: ObjectIx,
    blobs: &[Option<Arc<Blob>>],
) -> Vec<std::ops::Range<u64>> {
    let mut leaves = BTreeSet::new();
    for user in manifest.users(object) {
        let Some(blob) = &blobs[user.file.0 as usize] else { continue };
        let parts = blob.layout().parts_of_piece(user.piece as usize);
        for part in blob.missing(parts).into_iter().flat_map(|run| run.iter()) {
            leaves.insert(blob.layout().part(part).leaf);
        }
    }
    runs(leaves.into_iter())
}
