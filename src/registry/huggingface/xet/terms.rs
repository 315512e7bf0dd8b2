//! What a range of a file consists of: chunks of xorbs, and where those are. Pure.
//!
//! The service answers in two forms; both become [`Terms`]. Invariant: what is read because of an answer
//! is bounded by the range that was asked for, whatever the answer says.

use std::collections::{BTreeMap, HashMap};
use std::ops::{Range, RangeInclusive};

use serde::Deserialize;

use crate::trust::xet::{MAX_CHUNK, XetHash};

/// Average size of chunks below which an answer is refused: real ones have 64 KiB on average, 8 at
/// least, and few are the short last one of a file.
const MIN_AVERAGE: u64 = 1024;
/// Chunks that any range may consist of, however short.
const SLACK_CHUNKS: u64 = 1024;
/// Bytes that may be read of xorbs beyond twice the range: chunks that are needed in part, and headers.
const SLACK_BYTES: u64 = 4 << 20;
/// Maximum number of bytes before the range: real answers begin with the chunk that its first byte is in.
const MAX_SKIP: u64 = 4 << 20;

/// The answer of version 2, as sent.
#[derive(Debug, Deserialize)]
pub struct AnswerV2 {
    offset_into_first_range: u64,
    terms: Vec<TermDoc>,
    xorbs: HashMap<XetHash, Vec<FetchDoc>>,
}

/// The answer of version 1, as sent.
#[derive(Debug, Deserialize)]
pub struct AnswerV1 {
    offset_into_first_range: u64,
    terms: Vec<TermDoc>,
    fetch_info: HashMap<XetHash, Vec<FetchInfoDoc>>,
}

#[derive(Debug, Deserialize)]
struct TermDoc {
    hash: XetHash,
    unpacked_length: u64,
    range: ChunksDoc,
}

/// Chunks, end exclusive.
#[derive(Debug, Clone, Copy, Deserialize)]
struct ChunksDoc {
    start: u32,
    end: u32,
}

/// Bytes, end inclusive.
#[derive(Debug, Clone, Copy, Deserialize)]
struct BytesDoc {
    start: u64,
    end: u64,
}

#[derive(Debug, Deserialize)]
struct FetchDoc {
    url: String,
    ranges: Vec<RangeDoc>,
}

#[derive(Debug, Deserialize)]
struct RangeDoc {
    chunks: ChunksDoc,
    bytes: BytesDoc,
}

#[derive(Debug, Deserialize)]
struct FetchInfoDoc {
    range: ChunksDoc,
    url: String,
    url_range: BytesDoc,
}

/// A range of a xorb.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XorbRange {
    /// Its chunks.
    pub chunks: Range<u32>,
    /// Its bytes in the xorb.
    pub bytes: RangeInclusive<u64>,
}

impl XorbRange {
    /// Number of bytes.
    pub fn len(&self) -> u64 {
        self.bytes.end() - self.bytes.start() + 1
    }
}

/// Ranges of one xorb that one request can ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    /// Where: a signed URL, in effect a password.
    pub url: String,
    /// Exactly the ranges that the URL is signed for, ascending.
    pub ranges: Vec<XorbRange>,
}

/// What a range of a file consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Bytes of the first chunk or chunks that lie before the range.
    pub skip: u64,
    /// Bytes that the chunks have together, as the answer says.
    pub bytes: u64,
    /// The chunks in file order: which fetch brings it, and its index in the xorb.
    pub chunks: Vec<(usize, u32)>,
    /// The requests.
    pub fetches: Vec<Fetch>,
}

/// An answer that cannot be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TermsError(&'static str);

fn require(holds: bool, else_: &'static str) -> Result<(), TermsError> {
    holds.then_some(()).ok_or(TermsError(else_))
}

impl AnswerV2 {
    /// What a range of so many bytes consists of.
    pub fn terms(self, len: u64) -> Result<Terms, TermsError> {
        let fetches = self.xorbs.into_iter().flat_map(|(xorb, fetches)| {
            fetches.into_iter().map(move |f| {
                let ranges = f.ranges.into_iter().map(|r| (r.chunks, r.bytes)).collect();
                (xorb, f.url, ranges)
            })
        });
        make(self.offset_into_first_range, &self.terms, fetches, len)
    }
}

impl AnswerV1 {
    /// What a range of so many bytes consists of.
    pub fn terms(self, len: u64) -> Result<Terms, TermsError> {
        let fetches = self.fetch_info.into_iter().flat_map(|(xorb, infos)| {
            infos.into_iter().map(move |f| (xorb, f.url, vec![(f.range, f.url_range)]))
        });
        make(self.offset_into_first_range, &self.terms, fetches, len)
    }
}

