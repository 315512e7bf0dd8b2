//! Parses the header of a GGUF file: counts, keys with values, then the offset of each tensor in the data
//! that follows.
//!
//! The header gives no tensor lengths: each tensor is taken to reach to the beginning of the next one,
//! which is right except for padding. Source: the format's description in the ggml project
//! (docs/gguf.md), versions 2 and 3, little-endian. Pure.

use super::parse::ParseError;
use crate::base::FileRange;

/// The magic number.
pub(super) const MAGIC: &[u8] = b"GGUF";

/// Alignment of the data, unless a key sets another.
const ALIGNMENT: u64 = 32;
const ALIGNMENT_KEY: &[u8] = b"general.alignment";

/// Maximum number of dimensions; no tensor has more.
const MAX_DIMENSIONS: u32 = 16;
/// Maximum nesting of arrays.
const MAX_DEPTH: u32 = 4;

/// Type numbers of the values without a fixed size, and of the alignment.
const UINT32: u32 = 4;
const STRING: u32 = 8;
const ARRAY: u32 = 9;

/// The extents of the tensors of a file of `len` bytes with these first bytes.
pub(super) fn extents(first: &[u8], len: u64) -> Result<Vec<FileRange>, ParseError> {
    let mut r = Reader { bytes: first, at: MAGIC.len() };
    if !(2..=3).contains(&r.u32()?) {
        return Err(ParseError::Malformed);
    }
    let (tensors, keys) = (r.u64()?, r.u64()?);
    let mut alignment = ALIGNMENT;
    for _ in 0..keys {
        let name = r.string()?;
        let kind = r.u32()?;
        if name == ALIGNMENT_KEY && kind == UINT32 {
            alignment = u64::from(r.u32()?);
        } else {
            r.skip_value(kind, 0)?;
        }
    }
    if !alignment.is_power_of_two() {
        return Err(ParseError::Malformed);
    }
    let mut offsets = Vec::new();
    for _ in 0..tensors {
        r.string()?;
        let dimensions = r.u32()?;
        if dimensions > MAX_DIMENSIONS {
            return Err(ParseError::Malformed);
        }
        r.skip(u64::from(dimensions) * 8 + 4)?;
        offsets.push(r.u64()?);
    }
    let data = (r.at as u64).next_multiple_of(alignment);
    offsets.sort_unstable();
    offsets.dedup();
    let starts: Vec<u64> = offsets.iter().map(|offset| data.saturating_add(*offset)).collect();
    let ends = starts.iter().skip(1).copied().chain([len]);
    Ok(starts.iter().zip(ends).map(|(start, end)| FileRange::new(*start, end)).collect())
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: u64) -> Result<&'a [u8], ParseError> {
        // At least twice the present bytes: the end of the header is unknown until it is parsed.
        let end = (self.at as u64).checked_add(n).ok_or(ParseError::Malformed)?;
        let taken = usize::try_from(end).ok().and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or(ParseError::Incomplete(end.max(2 * self.bytes.len() as u64)))?;
        self.at += taken.len();
        Ok(taken)
    }

    fn skip(&mut self, n: u64) -> Result<(), ParseError> {
        self.take(n).map(drop)
    }

    fn u32(&mut self) -> Result<u32, ParseError> {
        let bytes = self.take(4)?.try_into().expect("four bytes were taken");
        Ok(u32::from_le_bytes(bytes))
    }

    fn u64(&mut self) -> Result<u64, ParseError> {
        let bytes = self.take(8)?.try_into().expect("eight bytes were taken");
        Ok(u64::from_le_bytes(bytes))
    }

    fn string(&mut self) -> Result<&'a [u8], ParseError> {
        let len = self.u64()?;
        self.take(len)
    }

    fn skip_value(&mut self, kind: u32, depth: u32) -> Result<(), ParseError> {
        match kind {
            STRING => self.string().map(drop),
            ARRAY if depth < MAX_DEPTH => {
                let (kind, count) = (self.u32()?, self.u64()?);
                match size_of(kind) {
                    Some(size) => self.skip(count.checked_mul(size).ok_or(ParseError::Malformed)?),
                    // Each element consumes bytes, which bounds the loop.
                    None => (0..count).try_for_each(|_| self.skip_value(kind, depth + 1)),
                }
            }
            _ => self.skip(size_of(kind).ok_or(ParseError::Malformed)?),
        }
    }
}

/// The size of a value of fixed size.
fn size_of(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Header, header};
    use super::*;

    fn string(text: &str) -> Vec<u8> {
        [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
    }

    fn file(alignment: u32, offsets: &[u64]) -> Vec<u8> {
        let mut f = MAGIC.to_vec();
        f.extend(3u32.to_le_bytes());
        f.extend((offsets.len() as u64).to_le_bytes());
        f.extend(3u64.to_le_bytes());
        f.extend([string("general.name"), STRING.to_le_bytes().to_vec(), string("tiny")].concat());
        f.extend([string("general.alignment"), UINT32.to_le_bytes().to_vec()].concat());
        f.extend(alignment.to_le_bytes());
        f.extend([string("tokens"), ARRAY.to_le_bytes().to_vec()].concat());
        f.extend([&STRING.to_le_bytes()[..], &2u64.to_le_bytes()].concat());
        f.extend([string("<s>"), string("a")].concat());
        for (n, offset) in offsets.iter().enumerate() {
            f.extend(string(&format!("blk.{n}")));
            f.extend(2u32.to_le_bytes());
            f.extend([4u64.to_le_bytes(), 8u64.to_le_bytes()].concat());
            f.extend([&0u32.to_le_bytes()[..], &offset.to_le_bytes()].concat());
        }
        f
    }

    #[test]
    fn tensors_reach_to_the_next_one() {
        let first = file(64, &[256, 0, 128]);
        let data = (first.len() as u64).next_multiple_of(64);
        let Header::Known(map) = header(&first, data + 300) else { panic!("a good header") };
        let want = [(0, 128), (128, 256), (256, 300)];
        let want = want.map(|(a, b)| FileRange::new(data + a, data + b));
        assert_eq!(map.extents(), want);
    }

    #[test]
    fn bytes_are_asked_for_until_the_header_is_whole() {
        let first = file(32, &[0, 32]);
        let (len, mut have, mut rounds) = (1 << 20, 4, 0);
        let map = loop {
            match header(&first[..first.len().min(have)], len) {
                Header::Needs(n) => have = n as usize,
                Header::Known(map) => break map,
                Header::Unknown => panic!("a good header"),
            }
            rounds += 1;
            assert!(rounds < 20);
        };
        assert_eq!(map.extents().len(), 2);
    }

    #[test]
    fn an_invalid_header_gives_no_map() {
        let good = file(32, &[0]);
        let mut version = good.clone();
        version[4] = 9;
        assert_eq!(header(&version, 1 << 20), Header::Unknown);
        assert_eq!(header(&file(33, &[0]), 1 << 20), Header::Unknown, "no alignment");
        // Impossible counts: the parser asks for more until the limit is exceeded.
        let mut counts = good.clone();
        counts[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(matches!(header(&counts, 1 << 40), Header::Needs(_)));
        assert_eq!(header(&counts, counts.len() as u64), Header::Unknown);
        let mut length = good;
        length[24..32].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(header(&length, 1 << 40), Header::Unknown, "a key longer than anything");
    }
}
