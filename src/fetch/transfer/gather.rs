//! Assembles one read from leaves in memory and parts in the store, in any order of arrival.
//!
//! Invariant: bytes once filled in stay, so a read completes even if the store cannot hold all of it at
//! once.
//! Concurrency: owned by one read; `fill` blocks on the disk.

use std::sync::Arc;

use bytes::Bytes;

use crate::base::FileRange;
use crate::base::buffers::{Buffer, Buffers};
use crate::fetch::error::FetchError;
use crate::fetch::schedule::LeafBytes;
use crate::model::{PartIx, PartRange};
use crate::store::{Blob, ReadState};

/// A read of a range of a file.
pub struct Gather {
    blob: Arc<Blob>,
    range: FileRange,
    buffers: Buffers,
    /// Allocated when the first byte arrives: a thousand reads that wait for a registry hold no memory.
    out: Option<Buffer>,
    /// Runs of missing parts, ascending.
    missing: Vec<PartRange>,
}

impl Gather {
    /// An empty read of a range that lies in the file.
    pub fn new(blob: Arc<Blob>, range: FileRange, buffers: Buffers) -> Self {
        let missing = vec![blob.layout().parts_in(range)];
        Self { blob, range, buffers, out: None, missing }
    }

    fn out(&mut self) -> &mut [u8] {
        let len = self.range.len() as usize;
        self.out.get_or_insert_with(|| self.buffers.take(len)).bytes_mut()
    }

    /// The missing parts.
    pub fn missing(&self) -> &[PartRange] {
        &self.missing
    }

    /// Number of missing parts.
    pub fn count(&self) -> u32 {
        self.missing.iter().map(|run| run.len()).sum()
    }

    /// Copies a leaf from memory.
    pub fn put(&mut self, ix: PartIx, leaf: &LeafBytes) {
        let part = self.blob.layout().part(ix);
        let wanted = part.file.intersect(&self.range);
        let in_object = part.object.start() + (wanted.start() - part.file.start());
        let from = (in_object - leaf.start()) as usize;
        let (at, len) = ((wanted.start() - self.range.start()) as usize, wanted.len() as usize);
        self.out()[at..at + len].copy_from_slice(&leaf.bytes()[from..from + len]);
        self.done(PartRange { start: ix.0, end: ix.0 + 1 });
    }

    /// Copies the missing parts that the store has, with one read per present run.
    pub fn fill(&mut self) -> Result<(), FetchError> {
        for run in self.missing.clone() {
            for present in self.blob.present(run) {
                let wanted = self.blob.layout().file_range(present).intersect(&self.range);
                let at = (wanted.start() - self.range.start()) as usize;
                let blob = self.blob.clone();
                let buffer = &mut self.out()[at..at + wanted.len() as usize];
                if blob.read(wanted.start(), buffer)? == ReadState::Hit {
                    self.done(present);
                }
            }
        }
        Ok(())
    }

    /// The bytes. Panics if a part is missing.
    pub fn into_bytes(self) -> Bytes {
        assert!(self.missing.is_empty(), "a buffer has old bytes where nothing was put");
        self.out.map_or_else(Bytes::new, Buffer::freeze)
    }

    fn done(&mut self, parts: PartRange) {
        let without = |run: &PartRange| {
            let before = PartRange { start: run.start, end: run.end.min(parts.start) };
            let after = PartRange { start: run.start.max(parts.end), end: run.end };
            [before, after]
        };
        self.missing = self.missing.iter().flat_map(without).filter(|r| !r.is_empty()).collect();
    }
}
