//! Open files and reads: from the cache at once, else fetched. Complete files are given to the kernel as
//! backing files.
//!
//! Invariant: a handle holds nothing that cannot be rebuilt from its inode.
//! Concurrency: the table's lock and a handle's readahead lock are held for a look-up, never during I/O.

use std::future::{Future, poll_fn};
use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use lru::LruCache;

use super::errors::{RecentFailures, of_fetch};
use super::handles::OpenTable;
use super::namespace::Content;
use super::repeats::Repeats;
use super::sync::lock;
use super::types::{Answer, Handle, Ino, Opened, VfsError};
use crate::base::FileRange;
use crate::fetch::{AccessPattern, CachedFile, Fetcher, Look, Readahead, Tensors};
use crate::model::ContentKey;
use crate::store::Hold;

/// Maximum number of files remembered that are read without a handle: as many as loaders read at once. A
/// file that is dropped and read again loses its readahead state, no more.
const WITHOUT_HANDLE: NonZeroUsize = NonZeroUsize::new(128).expect("not zero");

/// The open files.
pub(super) struct Files {
    fetcher: Arc<Fetcher>,
    passthrough: AtomicBool,
    open: Mutex<OpenTable<OpenFile, Arc<Backing>>>,
    without_handle: Mutex<LruCache<Ino, Arc<OpenFile>>>,
    failures: RecentFailures<ContentKey>,
    repeats: Repeats,
}

/// The backing file of a complete file: the kernel reads it directly, and it is held from eviction.
struct Backing {
    file: Arc<std::fs::File>,
    _hold: Hold,
}

/// An open file, with or without a handle.
pub(super) struct OpenFile {
    bytes: FileBytes,
    /// Requests of the kernel for one handle arrive on several threads.
    ahead: Mutex<Readahead>,
    tensors: Tensors,
}

/// What to fetch ahead of a read.
enum Ahead {
    /// These ranges.
    Ranges(Vec<FileRange>),
    /// Depends on the file's header, which has to be read first.
    Ask,
}

#[derive(Clone)]
enum FileBytes {
    Model(Arc<CachedFile>),
    Document(Bytes),
}

impl Files {
    /// No open files.
    pub(super) fn new(fetcher: Arc<Fetcher>, passthrough: bool) -> Self {
        Self {
            fetcher,
            passthrough: AtomicBool::new(passthrough),
            open: Mutex::new(OpenTable::new()),
            without_handle: Mutex::new(LruCache::new(WITHOUT_HANDLE)),
            failures: RecentFailures::new(),
            repeats: Repeats::default(),
        }
    }

    /// Sets whether files opened from now on may use passthrough.
    pub(super) fn set_passthrough(&self, on: bool) {
        self.passthrough.store(on, Ordering::Relaxed);
    }

    /// Opens a file under a new handle.
    pub(super) fn open(
        &self,
        ino: Ino,
        handle: Handle,
        content: &Content,
    ) -> Result<Opened, VfsError> {
        let file = self.file(content, Readahead::within)?;
        let may = self.passthrough.load(Ordering::Relaxed) && lock(&self.open).is_free(ino);
        let offer = if may { backing(&file.bytes) } else { None };
        let backing = lock(&self.open).open(ino, handle, file, offer);
        Ok(Opened { handle, backing: backing.map(|b| Arc::clone(&b.file)) })
    }

    /// The file of a handle, or of an inode read without one.
    pub(super) fn get(&self, ino: Ino, handle: Handle) -> Option<Arc<OpenFile>> {
        match handle {
            Handle::NONE => lock(&self.without_handle).get(&ino).cloned(),
            _ => lock(&self.open).get(ino, handle),
        }
    }

    /// The file of a handle given by a previous process, or of an inode without one.
    pub(super) fn adopt(
        &self,
        ino: Ino,
        handle: Handle,
        content: &Content,
    ) -> Result<Arc<OpenFile>, VfsError> {
        if handle != Handle::NONE {
            let file = self.file(content, Readahead::within)?;
            return Ok(lock(&self.open).adopt(ino, handle, file));
        }
        let file = self.file(content, Readahead::shared_within)?;
        let mut all = lock(&self.without_handle);
        Ok(Arc::clone(all.get_or_insert(ino, || Arc::new(file))))
    }

