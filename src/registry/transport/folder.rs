//! Files in a folder of this machine.
//!
//! Invariants: an outage is never "missing": a file is only missing while the folder still holds its
//! marker, a file that every registry of that format has. An unmounted disk leaves an empty folder
//! behind, and is unreachable. No link is followed. A file system that does not answer blocks
//! [`MAX_READS`] threads at most, and no caller longer than the stall timeout.
//! Concurrency: all reading is on blocking threads, which a semaphore counts.

use std::fs::{File, Metadata};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::api::{Document, Resource, Transport, range_shown};
use super::beneath::{Beneath, BeneathError};
use crate::base::ObjectRange;
use crate::registry::api::{ObjectBody, Validator};
use crate::registry::error::RegistryError;

/// The bytes of one read: enough to keep a disk streaming, little to hold.
const PIECE: u64 = 1 << 20;

/// Maximum number of reads at once: one for each object and leaf list that is fetched at a time, and
/// a fraction of the threads on which everything else that blocks runs. A thread that hangs in a dead
/// file system cannot be stopped, so these are all that one folder can occupy.
const MAX_READS: usize = 32;

/// Files in a folder.
#[derive(Debug, Clone)]
pub struct Folder {
    name: String,
    root: PathBuf,
    /// A file that is there as long as the registry is.
    marker: &'static str,
    /// Maximum duration of one step (opening, reading a piece).
    stall: Duration,
    reads: Arc<Semaphore>,
}

impl Folder {
    /// The files in `root`, which need not be there (yet) and whose file system may be silent for as
    /// long as `stall`. A relative path is made absolute.
    pub fn new(root: &Path, marker: &'static str, stall: Duration) -> Result<Self, RegistryError> {
        let bad = |why: String| RegistryError::BadName { name: root.display().to_string(), why };
        let root = std::path::absolute(root).map_err(|e| bad(e.to_string()))?;
        // Without a slash at the end: one folder has one name.
        let root: PathBuf = root.components().collect();
        let name = root.to_str().ok_or_else(|| bad("the path is not UTF-8".into()))?.to_owned();
        Ok(Self { name, root, marker, stall, reads: Arc::new(Semaphore::new(MAX_READS)) })
    }

    fn find(&self, path: &str, what: &str) -> Result<(File, Metadata), RegistryError> {
        let root = Beneath::open(&self.root).map_err(|e| match e.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => {
                RegistryError::NoFolder { root: self.name.clone() }
            }
            _ => failed(what, &e),
        })?;
        root.file(path).map_err(|e| match e {
            BeneathError::Io(e) if e.kind() == ErrorKind::NotFound => {
                if path != self.marker && root.look(self.marker).is_err() {
                    let why = format!("the registry's folder holds no {}", self.marker);
                    return unreachable(what, why);
                }
                RegistryError::Missing { what: what.to_owned() }
            }
            BeneathError::Io(e) => failed(what, &e),
            refused => RegistryError::Invalid { what: what.to_owned(), why: refused.to_string() },
        })
    }

    /// Runs file I/O on a blocking thread and waits for it no longer than the stall timeout.
    async fn blocking<T: Send + 'static>(
        &self,
        what: &str,
        work: impl FnOnce() -> Result<T, RegistryError> + Send + 'static,
    ) -> Result<T, RegistryError> {
        let end = Instant::now() + self.stall;
        let reads = Arc::clone(&self.reads);
        let Ok(Ok(permit)) = timeout_at(end, reads.acquire_owned()).await else {
            let why = format!("{MAX_READS} reads of this folder hang: its disk does not answer");
            return Err(unreachable(what, why));
        };
        let task = tokio::task::spawn_blocking(move || {
            // Released by this thread, even if the caller stopped waiting.
            let _permit = permit;
            work()
        });
        match timeout_at(end, task).await {
            Ok(Ok(done)) => done,
            Ok(Err(_)) => Err(unreachable(what, "the reader was stopped".into())),
            Err(_) => Err(unreachable(what, format!("no answer within {:?}", self.stall))),
        }
    }

    async fn open(&self, path: String, what: &str) -> Result<(File, Metadata), RegistryError> {
        let (this, shown) = (self.clone(), what.to_owned());
        self.blocking(what, move || this.find(&path, &shown)).await
    }

    /// A whole file of at most `limit` bytes.
    async fn collect(
        &self,
        file: File,
        meta: &Metadata,
        what: &str,
        limit: u64,
    ) -> Result<Bytes, RegistryError> {
        let mut body = BytesMut::with_capacity(meta.len().min(limit) as usize);
        let mut file = Some(file);
        while let Some(mut open) = file.take() {
            let shown = what.to_owned();
            let (piece, rest) = self
                .blocking(what, move || {
                    let mut piece = Vec::new();
                    let read = (&mut open).take(PIECE).read_to_end(&mut piece);
                    read.map_err(|e| failed(&shown, &e))?;
                    let more = piece.len() as u64 == PIECE;
                    Ok((piece, more.then_some(open)))
                })
                .await?;
            body.extend_from_slice(&piece);
            if body.len() as u64 > limit {
                let why = format!("more than {limit} bytes");
                return Err(RegistryError::Invalid { what: what.to_owned(), why });
            }
            file = rest;
        }
        Ok(body.freeze())
    }

    /// The next piece of a body, of which the state has read some; no state after an error.
    async fn read_on(self, state: Reading) -> Option<(Result<Bytes, RegistryError>, Reading)> {
        let Body { mut file, what, done, len } = state.filter(|body| body.done < body.len)?;
        let shown = what.clone();
        let piece = self.blocking(&what, move || {
            let want = (len - done).min(PIECE);
            let mut piece = Vec::with_capacity(want as usize);
            let read = (&mut file).take(want).read_to_end(&mut piece);
            let why = match read {
                Ok(n) if n as u64 == want => return Ok((file, Bytes::from(piece))),
                Ok(n) => format!("cut off after {} of {len} bytes", done + n as u64),
                Err(e) => e.to_string(),
            };
            Err(unreachable(&shown, why))
        });
        Some(match piece.await {
            Ok((file, piece)) => {
                let done = done + piece.len() as u64;
                (Ok(piece), Some(Body { file, what, done, len }))
            }
            Err(e) => (Err(e), None),
        })
    }
}

