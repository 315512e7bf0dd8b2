//! A registry in a folder of this machine, in XPRIM.
//!
//! Invariant: an outage is never "not found". A file is only missing while the folder still holds
//! its `models.json`: an unmounted disk, whose mount point is an empty folder, is unreachable.
//! Stateless; all reading is on blocking threads.

use std::fs::{File, Metadata};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::xprim::{self, CATALOG, MAX_CATALOG, object_path, object_shown};
use super::{CatalogAnswer, ObjectBody, Registry, RegistryError, Validator};
use crate::base::ObjectRange;
use crate::model::Digest;

/// The bytes of one read: enough to keep a disk streaming, little to hold.
const PIECE: u64 = 1 << 20;

/// A registry in a folder.
#[derive(Debug, Clone)]
pub struct Folder {
    name: String,
    root: PathBuf,
}

impl Folder {
    /// The registry in `root`, which need not be there (yet). A relative path is made absolute.
    pub fn new(root: &Path) -> Result<Self, RegistryError> {
        let bad = |why: String| RegistryError::BadName { name: root.display().to_string(), why };
        let root = std::path::absolute(root).map_err(|e| bad(e.to_string()))?;
        // Without a slash at the end: one folder has one name.
        let root: PathBuf = root.components().collect();
        let name = root.to_str().ok_or_else(|| bad("the path is not UTF-8".into()))?.to_owned();
        Ok(Self { name, root })
    }

    fn find(&self, path: &str, what: &str) -> Result<(File, Metadata), RegistryError> {
        let full = self.root.join(path);
        // Looked at before it is opened: opening a fifo would wait for its writer.
        let meta = std::fs::metadata(&full).map_err(|e| self.failed(what, &e))?;
        if !meta.is_file() {
            let why = "is not a regular file".into();
            return Err(RegistryError::Invalid { what: what.to_owned(), why });
        }
        let file = File::open(&full).map_err(|e| self.failed(what, &e))?;
        let meta = file.metadata().map_err(|e| self.failed(what, &e))?;
        Ok((file, meta))
    }

    /// What an I/O error means.
    fn failed(&self, what: &str, error: &std::io::Error) -> RegistryError {
        let unreachable = |why: String| RegistryError::Unreachable { what: what.to_owned(), why };
        match error.kind() {
            ErrorKind::PermissionDenied => {
                RegistryError::Refused { what: what.to_owned(), status: 403 }
            }
            ErrorKind::NotFound | ErrorKind::NotADirectory if !self.root.is_dir() => {
                RegistryError::NoFolder { root: self.name.clone() }
            }
            ErrorKind::NotFound if what != CATALOG && !self.root.join(CATALOG).exists() => {
                unreachable(format!("the registry's folder holds no {CATALOG}"))
            }
            ErrorKind::NotFound => RegistryError::Missing { what: what.to_owned() },
            _ => unreachable(error.to_string()),
        }
    }

    fn read_all(
        &self,
        path: &str,
        what: &str,
        limit: u64,
    ) -> Result<(Bytes, Metadata), RegistryError> {
        let (file, meta) = self.find(path, what)?;
        let mut body = Vec::new();
        // One byte more than may be, so that too much is noticed even if the file grows.
        file.take(limit + 1).read_to_end(&mut body).map_err(|e| self.failed(what, &e))?;
        if body.len() as u64 > limit {
            let why = format!("more than {limit} bytes");
            return Err(RegistryError::Invalid { what: what.to_owned(), why });
        }
        Ok((body.into(), meta))
    }

    fn read_catalog(&self, known: &Validator) -> Result<CatalogAnswer, RegistryError> {
        let (_, meta) = self.find(CATALOG, CATALOG)?;
        if *known == validator(&meta) {
            return Ok(CatalogAnswer::Unchanged);
        }
        let (body, meta) = self.read_all(CATALOG, CATALOG, MAX_CATALOG)?;
        let catalog = xprim::parse_catalog(&body)?;
        Ok(CatalogAnswer::Changed { catalog, body, validator: validator(&meta) })
    }
}

/// Publishing renames a new file into place, so that the inode tells versions apart even within
/// one tick of the clock.
fn validator(meta: &Metadata) -> Validator {
    #[cfg(unix)]
    let inode = std::os::unix::fs::MetadataExt::ino(meta);
    #[cfg(not(unix))]
    let inode = 0;
    let modified = meta.modified().ok().and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
    let modified = modified.map_or(0, |t| t.as_nanos());
    Validator { etag: None, last_modified: Some(format!("{modified}-{}-{inode}", meta.len())) }
}

