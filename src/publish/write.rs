//! Writes to a registry's folder: objects under their digests, then the catalog.
//!
//! Invariant: a reader sees each file whole or not at all, and a version only once all of its objects are
//! durable. Every file is written to a temporary file, synced and renamed.
//! Concurrency: the catalog is read, changed and renamed under an exclusive lock of `.publish.lock`, so
//! that two publishers cannot lose each other's entry. Objects need no lock: equal names have equal
//! bytes.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::types::PublishError;
use crate::model::Digest;
use crate::registry::transport::{Beneath, BeneathError};
use crate::registry::xprim::{CATALOG, DATA, MAX_CATALOG, object_path};

const LOCK: &str = ".publish.lock";
const TEMP: &str = ".tmp-";
/// Age at which the writer of a temporary file is dead: no object takes a day.
const STALE: Duration = Duration::from_secs(24 * 60 * 60);

/// A registry folder, for writing.
#[derive(Debug)]
pub struct Target {
    path: PathBuf,
    root: Beneath,
    data: Beneath,
    claimed: Mutex<HashSet<Digest>>,
}

/// The catalog lock; released when dropped.
#[derive(Debug)]
pub struct Locked<'a> {
    target: &'a Target,
    _lock: File,
}

impl Target {
    /// Opens the registry in `root`; creates it if it does not exist.
    pub fn open(root: &Path) -> Result<Self, PublishError> {
        fs::create_dir_all(root).map_err(PublishError::io(root))?;
        let path = root.to_owned();
        let root = Beneath::open(root).map_err(PublishError::io(root))?;
        let at = path.join(DATA);
        root.make_folder(DATA).map_err(PublishError::io(&at))?;
        let data = root.folder(DATA).map_err(PublishError::beneath(at))?;
        Ok(Self { path, root, data, claimed: Mutex::default() })
    }

    /// Stores an object. Returns whether it was new: a file of that name and the right length is taken as
    /// the object, since names are digests; one of another length is a leftover and is replaced.
    pub fn put(&self, digest: &Digest, bytes: &[u8]) -> Result<bool, PublishError> {
        let first =
            self.claimed.lock().expect("nothing panics while it holds this lock").insert(*digest);
        let name = digest.to_string();
        let there = self.data.look(&name);
        if !first || there.is_ok_and(|found| found.is_file && found.len == bytes.len() as u64) {
            return Ok(false);
        }
        let replaced = replace(&self.data, &name, bytes);
        replaced.map_err(PublishError::io(self.path.join(object_path(digest))))?;
        Ok(true)
    }

    /// Waits for the catalog lock. All objects stored before are then durable.
    pub fn lock(&self) -> Result<Locked<'_>, PublishError> {
        let path = self.path.join(LOCK);
        let lock = self.root.to_lock(LOCK).map_err(PublishError::beneath(&path))?;
        lock.lock().map_err(PublishError::io(&path))?;
        self.data.sync().map_err(PublishError::io(self.path.join(DATA)))?;
        Ok(Locked { target: self, _lock: lock })
    }
}

impl Locked<'_> {
    /// The current catalog, if it exists.
    pub fn catalog(&self) -> Result<Option<Vec<u8>>, PublishError> {
        let path = self.target.path.join(CATALOG);
        let file = match self.target.root.file(CATALOG) {
            Ok((file, _)) => file,
            Err(BeneathError::Io(e)) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(PublishError::beneath(path)(e)),
        };
        let mut body = Vec::new();
        // One byte more than the limit: a longer catalog then fails as invalid.
        file.take(MAX_CATALOG + 1).read_to_end(&mut body).map_err(PublishError::io(path))?;
        Ok(Some(body))
    }

    /// Replaces the catalog.
    pub fn set_catalog(&self, body: &[u8]) -> Result<(), PublishError> {
        if body.len() as u64 > MAX_CATALOG {
            let why = format!("the catalog would be more than {MAX_CATALOG} bytes");
            return Err(PublishError::Request(why));
        }
        let Target { path, root, data, .. } = self.target;
        replace(root, CATALOG, body).map_err(PublishError::io(path.join(CATALOG)))?;
        root.sync().map_err(PublishError::io(path))?;
        // Leftovers only cost space: those that cannot be removed stay.
        for folder in [root, data] {
            remove_stale(folder, SystemTime::now());
        }
        Ok(())
    }
}

