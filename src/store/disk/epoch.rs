//! The file `epoch`: which index was used with a cache folder last.
//!
//! Each opening of a store draws a new number and writes it into the index and into this file. An index
//! whose number is another one was put there from elsewhere, from a backup say: what it says of blobs is
//! then checked part by part. Invariant: the number is replaced whole, or not at all. Used only while a
//! store is opened, by the process that has its lock.

use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// More digits than a number has.
const MOST: u64 = 64;

fn path(root: &Path) -> PathBuf {
    root.join("epoch")
}

/// A number that was not used before: the standard library seeds its hashers at random.
pub fn draw() -> i64 {
    RandomState::new().build_hasher().finish().cast_signed()
}

/// What the folder says; `None` where there is no such file, or something else in its place.
pub fn read(root: &Path) -> Option<i64> {
    let meta = std::fs::symlink_metadata(path(root)).ok()?;
    if !meta.is_file() {
        return None;
    }
    let mut text = String::new();
    File::open(path(root)).ok()?.take(MOST).read_to_string(&mut text).ok()?;
    text.trim_end().parse().ok()
}

/// Writes the number of the index that is used from now on. It need not be durable: after a power cut
/// the index is not believed anyway.
pub fn write(root: &Path, epoch: i64) -> io::Result<()> {
    let new = root.join("epoch.new");
    match std::fs::remove_file(&new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).open(&new)?;
    writeln!(file, "{epoch}")?;
    std::fs::rename(&new, path(root))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_anything_else_is_no_epoch() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()), None);
        let epoch = draw();
        assert_ne!(epoch, draw());
        write(dir.path(), epoch).unwrap();
        assert_eq!(read(dir.path()), Some(epoch));
        std::fs::write(path(dir.path()), "soon").unwrap();
        assert_eq!(read(dir.path()), None);
        write(dir.path(), -1).unwrap();
        assert_eq!(read(dir.path()), Some(-1));
    }

    #[cfg(unix)]
    #[test]
    fn a_link_in_its_place_is_replaced_and_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let other = dir.path().join("other");
        std::fs::write(&other, "7").unwrap();
        for name in ["epoch", "epoch.new"] {
            std::os::unix::fs::symlink(&other, dir.path().join(name)).unwrap();
        }
        assert_eq!(read(dir.path()), None);
        write(dir.path(), 8).unwrap();
        assert_eq!(
            (read(dir.path()), std::fs::read_to_string(&other).unwrap()),
            (Some(8), "7".into())
        );
    }
}
