//! The tree `/group/model/version/…` and the views of it as every kernel adapter sees them: inodes,
//! attributes, lists, open files, extended attributes.
//!
//! Invariant: an inode and a handle mean the same to the next process (inode = row of the node in the
//! index and position in its tree; a handle holds nothing that cannot be rebuilt from the inode). Content
//! behind an inode never changes: another manifest is another inode.
//! Concurrency: every method may be called from any thread; `Answer::Now` needs no network. No lock is
//! held during disk or network I/O.

mod attributes;
mod changes;
mod content;
mod errors;
mod files;
mod handles;
mod ino;
mod layouts;
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
mod versions;
mod views;
mod watch;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

pub use types::{
    Answer, Attr, Entry, Found, Handle, Ino, Invalidation, Kind, Later, ListPlace, Listing, Opened,
    Space, VfsError, VfsOptions, stable_time,
};
pub use views::{DEFAULT_REF, HUB_CACHE, is_commit, repository_folder};

use crate::fetch::Fetcher;
use crate::store::NodesInUse;
use attributes::{Facts, Trust};
use content::Content;
use errors::of_fetch;
use files::Files;
use layouts::Layouts;
use lists::Lists;
use lookup_counts::LookupCounts;
use metadata_cache::{MetadataCache, Pending, Ready};
use namespace::Namespace;
use resolve::Nodes;
use sync::lock;
use versions::Versions;
use views::Views;
use watch::Poke;

/// Maximum number of fetches for one operation: catalog, model, version, manifest and document are five; twice that
/// allows for what is dropped from memory meanwhile.
const MAX_ROUNDS: usize = 10;

/// The tree of one source or several.
pub struct Vfs {
    fetcher: Arc<Fetcher>,
    layouts: Layouts,
    metadata: Arc<MetadataCache>,
    files: Arc<Files>,
    /// Inodes that the kernel refers to by number.
    lookup_counts: Arc<LookupCounts>,
    lists: Arc<Lists>,
    next_handle: AtomicU64,
    poke: Arc<Poke>,
    watcher: AbortHandle,
    invalidations: Mutex<Option<mpsc::UnboundedReceiver<Invalidation>>>,
}

impl Vfs {
    /// Loads the catalog (from the registry, else the index) and starts watching it every time to live.
    /// Must be called within a tokio runtime. Fails only if there is no catalog at all.
    pub async fn new(fetcher: Arc<Fetcher>, options: VfsOptions) -> Result<Arc<Self>, VfsError> {
        fetcher.sources().catalog().await.map_err(|e| of_fetch(&e))?;
        Ok(Self::build(fetcher, options))
    }

    /// As [`Vfs::new`], for a process that takes over a mount: starts with the catalog last seen, if any.
    /// The registry is asked in the background; only the lookup of a name that is not in that catalog
    /// waits for it.
    pub async fn resume(fetcher: Arc<Fetcher>, options: VfsOptions) -> Result<Arc<Self>, VfsError> {
        fetcher.sources().recall().await.map_err(|e| of_fetch(&e))?;
        Ok(Self::build(fetcher, options))
    }

    fn build(fetcher: Arc<Fetcher>, options: VfsOptions) -> Arc<Self> {
        let sources = Arc::clone(fetcher.sources());
        let store = fetcher.store().clone();
        let lookup_counts = Arc::new(LookupCounts::default());
        let in_use: Arc<dyn NodesInUse> = lookup_counts.clone();
        store.asks(Arc::downgrade(&in_use));
        let metadata = Arc::new(MetadataCache::new(Arc::clone(&sources), store.clone()));
        let nodes = Nodes::new(store, Arc::clone(&sources));
        let versions = Arc::new(Versions::new(Arc::clone(&metadata), nodes));
        let names = Arc::new(Namespace::new(Arc::clone(&versions)));
        let layouts = Layouts::new(Arc::clone(&names), Views::new(versions));
        let (tell, listen) = mpsc::unbounded_channel();
        let poke = Arc::new(Poke::default());
        let lists = Arc::new(Lists::new());
        let watch = watch::watch(sources, names, Arc::clone(&lists), Arc::clone(&poke), tell);
        // Nanoseconds since 1970: no process opens files so fast that its numbers reach those of the next
        // one, so handles of a previous process never collide with those of this one.
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let first = since_1970.map_or(1, |d| d.as_nanos() as u64);
        Arc::new(Self {
            files: Arc::new(Files::new(Arc::clone(&fetcher), options.passthrough)),
            fetcher,
            layouts,
            metadata,
            lookup_counts,
            lists,
            next_handle: AtomicU64::new(first),
            poke,
            watcher: tokio::spawn(watch).abort_handle(),
            invalidations: Mutex::new(Some(listen)),
        })
    }

    /// Sets whether files opened from now on may use passthrough.
    pub fn set_passthrough(&self, on: bool) {
        self.files.set_passthrough(on);
    }

    /// The entry of a folder with that name.
    pub fn lookup(self: &Arc<Self>, parent: Ino, name: &str) -> Answer<Found> {
        let name: Box<str> = name.into();
        self.answer(move |vfs| vfs.layouts.lookup(parent, &name))
    }

