//! Xet hashes: of chunks, of inner nodes, of files, and how they are written. Plain values.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// The key under which the bytes of a chunk are hashed, fixed by the format.
const DATA_KEY: [u8; 32] = [
    102, 151, 245, 119, 91, 149, 80, 222, 49, 53, 203, 172, 165, 151, 24, 28, 157, 228, 33, 16,
    155, 235, 43, 88, 180, 208, 176, 75, 147, 173, 242, 41,
];
/// The key under which inner nodes are hashed. It differs from the chunks' so that no chunk can pass
/// for a node.
const INTERNAL_NODE_KEY: [u8; 32] = [
    1, 126, 197, 199, 165, 71, 41, 150, 253, 148, 102, 102, 180, 138, 2, 230, 93, 221, 83, 111, 55,
    199, 109, 210, 248, 99, 82, 230, 74, 83, 113, 63,
];
/// The key that seals the root of a file.
const FILE_KEY: [u8; 32] = [0; 32];

/// A Xet hash: 32 bytes, written as four little-endian numbers of 16 hex digits each.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct XetHash([u8; 32]);

/// The text is not 64 lower-case hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a Xet hash: 64 lower-case hex digits are expected")]
pub struct XetHashError;

impl XetHash {
    /// The hash of the empty file.
    pub const EMPTY_FILE: Self = Self([0; 32]);

    /// The hash that these bytes are.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The hash of a chunk's bytes, decompressed.
    pub fn of_chunk(bytes: &[u8]) -> Self {
        Self::keyed(&DATA_KEY, bytes)
    }

    /// The hash of an inner node, of the lines of its children.
    pub(super) fn of_children(lines: &[u8]) -> Self {
        Self::keyed(&INTERNAL_NODE_KEY, lines)
    }

    /// The hash of the file whose tree has this root.
    pub fn sealed(&self) -> Self {
        Self::keyed(&FILE_KEY, &self.0)
    }

    /// Whether a group of siblings ends with this node, unless it is too short.
    pub(super) fn ends_group(&self) -> bool {
        self.0[24] & 3 == 0
    }

    fn keyed(key: &[u8; 32], bytes: &[u8]) -> Self {
        Self(*blake3::keyed_hash(key, bytes).as_bytes())
    }
}

impl fmt::Display for XetHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (words, _) = self.0.as_chunks::<8>();
        words.iter().try_for_each(|word| write!(f, "{:016x}", u64::from_le_bytes(*word)))
    }
}

impl fmt::Debug for XetHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for XetHash {
    type Err = XetHashError;

    fn from_str(text: &str) -> Result<Self, XetHashError> {
        let digit = |c: u8| matches!(c, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 64 || !text.bytes().all(digit) {
            return Err(XetHashError);
        }
        let mut out = [0; 32];
        for (at, bytes) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let word = &text[at * 16..(at + 1) * 16];
            *bytes = u64::from_str_radix(word, 16).map_err(|_| XetHashError)?.to_le_bytes();
        }
        Ok(Self(out))
    }
}

impl TryFrom<String> for XetHash {
    type Error = XetHashError;

    fn try_from(text: String) -> Result<Self, XetHashError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_of_the_text_is_little_endian() {
        let text = "0706050403020100".to_owned() + &"0".repeat(47) + "1";
        let hash: XetHash = text.parse().unwrap();
        assert_eq!(hash.0[..8], [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(hash.0[24], 1);
        assert_eq!(hash.to_string(), text);
    }

    #[test]
    fn other_texts_are_refused() {
        for bad in ["", &"*".repeat(64), &"A".repeat(64), &"0".repeat(63), &"é".repeat(32)] {
            assert_eq!(bad.parse::<XetHash>(), Err(XetHashError), "{bad}");
        }
        assert_eq!(format!("+{}", "0".repeat(63)).parse::<XetHash>(), Err(XetHashError));
    }
}
