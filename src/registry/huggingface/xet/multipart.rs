//! Answers with several ranges of a resource: `multipart/byteranges` (RFC 9110, section 14.6).
//!
//! Invariant: a part begins only if it is the range that was expected. Pure, but for the bytes that it
//! takes.

use std::ops::RangeInclusive;

use reqwest::header::HeaderMap;
use reqwest::header::{CONTENT_RANGE, CONTENT_TYPE};

use super::incoming::Incoming;
use crate::registry::error::RegistryError;

/// Maximum number of lines before a part's bytes: its boundary and a few headers.
const MAX_LINES: usize = 16;
/// Maximum length of a boundary, as the standard has it.
const MAX_BOUNDARY: usize = 70;

/// How the ranges of an answer are separated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parts {
    /// It has one range and nothing else.
    One,
    /// Each range follows a line with this boundary and some headers.
    Separated(String),
}

impl Parts {
    /// How an answer with status 206 to a request for these ranges is made up; else why it is none.
    pub fn of(headers: &HeaderMap, ranges: &[RangeInclusive<u64>]) -> Result<Self, String> {
        let text = |name| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let kind = text(CONTENT_TYPE);
        let (media_type, parameters) = kind.split_once(';').unwrap_or((kind, ""));
        if media_type.trim().eq_ignore_ascii_case("multipart/byteranges") {
            return boundary(parameters).map(Self::Separated);
        }
        let [range] = ranges else {
            return Err("one range instead of several".into());
        };
        check(text(CONTENT_RANGE), range)?;
        Ok(Self::One)
    }

    /// Takes what comes before the bytes of this range.
    pub async fn begin(
        &self,
        incoming: &mut Incoming,
        range: &RangeInclusive<u64>,
    ) -> Result<(), RegistryError> {
        let Self::Separated(boundary) = self else { return Ok(()) };
        let mut begun = false;
        let mut found = None;
        for _ in 0..MAX_LINES {
            let line = incoming.line().await?;
            match line.strip_prefix("--") {
                Some(rest) if !begun && rest.trim_end() == boundary => begun = true,
                Some(_) if !begun => return Err(incoming.invalid("fewer ranges than asked for")),
                _ if !begun && line.is_empty() => {}
                _ if !begun => return Err(incoming.invalid("bytes between two ranges")),
                _ if line.is_empty() => {
                    let found = found.as_deref().unwrap_or_default();
                    return check(found, range).map_err(|why| incoming.invalid(why));
                }
                _ => {
                    if let Some((name, value)) = line.split_once(':')
                        && name.eq_ignore_ascii_case(CONTENT_RANGE.as_str())
                    {
                        found = Some(value.trim().to_owned());
                    }
                }
            }
        }
        Err(incoming.invalid("too many lines between two ranges"))
    }
}

/// The boundary among the parameters of a media type.
fn boundary(parameters: &str) -> Result<String, String> {
    let named = parameters.split(';').filter_map(|p| p.trim().split_once('='));
    let mut values = named.filter(|(name, _)| name.trim().eq_ignore_ascii_case("boundary"));
    let value = values.next().map(|(_, value)| value.trim().trim_matches('"')).unwrap_or_default();
    match value.is_empty() || value.len() > MAX_BOUNDARY {
        true => Err("several ranges without a boundary".into()),
        false => Ok(value.to_owned()),
    }
}

/// Whether a `Content-Range` (`bytes FIRST-LAST/LENGTH`) is this range. The length is of no interest.
fn check(content_range: &str, range: &RangeInclusive<u64>) -> Result<(), String> {
    let found = content_range.trim().strip_prefix("bytes ").and_then(|rest| {
        let (bytes, _) = rest.split_once('/')?;
        let (first, last) = bytes.trim().split_once('-')?;
        Some(first.parse::<u64>().ok()?..=last.parse::<u64>().ok()?)
    });
    match found.as_ref() == Some(range) {
        true => Ok(()),
        false => Err(format!("another range than bytes {}-{}", range.start(), range.end())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::incoming::tests::in_pieces;
    use super::*;

    fn of(
        content_type: &str,
        content_range: &str,
        ranges: &[RangeInclusive<u64>],
    ) -> Result<Parts, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in [(CONTENT_TYPE, content_type), (CONTENT_RANGE, content_range)] {
            if !value.is_empty() {
                headers.insert(name, value.parse().unwrap());
            }
        }
        Parts::of(&headers, ranges)
    }

    #[test]
    fn an_answer_says_how_its_ranges_are_separated() {
        let separated = |b: &str| Ok(Parts::Separated(b.to_owned()));
        let two = [0..=3, 8..=9];
        assert_eq!(of("multipart/byteranges; boundary=ab", "", &two), separated("ab"));
        assert_eq!(of("Multipart/ByteRanges;x=y; boundary=\"a b\"", "", &two), separated("a b"));
        assert!(of("multipart/byteranges", "", &two).is_err());
        assert!(of("multipart/byteranges; boundary=", "", &two).is_err());
        let one = [4..=7];
        assert_eq!(of("application/octet-stream", "bytes 4-7/100", &one), Ok(Parts::One));
        assert_eq!(of("", "bytes 4-7/*", &one), Ok(Parts::One));
        for other in ["bytes 4-8/100", "bytes 3-7/100", "4-7/100", "bytes */100", "", "bytes 4-7"] {
            assert!(of("", other, &one).is_err(), "{other}");
        }
        assert!(of("", "bytes 0-3/100", &two).is_err(), "one of two");
    }

    const ANSWER: &[u8] =
        b"\r\n--ab\r\nContent-Type: x\r\ncontent-range: bytes 0-2/9\r\n\r\nabc\r\n--ab\r\n\
Content-Range: bytes 5-6/9\r\n\r\nfg\r\n--ab--\r\n";

    #[tokio::test]
    async fn ranges_are_found_one_after_another() {
        let parts = Parts::Separated("ab".into());
        for size in [1, 7, 1000] {
            let mut incoming = in_pieces(ANSWER, size);
            parts.begin(&mut incoming, &(0..=2)).await.unwrap();
            assert_eq!(incoming.exact(3).await.unwrap(), b"abc"[..]);
            parts.begin(&mut incoming, &(5..=6)).await.unwrap();
            assert_eq!(incoming.exact(2).await.unwrap(), b"fg"[..]);
            let end = parts.begin(&mut incoming, &(8..=8)).await.unwrap_err();
            assert!(end.to_string().contains("fewer ranges"), "{end}");
        }
    }

    #[tokio::test]
    async fn other_ranges_and_other_bytes_are_refused() {
        let parts = Parts::Separated("ab".into());
        for (bytes, range) in [
            (ANSWER, 0..=3),
            (ANSWER, 5..=6),
            (b"--ab\r\n\r\nabc", 0..=2),
            (b"--ac\r\ncontent-range: bytes 0-2/9\r\n\r\nabc", 0..=2),
            (b"x\r\n--ab\r\ncontent-range: bytes 0-2/9\r\n\r\nabc", 0..=2),
        ] {
            let result = parts.begin(&mut in_pieces(bytes, 5), &range).await;
            assert!(matches!(result, Err(RegistryError::Invalid { .. })), "{result:?}");
        }
        let many = [b"--ab\r\n".to_vec(), b"a: b\r\n".repeat(20)].concat();
        assert!(parts.begin(&mut in_pieces(&many, 50), &(0..=2)).await.is_err());
    }
}
