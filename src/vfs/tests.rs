//! The tree over a real store and a registry in memory, without a mount.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::base::units::ByteSize;
use crate::fetch::{FetchOptions, Source, Sources};
use crate::model::{Digest, SourceName, VersionRef};
use crate::registry::{Cut, Memory, Registry};
use crate::store::{Store, StoreOptions};

const EMPTY_CATALOG: &[u8] = b"{}";

fn add(registry: &Memory, version: &str, files: &[(&str, &[u8])]) -> Digest {
    let cut = Cut { chunk_size: 1 << 20, per_file: true, leaf: None };
    registry.add_version(&version.parse::<VersionRef>().unwrap(), files, cut).unwrap()
}

async fn vfs(folder: &std::path::Path, registry: Option<Arc<Memory>>) -> Arc<Vfs> {
    let store = Store::open(StoreOptions {
        root: folder.join("cache"),
        limit: Some(ByteSize::mib(200)),
        commit_bytes: ByteSize::mib(1),
        commit_after: Duration::from_millis(50),
    })
    .unwrap();
    let options = FetchOptions {
        read_deadline: Duration::from_millis(500),
        catalog_ttl: Duration::from_millis(50),
        ..FetchOptions::default()
    };
    let registry = registry.map(|r| r as Arc<dyn Registry>);
    let source =
        Arc::new(Source::new(SourceName::of_address("memory"), registry, store.clone(), &options));
    let fetcher = Fetcher::new(Arc::new(Sources::one(source)), store, options);
    Vfs::new(fetcher, VfsOptions { passthrough: true }).await.unwrap()
}

async fn get<T>(answer: Answer<T>) -> Result<T, VfsError> {
    match answer {
        Answer::Now(answer) => answer,
        Answer::Later(answer) => answer.await,
    }
}

async fn find(vfs: &Arc<Vfs>, path: &str) -> Result<Attr, VfsError> {
    let mut at = Ino::ROOT;
    for name in path.split('/') {
        at = get(vfs.lookup(at, name)).await?.attr.ino;
    }
    get(vfs.attr(at)).await
}

async fn read(vfs: &Arc<Vfs>, ino: Ino) -> Result<Bytes, VfsError> {
    let handle = get(vfs.open(ino)).await?.handle;
    let bytes = get(vfs.read(ino, handle, 0, 1 << 20)).await;
    vfs.release(ino, handle);
    bytes
}

