//! Buffers for cached reads, used again and again: a new one of a MiB costs 256 page faults.
//!
//! Invariant: a buffer is in the pool or in one reader's hands. One short lock; buffers come back
//! when the last reference to the bytes goes.

use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::sync::lock;

/// The largest buffer that is kept: the kernel's largest read.
const LARGEST: usize = 1 << 20;
/// Buffers kept: as many reads as a dozen threads have in hand at once; 16 MiB at most.
const KEPT: usize = 16;

/// Where buffers wait.
#[derive(Clone, Default)]
pub(super) struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

/// A buffer in use.
pub(super) struct Buffer {
    bytes: Vec<u8>,
    len: usize,
    home: Buffers,
}

impl Buffers {
    /// A buffer of `len` bytes of any content.
    pub(super) fn take(&self, len: usize) -> Buffer {
        let mut bytes = match len <= LARGEST {
            true => lock(&self.0).pop().unwrap_or_default(),
            false => Vec::new(),
        };
        if bytes.len() < len {
            bytes.resize(len, 0);
        }
        Buffer { bytes, len, home: self.clone() }
    }
}

impl Buffer {
    /// To be filled.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }

    /// Filled: for reading, until the last reference goes.
    pub(super) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if bytes.capacity() <= LARGEST {
            let mut pool = lock(&self.home.0);
            if pool.len() < KEPT {
                pool.push(bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_when_its_bytes_are_gone() {
        let pool = Buffers::default();
        let mut buffer = pool.take(100);
        buffer.bytes_mut().fill(7);
        let bytes = buffer.freeze();
        assert_eq!((bytes.len(), bytes[99]), (100, 7));
        let part = bytes.slice(10..20);
        drop(bytes);
        assert_eq!(pool.0.lock().unwrap().len(), 0);
        drop(part);
        assert_eq!(pool.0.lock().unwrap().len(), 1);
        assert_eq!(pool.take(50).as_ref().len(), 50);
        assert_eq!(pool.take(200).as_ref().len(), 200);
        drop(pool.take(LARGEST + 1));
        assert_eq!(pool.0.lock().unwrap().len(), 1, "what is too large is not kept");
    }
}
