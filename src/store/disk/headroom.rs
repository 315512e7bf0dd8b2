//! The headroom file: blocks of the disk that are kept for the index.
//!
//! It takes what the index is promised and does not use yet, and is cut when the index needs it or
//! the disk is full. Invariant: index and file together take no more than the accounting counts for
//! the index. Concurrency: one lock, held while the file changes; the accounting's is taken inside it.

use parking_lot::{Mutex, MutexGuard};
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// Its name in the store's folder.
pub const NAME: &str = "headroom";
/// It grows and shrinks by this much at least: a name costs some 100 bytes, cutting a file costs a
/// change of the file system's own records.
const STEP: u64 = 256 << 10;

/// The file.
#[derive(Debug)]
pub struct Headroom {
    path: PathBuf,
    len: Mutex<u64>,
}

/// The right to change it: while it lives, nothing of the headroom is promised to others.
pub struct Change<'a> {
    path: &'a Path,
    len: MutexGuard<'a, u64>,
}

impl Headroom {
    /// The one of the store at `root`, as it was left.
    pub fn of(root: &Path) -> Self {
        let path = root.join(NAME);
        let len = std::fs::symlink_metadata(&path).map_or(0, |m| m.len());
        Self { path, len: Mutex::new(len) }
    }

    /// Begins a change.
    pub fn change(&self) -> Change<'_> {
        Change { path: &self.path, len: self.len.lock() }
    }
}

impl Change<'_> {
    /// Cuts it, so that it takes at most so much.
    pub fn shrink_to(&mut self, most: u64) {
        if *self.len <= most {
            return;
        }
        let to = most / STEP * STEP;
        let cut = open(self.path, false).and_then(|file| file.set_len(to));
        match cut {
            Ok(()) => *self.len = to,
            Err(e) if e.kind() == io::ErrorKind::NotFound => *self.len = 0,
            Err(error) => tracing::warn!(%error, "the headroom file could not be cut"),
        }
    }

    /// Gives all of it up. Whether that freed something.
    pub fn give_up(&mut self) -> bool {
        let had = *self.len;
        self.shrink_to(0);
        *self.len < had
    }

    /// Makes it take `most`, but no more than a quarter of what the disk has for us: what is given
    /// up on a full disk is not taken back at once.
    pub fn grow_to(&mut self, most: u64, free: u64) {
        let to = most.min((free + *self.len) / 4) / STEP * STEP;
        if to <= *self.len {
            return;
        }
        let grown = open(self.path, true).and_then(|file| {
            take(&file, *self.len, to).inspect_err(|_| drop(file.set_len(*self.len)))
        });
        match grown {
            Ok(()) => *self.len = to,
            Err(error) => tracing::debug!(%error, "no headroom for the index on this disk"),
        }
    }
}

/// Opens it. A link in its place is not followed: what it leads to is not ours.
fn open(path: &Path, create: bool) -> io::Result<File> {
    if std::fs::symlink_metadata(path).is_ok_and(|m| !m.is_file()) {
        return Err(io::Error::other("it is not a file"));
    }
    let mut options = OpenOptions::new();
    options.write(true).create(create).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Makes the blocks of a range really taken.
fn take(file: &File, from: u64, to: u64) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        let none = rustix::fs::FallocateFlags::empty();
        let taken = rustix::fs::fallocate(file, none, from, to - from).map_err(io::Error::from);
        if !taken.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::Unsupported) {
            return taken;
        }
    }
    use std::io::{Seek, Write};
    let mut file = file;
    file.seek(io::SeekFrom::Start(from))?;
    // not zeros: a file system that compresses would take no blocks for them
    let mut noise = crate::model::hash::blake3(b"headroom");
    for _ in 0..(to - from) / 32 {
        file.write_all(noise.as_bytes())?;
        noise = crate::model::hash::blake3(noise.as_bytes());
    }
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn it_takes_blocks_and_gives_them_back() {
        let dir = tempfile::tempdir().unwrap();
        let taken = || {
            let meta = std::fs::metadata(dir.path().join(NAME)).unwrap();
            std::os::unix::fs::MetadataExt::blocks(&meta) * 512
        };
        let headroom = Headroom::of(dir.path());
        headroom.change().grow_to(1 << 20, 4 << 20);
        assert_eq!(taken(), 1 << 20);
        headroom.change().shrink_to((1 << 20) - 1);
        assert_eq!(taken(), 3 * STEP, "whole steps");
        headroom.change().grow_to(1 << 20, 3 << 20);
        assert_eq!(taken(), 3 * STEP, "the disk has no room to spare");
        // as the next process finds it
        assert!(Headroom::of(dir.path()).change().give_up());
        assert_eq!(taken(), 0);
        assert!(!Headroom::of(dir.path()).change().give_up(), "there is nothing left");
    }

    #[test]
    fn what_else_has_its_name_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let other = dir.path().join("other");
        std::fs::write(&other, "precious").unwrap();
        std::os::unix::fs::symlink(&other, dir.path().join(NAME)).unwrap();
        let headroom = Headroom::of(dir.path());
        headroom.change().grow_to(1 << 20, 1 << 30);
        headroom.change().shrink_to(0);
        assert_eq!(std::fs::read(&other).unwrap(), b"precious");
    }
}
