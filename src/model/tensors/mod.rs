//! Where the tensors of a weights file lie, read from the file's own header.
//!
//! Invariant: extents are sorted, disjoint, not empty and lie in the file, whatever the header says.
//! A header is only a hint where to read ahead: one that is wrong or makes no sense costs no
//! correctness. Pure: the caller brings the file's first bytes.

mod gguf;
mod safetensors;

use crate::base::FileRange;

/// The longest header that is looked at. Those of the largest models have some MiB; a vocabulary of
/// 256,000 tokens in a GGUF header has 8.
pub const MAX_HEADER: u64 = 16 << 20;

/// The most tensors of one file that are kept in mind: ten times those of the largest models, 2 MiB.
const MOST: usize = 1 << 17;

/// The extents of a file's tensors, in the order in which they lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorMap(Box<[FileRange]>);

/// What the first bytes of a file say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Header {
    /// More of them are needed: at least so many in all, and never more than [`MAX_HEADER`].
    Needs(u64),
    /// Here its tensors are.
    Known(TensorMap),
    /// Nothing that helps.
    Unknown,
}

/// What a parser finds instead of a header's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// Bytes are lacking; so many are needed in all, as far as is known.
    Short(u64),
    /// It is no such header.
    Nonsense,
}

impl TensorMap {
    /// Of extents in any order; those that overlap others, are empty or reach beyond the file are
    /// left out.
    fn new(mut extents: Vec<FileRange>, len: u64) -> Self {
        extents.retain(|e| !e.is_empty() && e.end() <= len);
        extents.sort_unstable_by_key(|e| (e.start(), e.end()));
        let mut end = 0;
        extents.retain(|e| {
            let apart = e.start() >= end;
            if apart {
                end = e.end();
            }
            apart
        });
        Self(extents.into())
    }

    /// All of them.
    pub fn extents(&self) -> &[FileRange] {
        &self.0
    }

    /// The tensor that begins in this range and goes on behind it, if one does, and its place
    /// among the others.
    pub fn begun_in(&self, range: FileRange) -> Option<(usize, FileRange)> {
        let behind = self.0.partition_point(|e| e.start() < range.end());
        let ix = behind.checked_sub(1)?;
        let extent = self.0[ix];
        (extent.start() >= range.start() && extent.end() > range.end()).then_some((ix, extent))
    }
}

/// Whether files of that name may have a header that is known here.
pub fn has_header(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.ends_with(".safetensors") || name.ends_with(".gguf")
}

/// Reads a header from the first bytes of a file of `len` bytes.
pub fn header(first: &[u8], len: u64) -> Header {
    let found = match first.len() {
        0..4 => Err(Stop::Short(16)),
        _ if first.starts_with(gguf::MAGIC) => gguf::extents(first, len),
        _ => safetensors::extents(first, len),
    };
    match found {
        Ok(extents) if extents.len() > MOST => Header::Unknown,
        Ok(extents) => Header::Known(TensorMap::new(extents, len)),
        Err(Stop::Short(needs)) => {
            let have = first.len() as u64;
            // What is not known to be the end is asked for in steps that double.
            let needs = needs.max(have.saturating_add(1));
            if needs > len.min(MAX_HEADER) { Header::Unknown } else { Header::Needs(needs) }
        }
        Err(Stop::Nonsense) => Header::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ranges(pairs: &[(u64, u64)]) -> Vec<FileRange> {
        pairs.iter().map(|(a, b)| FileRange::new(*a, *b)).collect()
    }

    #[test]
    fn a_map_keeps_its_rules_whatever_it_is_given() {
        let map = TensorMap::new(ranges(&[(50, 60), (10, 20), (15, 30), (20, 20), (90, 200)]), 100);
        assert_eq!(map.extents(), ranges(&[(10, 20), (50, 60)]));
    }

    #[test]
    fn what_begins_in_a_read_and_goes_on() {
        let map = TensorMap::new(ranges(&[(10, 20), (20, 500), (500, 900)]), 1000);
        let begun = |a, b| map.begun_in(FileRange::new(a, b)).map(|(ix, _)| ix);
        assert_eq!(begun(0, 15), Some(0));
        assert_eq!(begun(10, 100), Some(1), "the short one is in the read already");
        assert_eq!(begun(20, 100), Some(1));
        assert_eq!(begun(30, 100), None, "its middle");
        assert_eq!(begun(0, 500), None, "up to its end");
        assert_eq!(begun(900, 1000), None);
        assert_eq!(begun(0, 5), None);
    }

    #[test]
    fn names() {
        assert!(has_header("model-00001-of-00002.safetensors") && has_header("a/Q4.GGUF"));
        assert!(!has_header("tokenizer.json"));
    }

    proptest! {
        #[test]
        fn any_bytes_keep_the_rules(bytes in prop::collection::vec(any::<u8>(), 0..200), len in 0u64..1000, gguf in any::<bool>()) {
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