    /// Closes a handle, if this process opened it.
    pub(super) fn release(&self, ino: Ino, handle: Handle) {
        let last = lock(&self.open).release(ino, handle);
        drop(last);
    }

    /// Drops the file of an inode that is read without a handle: the kernel has forgotten the inode.
    pub(super) fn forget(&self, ino: Ino) {
        let file = lock(&self.without_handle).pop(&ino);
        drop(file);
    }

    /// Closes all files.
    pub(super) fn clear(&self) {
        let open = std::mem::replace(&mut *lock(&self.open), OpenTable::new());
        drop(open);
        let none = LruCache::new(WITHOUT_HANDLE);
        drop(std::mem::replace(&mut *lock(&self.without_handle), none));
    }

    /// Why the last read of a file failed.
    pub(super) fn failure(&self, key: &ContentKey) -> Option<String> {
        self.failures.of(key)
    }

    fn file(&self, content: &Content, ahead: fn(u64) -> Readahead) -> Result<OpenFile, VfsError> {
        let bytes = match content {
            Content::Document(body) => FileBytes::Document(body.clone()),
            Content::File(manifest, ix) => {
                FileBytes::Model(self.fetcher.file(manifest, *ix).map_err(|e| of_fetch(&e))?)
            }
        };
        let ahead = ahead(self.fetcher.store().room().0);
        Ok(OpenFile { bytes, ahead: Mutex::new(ahead), tensors: Tensors::default() })
    }

    /// Reads at most `size` bytes from `offset`; fewer only at the end of the file.
    pub(super) fn read(
        self: &Arc<Self>,
        open: &Arc<OpenFile>,
        offset: u64,
        size: u32,
    ) -> Answer<Bytes> {
        let file = match &open.bytes {
            FileBytes::Model(file) => Arc::clone(file),
            FileBytes::Document(body) => {
                let range = cut(offset, size, body.len() as u64);
                return Answer::Now(Ok(body.slice(range.start() as usize..range.end() as usize)));
            }
        };
        let len = file.manifest.file(file.file).len;
        let range = cut(offset, size, len);
        if range.is_empty() {
            return Answer::Now(Ok(Bytes::new()));
        }
        let ahead = open.on_read(&file, range, len);
        let complete = is_complete(&file);
        if !complete {
            self.fetcher.touched(&file, range);
        }
        let key = file.blob.as_ref().map(|b| b.key());
        let mut buffer = self.fetcher.buffer(range.len() as usize);
        match self.fetcher.read_cached(&file, offset, buffer.bytes_mut()) {
            Ok(true) => {
                if let Some(key) = key {
                    self.failures.found(&key, range);
                }
                if !complete {
                    self.ahead(open, &file, range, ahead);
                }
                return Answer::Now(Ok(buffer.freeze()));
            }
            Ok(false) => {}
            // If the disk fails, the registry can supply the bytes.
            Err(error) => tracing::warn!(%error, "the cache could not be read"),
        }
        drop(buffer);
        if let Some(error) = key.and_then(|k| self.repeats.answer(&k, range, Instant::now())) {
            return Answer::Now(Err(error));
        }
        let this = Arc::clone(self);
        let open = Arc::clone(open);
        Answer::Later(Box::pin(async move { this.fetch(&open, &file, range, ahead).await }))
    }

    /// Starts readahead for a read.
    fn ahead(
        self: &Arc<Self>,
        open: &Arc<OpenFile>,
        file: &Arc<CachedFile>,
        range: FileRange,
        ahead: Ahead,
    ) {
        match ahead {
            Ahead::Ranges(ranges) => {
                ranges.into_iter().for_each(|range| self.readahead(file, range));
            }
            Ahead::Ask => {
                let (this, open, file) = (Arc::clone(self), Arc::clone(open), Arc::clone(file));
                self.fetcher.runtime().spawn_blocking(move || {
                    if let Some(map) = open.tensors.ask(&this.fetcher, &file) {
                        let ranges = lock(&open.ahead).on_jump(range, &map);
                        ranges.into_iter().for_each(|range| this.readahead(&file, range));
                    }
                });
            }
        }
    }

