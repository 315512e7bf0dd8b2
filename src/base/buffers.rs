//! A pool of buffers for bodies and reads: a new buffer of a MiB costs 256 page faults, more than hashing
//! its content.
//!
//! Invariant: a buffer is in the pool or has one owner; the pool never holds more than its limit.
//! Concurrency: one short lock; a buffer returns when the last reference to its bytes is dropped.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// Maximum size of the pool: as many batches of a MiB as a fast download has in memory, or two chunks of
/// the usual size.
const KEPT: usize = 24 << 20;
/// Maximum ratio of buffer size to request: otherwise small reads would hold large buffers.
const WASTE: usize = 16;

/// The pool. Clones share it.
#[derive(Clone, Default)]
pub struct Buffers(Arc<Mutex<Waiting>>);

#[derive(Default)]
struct Waiting {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

/// A buffer in use.
pub struct Buffer {
    bytes: Vec<u8>,
    len: usize,
    home: Buffers,
}

impl Buffers {
    /// A buffer of `len` bytes of any content.
    pub fn take(&self, len: usize) -> Buffer {
        let mut bytes = self.waiting().take(len).unwrap_or_default();
        if bytes.len() < len {
            bytes.resize(len, 0);
        }
        Buffer { bytes, len, home: self.clone() }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Takes the smallest buffer that is large enough, but not more than `WASTE` times too large.
    fn take(&mut self, len: usize) -> Option<Vec<u8>> {
        let fits = len..=len.saturating_mul(WASTE);
        let sizes = self.buffers.iter().map(Vec::len).enumerate();
        let (at, size) = sizes.filter(|(_, n)| fits.contains(n)).min_by_key(|(_, n)| *n)?;
        self.bytes -= size;
        Some(self.buffers.swap_remove(at))
    }
}

impl Buffer {
    /// The bytes to fill.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }

    /// The filled bytes, read-only. The buffer returns to the pool with the last reference.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({} bytes)", self.len)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let mut waiting = self.home.waiting();
        if !bytes.is_empty() && waiting.bytes + bytes.len() <= KEPT {
            waiting.bytes += bytes.len();
            waiting.buffers.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(pool: &Buffers) -> Vec<usize> {
        pool.waiting().buffers.iter().map(Vec::len).collect()
    }

    #[test]
    fn a_buffer_comes_back_when_its_bytes_are_gone() {
        let pool = Buffers::default();
        let mut buffer = pool.take(100);
        buffer.bytes_mut().fill(7);
        let bytes = buffer.freeze();
        assert_eq!((bytes.len(), bytes[99]), (100, 7));
        let part = bytes.slice(10..20);
        drop(bytes);
        assert!(sizes(&pool).is_empty());
        drop(part);
        assert_eq!(sizes(&pool), [100]);
        assert_eq!(pool.take(50).as_ref().len(), 50);
        assert_eq!(pool.take(200).as_ref().len(), 200);
    }

    #[test]
    fn the_smallest_that_fits_is_lent_and_the_pool_is_bounded() {
        let pool = Buffers::default();
        drop([pool.take(4096), pool.take(1 << 20), pool.take(KEPT + 1)]);
        assert_eq!(sizes(&pool), [4096, 1 << 20], "what is too large is not kept");
        let lent = pool.take(100 << 10);
        assert_eq!((lent.as_ref().len(), sizes(&pool)), (100 << 10, vec![4096]));
        drop(lent);
        drop(pool.take(1));
        assert_eq!(sizes(&pool), [4096, 1 << 20, 1], "not a page for a byte");
        let all: Vec<_> = (0..30).map(|_| pool.take(1 << 20)).collect();
        drop(all);
        assert!(pool.waiting().bytes <= KEPT);
        assert_eq!(sizes(&pool).iter().sum::<usize>(), pool.waiting().bytes);
    }
}
