//! Parses the header of a safetensors file: eight bytes of length, then JSON with the offsets of each
//! tensor in the data that follows.
//!
//! Source: the format's description at <https://github.com/huggingface/safetensors>. Pure.

use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use super::parse::{MAX_HEADER, ParseError};
use crate::base::FileRange;

/// The key that is not a tensor.
const METADATA: &str = "__metadata__";

/// Size of the length field.
const LENGTH: u64 = 8;

/// The extents of the tensors of a file of `len` bytes with these first bytes.
pub(super) fn extents(first: &[u8], len: u64) -> Result<Vec<FileRange>, ParseError> {
    let Some((length, json)) = first.split_first_chunk() else {
        return Err(ParseError::Incomplete(LENGTH));
    };
    let header = LENGTH.saturating_add(u64::from_le_bytes(*length));
    if header > len.min(MAX_HEADER) || json.first().is_some_and(|b| *b != b'{') {
        return Err(ParseError::Malformed);
    }
    let Some(json) = json.get(..(header - LENGTH) as usize) else {
        return Err(ParseError::Incomplete(header));
    };
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    deserializer.deserialize_map(Extents { behind: header }).map_err(|_| ParseError::Malformed)
}

#[derive(serde::Deserialize)]
struct Tensor {
    data_offsets: (u64, u64),
}

/// Collects extents without the names.
struct Extents {
    behind: u64,
}

impl<'de> Visitor<'de> for Extents {
    type Value = Vec<FileRange>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("tensors by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = Vec::new();
        while let Some(name) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            if name == METADATA {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let (begin, end) = map.next_value::<Tensor>()?.data_offsets;
            let at = |offset: u64| self.behind.saturating_add(offset);
            found.push(FileRange::new(at(begin), at(end)));
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Header, header};
    use super::*;

    fn file(json: &str) -> Vec<u8> {
        [&(json.len() as u64).to_le_bytes()[..], json.as_bytes()].concat()
    }

    #[test]
    fn tensors_in_the_order_in_which_they_lie() {
        let json = r#"{"b":{"dtype":"F32","shape":[2],"data_offsets":[8,16]},
            "__metadata__":{"format":"pt"},
            "a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}, "none":{"data_offsets":[3,3]}}   "#;
        let first = file(json);
        let data = first.len() as u64;
        let Header::Known(map) = header(&first, data + 16) else { panic!("a good header") };
        let want = [FileRange::at(data, 8), FileRange::at(data + 8, 8)];
        assert_eq!(map.extents(), want);
    }

    #[test]
    fn bytes_are_asked_for_until_the_header_is_whole() {
        let first = file(r#"{"a":{"data_offsets":[0,8]}}"#);
        let len = first.len() as u64 + 8;
        assert_eq!(header(&first[..3], len), Header::Needs(16));
        assert_eq!(header(&first[..6], len), Header::Needs(8));
        assert_eq!(header(&first[..8], len), Header::Needs(first.len() as u64));
        assert_eq!(header(&first[..20], len), Header::Needs(first.len() as u64));
    }

    #[test]
    fn an_invalid_header_gives_no_map() {
        for json in ["[]", "{", r#"{"a":1}"#, r#"{"a":{"data_offsets":[-1,2]}}"#] {
            assert_eq!(header(&file(json), 1000), Header::Unknown, "{json}");
        }
        let long = [&u64::MAX.to_le_bytes()[..], b"{"].concat();
        assert_eq!(header(&long, u64::MAX), Header::Unknown);
    }
}
