//! The map of a file's tensors, as soon as the file's header is in the store.
//!
//! Invariant: nothing is fetched for it, and looking is given up after some attempts, so a reader
//! without a header costs next to nothing. One value per open file, shared by its threads; reads of
//! the disk are the caller's to put where they may block.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use super::cached_file::CachedFile;
use super::fetcher::Fetcher;
use crate::model::tensors::{Header, TensorMap, has_header, header};

/// How often a header that is not in the store yet is looked for: whoever reads tensors reads the
/// header first, so it comes soon or never.
const ATTEMPTS: u32 = 16;
/// What is read first: it tells how long the header of a safetensors file is.
const FIRST: u64 = 16;

/// What is known of an open file's tensors.
#[derive(Debug, Default)]
pub struct Tensors {
    map: OnceLock<Option<Arc<TensorMap>>>,
    attempts: AtomicU32,
    /// Whether somebody is finding out.
    asking: AtomicBool,
}

/// What a look at it gives without any reading.
#[derive(Debug, Clone)]
pub enum Look {
    /// Where they are.
    Map(Arc<TensorMap>),
    /// It may be worth while to find out: the caller has to, and nobody else.
    Ask,
    /// There is nothing to know, or somebody else is finding out.
    Nothing,
}

impl Tensors {
    /// What is known by now.
    pub fn look(&self, file: &CachedFile) -> Look {
        match self.map.get() {
            Some(Some(map)) => Look::Map(Arc::clone(map)),
            Some(None) => Look::Nothing,
            None if self.attempts.load(Ordering::Relaxed) >= ATTEMPTS => Look::Nothing,
            None if !has_header(file.manifest.file(file.file).path.as_str()) => Look::Nothing,
            None if self.asking.swap(true, Ordering::Relaxed) => Look::Nothing,
            None => Look::Ask,
        }
    }

    /// Finds out, if the header is in the store. Reads the disk.
    pub fn ask(&self, fetcher: &Fetcher, file: &CachedFile) -> Option<Arc<TensorMap>> {
        self.attempts.fetch_add(1, Ordering::Relaxed);
        let found = read(fetcher, file);
        let map = found.map(|map| self.map.get_or_init(|| map.map(Arc::new)).clone());
        self.asking.store(false, Ordering::Relaxed);
        map.flatten()
    }
}

/// The map, if there is one; nothing if the store lacks the header as yet.
fn read(fetcher: &Fetcher, file: &CachedFile) -> Option<Option<TensorMap>> {
    let len = file.manifest.file(file.file).len;
    let mut needs = FIRST.min(len);
    loop {
        let mut buffer = fetcher.buffer(needs as usize);
        // What the disk cannot give now is only not known now.
        if !fetcher.read_cached(file, 0, buffer.bytes_mut()).unwrap_or(false) {
            return None;
        }
        match header(buffer.as_ref(), len) {
            Header::Needs(more) => needs = more,
            Header::Known(map) => return Some(Some(map)),
            Header::Unknown => return Some(None),
        }
    }
}