/// All listed paths with their inodes and sizes.
async fn walk(vfs: &Arc<Vfs>) -> BTreeMap<String, (Ino, u64)> {
    let (mut out, mut todo) = (BTreeMap::new(), vec![(String::new(), Ino::ROOT)]);
    while let Some((path, ino)) = todo.pop() {
        for entry in get(vfs.list(ino, ListPlace::START)).await.unwrap().entries.iter() {
            let attr = get(vfs.attr(entry.attr.ino)).await.unwrap();
            assert_eq!(attr, entry.attr);
            assert_eq!(vfs.parent(attr.ino), ino, "{path}");
            let path = format!("{path}/{}", entry.name);
            if attr.kind == Kind::Folder {
                todo.push((path.clone(), attr.ino));
            }
            out.insert(path, (attr.ino, attr.size));
        }
    }
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_process_gives_the_same_inode_numbers_and_accepts_old_handles_offline() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Arc::new(Memory::new("memory"));
    add(&registry, "g/m@v1", &[("a/b", b"12345"), ("c", b"67")]);
    add(&registry, "g/m@v2", &[("c", b"67")]);
    let (before, ino, handle) = {
        let vfs = vfs(folder.path(), Some(registry)).await;
        let before = walk(&vfs).await;
        assert_eq!(before["/g/m/v1/a/b"].1, 5);
        assert_eq!(before.len(), 2 + 2 + 3 + 1);
        let ino = find(&vfs, "g/m/v1/a/b").await.unwrap().ino;
        let handle = get(vfs.open(ino)).await.unwrap().handle;
        assert_eq!(get(vfs.read(ino, handle, 1, 2)).await.unwrap(), &b"23"[..]);
        vfs.fetcher.store().commit().unwrap();
        vfs.close();
        (before, ino, handle)
    };
    let vfs = vfs(folder.path(), None).await;
    // The old handle first: the tree has not been walked yet.
    assert_eq!(get(vfs.read(ino, handle, 0, 100)).await.unwrap(), &b"12345"[..]);
    assert_eq!(walk(&vfs).await, before);
    assert!(get(vfs.open(ino)).await.unwrap().backing.is_none(), "the kernel has cached handles");
    let other = find(&vfs, "g/m/v2/c").await.unwrap().ino;
    let error = read(&vfs, other).await.unwrap_err();
    assert!(matches!(error, VfsError::Unavailable { .. }), "{error:?}");
    assert_eq!(find(&vfs, "g/m/v3").await, Err(VfsError::NotFound));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_complete_file_has_a_backing_and_one_mode_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Arc::new(Memory::new("memory"));
    add(&registry, "g/m@v1", &[("same", b"12345"), ("empty", b""), ("too", b"12345")]);
    let vfs = vfs(folder.path(), Some(registry)).await;
    let (a, b) =
        (find(&vfs, "g/m/v1/same").await.unwrap(), find(&vfs, "g/m/v1/too").await.unwrap());
    assert_ne!(a.ino, b.ino);
    let cached = get(vfs.open(a.ino)).await.unwrap();
    assert!(cached.backing.is_none());
    assert_eq!(read(&vfs, a.ino).await.unwrap(), &b"12345"[..]);
    // Readers get the bytes from memory shortly before they are in the store.
    while get(vfs.attribute(a.ino, "user.modelfs.cached")).await.unwrap() != b"5" {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    assert!(get(vfs.open(b.ino)).await.unwrap().backing.is_some(), "the same content, complete");
    assert!(get(vfs.open(a.ino)).await.unwrap().backing.is_none(), "still open in cached mode");
    let empty = find(&vfs, "g/m/v1/empty").await.unwrap();
    assert!(get(vfs.open(empty.ino)).await.unwrap().backing.is_none());
    assert!(read(&vfs, empty.ino).await.unwrap().is_empty());
    let value = |name: &'static str| get(vfs.attribute(a.ino, name));
    assert_eq!(value("user.modelfs.cached").await.unwrap(), b"5");
    assert_eq!(value("user.modelfs.pinned").await.unwrap(), b"no");
    assert_eq!(value("user.modelfs.error").await, Err(VfsError::NoAttribute));
    assert_eq!(value("user.other").await, Err(VfsError::NoAttribute));
    assert_eq!(value("security.selinux").await, Err(VfsError::NoAttributes));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_catalog_removes_names_and_keeps_open_files_readable() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Arc::new(Memory::new("memory"));
    add(&registry, "g/m@v1", &[("a", b"12345")]);
    let vfs = vfs(folder.path(), Some(Arc::clone(&registry))).await;
    let mut changes = vfs.invalidations();
    let ino = find(&vfs, "g/m/v1/a").await.unwrap().ino;
    let handle = get(vfs.open(ino)).await.unwrap().handle;
    let group = find(&vfs, "g").await.unwrap().ino;
    registry.set_catalog(EMPTY_CATALOG);
    let change = tokio::time::timeout(Duration::from_secs(5), changes.recv()).await.unwrap();
    assert_eq!(change, Some(Invalidation::Entry { parent: Ino::ROOT, name: "g".into() }));
    assert_eq!(changes.recv().await, Some(Invalidation::Folder { ino: Ino::ROOT }));
    let below = Invalidation::Entry { parent: group, name: "m".into() };
    assert_eq!(changes.recv().await, Some(below));
    assert_eq!(find(&vfs, "g").await, Err(VfsError::NotFound));
    assert_eq!(get(vfs.read(ino, handle, 0, 10)).await.unwrap(), &b"12345"[..]);
    assert!(get(vfs.attr(ino)).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_that_the_tree_never_gave_are_stale() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Arc::new(Memory::new("memory"));
    add(&registry, "g/m@v1", &[("a", b"12345")]);
    let vfs = vfs(folder.path(), Some(registry)).await;
    let version = find(&vfs, "g/m/v1").await.unwrap().ino;
    for ino in [Ino(99), Ino(77 << 32), Ino(77 << 32 | 1), Ino(version.0 | 9)] {
        assert_eq!(get(vfs.attr(ino)).await, Err(VfsError::Stale), "{ino:?}");
        assert!(get(vfs.open(ino)).await.is_err());
        assert!(get(vfs.lookup(ino, "a")).await.is_err());
    }
    let group = find(&vfs, "g").await.unwrap().ino;
    assert_eq!(get(vfs.attr(Ino(group.0 | 1))).await, Err(VfsError::Stale), "no file in a group");
    assert_eq!(get(vfs.open(version)).await.unwrap_err(), VfsError::IsFolder);
    assert_eq!(get(vfs.lookup(Ino(version.0 | 1), "x")).await, Err(VfsError::NotFolder));
}
