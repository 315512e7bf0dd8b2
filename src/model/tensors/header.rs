//! Parses the header of a weights file of any known format from the first bytes of the file.
//!
//! Invariant: it never asks for more bytes than the file has, nor for more than [`MAX_HEADER`]. Pure
//! functions.

use super::map::TensorMap;
use super::parse::{MAX_HEADER, ParseError};
use super::{gguf, safetensors};

/// Maximum number of tensors of one file: ten times that of the largest models, 2 MiB.
const MAX_TENSORS: usize = 1 << 17;

/// The result of parsing the first bytes of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Header {
    /// More bytes are needed: at least this many in total, never more than [`MAX_HEADER`].
    Needs(u64),
    /// The extents of its tensors.
    Known(TensorMap),
    /// It has no header of a known format.
    Unknown,
}

/// Whether a file of that name may have a known header.
pub fn has_header(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.ends_with(".safetensors") || name.ends_with(".gguf")
}

/// Parses a header from the first bytes of a file of `len` bytes.
pub fn header(first: &[u8], len: u64) -> Header {
    let found = match first.len() {
        0..4 => Err(ParseError::Incomplete(16)),
        _ if first.starts_with(gguf::MAGIC) => gguf::extents(first, len),
        _ => safetensors::extents(first, len),
    };
    match found {
        Ok(extents) if extents.len() > MAX_TENSORS => Header::Unknown,
        Ok(extents) => Header::Known(TensorMap::new(extents, len)),
        Err(ParseError::Incomplete(needs)) => {
            let have = first.len() as u64;
            // A parser that does not know where the header ends doubles the size in each step.
            let needs = needs.max(have.saturating_add(1));
            if needs > len.min(MAX_HEADER) { Header::Unknown } else { Header::Needs(needs) }
        }
        Err(ParseError::Malformed) => Header::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names() {
        assert!(has_header("model-00001-of-00002.safetensors") && has_header("a/Q4.GGUF"));
        assert!(!has_header("tokenizer.json"));
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_valid_map_or_none(bytes in prop::collection::vec(any::<u8>(), 0..200), len in 0u64..1000, gguf in any::<bool>()) {
            let mut bytes = bytes;
            if gguf {
                bytes.splice(0..0, b"GGUF\x03\0\0\0".iter().copied());
            }
            match header(&bytes, len) {
                Header::Needs(n) => prop_assert!(n > bytes.len() as u64 && n <= len.min(MAX_HEADER)),
                Header::Known(map) => {
                    let mut end = 0;
                    for e in map.extents() {
                        prop_assert!(!e.is_empty() && e.start() >= end && e.end() <= len);
                        end = e.end();
                    }
                }
                Header::Unknown => {}
            }
        }
    }
}