/// Runs file I/O where it may block.
async fn blocking<T: Send + 'static>(
    what: String,
    work: impl FnOnce() -> Result<T, RegistryError> + Send + 'static,
) -> Result<T, RegistryError> {
    let stopped = |_| RegistryError::Unreachable { what, why: "the reader was stopped".into() };
    tokio::task::spawn_blocking(work).await.map_err(stopped)?
}

#[async_trait]
impl Registry for Folder {
    fn name(&self) -> &str {
        &self.name
    }

    async fn catalog(&self, known: &Validator) -> Result<CatalogAnswer, RegistryError> {
        let (this, known) = (self.clone(), known.clone());
        blocking(CATALOG.into(), move || this.read_catalog(&known)).await
    }

    async fn document(&self, digest: &Digest, limit: u64) -> Result<Bytes, RegistryError> {
        let (this, digest) = (self.clone(), *digest);
        blocking(object_shown(&digest), move || {
            let (body, _) = this.read_all(&object_path(&digest), &object_shown(&digest), limit)?;
            super::check_sha256(&digest, &body)?;
            Ok(body)
        })
        .await
    }

    async fn object(
        &self,
        digest: &Digest,
        object_len: u64,
        range: ObjectRange,
    ) -> Result<ObjectBody, RegistryError> {
        super::check_range(digest, object_len, range)?;
        let (this, digest) = (self.clone(), *digest);
        let what = super::range_shown(&digest, range);
        let file = blocking(what.clone(), move || {
            let (mut file, meta) = this.find(&object_path(&digest), &object_shown(&digest))?;
            super::check_len(&digest, object_len, meta.len())?;
            let seek = file.seek(SeekFrom::Start(range.start()));
            seek.map_err(|e| this.failed(&object_shown(&digest), &e))?;
            Ok(file)
        })
        .await?;
        Ok(stream::unfold(Some((file, 0u64)), move |state| {
            read_on(state, what.clone(), range.len())
        })
        .boxed())
    }
}

type Reading = Option<(File, u64)>;