fn make(
    skip: u64,
    docs: &[TermDoc],
    fetches: impl Iterator<Item = (XetHash, String, Vec<(ChunksDoc, BytesDoc)>)>,
    len: u64,
) -> Result<Terms, TermsError> {
    require(!docs.is_empty(), "it has no terms")?;
    let (mut of_xorb, mut all) = (HashMap::<XetHash, ChunkIndex>::new(), Vec::new());
    for (xorb, url, ranges) in fetches {
        let ranges = ranges.into_iter().map(range).collect::<Result<Vec<_>, _>>()?;
        let ascending = |w: &[XorbRange]| {
            w[0].chunks.end <= w[1].chunks.start && w[0].bytes.end() < w[1].bytes.start()
        };
        require(!ranges.is_empty(), "a xorb has no ranges")?;
        require(ranges.windows(2).all(ascending), "ranges of a xorb overlap")?;
        let index = of_xorb.entry(xorb).or_default();
        for range in &ranges {
            index.add(&range.chunks, all.len());
        }
        all.push(Fetch { url, ranges });
    }
    let (mut bytes, mut chunks) = (0u64, Vec::new());
    let most = len / MIN_AVERAGE + SLACK_CHUNKS;
    for term in docs {
        let range = term.range.start..term.range.end;
        require(!range.is_empty(), "a term has no chunks")?;
        let more = chunks.len() as u64 + u64::from(range.end - range.start);
        require(more <= most, "it has more chunks than the range can have")?;
        bytes = bytes.checked_add(term.unpacked_length).ok_or(TermsError("lengths overflow"))?;
        let index = of_xorb.get(&term.hash);
        for chunk in range {
            let at = index.and_then(|index| index.find(chunk));
            chunks.push((at.ok_or(TermsError("a chunk is nowhere"))?, chunk));
        }
    }
    require(skip < bytes, "the range begins after its terms")?;
    require(bytes - skip >= len, "its terms are shorter than the range")?;
    require(bytes - skip - len < MAX_CHUNK, "its terms are longer than the range")?;
    require(skip <= MAX_SKIP, "its terms begin far before the range")?;
    let mut out = Terms { skip, bytes, chunks, fetches: all };
    out.drop_unused();
    let stored = out.fetches.iter().flat_map(|f| &f.ranges).map(XorbRange::len);
    let stored = stored.fold(0, u64::saturating_add);
    require(stored <= 2 * len + SLACK_BYTES, "it wants far more read than the range has")?;
    Ok(out)
}

/// Which fetch brings each chunk of a xorb: by the first chunk of a range, the chunk after its last and
/// the fetch. No range lies in another one, so their ends ascend as their starts do.
#[derive(Debug, Default)]
struct ChunkIndex(BTreeMap<u32, (u32, usize)>);

impl ChunkIndex {
    /// Adds a range of a fetch.
    fn add(&mut self, chunks: &Range<u32>, fetch: usize) {
        let before = self.0.range(..=chunks.start).next_back();
        if before.is_some_and(|(_, (end, _))| *end >= chunks.end) {
            return;
        }
        while let Some((start, (end, _))) = self.0.range(chunks.start..).next()
            && *end <= chunks.end
        {
            let start = *start;
            self.0.remove(&start);
        }
        self.0.insert(chunks.start, (chunks.end, fetch));
    }

    /// A fetch that brings this chunk.
    fn find(&self, chunk: u32) -> Option<usize> {
        let (_, (end, fetch)) = self.0.range(..=chunk).next_back()?;
        (chunk < *end).then_some(*fetch)
    }
}

fn range((chunks, bytes): (ChunksDoc, BytesDoc)) -> Result<XorbRange, TermsError> {
    require(chunks.start < chunks.end, "a range of a xorb has no chunks")?;
    // Both ends, and one more for the length, are numbers.
    require(bytes.start <= bytes.end && bytes.end < u64::MAX, "a range of a xorb has no bytes")?;
    Ok(XorbRange { chunks: chunks.start..chunks.end, bytes: bytes.start..=bytes.end })
}

