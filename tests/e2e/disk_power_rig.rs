//! What is cut off from its power: a store with a fetcher on a file system of its own, beside a
//! registry that stays; and how all that is found afterwards is compared with what was published.
//!
//! Invariant: nothing that is opened outlives [`Life`], or the file system could not be unmounted.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use modelfs::base::FileRange;
use modelfs::base::units::ByteSize;
use modelfs::fetch::{FetchError, FetchOptions, Fetcher, Readers, Source, Sources};
use modelfs::model::{ContentKey, FileIx, Manifest, SourceName, VersionRef};
use modelfs::store::{Pin, ReadState, Store, StoreError, StoreOptions};
use modelfs_test_support::{ModelDir, TestRegistry, bytes};
use tokio::runtime::Runtime;

/// Chance that can be told again: xorshift64.
pub struct Chance(pub u64);

impl Chance {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
}

/// Whether the power is gone.
#[derive(Default)]
pub struct Power(AtomicBool);

impl Power {
    pub fn is_gone(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// To be said before it is: no error may come before.
    pub fn goes(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// What an operation gave. Failing is no fault once the power is gone, nor where all is full.
    pub fn fine<T>(&self, outcome: Result<T, FetchError>) -> Option<T> {
        match outcome {
            Ok(value) => Some(value),
            Err(_) if self.is_gone() => None,
            Err(FetchError::Store(e)) if e.is_full() => None,
            Err(error) => panic!("failed with the power on: {error}"),
        }
    }
}

/// A published version and what it consists of.
pub struct Model {
    pub version: VersionRef,
    pub manifest: Arc<Manifest>,
    /// By [`FileIx`].
    pub files: Vec<Vec<u8>>,
}

/// The source of every model.
pub fn source() -> SourceName {
    SourceName::of_address("registry")
}

impl Model {
    pub fn keys(&self) -> Vec<ContentKey> {
        self.indexes().map(|ix| self.manifest.layout(ix).key()).collect()
    }

    pub fn indexes(&self) -> impl Iterator<Item = FileIx> {
        (0..self.files.len() as u32).map(FileIx)
    }

    pub fn pin(&self) -> Pin {
        Pin {
            source: source(),
            version: self.version.clone(),
            hash: self.manifest.hash(),
            owner: "me".into(),
            since: std::time::SystemTime::UNIX_EPOCH,
        }
    }
}

/// What a model that was asked to be pinned is: `None` while it is being changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promise {
    pub pinned: Option<bool>,
    /// All of it was there, and durable, while it was pinned.
    pub whole: bool,
}

/// A registry that keeps its power, and what was promised about a store that does not.
pub struct Rig {
    registry: TestRegistry,
    pub models: Vec<Model>,
    /// By index of the model.
    pub promises: Mutex<BTreeMap<usize, Promise>>,
    compared: AtomicU64,
}

/// Everything above a store, alive. Ends all tasks when dropped.
pub struct Life {
    runtime: Option<Runtime>,
    pub fetcher: Arc<Fetcher>,
    pub store: Store,
}

impl Life {
    /// A store in `root` that is filled from the registry in `folder`.
    pub fn new(root: PathBuf, limit: ByteSize, folder: &Path) -> Result<Self, StoreError> {
        let store = Store::open(StoreOptions {
            root,
            limit: Some(limit),
            commit_bytes: ByteSize::mib(1),
            commit_after: Duration::from_millis(30),
        })?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let options = FetchOptions { read_deadline: Duration::from_secs(20), ..Default::default() };
        let registry = modelfs::registry::open(folder.to_str().expect("UTF-8")).expect("a folder");
        let _within = runtime.enter();
        let source = Source::new(source(), Some(registry), store.clone(), &options);
        let fetcher =
            Fetcher::new(Arc::new(Sources::one(Arc::new(source))), store.clone(), options);
        drop(_within);
        Ok(Self { runtime: Some(runtime), fetcher, store })
    }

    pub fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.as_ref().expect("until it is dropped").block_on(work)
    }

    /// Reads something of a model and compares it.
    pub fn read(&self, model: &Model, chance: &mut Chance) -> Result<(), FetchError> {
        let ix = FileIx(chance.below(model.files.len() as u64) as u32);
        let bytes = &model.files[ix.0 as usize];
        let at = chance.below(bytes.len() as u64);
        let len = (1 + chance.below(300_000)).min(bytes.len() as u64 - at);
        let got = self.read_range(&model.manifest, ix, FileRange::at(at, len))?;
        assert!(*got == bytes[at as usize..(at + len) as usize], "a wrong byte was read");
        Ok(())
    }

    /// Reads a range of a file, without readahead.
    pub fn read_range(
        &self,
        manifest: &Arc<Manifest>,
        ix: FileIx,
        range: FileRange,
    ) -> Result<Vec<u8>, FetchError> {
        let file = self.fetcher.file(self.fetcher.sources().first(), manifest, ix)?;
        let reader = self.fetcher.reader(&file, Readers::OfOneHandle, Arc::new(|_, _| ()));
        self.wait(reader.read(range)).map(Into::into)
    }

