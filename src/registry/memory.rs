//! A registry in memory: for tests of every layer, and for whoever has models but no server.
//!
//! Speaks XPRIM. Counts what it is asked for. Shared between threads; its lock is never held
//! across an await.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::xprim::{self, CATALOG, FileDoc, ManifestDoc};
use super::{CatalogAnswer, ObjectBody, Registry, RegistryError, Validator};
use crate::base::ObjectRange;
use crate::model::hash::sha256;
use crate::model::{Digest, HashAlgorithm, VersionRef};

/// The bytes of one piece of a body: many pieces even for small objects, as from a network.
const PIECE: usize = 64 << 10;

/// What a registry in memory was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counts {
    /// Calls of `catalog`.
    pub catalogs: u64,
    /// Calls of `document`.
    pub documents: u64,
    /// Calls of `object`: digest and range, in order.
    pub objects: Vec<(Digest, ObjectRange)>,
    /// Bytes of documents and of objects' ranges; what nobody read of a body is counted too.
    pub bytes: u64,
}

#[derive(Debug, Default)]
struct State {
    catalog: Option<Bytes>,
    objects: HashMap<Digest, Bytes>,
    counts: Counts,
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
#[derive(Debug)]
pub struct Memory {
    name: String,
    state: Mutex<State>,
}

impl Memory {
    /// An empty registry, whose catalog is not there before the first version is.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), state: Mutex::default() }
    }

    /// What lies in a registry's folder: its `models.json` and its `data`.
    pub fn from_folder(name: &str, folder: &Path) -> std::io::Result<Self> {
        let out = Self::new(name);
        out.set_catalog(std::fs::read(folder.join(CATALOG))?);
        for entry in std::fs::read_dir(folder.join("data"))? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(|n| n.parse::<Digest>().is_ok()) {
                out.insert(std::fs::read(entry.path())?);
            }
        }
        Ok(out)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds this lock")
    }

    /// Keeps an object under its SHA-256.
    pub fn insert(&self, bytes: impl Into<Bytes>) -> Digest {
        let bytes = bytes.into();
        let digest = sha256(&bytes);
        self.state().objects.insert(digest, bytes);
        digest
    }

    /// Keeps bytes under any digest, right or wrong.
    pub fn insert_as(&self, digest: Digest, bytes: impl Into<Bytes>) {
        self.state().objects.insert(digest, bytes.into());
    }

    /// The bytes under a digest.
    pub fn get(&self, digest: &Digest) -> Option<Bytes> {
        self.state().objects.get(digest).cloned()
    }

    /// Forgets an object.
    pub fn remove(&self, digest: &Digest) {
        self.state().objects.remove(digest);
    }

    /// The catalog from now on, right or wrong.
    pub fn set_catalog(&self, body: impl Into<Bytes>) {
        self.state().catalog = Some(body.into());
    }

    /// What was asked for since the last [`Memory::reset_counts`].
    pub fn counts(&self) -> Counts {
        self.state().counts.clone()
    }

    /// Counts anew.
    pub fn reset_counts(&self) {
        self.state().counts = Counts::default();
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
        let entry = xprim::Entry { hash, alias_of: None, metadata: Default::default() };
        let old = self.state().catalog.clone();
        self.set_catalog(xprim::with_entry(old.as_deref(), version, &entry)?);
        Ok(hash)
    }

    fn find(&self, digest: &Digest) -> Result<Bytes, RegistryError> {
        let missing = || RegistryError::Missing { what: xprim::object_shown(digest) };
        self.state().objects.get(digest).cloned().ok_or_else(missing)
    }
}

#[async_trait]
impl Registry for Memory {
    fn name(&self) -> &str {
        &self.name
    }

    async fn catalog(&self, known: &Validator) -> Result<CatalogAnswer, RegistryError> {
        let body = {
            let mut state = self.state();
            state.counts.catalogs += 1;
            state.catalog.clone()
        };
        let body = body.ok_or_else(|| RegistryError::Missing { what: CATALOG.into() })?;
        let validator =
            Validator { etag: Some(format!("\"{}\"", sha256(&body))), last_modified: None };
        if *known == validator {
            return Ok(CatalogAnswer::Unchanged);
        }
        let catalog = xprim::parse_catalog(&body)?;
        self.state().counts.bytes += body.len() as u64;
        Ok(CatalogAnswer::Changed { catalog, body, validator })
    }

    async fn document(&self, digest: &Digest, limit: u64) -> Result<Bytes, RegistryError> {
        self.state().counts.documents += 1;
        let body = self.find(digest)?;
        let what = || xprim::object_shown(digest);
        if body.len() as u64 > limit {
            return Err(RegistryError::Invalid {
                what: what(),
                why: format!("more than {limit} bytes"),
            });
        }
        self.state().counts.bytes += body.len() as u64;
        super::check_sha256(digest, &body)?;
        Ok(body)
    }

    async fn object(
        &self,
        digest: &Digest,
        object_len: u64,
        range: ObjectRange,
    ) -> Result<ObjectBody, RegistryError> {
        self.state().counts.objects.push((*digest, range));
        let body = self.find(digest)?;
        super::check_range(digest, object_len, range)?;
        super::check_len(digest, object_len, body.len() as u64)?;
        self.state().counts.bytes += range.len();
        let body = body.slice(range.start() as usize..range.end() as usize);
        let starts = (0..body.len()).step_by(PIECE);
        let pieces = starts.map(move |at| Ok(body.slice(at..body.len().min(at + PIECE))));
        Ok(stream::iter(pieces).boxed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
                let CatalogAnswer::Changed { catalog, validator, .. } =
                    r.catalog(&Validator::default()).await.unwrap()
                else {
                    panic!("nothing was known")
                };
                assert_eq!(catalog.find(&v).unwrap().hash, hash);
                assert!(matches!(r.catalog(&validator).await, Ok(CatalogAnswer::Unchanged)));
                let body = r.document(&hash, xprim::MAX_MANIFEST).await.unwrap();
                let m = xprim::parse_manifest(hash, &body).unwrap();
                assert_eq!(m.total(), 201_000);
                let mut stream = Vec::new();
                for o in m.objects() {
                    let all = ObjectRange::new(0, o.len);
                    stream.extend(read_object(&r, &o.digest, o.len, all).await.unwrap());
                }
                assert_eq!(stream, [&a[..], &a[5..1005]].concat());
                assert_eq!(r.counts().catalogs, 2);
                assert_eq!(r.counts().objects.len(), m.objects().len());
            }
        }
    }

    #[tokio::test]
    async fn what_is_not_there_and_what_is_wrong() {
        let r = Memory::new("mem");
        let d = sha256(b"x");
        let catalog = r.catalog(&Validator::default()).await;
        assert!(matches!(catalog, Err(RegistryError::Missing { .. })));
        assert!(matches!(r.document(&d, 9).await, Err(RegistryError::Missing { .. })));
        r.insert_as(d, &b"yy"[..]);
        assert!(matches!(r.document(&d, 9).await, Err(RegistryError::WrongBytes { .. })));
        assert!(matches!(r.document(&d, 1).await, Err(RegistryError::Invalid { .. })));
        let two = ObjectRange::new(0, 2);
        assert_eq!(read_object(&r, &d, 2, two).await.unwrap(), &b"yy"[..], "unverified");
        assert!(matches!(r.object(&d, 3, two).await, Err(RegistryError::Invalid { .. })));
        assert!(matches!(r.object(&d, 1, two).await, Err(RegistryError::Invalid { .. })));
    }
}