impl Terms {
    /// Leaves out fetches that bring no chunk.
    fn drop_unused(&mut self) {
        let mut new_index = vec![None; self.fetches.len()];
        for (at, _) in &self.chunks {
            new_index[*at] = Some(0);
        }
        for (count, new) in new_index.iter_mut().flatten().enumerate() {
            *new = count;
        }
        let mut at = 0;
        self.fetches.retain(|_| {
            at += 1;
            new_index[at - 1].is_some()
        });
        for (at, _) in &mut self.chunks {
            *at = new_index[*at].expect("every fetch that a chunk names is used");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn hash(n: u8) -> String {
        XetHash::of_chunk(&[n]).to_string()
    }

    fn v2(value: Value, len: u64) -> Result<Terms, String> {
        let answer: AnswerV2 = serde_json::from_value(value).map_err(|e| e.to_string())?;
        answer.terms(len).map_err(|e| e.to_string())
    }

    fn term(xorb: u8, start: u64, end: u64, len: u64) -> Value {
        json!({"hash": hash(xorb), "unpacked_length": len, "range": {"start": start, "end": end}})
    }

    fn xorb_range(chunks: [u64; 2], bytes: [u64; 2]) -> Value {
        json!({"chunks": {"start": chunks[0], "end": chunks[1]},
               "bytes": {"start": bytes[0], "end": bytes[1]}})
    }

    fn good() -> Value {
        json!({
            "offset_into_first_range": 5,
            "terms": [term(1, 2, 4, 100), term(2, 0, 1, 50), term(1, 7, 8, 60)],
            "xorbs": {
                hash(1): [{"url": "u1", "ranges": [xorb_range([2, 4], [10, 99]),
                                                    xorb_range([7, 8], [300, 350])]}],
                hash(2): [{"url": "u2", "ranges": [xorb_range([0, 1], [0, 57])]}],
                hash(3): [{"url": "unused", "ranges": [xorb_range([0, 1], [0, 57])]}],
            },
        })
    }

    #[test]
    fn chunks_are_in_file_order_with_what_brings_them() {
        let terms = v2(good(), 200).unwrap();
        let of = |url: &str| terms.fetches.iter().position(|f| f.url == url);
        let (a, b) = (of("u1").unwrap(), of("u2").unwrap());
        assert_eq!(terms.chunks, [(a, 2), (a, 3), (b, 0), (a, 7)]);
        assert_eq!((terms.skip, terms.fetches.len(), of("unused")), (5, 2, None));
        assert_eq!(terms.bytes, 210);
        assert_eq!(terms.fetches[a].ranges[1].bytes, 300..=350);
        assert_eq!(terms.fetches[a].ranges[1].len(), 51);
    }

    #[test]
    fn version_1_says_the_same() {
        let info = |url: &str, chunks: [u64; 2], bytes: [u64; 2]| {
            json!({"url": url, "range": {"start": chunks[0], "end": chunks[1]},
                   "url_range": {"start": bytes[0], "end": bytes[1]}})
        };
        let answer: AnswerV1 = serde_json::from_value(json!({
            "offset_into_first_range": 0,
            "terms": [term(1, 2, 4, 100), term(1, 7, 8, 60)],
            "fetch_info": {hash(1): [info("a", [2, 4], [10, 99]), info("b", [7, 8], [300, 350])]},
        }))
        .unwrap();
        let terms = answer.terms(160).unwrap();
        assert_eq!(terms.chunks, [(0, 2), (0, 3), (1, 7)]);
        assert_eq!(terms.fetches[1].ranges, [XorbRange { chunks: 7..8, bytes: 300..=350 }]);
    }

    #[test]
    fn answers_that_cannot_be_are_refused() {
        let with = |change: &dyn Fn(&mut Value)| {
            let mut answer = good();
            change(&mut answer);
            v2(answer, 200)
        };
        assert!(with(&|_| {}).is_ok());
        let first = hash(1);
        let ranges = format!("/xorbs/{first}/0/ranges");
        type Change<'a> = &'a dyn Fn(&mut Value);
        let lies: [(&str, Change<'_>); 13] = [
            ("no terms", &|a| a["terms"] = json!([])),
            ("a chunk is nowhere", &|a| a["terms"][0]["range"]["end"] = json!(5)),
            ("a chunk is nowhere", &|a| a["xorbs"][&first] = json!([])),
            ("has no chunks", &|a| a["terms"][0]["range"]["end"] = json!(2)),
            ("more chunks", &|a| a["terms"][0]["range"]["end"] = json!(u32::MAX)),
            ("overflow", &|a| a["terms"][0]["unpacked_length"] = json!(u64::MAX)),
            ("begins after", &|a| a["offset_into_first_range"] = json!(210)),
            ("shorter", &|a| a["offset_into_first_range"] = json!(11)),
            ("longer", &|a| a["terms"][0]["unpacked_length"] = json!(1 << 20)),
            ("far before", &|a| {
                a["terms"][0]["unpacked_length"] = json!((5 << 20) + 100);
                a["offset_into_first_range"] = json!((5 << 20) + 5);
            }),
            ("overlap", &|a| a.pointer_mut(&ranges).unwrap().as_array_mut().unwrap().reverse()),
            ("no bytes", &|a| a.pointer_mut(&ranges).unwrap()[0]["bytes"]["end"] = json!(9)),
            ("far more", &|a| {
                a.pointer_mut(&ranges).unwrap()[1]["bytes"]["end"] = json!(1u64 << 40)
            }),
        ];
        for (want, lie) in lies {
            let why = with(lie).unwrap_err();
            assert!(why.contains(want), "{want}: {why}");
        }
        for bad in [json!("*".repeat(64)), json!(-1), json!(null)] {
            assert!(with(&|a| a["terms"][0]["hash"] = bad.clone()).is_err());
            assert!(with(&|a| a["offset_into_first_range"] = bad.clone()).is_err());
        }
    }

    proptest! {
        #[test]
        fn a_chunk_is_found_where_a_range_has_it_however_they_overlap(
            ranges in prop::collection::vec((0u32..60, 1u32..20), 0..40),
        ) {
            let ranges: Vec<_> = ranges.into_iter().map(|(start, len)| start..start + len).collect();
            let mut index = ChunkIndex::default();
            for (fetch, range) in ranges.iter().enumerate() {
                index.add(range, fetch);
            }
            for chunk in 0..100 {
                match index.find(chunk) {
                    Some(fetch) => prop_assert!(ranges[fetch].contains(&chunk)),
                    None => prop_assert!(!ranges.iter().any(|range| range.contains(&chunk))),
                }
            }
        }
    }
}
