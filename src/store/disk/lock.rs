//! One writer process per store: an exclusive lock on the file `lock`, which says who has it.
//!
//! Invariant: the lock counts, not the content: what a dead process left there is ignored. The
//! lock belongs to the open file and goes with its last descriptor, however the process ends; a
//! process can hand it to the next without letting go.

use parking_lot::Mutex;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::store::error::StoreError;
use crate::store::types::Holder;

/// Tries before giving up: a process that only asks ([`Holder::of`]) has the lock for an instant.
const TRIES: u32 = 10;
const BETWEEN: Duration = Duration::from_millis(5);

/// The most that is read of it: paths are a few thousand bytes at most.
const MOST: u64 = 64 << 10;

/// The lock, while it is held.
#[derive(Debug)]
pub struct StoreLock {
    path: PathBuf,
    file: Mutex<File>,
}

fn path_of(root: &Path) -> PathBuf {
    root.join("lock")
}

/// A link in the place of the lock must not lead elsewhere, nor a pipe keep us waiting.
fn refuse_links(options: &mut OpenOptions) {
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
        std::os::unix::fs::OpenOptionsExt::custom_flags(options, flags as i32);
    }
    #[cfg(not(unix))]
    let _ = options;
}

fn read_holder(file: &mut File) -> Holder {
    let mut text = Vec::new();
    // a holder that has not written yet is unknown: 0
    let _ = file.rewind().and_then(|()| file.take(MOST).read_to_end(&mut text));
    Holder::parse(&text).unwrap_or_default()
}

fn write_holder(file: &mut File, holder: &Holder) -> std::io::Result<()> {
    let mut text = serde_json::to_string(holder).expect("paths and numbers are JSON");
    // in one write and never shorter: who reads meanwhile finds the old or the new, not nothing
    let before = file.metadata()?.len().min(MOST) as usize;
    text.extend(std::iter::repeat_n(' ', before.saturating_sub(text.len())));
    file.rewind()?;
    file.write_all(text.as_bytes())?;
    file.set_len(text.len() as u64)
}

fn is_same(a: &std::fs::Metadata, b: &std::fs::Metadata) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        (a.dev(), a.ino()) == (b.dev(), b.ino())
    }
    // a file that is open cannot be removed there
    #[cfg(not(unix))]
    {
        let _ = (a, b);
        true
    }
}

/// Makes a store's folder, if it is not there.
pub fn make_folder(root: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(root)
}

impl StoreLock {
    /// Takes the lock of the store at `root`, or says who has it.
    pub fn take(root: &Path) -> Result<Self, StoreError> {
        let path = path_of(root);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        refuse_links(&mut options);
        let mut file = options.open(&path).map_err(StoreError::disk(&path, "open the lock"))?;
        for left in (0..TRIES).rev() {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if left > 0 => std::thread::sleep(BETWEEN),
                Err(TryLockError::WouldBlock) => {
                    return Err(StoreError::Locked {
                        root: root.to_owned(),
                        holder: read_holder(&mut file),
                    });
                }
                Err(TryLockError::Error(e)) => {
                    return Err(StoreError::disk(&path, "take the lock")(e));
                }
            }
        }
        #[cfg(unix)]
        {
            // the text would be written into another program's file
            use std::os::unix::fs::MetadataExt;
            let meta = file.metadata().map_err(StoreError::disk(&path, "look at the lock"))?;
            if meta.nlink() > 1 {
                let why = std::io::Error::other("it has another name, too: remove it");
                return Err(StoreError::disk(&path, "use the lock")(why));
            }
        }
        let lock = Self { path, file: Mutex::new(file) };
        lock.say(&Holder { pid: std::process::id(), ..Holder::default() })?;
        Ok(lock)
    }

    /// The lock of the store at `root` that another process took and handed over: it is held for as
    /// long as either has it.
    pub fn inherit(root: &Path, file: File) -> Self {
        Self { path: path_of(root), file: Mutex::new(file) }
    }

    /// The locked file, to hand over.
    pub fn share(&self) -> Result<File, StoreError> {
        self.file.lock().try_clone().map_err(StoreError::disk(&self.path, "share the lock"))
    }

    /// Writes who has it.
    pub fn say(&self, holder: &Holder) -> Result<(), StoreError> {
        write_holder(&mut self.file.lock(), holder)
            .map_err(StoreError::disk(&self.path, "write the lock"))
    }

    /// Whether the folder is still the one that this lock was taken in: then what its names lead to
    /// is ours. A folder that was emptied is taken again; one that another process has made its own
    /// since is lost, since what lies there under our names may have holes where we have data.
    pub fn still_ours(&self) -> bool {
        let mut file = self.file.lock();
        match std::fs::symlink_metadata(&self.path) {
            Ok(there) => file.metadata().map_or(true, |own| is_same(&own, &there)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                match self.take_again(&mut file) {
                    Ok(()) => true,
                    Err(error) => {
                        tracing::error!(%error, "the cache folder is gone; nothing is kept");
                        false
                    }
                }
            }
            // nothing is known: whatever is opened there fails, too
            Err(_) => true,
        }
    }

    fn take_again(&self, file: &mut File) -> std::io::Result<()> {
        if let Some(root) = self.path.parent() {
            make_folder(root)?;
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut new = options.open(&self.path)?;
        new.try_lock()?;
        write_holder(&mut new, &read_holder(file))?;
        *file = new;
        tracing::warn!(path = %self.path.display(), "the cache folder was emptied; it is used again");
        Ok(())
    }
}

