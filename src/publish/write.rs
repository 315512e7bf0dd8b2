//! Writes to a registry's folder: objects under their digests, then the catalog.
//!
//! Invariant: a reader sees each file whole or not at all, and a version only once everything it
//! consists of is durable. Everything is written beside its place, synced and renamed; the catalog
//! is read, changed and renamed under an exclusive lock of `.publish.lock`, so that two publishers
//! cannot lose each other's entry. Objects need no lock: equal names have equal bytes.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::types::PublishError;
use crate::model::Digest;
use crate::registry::xprim::{CATALOG, MAX_CATALOG, object_path};

const LOCK: &str = ".publish.lock";
const TEMP: &str = ".tmp-";
/// Temporary files of this age have nobody left who writes them: no object takes a day.
const STALE: Duration = Duration::from_secs(24 * 60 * 60);

/// A registry's folder, to write to.
#[derive(Debug)]
pub struct Target {
    root: PathBuf,
    claimed: Mutex<HashSet<Digest>>,
}

/// The right to change the catalog; given up when dropped.
#[derive(Debug)]
pub struct Locked<'a> {
    target: &'a Target,
    _lock: File,
}

impl Target {
    /// The registry in `root`, made if it is not there.
    pub fn open(root: &Path) -> Result<Self, PublishError> {
        let data = root.join("data");
        fs::create_dir_all(&data).map_err(PublishError::io(&data))?;
        Ok(Self { root: root.to_owned(), claimed: Mutex::default() })
    }

    /// Keeps an object. Whether it was new: one of the right length under that name is taken to be
    /// the one, since names are digests; one of another length is a leftover and is replaced.
    pub fn put(&self, digest: &Digest, bytes: &[u8]) -> Result<bool, PublishError> {
        let first =
            self.claimed.lock().expect("nothing panics while it holds this lock").insert(*digest);
        let path = self.root.join(object_path(digest));
        if !first || fs::metadata(&path).is_ok_and(|m| m.is_file() && m.len() == bytes.len() as u64)
        {
            return Ok(false);
        }
        replace(&path, bytes)?;
        Ok(true)
    }

    /// Waits for the right to change the catalog. What was put before is durable then.
    pub fn lock(&self) -> Result<Locked<'_>, PublishError> {
        let path = self.root.join(LOCK);
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(PublishError::io(&path))?;
        lock.lock().map_err(PublishError::io(&path))?;
        sync_folder(&self.root.join("data"))?;
        Ok(Locked { target: self, _lock: lock })
    }
}

impl Locked<'_> {
    /// The catalog as it is, if there is one.
    pub fn catalog(&self) -> Result<Option<Vec<u8>>, PublishError> {
        let path = self.target.root.join(CATALOG);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(PublishError::io(path)(e)),
        };
        let mut body = Vec::new();
        // One byte more than may be: too long then fails as invalid.
        file.take(MAX_CATALOG + 1).read_to_end(&mut body).map_err(PublishError::io(path))?;
        Ok(Some(body))
    }

    /// Replaces the catalog.
    pub fn set_catalog(&self, body: &[u8]) -> Result<(), PublishError> {
        if body.len() as u64 > MAX_CATALOG {
            let why = format!("the catalog would be more than {MAX_CATALOG} bytes");
            return Err(PublishError::Request(why));
        }
        let root = &self.target.root;
        replace(&root.join(CATALOG), body)?;
        sync_folder(root)?;
        // Leftovers cost space and nothing else: what cannot be removed stays.
        for folder in [root.clone(), root.join("data")] {
            remove_stale(&folder, SystemTime::now());
        }
        Ok(())
    }
}

/// Removes what dead publishers left.
fn remove_stale(folder: &Path, now: SystemTime) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let age = || now.duration_since(entry.metadata().ok()?.modified().ok()?).ok();
        let ours = entry.file_name().to_str().is_some_and(|n| n.starts_with(TEMP));
        if ours && age().is_some_and(|age| age > STALE) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// A file that is removed again unless it is renamed.
struct Temp(PathBuf);

impl Drop for Temp {
    fn drop(&mut self) {
        // After the rename there is nothing by this name.
        let _ = fs::remove_file(&self.0);
    }
}

/// Puts a file in its place, whole and durable (its name is, once the folder is synced).
fn replace(path: &Path, bytes: &[u8]) -> Result<(), PublishError> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let temp = Temp(path.with_file_name(format!(
        // The time tells processes of one id on several machines apart.
        "{TEMP}{}-{}-{}",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed),
        since.map_or(0, |t| t.as_nanos()),
    )));
    let failed = || PublishError::io(path);
    let mut file =
        OpenOptions::new().write(true).create_new(true).open(&temp.0).map_err(failed())?;
    #[cfg(unix)]
    {
        // For every reader, whatever the publisher's umask: a web server is another user.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        file.set_permissions(mode).map_err(failed())?;
    }
    file.write_all(bytes).map_err(failed())?;
    file.sync_all().map_err(failed())?;
    drop(file);
    fs::rename(&temp.0, path).map_err(failed())
}

fn sync_folder(folder: &Path) -> Result<(), PublishError> {
    // Elsewhere folders cannot be opened, and renames are the journal's business.
    #[cfg(unix)]
    File::open(folder).and_then(|f| f.sync_all()).map_err(PublishError::io(folder))?;
    let _ = folder;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hash::sha256;

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
        // A folder in its place cannot be renamed over.
        fs::create_dir_all(dir.path().join(object_path(&d)).join("full")).unwrap();
        let error = target.put(&d, b"x").unwrap_err();
        assert!(error.to_string().contains(&d.to_string()), "{error}");
        assert_eq!(names(&dir.path().join("data")), [d.to_string()]);
    }

    #[test]
    fn the_catalog_is_replaced_whole_and_the_dead_cleaned_up() {
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
