//! The adapter on real mounts, over a registry in memory.
//!
//! Every test mounts for itself, and fails where there is no FUSE.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a panic here is the report")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use modelfs::base::units::ByteSize;
use modelfs::fetch::{FetchOptions, Fetcher, Source, Sources};
use modelfs::model::{Digest, HashAlgorithm, SourceName, VersionRef};
use modelfs::registry::{Cut, Memory};
use modelfs::store::{Store, StoreOptions};
use modelfs::vfs::{Vfs, VfsOptions};
use modelfs_platform::{Mount, MountError, MountOptions};
use modelfs_test_support::bytes;
use modelfs_test_support::fs_assertions::{ALL, assert_same_tree};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// A mount and all behind it. Fields are dropped in this order.
struct Bench {
    mount: Option<Mount>,
    vfs: Arc<Vfs>,
    fetcher: Arc<Fetcher>,
    registry: Arc<Memory>,
    runtime: Runtime,
    folder: TempDir,
}

const VERSION: &str = "org/net@v1";
const CUT: Cut =
    Cut { chunk_size: 1 << 20, per_file: true, leaf: Some((64 << 10, HashAlgorithm::Blake3)) };

fn files() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("config.json", b"{}\n".to_vec()),
        ("empty", Vec::new()),
        ("tokenizer/vocab.txt", bytes(1, 70_001)),
        ("tokenizer/a/b/deep", bytes(2, 4096)),
        ("tokenizer-fast", bytes(3, 1)),
        ("model-00001-of-00002.safetensors", bytes(4, 9_000_001)),
        ("model-00002-of-00002.safetensors", bytes(5, 3 << 20)),
        ("ünï cödé", bytes(6, 100)),
    ]
}

fn add(registry: &Memory, version: &str, files: &[(&str, Vec<u8>)]) -> Digest {
    let files: Vec<(&str, &[u8])> = files.iter().map(|(p, b)| (*p, &b[..])).collect();
    registry.add_version(&version.parse::<VersionRef>().unwrap(), &files, CUT).unwrap()
}

