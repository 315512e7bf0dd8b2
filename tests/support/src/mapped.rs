//! Memory maps of files that do not change: the one place of the tests that needs `unsafe`.
#![allow(unsafe_code)]

use std::fs::File;

use memmap2::{Mmap, MmapOptions};

/// All of a file, which must lie on a read-only mount or in a folder that no test writes to.
pub fn map(file: &File) -> Mmap {
    // SAFETY: the caller promises that the content never changes while the map lives.
    unsafe { MmapOptions::new().map(file) }.expect("mmap")
}
