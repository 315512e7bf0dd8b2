//! The tree `/group/model/version/…` as every kernel adapter sees it: inodes, attributes, lists,
//! open files, extended attributes.
//!
//! Invariant: an inode and a handle mean the same to the next process (inode = row of the node in
//! the index and position in its tree; a handle holds nothing that cannot be made again from the
//! inode). Content behind an inode never changes: another manifest is another inode.
//! Concurrency: every method may be called from any thread; `Answer::Now` costs no network. No
//! lock is held while the disk or the network works.

mod attributes;
mod changes;
mod errors;
mod files;
mod handles;
mod ino;
mod lists;
mod lookup_counts;
mod metadata_cache;
mod namespace;
mod probes;
mod repeats;
mod resolve;
mod sync;
mod tree;
mod types;
mod watch;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

pub use types::{
    Answer, Attr, Entry, Handle, Ino, Invalidation, Kind, Later, ListPlace, Listing, Opened, Space,
    VfsError, VfsOptions, stable_time,
};

use crate::fetch::Fetcher;
use crate::store::NodesInUse;
use attributes::Facts;
use errors::of_fetch;
use files::Files;
use lists::Lists;
use lookup_counts::LookupCounts;
use metadata_cache::{MetadataCache, Pending, Ready};
use namespace::{Content, Namespace};
use resolve::Nodes;
use sync::lock;
use watch::Poke;

/// How often one question may need something more before it is given up: catalog, manifest,
/// document are three; twice that allows for what is dropped from memory meanwhile.
const MAX_ROUNDS: usize = 6;

/// The tree of one source.
pub struct Vfs {
    fetcher: Arc<Fetcher>,
    names: Arc<Namespace>,
    metadata: Arc<MetadataCache>,
    files: Arc<Files>,
    /// What the kernel knows by number.
    lookup_counts: Arc<LookupCounts>,
    lists: Lists,
    next_handle: AtomicU64,
    poke: Arc<Poke>,
    watcher: AbortHandle,
    invalidations: Mutex<Option<mpsc::UnboundedReceiver<Invalidation>>>,
}

impl Vfs {
    /// Loads the catalog (from the registry, else the index) and starts watching it every time to
    /// live. Must be called within a tokio runtime. Fails only if no catalog can be had at all.
    pub async fn new(fetcher: Arc<Fetcher>, options: VfsOptions) -> Result<Arc<Self>, VfsError> {
        fetcher.source().catalog().await.map_err(|e| of_fetch(&e))?;
        Ok(Self::build(fetcher, options))
    }

    /// As [`Vfs::new`], for a process that goes on where another one served: with the catalog last
    /// seen, if any. The registry is asked beside; only who looks for a name that is not in that
    /// catalog waits for it.
    pub async fn resume(fetcher: Arc<Fetcher>, options: VfsOptions) -> Result<Arc<Self>, VfsError> {
        fetcher.source().recall().await.map_err(|e| of_fetch(&e))?;
        Ok(Self::build(fetcher, options))
    }

    fn build(fetcher: Arc<Fetcher>, options: VfsOptions) -> Arc<Self> {
        let source = Arc::clone(fetcher.source());
        let store = fetcher.store().clone();
        let lookup_counts = Arc::new(LookupCounts::default());
        let in_use: Arc<dyn NodesInUse> = lookup_counts.clone();
        store.asks(Arc::downgrade(&in_use));
        let metadata = Arc::new(MetadataCache::new(Arc::clone(&source), store.clone()));
        let nodes = Nodes::new(store, source.name().to_owned());
        let names = Arc::new(Namespace::new(Arc::clone(&metadata), nodes));
        let (tell, listen) = mpsc::unbounded_channel();
        let poke = Arc::new(Poke::default());
        let watch = watch::watch(source, Arc::clone(&names), Arc::clone(&poke), tell);
        // Nanoseconds since 1970: no process opens files so fast that its numbers reach those of
        // the next one, so a former process's handles are never taken for this one's.
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let first = since_1970.map_or(1, |d| d.as_nanos() as u64);
        Arc::new(Self {
            files: Arc::new(Files::new(Arc::clone(&fetcher), options.passthrough)),
            fetcher,
            names,
            metadata,
            lookup_counts,
            lists: Lists::new(),
            next_handle: AtomicU64::new(first),
            poke,
            watcher: tokio::spawn(watch).abort_handle(),
            invalidations: Mutex::new(Some(listen)),
        })
    }