/// Removes temporary files of dead publishers.
fn remove_stale(folder: &Beneath, now: SystemTime) {
    for name in folder.names().into_iter().flatten().filter(|name| name.starts_with(TEMP)) {
        let modified = folder.look(&name).ok().map(|found| found.modified);
        let age = modified.and_then(|modified| now.duration_since(modified).ok());
        if age.is_some_and(|age| age > STALE) {
            let _ = folder.remove(&name);
        }
    }
}

/// A temporary file, removed when dropped unless renamed.
struct Temp<'a>(&'a Beneath, String);

impl Drop for Temp<'_> {
    fn drop(&mut self) {
        // After the rename no file has this name.
        let _ = self.0.remove(&self.1);
    }
}

/// Replaces a file atomically. Its content is durable; its name is once the folder is synced.
fn replace(folder: &Beneath, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let temp = format!(
        // The time distinguishes processes of one id on several machines.
        "{TEMP}{}-{}-{}",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed),
        since.map_or(0, |t| t.as_nanos()),
    );
    let mut file = folder.create_new(&temp)?;
    let temp = Temp(folder, temp);
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    folder.rename(&temp.1, name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::hash::sha256;

    fn names(dir: &Path) -> Vec<String> {
        let name = |e: std::io::Result<fs::DirEntry>| e.unwrap().file_name().into_string().unwrap();
        let mut out: Vec<_> = fs::read_dir(dir).unwrap().map(name).collect();
        out.sort();
        out
    }

    #[test]
    fn objects_are_written_once_and_leftovers_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("deep/registry");
        let target = Target::open(&root).unwrap();
        let d = sha256(b"hello");
        let path = root.join(object_path(&d));
        assert!(target.put(&d, b"hello").unwrap());
        assert!(!target.put(&d, b"hello").unwrap());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        }
        let other = Target::open(&root).unwrap();
        assert!(!other.put(&d, b"hello").unwrap(), "there already");
        fs::write(&path, "hell").unwrap();
        assert!(Target::open(&root).unwrap().put(&d, b"hello").unwrap(), "cut short: replaced");
        assert_eq!(fs::read(&path).unwrap(), b"hello");
        assert_eq!(names(&root.join("data")), [d.to_string()], "no temporary file stays");
    }

    #[test]
    fn a_failed_write_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let target = Target::open(dir.path()).unwrap();
        let d = sha256(b"x");
        // A file cannot be renamed over a folder.
        fs::create_dir_all(dir.path().join(object_path(&d)).join("full")).unwrap();
        let error = target.put(&d, b"x").unwrap_err();
        assert!(error.to_string().contains(&d.to_string()), "{error}");
        assert_eq!(names(&dir.path().join("data")), [d.to_string()]);
    }

    #[test]
    fn the_catalog_is_replaced_atomically_and_leftovers_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let target = Target::open(dir.path()).unwrap();
        let old = dir.path().join("data/.tmp-1-2-3");
        fs::write(&old, "old").unwrap();
        let day = SystemTime::now() - STALE - Duration::from_secs(1);
        File::options().write(true).open(&old).unwrap().set_modified(day).unwrap();
        fs::write(dir.path().join("data/.tmp-young"), "young").unwrap();
        let locked = target.lock().unwrap();
        assert_eq!(locked.catalog().unwrap(), None);
        locked.set_catalog(b"{}").unwrap();
        assert_eq!(locked.catalog().unwrap().unwrap(), b"{}");
        assert_eq!(names(dir.path()), [LOCK, "data", CATALOG]);
        assert_eq!(names(&dir.path().join("data")), [".tmp-young"]);
    }

    #[test]
    fn one_holds_the_lock_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let target = Target::open(dir.path()).unwrap();
        let held = target.lock().unwrap();
        let file = File::options().write(true).open(dir.path().join(LOCK)).unwrap();
        assert!(file.try_lock().is_err());
        drop(held);
        file.try_lock().unwrap();
    }
}