    pub fn prefetch(&self, model: &Model) -> Result<(), FetchError> {
        let source = self.fetcher.sources().first();
        self.wait(self.fetcher.prefetch(source, &model.manifest, &|_| ())).map(drop)
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(60));
        }
    }
}

impl Rig {
    /// With three versions of 6 MiB, that share a file.
    pub fn new() -> Self {
        let registry = TestRegistry::new();
        let scratch = tempfile::tempdir().expect("a folder");
        let life = Life::new(scratch.path().join("cache"), ByteSize::mib(64), registry.path());
        let life = life.expect("a store");
        let models = (0..3u64).map(|n| {
            let mut dir = ModelDir::new();
            dir.put("a.bin", bytes(10 + n, 2_000_000));
            dir.put("b/odd.bin", bytes(20 + n, 1_777_777));
            dir.put("shared.bin", bytes(30, 2_100_001));
            let version = format!("g/m@v{n}");
            let published = registry.publish(&version, &dir, 1 << 20);
            let manifest = life.wait(life.fetcher.sources().first().manifest(&published.manifest));
            let manifest = manifest.expect("just published");
            let files = manifest.files().iter().map(|f| dir.bytes(f.path.as_str()).to_vec());
            let files = files.collect();
            Model { version: version.parse().expect("a reference"), manifest, files }
        });
        let models = models.collect();
        drop(life);
        Self { registry, models, promises: Mutex::default(), compared: AtomicU64::new(0) }
    }

    pub fn live(&self, root: &Path, limit: ByteSize) -> Result<Life, StoreError> {
        Life::new(root.to_owned(), limit, self.registry.path())
    }

    pub fn compared(&self) -> u64 {
        self.compared.load(Ordering::SeqCst)
    }

    pub fn count(&self, bytes: u64) {
        self.compared.fetch_add(bytes, Ordering::SeqCst);
    }

    /// Opens what the power cut left, compares every byte that the index claims, and holds the
    /// store to what it promised.
    pub fn examine(&self, root: &Path, limit: ByteSize) {
        let life = self.live(root, limit).expect("what a power cut leaves can be opened");
        let store = &life.store;
        for model in &self.models {
            for ix in model.indexes() {
                let blob = store.blob(model.manifest.layout(ix)).expect("a blob");
                let bytes = &model.files[ix.0 as usize];
                for run in blob.present(blob.layout().all_parts()) {
                    let range = blob.layout().file_range(run);
                    let mut got = vec![0; range.len() as usize];
                    let state = blob.read(range.start(), &mut got).expect("it can be read");
                    assert_eq!(state, ReadState::Hit, "claimed, and not there");
                    let want = &bytes[range.start() as usize..range.end() as usize];
                    assert!(
                        got == want,
                        "a wrong byte in {} {range}",
                        model.manifest.file(ix).path
                    );
                    self.count(range.len());
                }
            }
        }
        let found = store.verify(&store.blobs(), &|_, _| true).expect("verified");
        assert_eq!(found.dropped, ByteSize(0), "sums that do not match");
        let usage = store.usage();
        // what is pinned may be more than a limit that it was not pinned under, never here
        assert!(usage.used <= limit, "{usage:?}");
        assert!(disk_usage(root) <= usage.used.0, "space that nobody counts: {usage:?}");
        self.no_strays(store);
        self.keeps_promises(store);
        // and it works on
        for model in &self.models[..1] {
            match life.prefetch(model) {
                Ok(()) => self.count(model.manifest.total()),
                Err(FetchError::Store(e)) if matches!(*e, StoreError::NoSpace { .. }) => {}
                Err(error) => panic!("it does not work on: {error}"),
            }
        }
    }

    fn no_strays(&self, store: &Store) {
        let known: Vec<String> = store.blobs().iter().map(ToString::to_string).collect();
        let list = |at: &Path| -> Vec<PathBuf> {
            std::fs::read_dir(at).into_iter().flatten().map(|e| e.expect("own").path()).collect()
        };
        for file in list(&store.root().join("blobs")).iter().flat_map(|folder| list(folder)) {
            let stem = file.file_stem().and_then(|s| s.to_str()).expect("hexadecimal");
            assert!(known.iter().any(|k| k == stem), "{} is nobody's", file.display());
        }
    }

    fn keeps_promises(&self, store: &Store) {
        let pins = store.pins().expect("they can be read");
        let mut promises = self.promises.lock().expect("nobody panics with it");
        for (n, promise) in promises.iter_mut() {
            let model = &self.models[*n];
            let pinned = pins.contains(&model.pin());
            assert!(promise.pinned.is_none_or(|p| p == pinned), "{n}: {promise:?}, but {pinned}");
            let whole = model.keys().iter().all(|key| store.presence(key).1);
            assert!(whole || !(pinned && promise.whole), "{n}: pinned, whole, and gone");
            *promise = Promise { pinned: Some(pinned), whole: pinned && promise.whole };
        }
    }
}

/// What everything below a folder takes on disk.
pub fn disk_usage(at: &Path) -> u64 {
    let own = std::fs::symlink_metadata(at).map_or(0, |m| m.blocks() * 512);
    let below = std::fs::read_dir(at).into_iter().flatten().filter_map(Result::ok);
    own + below.map(|e| disk_usage(&e.path())).sum::<u64>()
}