/// The next piece of a body of `len` bytes, of which the state has read some; no state after an
/// error.
async fn read_on(
    state: Reading,
    what: String,
    len: u64,
) -> Option<(Result<Bytes, RegistryError>, Reading)> {
    let (mut file, done) = state.filter(|(_, done)| *done < len)?;
    let piece = blocking(what.clone(), move || {
        let want = (len - done).min(PIECE);
        let mut piece = Vec::with_capacity(want as usize);
        let read = (&mut file).take(want).read_to_end(&mut piece);
        let why = match read {
            Ok(n) if n as u64 == want => return Ok((file, Bytes::from(piece))),
            Ok(n) => format!("cut off after {} of {len} bytes", done + n as u64),
            Err(e) => e.to_string(),
        };
        Err(RegistryError::Unreachable { what, why })
    });
    Some(match piece.await {
        Ok((file, piece)) => {
            let done = done + piece.len() as u64;
            (Ok(piece), Some((file, done)))
        }
        Err(e) => (Err(e), None),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hash::sha256;
    use crate::registry::read_object;

    fn registry() -> (tempfile::TempDir, Folder, Digest) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("data")).unwrap();
        std::fs::write(dir.path().join(CATALOG), "{}").unwrap();
        let bytes: Vec<u8> = (0..3_000_000u32).map(|i| (i % 241) as u8).collect();
        let digest = sha256(&bytes);
        std::fs::write(dir.path().join(object_path(&digest)), bytes).unwrap();
        let folder = Folder::new(dir.path()).unwrap();
        (dir, folder, digest)
    }

    #[tokio::test]
    async fn ranges_are_exact() {
        let (_dir, r, d) = registry();
        for (from, to) in
            [(0, 3_000_000), (1, 2), (1_048_575, 2_097_153), (2_999_999, 3_000_000), (7, 7)]
        {
            let got = read_object(&r, &d, 3_000_000, ObjectRange::new(from, to)).await.unwrap();
            let want: Vec<u8> = (from..to).map(|i| (i % 241) as u8).collect();
            assert!(got == want, "{from}..{to}");
        }
    }

    #[tokio::test]
    async fn an_outage_is_never_a_missing_file() {
        let (dir, r, d) = registry();
        let gone = sha256(b"gone");
        let all = ObjectRange::new(0, 3_000_000);
        let error = r.document(&gone, 9).await.unwrap_err();
        assert!(matches!(&error, RegistryError::Missing { what } if what.starts_with("data/")));
        assert!(matches!(
            r.object(&gone, 3_000_000, all).await,
            Err(RegistryError::Missing { .. })
        ));
        std::fs::remove_file(dir.path().join(CATALOG)).unwrap();
        assert!(r.document(&gone, 9).await.unwrap_err().is_transient(), "as if not mounted");
        let catalog = r.catalog(&Validator::default()).await;
        assert!(matches!(catalog, Err(RegistryError::Missing { .. })));
        let away = dir.path().with_extension("away");
        std::fs::rename(dir.path(), &away).unwrap();
        for known in [gone, d] {
            let object = r.object(&known, 3_000_000, all).await.err().unwrap();
            assert!(matches!(object, RegistryError::NoFolder { .. }), "{object}");
            assert!(object.is_transient() && !object.is_worth_waiting());
            assert!(r.document(&known, 9).await.unwrap_err().is_transient());
        }
        assert!(r.catalog(&Validator::default()).await.unwrap_err().is_transient());
        std::fs::write(dir.path(), "a file now").unwrap();
        assert!(r.document(&d, 9).await.unwrap_err().is_transient());
        std::fs::remove_file(dir.path()).unwrap();
        std::fs::rename(&away, dir.path()).unwrap();
        read_object(&r, &d, 3_000_000, all).await.unwrap();
    }

    #[tokio::test]
    async fn wrong_lengths_and_kinds_are_invalid() {
        let (dir, r, d) = registry();
        let range = ObjectRange::new(0, 10);
        for len in [2_999_999, 3_000_001] {
            assert!(matches!(r.object(&d, len, range).await, Err(RegistryError::Invalid { .. })));
        }
        assert!(matches!(r.document(&d, 100).await, Err(RegistryError::Invalid { .. })));
        let folder = sha256(b"folder");
        std::fs::create_dir(dir.path().join(object_path(&folder))).unwrap();
        assert!(matches!(r.document(&folder, 9).await, Err(RegistryError::Invalid { .. })));
        std::fs::write(dir.path().join(CATALOG), "[]").unwrap();
        let catalog = r.catalog(&Validator::default()).await;
        assert!(matches!(catalog, Err(RegistryError::Invalid { .. })));
    }

    #[tokio::test]
    async fn a_file_that_shrinks_meanwhile_is_cut_off() {
        let (dir, r, d) = registry();
        let mut body = r.object(&d, 3_000_000, ObjectRange::new(0, 3_000_000)).await.unwrap();
        body.next().await.unwrap().unwrap();
        let file = File::options().write(true).open(dir.path().join(object_path(&d))).unwrap();
        file.set_len(1_500_000).unwrap();
        let error = body.next().await.unwrap().unwrap_err();
        assert!(error.is_transient());
        assert!(error.to_string().ends_with("cut off after 1500000 of 3000000 bytes"), "{error}");
        assert!(body.next().await.is_none(), "nothing after an error");
    }

    #[tokio::test]
    async fn the_catalog_is_read_again_only_when_it_changed() {
        let (dir, r, _) = registry();
        let answer = r.catalog(&Validator::default()).await.unwrap();
        let CatalogAnswer::Changed { validator, .. } = answer else { panic!("nothing was known") };
        assert!(matches!(r.catalog(&validator).await, Ok(CatalogAnswer::Unchanged)));
        let new = dir.path().join("new");
        std::fs::write(&new, "{}").unwrap();
        std::fs::rename(new, dir.path().join(CATALOG)).unwrap();
        assert!(matches!(r.catalog(&validator).await, Ok(CatalogAnswer::Changed { .. })));
    }

    #[tokio::test]
    async fn wrong_bytes_are_no_document() {
        let (dir, r, d) = registry();
        std::fs::write(dir.path().join(object_path(&d)), "forged").unwrap();
        let error = r.document(&d, 100).await.unwrap_err();
        assert!(matches!(&error, RegistryError::WrongBytes { .. }), "{error}");
        assert!(error.to_string().ends_with("SHA-256 mismatch"), "{error}");
    }
}
