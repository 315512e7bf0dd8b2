//! What tests of fetching stand on: a registry in memory that can be made to fail, and a fetcher on
//! a store of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use modelfs::base::units::ByteSize;
use modelfs::base::{FileRange, SystemClock};
use modelfs::fetch::{
    CachedFile, FetchError, FetchOptions, Fetcher, FileReader, PrefetchProgress, Readers, Source,
    Sources,
};
use modelfs::model::hash::sha256;
use modelfs::model::{Digest, FileIx, HashAlgorithm, Manifest, SourceName};
use modelfs::registry::{Faulty, Memory};
use modelfs::store::{Disk, RealDisk, Store, StoreError, StoreOptions};
use tempfile::TempDir;

pub const LEAF: usize = 64 << 10;
pub const BIG: ByteSize = ByteSize::mib(256);

/// A registry in memory that can be made to fail, and a fetcher on a store of its own.
pub struct Rig {
    pub dir: TempDir,
    pub store: Store,
    pub memory: Arc<Memory>,
    pub faulty: Arc<Faulty>,
    pub fetcher: Arc<Fetcher>,
}

fn open_in(
    dir: &TempDir,
    limit: ByteSize,
    disk: Option<Arc<dyn Disk>>,
) -> Result<Store, StoreError> {
    let root = dir.path().join("cache");
    let disk = disk.unwrap_or_else(|| Arc::new(RealDisk::new(&root)));
    let options = StoreOptions {
        root,
        limit: Some(limit),
        commit_bytes: ByteSize::mib(4),
        commit_after: Duration::from_millis(50),
    };
    Store::open_with(options, disk, Arc::new(SystemClock))
}

pub fn options() -> FetchOptions {
    FetchOptions { read_deadline: Duration::from_secs(3), ..FetchOptions::default() }
}

impl Rig {
    pub fn new(limit: ByteSize) -> Self {
        Self::with(limit, options(), None)
    }

    pub fn with(limit: ByteSize, options: FetchOptions, disk: Option<Arc<dyn Disk>>) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let store = open_in(&dir, limit, disk).expect("the store opens");
        Self::on(dir, store, "memory://a", options)
    }

    fn on(dir: TempDir, store: Store, name: &str, options: FetchOptions) -> Self {
        let memory = Arc::new(Memory::new(name));
        let faulty = Arc::new(Faulty::new(memory.clone()));
        let source = Source::new(
            SourceName::of_address(name),
            Some(faulty.clone()),
            store.clone(),
            &options,
        );
        let fetcher =
            Fetcher::new(Arc::new(Sources::one(Arc::new(source))), store.clone(), options);
        Self { dir, store, memory, faulty, fetcher }
    }

    /// The next process on the same cache; its registry is empty. Nothing may be under way.
    pub async fn restarted(self, limit: ByteSize) -> Self {
        let (Self { dir, store, fetcher, .. }, begun) = (self, Instant::now());
        drop((store, fetcher));
        // The last task of the fetcher may be ending this instant.
        let store = loop {
            match open_in(&dir, limit, None) {
                Err(StoreError::Locked { .. }) if begun.elapsed() < Duration::from_secs(20) => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                opened => break opened.expect("the store opens"),
            }
        };
        Self::on(dir, store, "memory://a", options())
    }

    /// Another registry on the same store.
    pub fn beside(&self, name: &str) -> Self {
        Self::on(tempfile::tempdir().expect("a folder"), self.store.clone(), name, options())
    }

    /// Puts files, one chunk each, with leaves of the given kind, behind a manifest.
    pub fn put(&self, files: &[(&str, &[u8])], leaf: Option<HashAlgorithm>) -> Digest {
        let chunks: Vec<Digest> =
            files.iter().map(|(_, b)| self.memory.insert(b.to_vec())).collect();
        let lists = files.iter().map(|(_, b)| match leaf {
            Some(kind) => {
                let list: Vec<u8> = b.chunks(LEAF).flat_map(|l| *kind.hash(l).as_bytes()).collect();
                self.memory.insert(list)
            }
            None => sha256(b""),
        });
        self.put_manifest(files, &chunks, &lists.collect::<Vec<_>>(), leaf)
    }

    /// A manifest that says what it is told to say.
    pub fn put_manifest(
        &self,
        files: &[(&str, &[u8])],
        chunks: &[Digest],
        lists: &[Digest],
        leaf: Option<HashAlgorithm>,
    ) -> Digest {
        let sizes: Vec<usize> = files.iter().map(|(_, b)| b.len()).collect();
        let mut json = serde_json::json!({
            "total_size": sizes.iter().sum::<usize>(),
            "chunk_size": sizes.iter().max(),
            "chunk_sizes": sizes,
            "chunks": chunks,
            "files": files.iter().map(|(p, b)| serde_json::json!({"path": p, "size": b.len()})).collect::<Vec<_>>(),
        });
        if let Some(kind) = leaf {
            json["leaf_size"] = LEAF.into();
            json["leaf_digest"] = serde_json::to_value(kind).expect("a word");
            json["leaves"] = serde_json::to_value(lists).expect("digests");
        }
        self.memory.insert(json.to_string().into_bytes())
    }

    pub async fn manifest(&self, hash: &Digest) -> Arc<Manifest> {
        self.fetcher.sources().first().manifest(hash).await.expect("a manifest")
    }

    pub async fn file(&self, hash: &Digest, ix: u32) -> Arc<CachedFile> {
        self.file_of(&self.manifest(hash).await, ix)
    }

    pub fn file_of(&self, manifest: &Arc<Manifest>, ix: u32) -> Arc<CachedFile> {
        self.fetcher.file(self.fetcher.sources().first(), manifest, FileIx(ix)).expect("a file")
    }

    /// A reader that has read nothing so far: its first read causes no readahead.
    pub fn reader(&self, file: &Arc<CachedFile>) -> Arc<FileReader> {
        self.fetcher.reader(file, Readers::OfOneHandle, Arc::new(|_, _| ()))
    }

    pub async fn read(
        &self,
        file: &Arc<CachedFile>,
        at: u64,
        len: u64,
    ) -> Result<Vec<u8>, FetchError> {
        self.reader(file).read(FileRange::at(at, len)).await.map(Into::into)
    }

    /// The bytes, if the store has all of them.
    pub fn cached(&self, file: &Arc<CachedFile>, at: u64, len: u64) -> Option<Vec<u8>> {
        let found = self.reader(file).try_read(FileRange::at(at, len));
        found.expect("the store can be read").map(Into::into)
    }

    pub fn read_ahead(&self, file: &Arc<CachedFile>, range: FileRange) {
        self.reader(file).read_ahead(range);
    }

    pub async fn prefetch(&self, manifest: &Arc<Manifest>) -> Result<PrefetchProgress, FetchError> {
        self.fetcher.prefetch(self.fetcher.sources().first(), manifest, &|_| {}).await
    }

    /// Object requests so far.
    pub fn objects(&self) -> usize {
        self.memory.counts().objects.len()
    }
}