    /// Whether files opened from now on may be left to the kernel.
    pub fn set_passthrough(&self, on: bool) {
        self.files.set_passthrough(on);
    }

    /// The entry of a folder with that name.
    pub fn lookup(self: &Arc<Self>, parent: Ino, name: &str) -> Answer<Attr> {
        let name: Box<str> = name.into();
        self.answer(move |vfs| vfs.names.lookup(parent, &name))
    }

    /// What `stat` tells. An inode that the catalog no longer names keeps answering.
    pub fn attr(self: &Arc<Self>, ino: Ino) -> Answer<Attr> {
        self.answer(move |vfs| vfs.names.attr(ino))
    }

    /// A folder's list for a reader at `place`: from the beginning as the folder is now, else in the
    /// edition in which the reader began (after a restart: as long as the catalog did not change).
    pub fn list(self: &Arc<Self>, ino: Ino, place: ListPlace) -> Answer<Listing> {
        self.answer(move |vfs| {
            let (edition, entries) = vfs.lists.get(ino, place, || vfs.names.list(ino))?;
            Ok(Listing { edition, entries })
        })
    }

    /// The folder that an inode lies in; the root's is the root.
    pub fn parent(&self, ino: Ino) -> Ino {
        self.names.parent(ino)
    }

    /// Opens a file. The first handle of an inode decides whether the kernel reads it by itself.
    pub fn open(self: &Arc<Self>, ino: Ino) -> Answer<Opened> {
        self.answer(move |vfs| {
            let content = vfs.names.content(ino)?;
            Ok(vfs.files.open(ino, vfs.new_handle(), &content)?)
        })
    }

    /// At most `size` bytes from `offset`; fewer only at the end of the file. A file can be read without
    /// having been opened, by [`Handle::NONE`]: as cheap, but all of its readers are taken for one.
    pub fn read(
        self: &Arc<Self>,
        ino: Ino,
        handle: Handle,
        offset: u64,
        size: u32,
    ) -> Answer<Bytes> {
        if let Some(file) = self.files.get(ino, handle) {
            return self.files.read(&file, offset, size);
        }
        match self.answer(move |vfs| {
            let content = vfs.names.content(ino)?;
            Ok(vfs.files.adopt(ino, handle, &content)?)
        }) {
            Answer::Now(Ok(file)) => self.files.read(&file, offset, size),
            Answer::Now(Err(error)) => Answer::Now(Err(error)),
            Answer::Later(file) => {
                let files = Arc::clone(&self.files);
                Answer::Later(Box::pin(async move {
                    match files.read(&file.await?, offset, size) {
                        Answer::Now(answer) => answer,
                        Answer::Later(answer) => answer.await,
                    }
                }))
            }
        }
    }

    /// Closes a file. Handles of a former process are none of ours.
    pub fn release(&self, ino: Ino, handle: Handle) {
        self.files.release(ino, handle);
    }

    /// A kernel is told of an inode: until it has forgotten it as often, the index keeps its number.
    pub fn told(&self, ino: Ino) {
        self.lookup_counts.looked_up(ino);
    }

    /// A kernel knows an inode no more that it was told of so many times: what was kept for reading
    /// it without a handle may go.
    pub fn forget(&self, ino: Ino, times: u64) {
        self.lookup_counts.forget(ino, times);
        self.files.forget(ino);
    }

    /// The value of an extended attribute.
    pub fn attribute(self: &Arc<Self>, ino: Ino, name: &str) -> Answer<Vec<u8>> {
        // `ls -l` asks each file for `security.selinux`, until it hears that there is no such thing.
        if name.starts_with("security.") || name.starts_with("trusted.") {
            return Answer::Now(Err(VfsError::NoAttributes));
        }
        if !name.starts_with(attributes::PREFIX) {
            return Answer::Now(Err(VfsError::NoAttribute));
        }
        let name: Box<str> = name.into();
        self.answer(move |vfs| Ok(vfs.facts(ino)?.value(&name).ok_or(VfsError::NoAttribute)?))
    }

