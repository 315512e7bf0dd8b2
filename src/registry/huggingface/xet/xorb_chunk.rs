//! One chunk as a xorb has it: a header, and bytes that may be compressed. Pure.
//!
//! Invariant: no chunk becomes larger than a chunk can be, whatever its header or its bytes say.

use std::io::Read;

use bytes::Bytes;
use lz4_flex::frame::FrameDecoder;

use crate::trust::xet::MAX_CHUNK;

/// Bytes of the header.
pub const HEADER: usize = 8;
/// The only version of the header that there is.
const VERSION: u8 = 0;
/// Maximum number of bytes that a chunk takes in a xorb. LZ4 makes bytes that cannot be compressed one in
/// 255 larger and adds a few dozen; twice the size is refused as no chunk.
const MAX_STORED: u64 = 2 * MAX_CHUNK;

/// Why bytes are no chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a chunk: {0}")]
pub struct ChunkError(&'static str);

/// How the bytes of a chunk are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    /// As they are.
    Plain,
    /// As an LZ4 frame.
    Lz4,
    /// Those at 0, 4, 8 … first, then those at 1, 5, 9 … and so on; and that as an LZ4 frame.
    GroupedLz4,
}

/// The header of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkHeader {
    /// Bytes that follow in the xorb.
    pub stored: usize,
    /// Bytes of the chunk.
    size: usize,
    scheme: Scheme,
}

impl ChunkHeader {
    /// Reads a header: version, stored size, scheme, size; both sizes have three bytes, little endian.
    pub fn parse(bytes: [u8; HEADER]) -> Result<Self, ChunkError> {
        let [version, a, b, c, scheme, x, y, z] = bytes;
        let (stored, size) = (u32::from_le_bytes([a, b, c, 0]), u32::from_le_bytes([x, y, z, 0]));
        if version != VERSION {
            return Err(ChunkError("its header has an unknown version"));
        }
        let scheme = match scheme {
            0 => Scheme::Plain,
            1 => Scheme::Lz4,
            2 => Scheme::GroupedLz4,
            _ => return Err(ChunkError("its compression is unknown")),
        };
        if !(1..=MAX_CHUNK).contains(&u64::from(size)) {
            return Err(ChunkError("its size is none that a chunk can have"));
        }
        if !(1..=MAX_STORED).contains(&u64::from(stored)) {
            return Err(ChunkError("its stored size is none that a chunk can have"));
        }
        Ok(Self { stored: stored as usize, size: size as usize, scheme })
    }

    /// The bytes of the chunk, from those that are stored.
    pub fn decode(&self, stored: Bytes) -> Result<Bytes, ChunkError> {
        let bytes = match self.scheme {
            Scheme::Plain => stored,
            Scheme::Lz4 => self.decompress(&stored)?.into(),
            Scheme::GroupedLz4 => ungrouped(&self.decompress(&stored)?).into(),
        };
        match bytes.len() == self.size {
            true => Ok(bytes),
            false => Err(ChunkError("it has another size than its header says")),
        }
    }

    fn decompress(&self, stored: &[u8]) -> Result<Vec<u8>, ChunkError> {
        let mut out = Vec::with_capacity(self.size);
        // One byte more shows that there are too many.
        let mut frame = FrameDecoder::new(stored).take(self.size as u64 + 1);
        frame.read_to_end(&mut out).map_err(|_| ChunkError("it cannot be decompressed"))?;
        Ok(out)
    }
}

/// Undoes the grouping: the first group has one byte in four, from byte 0 on; the next from byte 1 on.
fn ungrouped(grouped: &[u8]) -> Vec<u8> {
    let mut out = vec![0; grouped.len()];
    let mut rest = grouped.iter();
    for first in 0..4 {
        for at in (first..out.len()).step_by(4) {
            out[at] = *rest.next().expect("as many bytes as there are places");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn lz4(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn header(stored: usize, scheme: u8, size: usize) -> [u8; HEADER] {
        let ([a, b, c, _], [x, y, z, _]) =
            ((stored as u32).to_le_bytes(), (size as u32).to_le_bytes());
        [0, a, b, c, scheme, x, y, z]
    }

    fn decoded(scheme: u8, stored: &[u8], size: usize) -> Result<Bytes, ChunkError> {
        ChunkHeader::parse(header(stored.len(), scheme, size))?
            .decode(Bytes::copy_from_slice(stored))
    }

    #[test]
    fn chunks_of_every_scheme_are_decoded() {
        let bytes: Vec<u8> = (0..1003u32).map(|i| (i / 7) as u8).collect();
        let grouped: Vec<u8> =
            (0..4).flat_map(|first| bytes.iter().skip(first).step_by(4).copied()).collect();
        for (scheme, stored) in [(0, bytes.clone()), (1, lz4(&bytes)), (2, lz4(&grouped))] {
            assert_eq!(decoded(scheme, &stored, bytes.len()).unwrap(), bytes, "scheme {scheme}");
        }
    }

    #[test]
    fn absurd_headers_are_refused() {
        let max = MAX_CHUNK as usize;
        assert!(ChunkHeader::parse(header(1, 0, 1)).is_ok());
        assert!(ChunkHeader::parse(header(2 * max, 1, max)).is_ok());
        for (stored, scheme, size) in
            [(0, 0, 1), (1, 0, 0), (1, 3, 1), (1, 0, max + 1), (2 * max + 1, 1, max)]
        {
            assert!(ChunkHeader::parse(header(stored, scheme, size)).is_err());
        }
        let mut other = header(1, 0, 1);
        other[0] = 1;
        assert!(ChunkHeader::parse(other).is_err());
    }

    #[test]
    fn a_chunk_of_another_size_than_announced_is_refused_and_a_bomb_is_not_unpacked() {
        let bomb = lz4(&vec![0; 8 << 20]);
        assert!(bomb.len() < MAX_STORED as usize, "{}", bomb.len());
        for scheme in [1, 2] {
            assert!(decoded(scheme, &bomb, 1000).is_err());
            assert!(decoded(scheme, &lz4(b"abc"), 4).is_err());
            assert!(decoded(scheme, b"no frame", 4).is_err());
        }
        assert!(decoded(0, b"abc", 4).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_chunk_or_an_error(bytes: Vec<u8>, scheme in 0u8..3, size in 1usize..70_000) {
            if let Ok(chunk) = decoded(scheme, &bytes, size) {
                prop_assert_eq!(chunk.len(), size);
            }
        }
    }
}
