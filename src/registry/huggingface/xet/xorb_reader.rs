//! Reads the chunks of the ranges of one xorb as they arrive.
//!
//! Invariant: each range has exactly the chunks that it was announced with, or there is an error.
//! Concurrency: owned by one task.

use super::incoming::Incoming;
use super::multipart::Parts;
use super::terms::XorbRange;
use super::xorb_chunk::{ChunkHeader, HEADER};
use crate::registry::error::RegistryError;

/// A chunk that arrived, not decoded yet.
pub struct StoredChunk {
    /// Which one of its xorb.
    pub index: u32,
    header: ChunkHeader,
    stored: bytes::Bytes,
}

impl StoredChunk {
    /// Its bytes; else what is wrong with them.
    pub fn decode(self) -> Result<bytes::Bytes, String> {
        self.header.decode(self.stored).map_err(|e| format!("chunk {}: {e}", self.index))
    }
}

/// The chunks of some ranges of a xorb.
pub struct XorbReader {
    incoming: Incoming,
    parts: Parts,
    /// Those that are left, the first of them under way if `left` is not 0.
    ranges: std::vec::IntoIter<XorbRange>,
    range: Option<XorbRange>,
    next: u32,
    /// Bytes of the range that are left.
    left: u64,
}

impl XorbReader {
    /// Reads these ranges, none of them empty, of an answer.
    pub fn new(incoming: Incoming, parts: Parts, ranges: Vec<XorbRange>) -> Self {
        let ranges = ranges.into_iter();
        Self { incoming, parts, ranges, range: None, next: 0, left: 0 }
    }

    /// The next chunk; `None` after the last.
    pub async fn next(&mut self) -> Result<Option<StoredChunk>, RegistryError> {
        if self.range.is_none() {
            let Some(range) = self.ranges.next() else { return Ok(None) };
            self.parts.begin(&mut self.incoming, &range.bytes).await?;
            (self.next, self.left) = (range.chunks.start, range.len());
            self.range = Some(range);
        }
        let index = self.next;
        self.take(HEADER as u64)?;
        let header = self.incoming.exact(HEADER).await?;
        let header = header[..].try_into().expect("as many bytes as were taken");
        let header = ChunkHeader::parse(header)
            .map_err(|e| self.incoming.invalid(format!("chunk {index}: {e}")))?;
        self.take(header.stored as u64)?;
        let stored = self.incoming.exact(header.stored).await?;
        self.next += 1;
        let last = self.range.as_ref().is_some_and(|range| self.next == range.chunks.end);
        if last != (self.left == 0) {
            return Err(self.incoming.invalid("a range has other chunks than announced"));
        }
        if last {
            self.range = None;
        }
        Ok(Some(StoredChunk { index, header, stored }))
    }

    fn take(&mut self, count: u64) -> Result<(), RegistryError> {
        let left = self.left.checked_sub(count);
        self.left = left.ok_or_else(|| self.incoming.invalid("a chunk goes past its range"))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::incoming::tests::in_pieces;
    use super::*;

    fn chunk(bytes: &[u8]) -> Vec<u8> {
        let [a, b, c, _] = (bytes.len() as u32).to_le_bytes();
        [&[0, a, b, c, 0, a, b, c], bytes].concat()
    }

    async fn read(
        body: &[u8],
        parts: Parts,
        ranges: Vec<XorbRange>,
    ) -> Result<Vec<(u32, Vec<u8>)>, RegistryError> {
        let mut reader = XorbReader::new(in_pieces(body, 3), parts, ranges);
        let mut out = Vec::new();
        while let Some(chunk) = reader.next().await? {
            out.push((chunk.index, chunk.decode().unwrap().to_vec()));
        }
        Ok(out)
    }

    fn range(chunks: std::ops::Range<u32>, first: u64, len: usize) -> XorbRange {
        XorbRange { chunks, bytes: first..=first + len as u64 - 1 }
    }

    #[tokio::test]
    async fn chunks_of_one_range_are_numbered_from_its_first() {
        let body = [chunk(b"ab"), chunk(b"cde")].concat();
        let ranges = vec![range(5..7, 100, body.len())];
        let chunks = read(&body, Parts::One, ranges).await.unwrap();
        assert_eq!(chunks, [(5, b"ab".to_vec()), (6, b"cde".to_vec())]);
    }

    #[tokio::test]
    async fn chunks_of_several_ranges_are_read() {
        let (a, b) = (chunk(b"ab"), chunk(b"cde"));
        let mut body = b"--x\r\nContent-Range: bytes 0-9/99\r\n\r\n".to_vec();
        body.extend(&a);
        body.extend(b"\r\n--x\r\nContent-Range: bytes 20-30/99\r\n\r\n");
        body.extend(&b);
        let ranges = vec![range(0..1, 0, 10), range(3..4, 20, 11)];
        let chunks = read(&body, Parts::Separated("x".into()), ranges).await.unwrap();
        assert_eq!(chunks, [(0, b"ab".to_vec()), (3, b"cde".to_vec())]);
    }

    #[tokio::test]
    async fn ranges_with_other_chunks_than_announced_are_refused() {
        let body = [chunk(b"ab"), chunk(b"cde")].concat();
        for (chunks, len) in [(0..1, body.len()), (0..3, body.len()), (0..2, body.len() - 1)] {
            let result = read(&body, Parts::One, vec![range(chunks, 0, len)]).await;
            assert!(matches!(result, Err(RegistryError::Invalid { .. })), "{result:?}");
        }
        let cut = read(&body[..15], Parts::One, vec![range(0..2, 0, body.len())]).await;
        assert!(cut.unwrap_err().is_transient());
    }
}
