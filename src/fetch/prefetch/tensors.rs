//! The map of a file's tensors, once the file's header is in the store.
//!
//! Invariant: it causes no fetch, and gives up after some attempts, so a reader without a header costs
//! next to nothing.
//! Concurrency: one value per open file, shared by its threads; the caller runs `ask` where it may block
//! on the disk.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use crate::base::buffers::Buffers;
use crate::fetch::cached_file::CachedFile;
use crate::model::tensors::{Header, TensorMap, has_header, header};

/// Maximum number of attempts to read a header that is not in the store yet: a reader of tensors reads
/// the header first, so it arrives soon or never.
const ATTEMPTS: u32 = 16;
/// Size of the first read, which tells the header length of a safetensors file.
const FIRST: u64 = 16;

/// The tensor map of an open file, as far as known.
#[derive(Debug, Default)]
pub struct Tensors {
    map: OnceLock<Option<Arc<TensorMap>>>,
    attempts: AtomicU32,
    /// Whether a thread is reading the header.
    asking: AtomicBool,
}

/// The result of a look-up that reads nothing.
#[derive(Debug, Clone)]
pub enum Look {
    /// The tensor map.
    Map(Arc<TensorMap>),
    /// Unknown: the caller, and no other thread, has to call `ask`.
    Ask,
    /// There is no map, or another thread is reading the header.
    Nothing,
}

impl Tensors {
    /// Looks up the map without reading.
    pub fn look(&self, file: &CachedFile) -> Look {
        match self.map.get() {
            Some(Some(map)) => Look::Map(Arc::clone(map)),
            Some(None) => Look::Nothing,
            None if self.attempts.load(Ordering::Relaxed) >= ATTEMPTS => Look::Nothing,
            None if !has_header(file.entry().path.as_str()) => Look::Nothing,
            None if self.asking.swap(true, Ordering::Relaxed) => Look::Nothing,
            None => Look::Ask,
        }
    }

    /// Reads the map if the header is in the store. Reads the disk.
    pub fn ask(&self, buffers: &Buffers, file: &CachedFile) -> Option<Arc<TensorMap>> {
        self.attempts.fetch_add(1, Ordering::Relaxed);
        let found = read(buffers, file);
        let map = found.map(|map| self.map.get_or_init(|| map.map(Arc::new)).clone());
        self.asking.store(false, Ordering::Relaxed);
        map.flatten()
    }
}

/// The map, if the file has one; `None` if the store lacks the header so far.
fn read(buffers: &Buffers, file: &CachedFile) -> Option<Option<TensorMap>> {
    let len = file.entry().len;
    let mut needs = FIRST.min(len);
    loop {
        let mut buffer = buffers.take(needs as usize);
        // A disk error counts as not known yet.
        if !file.read_cached(0, buffer.bytes_mut()).unwrap_or(false) {
            return None;
        }
        match header(buffer.as_ref(), len) {
            Header::Needs(more) => needs = more,
            Header::Known(map) => return Some(Some(map)),
            Header::Unknown => return Some(None),
        }
    }
}
