//! A registry in memory that counts what it is asked for, for tests of every layer.
//!
//! Concurrency: shared, as the transport below it.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::registry::Xprim;
use super::{CATALOG, DATA, Entry, FileDoc, ManifestDoc, object_path, with_entry};
use crate::base::ObjectRange;
use crate::model::hash::sha256;
use crate::model::{
    Digest, HashAlgorithm, Leaves, ModelRef, Name, Object, Revision, VersionEntry, VersionId,
    VersionRef,
};
use crate::registry::api::{
    Capabilities, Listing, ManifestDocument, ObjectBody, ProvenBody, Registry, Validator, Versions,
};
use crate::registry::error::RegistryError;
use crate::registry::transport::{MemoryTransport, Request};

/// What a registry in memory was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counts {
    /// Requests for the catalog.
    pub catalogs: u64,
    /// Requests for manifests and leaf lists.
    pub documents: u64,
    /// Requests for objects: digest and range, in order.
    pub objects: Vec<(Digest, ObjectRange)>,
    /// Bytes of documents and of objects' ranges; unread parts of a body are counted too.
    pub bytes: u64,
}

/// How [`Memory::add_version`] cuts a version.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    /// The bytes of a chunk.
    pub chunk_size: u64,
    /// Whether chunks end where files end (`chunk_sizes`), or cross them as in the plain format.
    pub per_file: bool,
    /// The leaves: their bytes and digest.
    pub leaf: Option<(u64, HashAlgorithm)>,
}

/// A registry in memory.
pub struct Memory {
    files: Arc<MemoryTransport>,
    registry: Xprim,
}

impl Memory {
    /// An empty registry, whose catalog is not there before the first version is.
    pub fn new(name: &str) -> Self {
        let files = Arc::new(MemoryTransport::new(name));
        Self { registry: Xprim::new(files.clone()), files }
    }