/// A range of an object that is being read.
struct Body {
    file: File,
    what: String,
    done: u64,
    len: u64,
}

type Reading = Option<Body>;

fn unreachable(what: &str, why: String) -> RegistryError {
    RegistryError::Unreachable { what: what.to_owned(), why }
}

/// What an I/O error means.
fn failed(what: &str, error: &std::io::Error) -> RegistryError {
    match error.kind() {
        ErrorKind::PermissionDenied => {
            RegistryError::Refused { what: what.to_owned(), status: 403 }
        }
        _ => unreachable(what, error.to_string()),
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

#[async_trait]
impl Transport for Folder {
    fn name(&self) -> &str {
        &self.name
    }

    async fn document(
        &self,
        file: Resource<'_>,
        limit: u64,
        known: &Validator,
    ) -> Result<Document, RegistryError> {
        let (open, meta) = self.open(file.path.to_owned(), file.shown).await?;
        let validator = validator(&meta);
        if *known == validator {
            return Ok(Document::Unchanged);
        }
        let body = self.collect(open, &meta, file.shown, limit).await?;
        Ok(Document::Changed { body, validator })
    }

    async fn range(
        &self,
        file: Resource<'_>,
        len: u64,
        range: ObjectRange,
    ) -> Result<ObjectBody, RegistryError> {
        let (mut open, meta) = self.open(file.path.to_owned(), file.shown).await?;
        if meta.len() != len {
            return Err(RegistryError::Invalid {
                what: file.shown.to_owned(),
                why: format!("is {} bytes, not {len}", meta.len()),
            });
        }
        // Sets a number in the kernel; does not wait for a disk.
        open.seek(SeekFrom::Start(range.start())).map_err(|e| failed(file.shown, &e))?;
        let what = range_shown(file, range);
        let this = self.clone();
        let body = Body { file: open, what, done: 0, len: range.len() };
        Ok(stream::unfold(Some(body), move |body| this.clone().read_on(body)).boxed())
    }

    /// A folder has no connections.
    fn preconnect(&self, _: &str) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::hash::sha256;
    use crate::model::{Check, Digest, Object};
    use crate::registry::xprim::{CATALOG, Xprim, object_path};
    use crate::registry::{Listing, Registry, Retry, Timeouts, read_object};

    fn object(digest: &Digest, len: u64) -> Object {
        Object::new(*digest, len, Check::Whole)
    }

    fn registry() -> (tempfile::TempDir, Xprim, Digest) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("data")).unwrap();
        std::fs::write(dir.path().join(CATALOG), "{}").unwrap();
        let bytes: Vec<u8> = (0..3_000_000u32).map(|i| (i % 241) as u8).collect();
        let digest = sha256(&bytes);
        std::fs::write(dir.path().join(object_path(&digest)), bytes).unwrap();
        let folder = Folder::new(dir.path(), CATALOG, Timeouts::default().stall).unwrap();
        (dir, Xprim::new(Arc::new(folder)), digest)
    }

    #[tokio::test]
    async fn ranges_are_exact() {
        let (_dir, r, d) = registry();
        for (from, to) in
            [(0, 3_000_000), (1, 2), (1_048_575, 2_097_153), (2_999_999, 3_000_000), (7, 7)]
        {
            let got =
                read_object(&r, &object(&d, 3_000_000), ObjectRange::new(from, to)).await.unwrap();
            let want: Vec<u8> = (from..to).map(|i| (i % 241) as u8).collect();
            assert!(got == want, "{from}..{to}");
        }
    }

    #[tokio::test]
    async fn an_outage_is_an_io_error_and_never_a_missing_file() {
        let (dir, r, d) = registry();
        let gone = sha256(b"gone");
        let all = ObjectRange::new(0, 3_000_000);
        let error = r.document(&gone, 9).await.unwrap_err();
        assert!(matches!(&error, RegistryError::Missing { what } if what.starts_with("data/")));
        assert!(matches!(
            r.read(&object(&gone, 3_000_000), all).await,
            Err(RegistryError::Missing { .. })
        ));
        std::fs::remove_file(dir.path().join(CATALOG)).unwrap();
        assert!(r.document(&gone, 9).await.unwrap_err().is_transient(), "as if not mounted");
        let catalog = r.list(&Validator::default()).await;
        assert!(matches!(catalog, Err(RegistryError::Missing { .. })));
        let away = dir.path().with_extension("away");
        std::fs::rename(dir.path(), &away).unwrap();
        for known in [gone, d] {
            let object = r.read(&object(&known, 3_000_000), all).await.err().unwrap();
            assert!(matches!(object, RegistryError::NoFolder { .. }), "{object}");
            assert!(object.is_transient() && object.retry() == Retry::Never);
            assert!(r.document(&known, 9).await.unwrap_err().is_transient());
        }
        assert!(r.list(&Validator::default()).await.unwrap_err().is_transient());
        std::fs::write(dir.path(), "a file now").unwrap();
        assert!(r.document(&d, 9).await.unwrap_err().is_transient());
        std::fs::remove_file(dir.path()).unwrap();
        std::fs::rename(&away, dir.path()).unwrap();
        read_object(&r, &object(&d, 3_000_000), all).await.unwrap();
    }

    #[tokio::test]
    async fn wrong_lengths_and_kinds_are_invalid() {
        let (dir, r, d) = registry();
        let range = ObjectRange::new(0, 10);
        for len in [2_999_999, 3_000_001] {
            assert!(matches!(
                r.read(&object(&d, len), range).await,
                Err(RegistryError::Invalid { .. })
            ));
        }
        assert!(matches!(r.document(&d, 100).await, Err(RegistryError::Invalid { .. })));
        let folder = sha256(b"folder");
        std::fs::create_dir(dir.path().join(object_path(&folder))).unwrap();
        assert!(matches!(r.document(&folder, 9).await, Err(RegistryError::Invalid { .. })));
        std::fs::write(dir.path().join(CATALOG), "[]").unwrap();
        let catalog = r.list(&Validator::default()).await;
        assert!(matches!(catalog, Err(RegistryError::Invalid { .. })));
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_link_is_not_followed_wherever_it_leads() {
        use std::os::unix::fs::symlink;
        let (dir, r, d) = registry();
        let outside = tempfile::tempdir().unwrap();
        let invalid = |error: &RegistryError| {
            assert!(matches!(error, RegistryError::Invalid { .. }), "{error}");
            assert!(error.to_string().contains("links"), "{error}");
        };
        let secret = sha256(b"secret");
        std::fs::write(outside.path().join("secret"), "secret").unwrap();
        symlink(outside.path().join("secret"), dir.path().join(object_path(&secret))).unwrap();
        invalid(&r.document(&secret, 9).await.unwrap_err());
        let range = ObjectRange::new(0, 6);
        invalid(&r.read(&object(&secret, 6), range).await.err().unwrap());
        // The length of a file outside is not disclosed either.
        invalid(&r.read(&object(&secret, 7), range).await.err().unwrap());
        for name in ["data", CATALOG] {
            let away = outside.path().join(name);
            std::fs::rename(dir.path().join(name), &away).unwrap();
            symlink(&away, dir.path().join(name)).unwrap();
        }
        invalid(&r.document(&d, 1 << 22).await.unwrap_err());
        invalid(&r.list(&Validator::default()).await.unwrap_err());
    }

    #[tokio::test]
    async fn a_file_that_shrinks_during_a_read_ends_in_an_error() {
        let (dir, r, d) = registry();
        let mut body =
            r.read(&object(&d, 3_000_000), ObjectRange::new(0, 3_000_000)).await.unwrap();
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
        let answer = r.list(&Validator::default()).await.unwrap();
        let Listing::Changed { validator, .. } = answer else { panic!("nothing was known") };
        assert!(matches!(r.list(&validator).await, Ok(Listing::Unchanged)));
        let new = dir.path().join("new");
        std::fs::write(&new, "{}").unwrap();
        std::fs::rename(new, dir.path().join(CATALOG)).unwrap();
        assert!(matches!(r.list(&validator).await, Ok(Listing::Changed { .. })));
    }

    #[tokio::test]
    async fn a_document_with_another_digest_is_refused() {
        let (dir, r, d) = registry();
        std::fs::write(dir.path().join(object_path(&d)), "forged").unwrap();
        let error = r.document(&d, 100).await.unwrap_err();
        assert!(matches!(&error, RegistryError::WrongBytes { .. }), "{error}");
        assert!(error.to_string().ends_with("SHA-256 mismatch"), "{error}");
    }
}