    /// Starts readahead of a range. A failure is recorded like that of a read, which may never come that
    /// far; a success clears the failure, since the reader will then find the bytes in the cache.
    fn readahead(self: &Arc<Self>, file: &Arc<CachedFile>, range: FileRange) {
        let this = Arc::clone(self);
        let key = file.blob.as_ref().map(|b| b.key());
        self.fetcher.readahead(file, range, move |ended| {
            let Some(key) = key else { return };
            match ended {
                Ok(()) => this.failures.fetched(&key),
                Err(error) => drop(this.failures.failed(key, range, &of_fetch(&error))),
            }
        });
    }

    async fn fetch(
        self: &Arc<Self>,
        open: &Arc<OpenFile>,
        file: &Arc<CachedFile>,
        range: FileRange,
        ahead: Ahead,
    ) -> Result<Bytes, VfsError> {
        let begun = Instant::now();
        let mut ahead = Some(ahead);
        let mut read = pin!(self.fetcher.read(file, range));
        let answer = poll_fn(|cx| {
            let answer = read.as_mut().poll(cx);
            // Readahead starts only after the requests of the read itself.
            if let Some(ahead) = ahead.take() {
                self.ahead(open, file, range, ahead);
            }
            answer
        })
        .await;
        let key = file.blob.as_ref().map(|b| b.key());
        match answer {
            Ok(bytes) => {
                if let Some(key) = key {
                    self.failures.fetched(&key);
                }
                Ok(bytes)
            }
            Err(error) => {
                let error = of_fetch(&error);
                if let Some(key) = key {
                    self.repeats.failed(key, range, (begun, Instant::now()), &error);
                }
                if key.is_none_or(|key| self.failures.failed(key, range, &error)) {
                    let path = &file.manifest.file(file.file).path;
                    tracing::warn!(file = %path, %range, %error, "a read failed");
                }
                Err(error)
            }
        }
    }
}

impl OpenFile {
    fn on_read(&self, file: &CachedFile, range: FileRange, len: u64) -> Ahead {
        let mut ahead = lock(&self.ahead);
        match ahead.on_read(range, len) {
            AccessPattern::On(range) => Ahead::Ranges(range.into_iter().collect()),
            AccessPattern::Jump => match self.tensors.look(file) {
                Look::Map(map) => Ahead::Ranges(ahead.on_jump(range, &map)),
                Look::Nothing => Ahead::Ranges(Vec::new()),
                Look::Ask => Ahead::Ask,
            },
        }
    }
}

fn cut(offset: u64, size: u32, len: u64) -> FileRange {
    let offset = offset.min(len);
    FileRange::new(offset, offset.saturating_add(u64::from(size)).min(len))
}

fn is_complete(file: &CachedFile) -> bool {
    file.blob.as_ref().is_none_or(|b| b.is_complete())
}

/// The backing file, if the file is complete. An error of the store only costs speed.
fn backing(bytes: &FileBytes) -> Option<Arc<Backing>> {
    let FileBytes::Model(file) = bytes else { return None };
    let blob = file.blob.as_ref().filter(|b| b.is_complete())?;
    match blob.complete_file() {
        Ok(found) => found.map(|(file, _hold)| Arc::new(Backing { file: Arc::new(file), _hold })),
        Err(error) => {
            tracing::warn!(%error, "a complete file could not be opened for the kernel");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_are_cut_at_the_end() {
        assert_eq!(cut(0, 10, 100), FileRange::new(0, 10));
        assert_eq!(cut(95, 10, 100), FileRange::new(95, 100));
        for offset in [100, 101, u64::MAX] {
            assert!(cut(offset, 10, 100).is_empty());
        }
    }
}
