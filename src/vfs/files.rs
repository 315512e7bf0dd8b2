//! Open files and reads: from the cache at once, else fetched. Complete files are given to the kernel as
//! backing files.
//!
//! Invariant: a handle holds nothing that cannot be rebuilt from its inode.
//! Concurrency: the locks are held for a look-up, never during I/O.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use lru::LruCache;

use super::content::Content;
use super::errors::{RecentFailures, of_fetch};
use super::handles::OpenTable;
use super::repeats::Repeats;
use super::sync::lock;
use super::types::{Answer, Handle, Ino, Opened, VfsError};
use crate::base::FileRange;
use crate::fetch::{CachedFile, FetchError, Fetcher, FileReader, OnReadahead, Readers};
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
    failures: Arc<RecentFailures<ContentKey>>,
    repeats: Repeats,
}

/// The backing file of a complete file: the kernel reads it directly, and it is held from eviction.
struct Backing {
    file: Arc<std::fs::File>,
    _hold: Hold,
}

/// An open file, with or without a handle.
pub(super) enum OpenFile {
    Model(Model),
    Document(Bytes),
}

/// A file of a version.
pub(super) struct Model {
    file: Arc<CachedFile>,
    reader: Arc<FileReader>,
}

impl Files {
    /// No open files.
    pub(super) fn new(fetcher: Arc<Fetcher>, passthrough: bool) -> Self {
        Self {
            fetcher,
            passthrough: AtomicBool::new(passthrough),
            open: Mutex::new(OpenTable::new()),
            without_handle: Mutex::new(LruCache::new(WITHOUT_HANDLE)),
            failures: Arc::new(RecentFailures::new()),
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
        let file = self.file(content, Readers::OfOneHandle)?;
        let may = self.passthrough.load(Ordering::Relaxed) && lock(&self.open).is_free(ino);
        let offer = if may { backing(&file) } else { None };
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
            let file = self.file(content, Readers::OfOneHandle)?;
            return Ok(lock(&self.open).adopt(ino, handle, file));
        }
        let file = self.file(content, Readers::WithoutHandle)?;
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

    fn file(&self, content: &Content, readers: Readers) -> Result<OpenFile, VfsError> {
        let (source, manifest, ix) = match content {
            Content::Document(body) => return Ok(OpenFile::Document(body.clone())),
            Content::File(source, manifest, ix) => (source, manifest, *ix),
        };
        let file = self.fetcher.file(source, manifest, ix).map_err(|e| of_fetch(&e))?;
        let reader = self.fetcher.reader(&file, readers, self.on_readahead(&file));
        Ok(OpenFile::Model(Model { file, reader }))
    }

    /// Records how readahead of a file ends. A failure counts like that of a read, which may never come
    /// that far; a success clears the failure, since the reader will then find the bytes in the cache.
    fn on_readahead(&self, file: &CachedFile) -> OnReadahead {
        let failures = Arc::clone(&self.failures);
        let key = key_of(file);
        Arc::new(move |range, ended| {
            let Some(key) = key else { return };
            match ended {
                Ok(()) => failures.fetched(&key),
                Err(error) => drop(failures.failed(key, range, &of_fetch(&error))),
            }
        })
    }

    /// Reads at most `size` bytes from `offset`; fewer only at the end of the file.
    pub(super) fn read(
        self: &Arc<Self>,
        open: &Arc<OpenFile>,
        offset: u64,
        size: u32,
    ) -> Answer<Bytes> {
        let Model { file, reader } = match &**open {
            OpenFile::Model(model) => model,
            OpenFile::Document(body) => {
                let range = cut(offset, size, body.len() as u64);
                return Answer::Now(Ok(body.slice(range.start() as usize..range.end() as usize)));
            }
        };
        let range = cut(offset, size, file.entry().len);
        if range.is_empty() {
            return Answer::Now(Ok(Bytes::new()));
        }
        let key = key_of(file);
        match reader.try_read(range) {
            Ok(Some(bytes)) => {
                if let Some(key) = key {
                    self.failures.found(&key, range);
                }
                return Answer::Now(Ok(bytes));
            }
            Ok(None) => {}
            // If the disk fails, the registry can supply the bytes.
            Err(error) => tracing::warn!(%error, "the cache could not be read"),
        }
        if let Some(error) = key.and_then(|k| self.repeats.answer(&k, range, Instant::now())) {
            return Answer::Now(Err(error));
        }
        let (this, file, read) = (Arc::clone(self), Arc::clone(file), reader.read(range));
        Answer::Later(Box::pin(async move { this.outcome(&file, range, read).await }))
    }

    /// Waits for a read, and records how it ends.
    async fn outcome(
        &self,
        file: &CachedFile,
        range: FileRange,
        read: impl Future<Output = Result<Bytes, FetchError>>,
    ) -> Result<Bytes, VfsError> {
        let begun = Instant::now();
        let answer = read.await;
        let key = key_of(file);
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
                    let path = &file.entry().path;
                    tracing::warn!(file = %path, %range, %error, "a read failed");
                }
                Err(error)
            }
        }
    }
}

fn cut(offset: u64, size: u32, len: u64) -> FileRange {
    let offset = offset.min(len);
    FileRange::new(offset, offset.saturating_add(u64::from(size)).min(len))
}

fn key_of(file: &CachedFile) -> Option<ContentKey> {
    file.blob().map(|blob| blob.key())
}

/// The backing file, if the file is complete. An error of the store only costs speed.
fn backing(open: &OpenFile) -> Option<Arc<Backing>> {
    let OpenFile::Model(Model { file, .. }) = open else { return None };
    let blob = file.blob().filter(|b| b.is_complete())?;
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