    /// The registry that lies in a folder.
    pub fn from_folder(name: &str, folder: &Path) -> std::io::Result<Self> {
        let out = Self::new(name);
        out.set_catalog(std::fs::read(folder.join(CATALOG))?);
        for entry in std::fs::read_dir(folder.join(DATA))? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(|n| n.parse::<Digest>().is_ok()) {
                out.insert(std::fs::read(entry.path())?);
            }
        }
        Ok(out)
    }

    /// Keeps an object under its SHA-256.
    pub fn insert(&self, bytes: impl Into<Bytes>) -> Digest {
        let bytes = bytes.into();
        let digest = sha256(&bytes);
        self.insert_as(digest, bytes);
        digest
    }

    /// Keeps bytes under any digest, right or wrong.
    pub fn insert_as(&self, digest: Digest, bytes: impl Into<Bytes>) {
        self.files.put(object_path(&digest), bytes.into());
    }

    /// The bytes under a digest.
    pub fn get(&self, digest: &Digest) -> Option<Bytes> {
        self.files.get(&object_path(digest))
    }

    /// Removes an object.
    pub fn remove(&self, digest: &Digest) {
        self.files.remove(&object_path(digest));
    }

    /// The catalog from now on, right or wrong.
    pub fn set_catalog(&self, body: impl Into<Bytes>) {
        self.files.put(CATALOG.to_owned(), body.into());
    }

    /// What was asked for since the last [`Memory::reset_counts`].
    pub fn counts(&self) -> Counts {
        let mut out = Counts::default();
        for Request { path, range, bytes } in self.files.requests() {
            out.bytes += bytes;
            let digest = path.rsplit('/').next().and_then(|name| name.parse().ok());
            match (digest, range) {
                (Some(digest), Some(range)) => out.objects.push((digest, range)),
                (Some(_), None) => out.documents += 1,
                (None, _) => out.catalogs += 1,
            }
        }
        out
    }

    /// Counts anew.
    pub fn reset_counts(&self) {
        self.files.forget_requests();
    }

    /// Adds a version made of these files, in this order, and returns its manifest's hash.
    pub fn add_version(
        &self,
        version: &VersionRef,
        files: &[(&str, &[u8])],
        cut: Cut,
    ) -> Result<Digest, RegistryError> {
        let step = usize::try_from(cut.chunk_size).unwrap_or(usize::MAX).max(1);
        let stream: Vec<u8> = files.iter().flat_map(|f| f.1.iter().copied()).collect();
        let chunks: Vec<&[u8]> = match cut.per_file {
            true => files.iter().flat_map(|f| f.1.chunks(step)).collect(),
            false => stream.chunks(step).collect(),
        };
        let list = |chunk: &[u8], size: u64, digest: HashAlgorithm| {
            let leaves = chunk.chunks(size as usize).map(|leaf| *digest.hash(leaf).as_bytes());
            self.insert(leaves.collect::<Vec<_>>().concat())
        };
        let file = |f: &(&str, &[u8])| FileDoc {
            path: f.0.to_owned(),
            size: f.1.len() as u64,
            sha256: Some(sha256(f.1)),
        };
        let doc = ManifestDoc {
            total_size: stream.len() as u64,
            chunk_size: step as u64,
            chunks: chunks.iter().map(|c| self.insert(c.to_vec())).collect(),
            files: files.iter().map(file).collect(),
            chunk_sizes: cut.per_file.then(|| chunks.iter().map(|c| c.len() as u64).collect()),
            leaf_size: cut.leaf.map(|l| l.0),
            leaf_digest: cut.leaf.map(|l| l.1),
            leaves: cut.leaf.map(|(size, d)| chunks.iter().map(|c| list(c, size, d)).collect()),
        };
        let hash = self.insert(doc.write());
        let entry = Entry { hash, alias_of: None, metadata: Default::default() };
        let old = self.files.get(CATALOG);
        self.set_catalog(with_entry(old.as_deref(), version, &entry)?);
        Ok(hash)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Registry for Memory {
    fn name(&self) -> &str {
        self.registry.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.registry.capabilities()
    }

    async fn list(&self, known: &Validator) -> Result<Listing, RegistryError> {
        self.registry.list(known).await
    }

    async fn lookup(&self, model: &ModelRef, known: &Validator) -> Result<Versions, RegistryError> {
        self.registry.lookup(model, known).await
    }

    async fn version(
        &self,
        model: &ModelRef,
        name: &Name,
    ) -> Result<Option<VersionEntry>, RegistryError> {
        self.registry.version(model, name).await
    }

    async fn resolve(
        &self,
        model: &ModelRef,
        revision: &Revision,
    ) -> Result<ManifestDocument, RegistryError> {
        self.registry.resolve(model, revision).await
    }

    async fn manifest(&self, version: &VersionId) -> Result<ManifestDocument, RegistryError> {
        self.registry.manifest(version).await
    }

    async fn leaves(&self, object: &Object, range: ObjectRange) -> Result<Leaves, RegistryError> {
        self.registry.leaves(object, range).await
    }

    async fn read(&self, object: &Object, range: ObjectRange) -> Result<ObjectBody, RegistryError> {
        self.registry.read(object, range).await
    }

    async fn read_proven(
        &self,
        object: &Object,
        range: ObjectRange,
    ) -> Result<ProvenBody, RegistryError> {
        self.registry.read_proven(object, range).await
    }

    fn preconnect(&self, version: &VersionId) {
        self.registry.preconnect(version);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Check;
    use crate::registry::read_object;

    #[tokio::test]
    async fn a_version_can_be_read_back() {
        let a: Vec<u8> = (0..200_000u32).map(|i| (i * 7 % 251) as u8).collect();
        for per_file in [false, true] {
            for leaf in [None, Some((4096, HashAlgorithm::Blake3))] {
                let r = Memory::new("mem");
                let v: VersionRef = "g/m@v".parse().unwrap();
                let files = [("a", &a[..]), ("empty", &b""[..]), ("b", &a[5..1005])];
                let cut = Cut { chunk_size: 70_000, per_file, leaf };
                let hash = r.add_version(&v, &files, cut).unwrap();
                let Listing::Changed { catalog, validator, .. } =
                    r.list(&Validator::default()).await.unwrap()
                else {
                    panic!("nothing was known")
                };
                assert_eq!(catalog.find(&v).unwrap().hash(), Some(hash));
                assert!(matches!(r.list(&validator).await, Ok(Listing::Unchanged)));
                let m = r.manifest(&VersionId::new(hash)).await.unwrap().manifest;
                assert_eq!(m.total(), 201_000);
                let mut stream = Vec::new();
                for o in m.objects() {
                    let all = ObjectRange::new(0, o.len);
                    stream.extend(read_object(&r, o, all).await.unwrap());
                    let leaves = r.leaves(o, all).await.unwrap();
                    assert!(leaves.covers(&(0..o.leaf_count())));
                }
                assert_eq!(stream, [&a[..], &a[5..1005]].concat());
                assert_eq!(r.counts().catalogs, 2);
                assert_eq!(r.counts().objects.len(), m.objects().len());
            }
        }
    }

    #[tokio::test]
    async fn missing_and_invalid_documents_have_different_errors() {
        let r = Memory::new("mem");
        let d = sha256(b"x");
        let of_len = |len| Object::new(d, len, Check::Whole);
        let catalog = r.list(&Validator::default()).await;
        assert!(matches!(catalog, Err(RegistryError::Missing { .. })));
        let missing = r.registry.document(&d, 9).await;
        assert!(matches!(missing, Err(RegistryError::Missing { .. })));
        r.insert_as(d, &b"yy"[..]);
        let wrong = r.registry.document(&d, 9).await;
        assert!(matches!(wrong, Err(RegistryError::WrongBytes { .. })));
        let long = r.registry.document(&d, 1).await;
        assert!(matches!(long, Err(RegistryError::Invalid { .. })));
        let two = ObjectRange::new(0, 2);
        assert_eq!(read_object(&r, &of_len(2), two).await.unwrap(), &b"yy"[..], "unverified");
        for len in [3, 1] {
            assert!(matches!(r.read(&of_len(len), two).await, Err(RegistryError::Invalid { .. })));
        }
    }
}
