//! Registry folder, store, fetcher and tree put together without a mount, to be driven by tests.
//!
//! Invariant: everything lies in one temporary folder per value. `restart` drops every layer and
//! makes it again from what is on disk, as a new daemon would.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use modelfs::base::units::ByteSize;
use modelfs::fetch::{FetchOptions, Fetcher, Source, Sources};
use modelfs::model::SourceName;
use modelfs::publish::{PublishRequest, publish};
use modelfs::store::{Store, StoreOptions};
use modelfs::vfs::{Answer, Attr, Handle, Ino, Kind, Vfs, VfsError, VfsOptions};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// The layers above the store, alive.
pub struct Layers {
    pub store: Store,
    pub fetcher: Arc<Fetcher>,
    pub vfs: Arc<Vfs>,
}

/// One stack on folders of its own.
pub struct Stack {
    pub dir: TempDir,
    pub runtime: Runtime,
    limit: ByteSize,
    layers: Option<Layers>,
}

impl Stack {
    /// On a plain folder as registry, still empty.
    pub fn new(limit: ByteSize) -> Self {
        let dir = tempfile::Builder::new().prefix("modelfs-core.").tempdir().expect("a folder");
        std::fs::create_dir(dir.path().join("registry")).expect("a folder");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        Self { dir, runtime, limit, layers: None }
    }

    pub fn registry(&self) -> PathBuf {
        self.dir.path().join("registry")
    }

    /// Publishes files `(path, bytes)` as a version, replacing it.
    pub fn publish(
        &self,
        version: &str,
        files: &[(&str, &[u8])],
        change: impl Fn(&mut PublishRequest),
    ) {
        let source = tempfile::tempdir().expect("a folder");
        for (path, bytes) in files {
            let path = source.path().join(path);
            std::fs::create_dir_all(path.parent().expect("below")).expect("a folder");
            std::fs::write(path, bytes).expect("a file");
        }
        let version = version.parse().expect("a reference");
        let mut request = PublishRequest::new(source.path(), version, self.registry());
        request.chunk_size = 1 << 20;
        request.leaf = request.leaf.map(|(_, digest)| (64 << 10, digest));
        request.replace = true;
        change(&mut request);
        publish(&request, &|_| {}).expect("published");
    }

    /// The layers, made if they are not there.
    pub fn up(&mut self) -> &Layers {
        if self.layers.is_none() {
            let store = Store::open(StoreOptions {
                root: self.dir.path().join("cache"),
                limit: Some(self.limit),
                commit_bytes: ByteSize::mib(4),
                commit_after: Duration::from_millis(50),
            })
            .expect("the store opens");
            let options = FetchOptions {
                read_deadline: Duration::from_secs(20),
                catalog_ttl: Duration::from_secs(3600),
                ..FetchOptions::default()
            };
            let folder = self.registry();
            let registry =
                modelfs::registry::open(folder.to_str().expect("UTF-8")).expect("a folder");
            let layers = self.runtime.block_on(async {
                let name = SourceName::of_address(registry.name());
                let source = Arc::new(Source::new(name, Some(registry), store.clone(), &options));
                let fetcher = Fetcher::new(Arc::new(Sources::one(source)), store.clone(), options);
                let vfs = Vfs::new(fetcher.clone(), VfsOptions { passthrough: true });
                Layers { store, fetcher: fetcher.clone(), vfs: vfs.await.expect("a catalog") }
            });
            self.layers = Some(layers);
        }
        self.layers.as_ref().expect("made above")
    }

    /// Drops every layer; the next `up` starts from the disk.
    pub fn down(&mut self) {
        assert!(self.let_go(), "the store is never let go");
    }

    /// Drops every layer. Tasks still under way hold the store, which keeps its folder until the last
    /// one has ended: whether that came.
    fn let_go(&mut self) -> bool {
        let Some(layers) = self.layers.take() else { return true };
        layers.vfs.close();
        drop(layers);
        let root = self.dir.path().join("cache");
        let started = std::time::Instant::now();
        while modelfs::store::Holder::of(&root).is_some() {
            if started.elapsed() > Duration::from_secs(30) {
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        true
    }

    /// The answer, waited for if need be.
    pub fn answer<T>(&self, answer: Answer<T>) -> Result<T, VfsError> {
        match answer {
            Answer::Now(result) => result,
            Answer::Later(later) => self.runtime.block_on(later),
        }
    }

    /// Looks a path up from the root.
    pub fn walk(&mut self, path: &str) -> Result<Attr, VfsError> {
        let vfs = self.up().vfs.clone();
        let mut at = Attr { ino: Ino(1), ..self.answer(vfs.attr(Ino(1)))? };
        for name in path.split('/').filter(|n| !n.is_empty()) {
            at = self.answer(vfs.lookup(at.ino, name))?.attr;
        }
        Ok(at)
    }

    /// Opens a file by path.
    pub fn open(&mut self, path: &str) -> Result<OpenFile, VfsError> {
        let attr = self.walk(path)?;
        assert_eq!(attr.kind, Kind::File, "{path}");
        let vfs = self.up().vfs.clone();
        let opened = self.answer(vfs.open(attr.ino))?;
        Ok(OpenFile { ino: attr.ino, handle: opened.handle, backing: opened.backing })
    }

    /// Reads as a kernel would: by passthrough if the handle has a backing, else from the tree.
    pub fn read(&mut self, file: &OpenFile, offset: u64, size: u32) -> Result<Bytes, VfsError> {
        if let Some(backing) = &file.backing {
            use std::os::unix::fs::FileExt;
            let mut buffer = vec![0; size as usize];
            let mut got = 0;
            while got < buffer.len() {
                match backing.read_at(&mut buffer[got..], offset + got as u64).expect("own file") {
                    0 => break,
                    n => got += n,
                }
            }
            buffer.truncate(got);
            return Ok(buffer.into());
        }
        let vfs = self.up().vfs.clone();
        self.answer(vfs.read(file.ino, file.handle, offset, size))
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // else it would make its folder again when that is removed
        self.let_go();
    }
}

/// An open file as the kernel knows it.
pub struct OpenFile {
    pub ino: Ino,
    pub handle: Handle,
    pub backing: Option<Arc<std::fs::File>>,
}
