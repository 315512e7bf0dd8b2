//! The readahead of one open file: its reads so far, its tensors, and what they start.
//!
//! Invariant: a read is recorded once; what it causes is started only when the caller says so. A header is
//! read from the store only, never fetched for this.
//! Concurrency: reads of one file come from several threads; the lock is held for a look-up. The header is
//! read on the blocking pool.

use std::sync::{Arc, Mutex, MutexGuard};

use super::ahead::Ahead;
use super::readahead::{AccessPattern, Readahead};
use super::tensors::{Look, Tensors};
use crate::base::FileRange;
use crate::base::buffers::Buffers;
use crate::fetch::cached_file::CachedFile;
use crate::fetch::error::FetchError;

/// Called with each range that was fetched ahead, and how that ended.
pub type OnReadahead = Arc<dyn Fn(FileRange, Result<(), FetchError>) + Send + Sync>;

/// What to fetch ahead of a read.
#[derive(Debug)]
pub enum Next {
    /// These ranges.
    Ranges(Vec<FileRange>),
    /// Depends on the file's header, which has to be read first.
    AfterHeader,
}

/// The readahead of one open file.
pub struct FileReadahead {
    file: Arc<CachedFile>,
    policy: Mutex<Readahead>,
    tensors: Tensors,
    ahead: Ahead,
    buffers: Buffers,
    ended: OnReadahead,
}

impl FileReadahead {
    /// No reads so far.
    pub fn new(
        file: Arc<CachedFile>,
        policy: Readahead,
        ahead: Ahead,
        buffers: Buffers,
        ended: OnReadahead,
    ) -> Self {
        let (policy, tensors) = (Mutex::new(policy), Tensors::default());
        Self { file, policy, tensors, ahead, buffers, ended }
    }

    /// Records a read. Returns what to `start` once the read's own requests were made.
    pub fn on_read(&self, range: FileRange) -> Next {
        let mut policy = self.policy();
        match policy.on_read(range, self.file.entry().len) {
            AccessPattern::On(range) => Next::Ranges(range.into_iter().collect()),
            AccessPattern::Jump => match self.tensors.look(&self.file) {
                Look::Map(map) => Next::Ranges(policy.on_jump(range, &map)),
                Look::Nothing => Next::Ranges(Vec::new()),
                Look::Ask => Next::AfterHeader,
            },
        }
    }

    /// Starts what the read of `read` caused; returns at once.
    pub fn start(self: &Arc<Self>, read: FileRange, next: Next) {
        match next {
            Next::Ranges(ranges) => ranges.into_iter().for_each(|range| self.fetch(range)),
            Next::AfterHeader => {
                let this = Arc::clone(self);
                self.ahead.runtime().spawn_blocking(move || {
                    if let Some(map) = this.tensors.ask(&this.buffers, &this.file) {
                        let ranges = this.policy().on_jump(read, &map);
                        ranges.into_iter().for_each(|range| this.fetch(range));
                    }
                });
            }
        }
    }

    /// Starts fetching a range; returns at once.
    pub fn fetch(&self, range: FileRange) {
        let ended = Arc::clone(&self.ended);
        self.ahead.start(&self.file, range, move |outcome| ended(range, outcome));
    }

    fn policy(&self) -> MutexGuard<'_, Readahead> {
        self.policy.lock().expect("holders do not panic")
    }
}
