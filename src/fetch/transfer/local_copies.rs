//! Copies leaves from other blobs of the store instead of fetching them from the network.
//!
//! Invariant: the content of another blob is only a hint; it is verified like the answer of a registry.
//! Concurrency: part of a flight's task; disk reads and hashing run on the blocking pool.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::deliver::Delivery;
use super::lists::LeafLists;
use super::requests::Requests;
use crate::base::ObjectRange;
use crate::base::blocking::blocking;
use crate::base::buffers::{Buffer, Buffers};
use crate::fetch::error::FetchError;
use crate::fetch::plan::{BATCH, runs};
use crate::fetch::schedule::{Flight, Memory};
use crate::fetch::source::Source;
use crate::model::{Check, Leaves, MAX_LEAF, Object};
use crate::store::{Blob, LocalCopy, ReadState, Store};

/// Copies from other blobs.
pub struct LocalCopies {
    store: Store,
    memory: Arc<Memory>,
    buffers: Buffers,
    lists: Arc<LeafLists>,
    /// For a leaf list that cannot be computed.
    requests: Arc<Requests>,
}

impl LocalCopies {
    /// Copies within this store.
    pub fn new(
        store: Store,
        memory: Arc<Memory>,
        buffers: Buffers,
        lists: Arc<LeafLists>,
        requests: Arc<Requests>,
    ) -> Self {
        Self { store, memory, buffers, lists, requests }
    }

    /// Copies leaves of a flight from blobs that hold the same bytes for other files.
    pub async fn copy(&self, source: &Source, delivery: &Arc<Delivery>) -> Result<(), FetchError> {
        let (object, flight) = (delivery.object(), delivery.flight());
        let names = match object.check {
            Check::Whole | Check::WholeLarge | Check::GitBlob => vec![object.digest],
            // A part of another blob proves nothing without the rest of what a proof covers.
            Check::Proof { .. } => return Ok(()),
            Check::Leaves { list, .. } => vec![list, object.digest],
        };
        let range = object.leaves_range(flight.leaves());
        let store = self.store.clone();
        let copies = blocking(move || store.local_copies(&names, range)).await??;
        if copies.is_empty() {
            return Ok(());
        }
        let known = delivery.expected().or_else(|| self.lists.known(object, flight.leaves()));
        let leaves = match known {
            Some(known) => known,
            None => self.leaves_from(source, flight, object, &copies).await?,
        };
        delivery.expect(leaves);
        for copy in copies.into_iter().map(Arc::new) {
            for run in flight.pending() {
                self.copy_run(delivery, &copy, run).await?;
            }
        }
        Ok(())
    }

    /// The leaf list of an object that other blobs hold in part. If one of them holds the whole object,
    /// the list is computed from it, without network; else it is fetched.
    async fn leaves_from(
        &self,
        source: &Source,
        flight: &Flight,
        object: &Object,
        copies: &[LocalCopy],
    ) -> Result<Leaves, FetchError> {
        let all = ObjectRange::new(0, object.len);
        let whole = copies.iter().find(|copy| copy.object.contains(&all));
        // The object is held in memory while it is hashed, so only objects of the usual size.
        if let Some(copy) = whole.filter(|_| object.len <= MAX_LEAF) {
            let _room = self.memory.take(object.len, flight.urgency()).await;
            let (blob, at) = (copy.blob.clone(), copy.file.start());
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
        self.requests.leaves(source, flight, object).await
    }

    async fn copy_run(
        &self,
        delivery: &Arc<Delivery>,
        copy: &Arc<LocalCopy>,
        run: Range<u64>,
    ) -> Result<(), FetchError> {
        let object = delivery.object();
        let inside = |leaf: &u64| copy.object.contains(&object.check.leaf_range(*leaf, object.len));
        let leaf_size = object.check.leaf_size(object.len);
        let step = (BATCH / leaf_size).max(1);
        for run in runs(run.filter(inside)) {
            let mut first = run.start;
            while first < run.end {
                let leaves = first..(first + step).min(run.end);
                first = leaves.end;
                let range = object.leaves_range(&leaves);
                let at = copy.file.start() + (range.start() - copy.object.start());
                let permit = self.memory.take(range.len(), delivery.flight().urgency()).await;
                let (delivery, copy) = (delivery.clone(), copy.clone());
                let buffer = self.buffers.take(range.len() as usize);
                let bad = blocking(move || {
                    let bytes = read_blob(&copy.blob, at, buffer)?;
                    Ok::<_, FetchError>(bytes.map(|bytes| {
                        delivery.deliver(leaves.start, &bytes, permit, Some((&copy, at)))
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
