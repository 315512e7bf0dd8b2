//! Walking trees, and numbers that look random but are the same in every run.
//!
//! Plain functions.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What stands in a tree: paths relative to its top; files with their length, folders with none.
pub type Tree = BTreeMap<PathBuf, Option<u64>>;

/// Everything below a folder.
pub fn tree(top: &Path) -> Tree {
    fn below(top: &Path, folder: &Path, out: &mut Tree) {
        let entries = std::fs::read_dir(folder)
            .unwrap_or_else(|e| panic!("listing {}: {e}", folder.display()));
        for entry in entries {
            let entry = entry.unwrap_or_else(|e| panic!("listing {}: {e}", folder.display()));
            let path = entry.path();
            let found = entry.metadata().unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            let relative = path.strip_prefix(top).expect("it lies below").to_owned();
            let len = found.is_file().then_some(found.len());
            assert_eq!(out.insert(relative.clone(), len), None, "{relative:?} is listed twice");
            if found.is_dir() {
                below(top, &path, out);
            }
        }
    }
    let mut out = Tree::new();
    below(top, top, &mut out);
    out
}

/// The files of a tree, with their lengths.
pub fn files(top: &Path) -> Vec<(PathBuf, u64)> {
    tree(top).into_iter().filter_map(|(path, len)| Some((path, len?))).collect()
}

/// The folders of a tree, itself (as an empty path) first.
pub fn folders(top: &Path) -> Vec<PathBuf> {
    let below = tree(top).into_iter().filter(|(_, len)| len.is_none()).map(|(path, _)| path);
    std::iter::once(PathBuf::new()).chain(below).collect()
}

/// A file's bytes as they should be.
pub fn plain(top: &Path, file: &Path) -> Vec<u8> {
    std::fs::read(top.join(file)).expect("plain files can be read")
}

/// The largest file that is not larger than what a test should hold in memory several times.
pub fn a_large_file(top: &Path) -> (PathBuf, u64) {
    let mut files = files(top);
    files.sort_by_key(|(_, len)| *len);
    let fits = files.iter().rev().find(|(_, len)| *len <= 256 << 20).cloned();
    fits.expect("there is a file to read")
}

/// Compares without printing megabytes.
#[track_caller]
pub fn same(got: &[u8], want: &[u8], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}: length");
    if let Some(at) = got.iter().zip(want).position(|(a, b)| a != b) {
        panic!("{what}: byte {at} is {:#04x}, not {:#04x}", got[at], want[at]);
    }
}

/// A row of numbers (xorshift), the same for the same seed.
pub struct Dice(pub u64);

impl Dice {
    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
