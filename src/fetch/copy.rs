//! Copies leaves from other blobs of the store instead of fetching them from the network.
//!
//! Invariant: the content of another blob is only a hint; it is verified like the answer of a registry.
//! Concurrency: part of a flight's task; disk reads and hashing run on the blocking pool.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::batches::BATCH;
use super::blocking::blocking;
use super::deliver::Delivery;
use super::error::FetchError;
use super::flight::{Flight, runs};
use super::transfer::Transfers;
use crate::base::ObjectRange;
use crate::base::buffers::Buffer;
use crate::model::{Check, Leaves, MAX_LEAF, Object};
use crate::store::{Blob, LocalCopy, ReadState};

impl Transfers {
    /// Copies leaves from blobs that hold the same bytes for other files.
    pub(super) async fn copy_from_other_blobs(
        &self,
        delivery: &Arc<Delivery>,
    ) -> Result<(), FetchError> {
        let (object, flight) = (&delivery.object, &delivery.flight);
        let names = match object.check {
            Check::Whole | Check::GitBlob => vec![object.digest],
            Check::Leaves { list, .. } => vec![list, object.digest],
        };
        let range = object.leaves_range(&flight.leaves);
        let store = self.store.clone();
        let sources = blocking(move || store.local_copies(&names, range)).await??;
        if sources.is_empty() {
            return Ok(());
        }
        let leaves = match self.lists.known(object, &flight.leaves) {
            Some(known) => known,
            None => self.leaves_from(flight, object, &sources).await?,
        };
        delivery.leaves.get_or_init(|| leaves);
        for source in sources.into_iter().map(Arc::new) {
            for run in flight.pending() {
                self.copy_run(delivery, &source, run).await?;
            }
        }
        Ok(())
    }

    /// The leaf list of an object that other blobs hold in part. If one of them holds the whole object,
    /// the list is computed from it, without network; else it is fetched.
    async fn leaves_from(
        &self,
        flight: &Flight,
        object: &Object,
        sources: &[LocalCopy],
    ) -> Result<Leaves, FetchError> {
        let all = ObjectRange::new(0, object.len);
        let whole = sources.iter().find(|s| s.object.contains(&all));
        // The object is held in memory while it is hashed, so only objects of the usual size.
        if let Some(source) = whole.filter(|_| object.len <= MAX_LEAF) {
            let _room = self.memory.take(object.len, &flight.urgency).await;
            let (blob, at) = (source.blob.clone(), source.file.start());
            let (check, buffer) = (object.check, self.buffers.take(object.len as usize));
            let lists = self.lists.clone();
            let list = blocking(move || {
                let bytes = read_blob(&blob, at, buffer)?;
                Ok::<_, FetchError>(bytes.and_then(|bytes| lists.rebuild(&check, &bytes)))
            });
            if let Some(list) = list.await?? {
                return Ok(list);
            }
        }
        self.fetch_leaves(flight, object).await
    }

    async fn copy_run(
        &self,
        delivery: &Arc<Delivery>,
        source: &Arc<LocalCopy>,
        run: Range<u64>,
    ) -> Result<(), FetchError> {
        let object = &delivery.object;
        let inside =
            |leaf: &u64| source.object.contains(&object.check.leaf_range(*leaf, object.len));
        let leaf_size = object.check.leaf_size(object.len);
        let step = (BATCH / leaf_size).max(1);
        for run in runs(run.filter(inside)) {
            let mut first = run.start;
            while first < run.end {
                let leaves = first..(first + step).min(run.end);
                first = leaves.end;
                let range = object.leaves_range(&leaves);
                let at = source.file.start() + (range.start() - source.object.start());
                let permit = self.memory.take(range.len(), &delivery.flight.urgency).await;
                let (delivery, source) = (delivery.clone(), source.clone());
                let buffer = self.buffers.take(range.len() as usize);
                let bad = blocking(move || {
                    let bytes = read_blob(&source.blob, at, buffer)?;
                    Ok::<_, FetchError>(bytes.map(|bytes| {
                        delivery.deliver(leaves.start, &bytes, permit, Some((&source, at)))
                    }))
                })
                .await??;
                // The other blob may hold wrong bytes. The rest is then fetched.
                if bad.is_none_or(|bad| !bad.is_empty()) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

fn read_blob(blob: &Blob, at: u64, mut buffer: Buffer) -> Result<Option<Bytes>, FetchError> {
    match blob.read(at, buffer.bytes_mut())? {
        ReadState::Hit => Ok(Some(buffer.freeze())),
        ReadState::Miss => Ok(None),
    }
}