    /// The attributes for `stat`. An inode that the catalog no longer names stays valid.
    pub fn attr(self: &Arc<Self>, ino: Ino) -> Answer<Attr> {
        self.answer(move |vfs| vfs.layouts.attr(ino))
    }

    /// A folder's list for a reader at `place`: at the start the current one, else the edition in which
    /// the reader began (after a restart: as long as the catalog did not change).
    pub fn list(self: &Arc<Self>, ino: Ino, place: ListPlace) -> Answer<Listing> {
        self.answer(move |vfs| {
            let (edition, entries) = vfs.lists.get(ino, place, || vfs.layouts.list(ino))?;
            Ok(Listing { edition, entries })
        })
    }

    /// The parent folder of an inode; that of the root is the root.
    pub fn parent(&self, ino: Ino) -> Ino {
        self.layouts.parent(ino)
    }

    /// Opens a file. The first handle of an inode decides whether the kernel reads the backing file
    /// directly.
    pub fn open(self: &Arc<Self>, ino: Ino) -> Answer<Opened> {
        self.answer(move |vfs| {
            let content = vfs.layouts.content(ino)?;
            Ok(vfs.files.open(ino, vfs.new_handle(), &content)?)
        })
    }

    /// Reads at most `size` bytes from `offset`; fewer only at the end of the file. A file can be read
    /// without being opened, by [`Handle::NONE`]: equally cheap, but all its readers share one readahead
    /// state.
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
            let content = vfs.layouts.content(ino)?;
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

    /// Closes a file. Handles of a previous process are ignored.
    pub fn release(&self, ino: Ino, handle: Handle) {
        self.files.release(ino, handle);
    }

    /// Counts a lookup by the kernel. Until the kernel has forgotten the inode as often, the index keeps
    /// its number.
    pub fn looked_up(&self, ino: Ino) {
        self.lookup_counts.looked_up(ino);
    }

    /// Subtracts `times` lookups that the kernel forgets. Drops the state of reads of the inode without a
    /// handle.
    pub fn forget(&self, ino: Ino, times: u64) {
        self.lookup_counts.forget(ino, times);
        self.files.forget(ino);
    }

    /// The value of an extended attribute.
    pub fn attribute(self: &Arc<Self>, ino: Ino, name: &str) -> Answer<Vec<u8>> {
        // `ls -l` asks each file for `security.selinux`, until the answer is "not supported".
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
        let (manifest, ix) = match self.layouts.content(ino) {
            Ok(Content::File(_, manifest, ix)) => (manifest, ix),
            Ok(Content::Document(body)) => {
                let sha256 = Some(crate::model::hash::sha256(&body));
                return Ok(Facts { sha256, ..Facts::default() });
            }
            Err(Pending::Failed(VfsError::IsFolder)) => {
                let hash = self.layouts.names().version_hash(ino)?;
                let error = match (hash, self.layouts.names().is_of_the_catalog(ino)?) {
                    (Some(hash), _) => self.metadata.failure(&hash),
                    (None, true) => self.fetcher.sources().trouble(),
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
        let layout = manifest.layout(ix);
        let (key, store) = (layout.key(), self.fetcher.store());
        let proved = layout.is_proved_file();
        let present = store.presence(&key).0.0;
        // If the index cannot be read, the file counts as not compared.
        let matched = proved && store.whole_check(&key).ok().flatten() == Some(true);
        Ok(Facts {
            verified: Some(Trust::of(present, proved, matched)),
            cached: Some(present + store.unverified(&key).0),
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

    /// All changes of the catalog from now on. One listener, the adapter: a second one gets none.
    pub fn invalidations(&self) -> mpsc::UnboundedReceiver<Invalidation> {
        lock(&self.invalidations).take().unwrap_or_else(|| mpsc::unbounded_channel().1)
    }

    /// Invalidates every name in the kernel: for a process that takes over from one that died and may not
    /// have announced all changes. Open files are unaffected.
    pub fn tell_all(&self) {
        match self.fetcher.store().last_node() {
            Ok(last) => self.lookup_counts.inherit(last),
            // An index that cannot be read is not collected either.
            Err(error) => {
                tracing::warn!(%error, "the last inode number cannot be read; every name is kept until the kernel forgets it")
            }
        }
        self.poke.tell_all();
    }

    /// Stops the watcher and drops open files.
    pub fn close(&self) {
        self.watcher.abort();
        self.files.clear();
    }

    fn new_handle(&self) -> Handle {
        Handle(self.next_handle.fetch_add(1, Ordering::Relaxed))
    }

    /// Runs an operation: now if it needs no network, else after fetching what it needs.
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
                    Pending::NewerCatalog(_, error) if asked_again => return Err(error),
                    Pending::NewerCatalog(..) => asked_again = true,
                    _ => {}
                }
                let may_list = pending.may_change_views();
                vfs.metadata.fetch(pending).await?;
                let answer = operation(&vfs);
                // After the operation: it makes the rows that views list.
                if may_list {
                    vfs.poke.tell_views();
                }
                match answer {
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