impl Holder {
    /// Reads what stands in a lock file; none if that makes no sense.
    pub fn parse(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }

    /// Who holds the store at `root` now; `None` if no process does (asked by trying the lock).
    pub fn of(root: &Path) -> Option<Holder> {
        let mut options = OpenOptions::new();
        refuse_links(options.read(true));
        let mut file = options.open(path_of(root)).ok()?;
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => Some(read_holder(&mut file)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_link_leads_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let other = dir.path().join("other");
        std::fs::write(&other, "precious").unwrap();
        std::os::unix::fs::symlink(&other, dir.path().join("lock")).unwrap();
        assert!(StoreLock::take(dir.path()).is_err());
        assert_eq!(Holder::of(dir.path()), None);
        assert_eq!(std::fs::read(&other).unwrap(), b"precious");
        std::fs::remove_file(dir.path().join("lock")).unwrap();
        std::fs::hard_link(&other, dir.path().join("lock")).unwrap();
        let refused = StoreLock::take(dir.path()).unwrap_err().to_string();
        assert!(refused.contains("another name"), "{refused}");
        assert_eq!(std::fs::read(&other).unwrap(), b"precious");
    }

    #[test]
    fn the_second_is_told_who_is_first_and_the_dead_are_ignored() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Holder::of(dir.path()), None);
        std::fs::write(dir.path().join("lock"), r#"{"pid":1,"mountpoint":null,"socket":null}"#)
            .unwrap();
        assert_eq!(Holder::of(dir.path()), None, "stale");
        let first = StoreLock::take(dir.path()).unwrap();
        let me = Holder {
            pid: std::process::id(),
            mountpoint: Some("/models".into()),
            socket: Some("/run/s".into()),
            trouble: None,
        };
        first.say(&me).unwrap();
        assert_eq!(Holder::of(dir.path()), Some(me.clone()));
        match StoreLock::take(dir.path()) {
            Err(e @ StoreError::Locked { .. }) => {
                let text = e.to_string();
                assert!(text.contains(&format!("process {}", me.pid)), "{text}");
                assert!(text.contains("/models"), "{text}");
            }
            other => panic!("{other:?}"),
        }
        let heir = StoreLock::inherit(dir.path(), first.share().unwrap());
        drop(first);
        assert_eq!(Holder::of(dir.path()), Some(me), "handed over");
        drop(heir);
        assert_eq!(Holder::of(dir.path()), None);
        StoreLock::take(dir.path()).unwrap();
    }

    /// Fails with any way of writing that leaves the file empty for a moment.
    #[test]
    fn who_looks_while_it_is_written_finds_the_old_or_the_new() {
        let dir = tempfile::tempdir().unwrap();
        let lock = StoreLock::take(dir.path()).unwrap();
        let with = |socket: &str| Holder {
            pid: 7,
            mountpoint: None,
            socket: Some(socket.into()),
            trouble: None,
        };
        let both = [with("/s"), with("/a/much/longer/socket")];
        lock.say(&both[0]).unwrap();
        std::thread::scope(|scope| {
            let looking = scope.spawn(|| {
                (0..3000).map(|_| Holder::of(dir.path()).unwrap()).find(|h| !both.contains(h))
            });
            while !looking.is_finished() {
                both.iter().for_each(|holder| lock.say(holder).unwrap());
            }
            assert_eq!(looking.join().unwrap(), None);
        });
    }
}