    /// The extended attributes that an inode has.
    pub fn attributes(self: &Arc<Self>, ino: Ino) -> Answer<Vec<String>> {
        self.answer(move |vfs| Ok(vfs.facts(ino)?.names()))
    }

    fn facts(&self, ino: Ino) -> Ready<Facts> {
        let (manifest, ix) = match self.names.content(ino) {
            Ok(Content::File(manifest, ix)) => (manifest, ix),
            Ok(Content::Document(body)) => {
                let sha256 = Some(crate::model::hash::sha256(&body));
                return Ok(Facts { sha256, ..Facts::default() });
            }
            Err(Pending::Failed(VfsError::IsFolder)) => {
                let hash = self.names.version_hash(ino)?;
                let error = match (hash, self.names.is_of_the_catalog(ino)?) {
                    (Some(hash), _) => self.metadata.failure(&hash),
                    (None, true) => self.fetcher.source().trouble(),
                    (None, false) => None,
                };
                return Ok(Facts { hash, error, ..Facts::default() });
            }
            Err(pending) => return Err(pending),
        };
        let file = manifest.file(ix);
        let facts = Facts { sha256: file.sha256, ..Facts::default() };
        if file.len == 0 {
            return Ok(Facts { cached: Some(0), pinned: Some(false), ..facts });
        }
        let key = manifest.layout(ix).key();
        let store = self.fetcher.store();
        Ok(Facts {
            cached: Some(store.presence(&key).0.0),
            pinned: Some(store.is_pinned(&key)),
            error: self.files.failure(&key),
            ..facts
        })
    }

    /// How full the cache is.
    pub fn space(&self) -> Space {
        let usage = self.fetcher.store().usage();
        Space { total: usage.limit.0, free: usage.limit.0.saturating_sub(usage.used.0) }
    }

    /// Every change of the catalog, from now on. One listener, the adapter: a second one gets none.
    pub fn invalidations(&self) -> mpsc::UnboundedReceiver<Invalidation> {
        lock(&self.invalidations).take().unwrap_or_else(|| mpsc::unbounded_channel().1)
    }

    /// Has the kernel forget every name: for a process that takes over from one that died, which may
    /// have known of changes that it did not announce. What is open stays as it is.
    pub fn tell_all(&self) {
        match self.fetcher.store().last_node() {
            Ok(last) => self.lookup_counts.inherit(last),
            // Nothing of an index that cannot be read is collected either.
            Err(error) => tracing::warn!(%error, "what the kernel knows cannot be told"),
        }
        self.poke.tell_all();
    }

    /// Stops the watcher and forgets open files.
    pub fn close(&self) {
        self.watcher.abort();
        self.files.clear();
    }

    fn new_handle(&self) -> Handle {
        Handle(self.next_handle.fetch_add(1, Ordering::Relaxed))
    }

    /// Runs an operation: now if it needs no network, else after what it needs was fetched.
    fn answer<T: Send + 'static>(
        self: &Arc<Self>,
        operation: impl Fn(&Self) -> Ready<T> + Send + 'static,
    ) -> Answer<T> {
        let mut pending = match operation(self) {
            Ok(answer) => return Answer::Now(Ok(answer)),
            Err(Pending::Failed(error)) => return Answer::Now(Err(error)),
            Err(pending) => pending,
        };
        let vfs = Arc::clone(self);
        Answer::Later(Box::pin(async move {
            let mut asked_again = false;
            for _ in 0..MAX_ROUNDS {
                match pending {
                    Pending::NewerCatalog(error) if asked_again => return Err(error),
                    Pending::NewerCatalog(_) => asked_again = true,
                    _ => {}
                }
                vfs.metadata.fetch(pending).await?;
                match operation(&vfs) {
                    Ok(answer) => return Ok(answer),
                    Err(Pending::Failed(error)) => return Err(error),
                    Err(more) => pending = more,
                }
            }
            Err(VfsError::Unavailable { reason: format!("{pending:?} does not stay in memory") })
        }))
    }
}

impl Drop for Vfs {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

#[cfg(test)]
mod tests;