impl Bench {
    fn new(passthrough: bool, ttl: Duration) -> Self {
        assert!(Path::new("/dev/fuse").exists(), "these tests need /dev/fuse");
        let registry = Arc::new(Memory::new("memory"));
        add(&registry, VERSION, &files());
        let folder = tempfile::tempdir().unwrap();
        for (path, bytes) in files() {
            let path = folder.path().join("plain").join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        let point = folder.path().join("mnt");
        std::fs::create_dir(&point).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let store = Store::open(StoreOptions {
            root: folder.path().join("cache"),
            limit: Some(ByteSize::gib(1)),
            commit_bytes: ByteSize::mib(64),
            commit_after: Duration::from_millis(200),
        })
        .unwrap();
        let options = FetchOptions {
            catalog_ttl: ttl,
            read_deadline: Duration::from_secs(2),
            ..FetchOptions::default()
        };
        let (vfs, fetcher) = runtime.block_on(async {
            let source = Source::new(
                SourceName::of_address("memory"),
                Some(Arc::clone(&registry) as Arc<dyn modelfs::registry::Registry>),
                store.clone(),
                &options,
            );
            let fetcher = Fetcher::new(Arc::new(Sources::one(Arc::new(source))), store, options);
            let vfs = Vfs::new(Arc::clone(&fetcher), VfsOptions { passthrough: false }).await;
            (vfs.unwrap(), fetcher)
        });
        let mut bench = Self { mount: None, vfs, fetcher, registry, runtime, folder };
        bench.mount = Some(bench.mount(passthrough).unwrap());
        bench
    }

    fn mount(&self, passthrough: bool) -> Result<Mount, MountError> {
        let _in = self.runtime.enter();
        let options = MountOptions {
            mountpoint: self.point(),
            allow_other: false,
            allow_non_empty: false,
            protected: Vec::new(),
            threads: 4,
            passthrough,
        };
        modelfs_platform::mount(Arc::clone(&self.vfs), &options)
    }

    fn point(&self) -> PathBuf {
        self.folder.path().join("mnt")
    }

    fn plain(&self) -> PathBuf {
        self.folder.path().join("plain")
    }

    fn version(&self) -> PathBuf {
        self.point().join("org/net/v1")
    }

    fn agreed(&self) -> modelfs_platform::Agreed {
        self.mount.as_ref().unwrap().agreed()
    }
}

const NEVER: Duration = Duration::from_secs(3600);

fn read_all(top: &Path) -> u64 {
    files().iter().map(|(path, _)| std::fs::read(top.join(path)).unwrap().len() as u64).sum()
}

fn error_of(path: &Path) -> i32 {
    std::fs::read(path).unwrap_err().raw_os_error().unwrap()
}

#[test]
fn every_assertion_holds_in_cached_mode() {
    let bench = Bench::new(false, NEVER);
    assert_same_tree(&bench.plain(), &bench.version());
    assert_same_tree(&bench.plain(), &bench.version());
    assert!(!bench.agreed().passthrough);
    assert!(bench.agreed().why_not.is_some());
}

#[test]
fn every_assertion_holds_by_passthrough() {
    let bench = Bench::new(true, NEVER);
    read_all(&bench.version());
    let before = bench.fetcher.traffic();
    assert_same_tree(&bench.plain(), &bench.version());
    assert_eq!(bench.fetcher.traffic(), before, "all was cached");
    let agreed = bench.agreed();
    assert!(agreed.passthrough || agreed.why_not.is_some(), "{agreed:?}");
    eprintln!("{agreed:?}");
}

#[test]
fn every_assertion_holds_with_a_cold_cache() {
    for (name, assertion) in ALL {
        let bench = Bench::new(true, NEVER);
        eprintln!("{name}");
        assertion(&bench.plain(), &bench.version());
    }
}

#[test]
fn listing_and_stat_fetch_no_chunk() {
    let bench = Bench::new(true, NEVER);
    fn look(folder: &Path) -> usize {
        let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
        let below = |e: std::fs::DirEntry| {
            if e.metadata().unwrap().is_dir() { 1 + look(&e.path()) } else { 1 }
        };
        entries.map(below).sum()
    }
    assert_eq!(look(&bench.point()), 3 + files().len() + 3);
    assert_eq!(bench.fetcher.traffic().bytes, 0);
}

#[test]
fn a_moved_version_shows_and_open_files_read_on() {
    let bench = Bench::new(true, Duration::from_millis(200));
    let model = bench.point().join("org/net");
    let list = |folder: &Path| -> Vec<String> {
        let names = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<_> =
            names.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let file = bench.version().join("config.json");
    let weights = "model-00001-of-00002.safetensors";
    let old = File::open(bench.version().join(weights)).unwrap();
    assert_eq!(std::fs::read(&file).unwrap(), b"{}\n");
    assert_eq!(list(&model), ["v1"]);
    assert_eq!(list(&model), ["v1"], "from what the kernel kept");

    let mut changed = files();
    changed[0].1 = b"{\"new\": true}\n".to_vec();
    changed.push(("added", vec![7; 10]));
    add(&bench.registry, VERSION, &changed);
    add(&bench.registry, "org/net@v2", &files());
    let until = Instant::now() + Duration::from_secs(10);
    while list(&model) != ["v1", "v2"] {
        assert!(Instant::now() < until, "the list does not change: {:?}", list(&model));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(std::fs::read(&file).unwrap(), changed[0].1);
    assert!(list(&bench.version()).contains(&"added".to_owned()));
    let mut byte = [0];
    old.read_exact_at(&mut byte, 5_000_000).unwrap();
    assert_eq!(byte[0], files()[5].1[5_000_000]);
}

#[test]
fn a_missing_object_is_an_error_with_a_reason_and_never_a_missing_file() {
    let bench = Bench::new(true, NEVER);
    let file = bench.version().join("tokenizer-fast");
    let reason = || {
        let mut buffer = vec![0; 1000];
        let len = rustix::fs::getxattr(&file, "user.modelfs.error", &mut buffer[..]).ok()?;
        Some(String::from_utf8(buffer[..len].to_vec()).unwrap())
    };
    let chunk = modelfs::model::hash::sha256(&files()[4].1);
    let kept = bench.registry.get(&chunk).unwrap();
    bench.registry.remove(&chunk);
    const EIO: i32 = 5;
    assert_eq!(error_of(&file), EIO);
    assert!(reason().is_some_and(|r| !r.contains('\n')), "{:?}", reason());
    assert!(file.exists());
    bench.registry.insert(kept);
    assert_eq!(std::fs::read(&file).unwrap(), files()[4].1);
    assert_eq!(reason(), None);
}

#[test]
fn a_file_completed_while_open_changes_its_mode_only_after_the_last_close() {
    let bench = Bench::new(true, NEVER);
    let path = bench.version().join("model-00002-of-00002.safetensors");
    let want = &files()[6].1;
    let first = File::open(&path).unwrap();
    assert_eq!(&std::fs::read(&path).unwrap(), want);
    // Complete now; the first handle is in cached mode, so this one must be too.
    let second = File::open(&path).unwrap();
    for open in [&first, &second] {
        let mut got = vec![0; 1000];
        open.read_exact_at(&mut got, 2_000_000).unwrap();
        assert_eq!(got, want[2_000_000..2_001_000]);
    }
    drop((first, second));
    for _ in 0..20 {
        let handles: Vec<File> = (0..5).map(|_| File::open(&path).unwrap()).collect();
        for open in handles {
            let mut got = vec![0; 1000];
            open.read_exact_at(&mut got, 1_000_000).unwrap();
            assert_eq!(got, want[1_000_000..1_001_000]);
        }
    }
}

#[test]
fn unmounting_frees_the_folder_even_with_open_files() {
    let mut bench = Bench::new(true, NEVER);
    let open = File::open(bench.version().join("config.json")).unwrap();
    let second = bench.mount(true).map(drop).unwrap_err().to_string();
    assert!(second.contains("already mounted"), "{second}");
    let began = Instant::now();
    let mount = bench.mount.take().unwrap();
    mount.unmount().unwrap();
    assert!(began.elapsed() < Duration::from_secs(6));
    assert_eq!(std::fs::read_dir(bench.point()).unwrap().count(), 0);
    drop(open);
    let gone = modelfs_platform::unmount(&bench.point()).unwrap_err().to_string();
    assert!(gone.contains("nothing is mounted"), "{gone}");
}

#[test]
fn an_unmount_from_outside_ends_the_mount() {
    let bench = Bench::new(true, NEVER);
    modelfs_platform::unmount(&bench.point()).unwrap();
    let mount = bench.mount.as_ref().unwrap();
    let ended = bench
        .runtime
        .block_on(async { tokio::time::timeout(Duration::from_secs(5), mount.ended()).await });
    assert!(ended.is_ok());
}

#[test]
fn a_guard_of_a_mount_that_is_gone_unmounts_no_other_mount() {
    let mut former = Bench::new(false, NEVER);
    // The kernel gives the numbers of the one that is gone to the next one, if no other comes between.
    for _ in 0..10 {
        modelfs_platform::unmount(&former.point()).unwrap();
        let next = Bench::new(false, NEVER);
        drop(former.mount.take());
        assert_same_tree(&next.plain(), &next.version());
        former = next;
    }
}
