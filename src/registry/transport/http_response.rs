//! What the status, headers and errors of an HTTP response mean. Pure functions.
//!
//! Invariant: trouble of the server is never "missing", and a response to another request than the
//! one made is invalid, whatever its status.

use std::error::Error;
use std::time::{Duration, SystemTime};

use reqwest::StatusCode;
use reqwest::header::{self, HeaderMap};

use super::host_policy::NotAllowed;
use crate::base::ObjectRange;
use crate::base::text::{MESSAGE, brief};
use crate::registry::error::RegistryError;

/// What the body of an answer consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::registry) enum Served {
    /// The range that was asked for.
    Range,
    /// The whole object.
    Whole,
}

/// One line of what happened, without the URL: it may hold secrets.
pub(in crate::registry) fn why(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut out = String::new();
    let mut next: Option<&dyn Error> = Some(&error);
    while let Some(error) = next {
        next = error.source();
        let text = error.to_string().replace(['\n', '\r'], " ");
        // The outer errors only say that there is an inner one, or repeat it.
        if next.is_none() || !text.starts_with("error ") && !text.starts_with("client error") {
            if out.contains(&text) {
                continue;
            }
            out = if out.is_empty() { text } else { format!("{out}: {text}") };
        }
    }
    out
}

/// The policy's refusal, if that is the cause.
fn not_allowed(error: &reqwest::Error) -> Option<&NotAllowed> {
    let mut next = error.source();
    while let Some(cause) = next {
        if let Some(found) = cause.downcast_ref() {
            return Some(found);
        }
        next = cause.source();
    }
    None
}

/// No answer to a request.
pub(in crate::registry) fn failed(what: &str, error: reqwest::Error) -> RegistryError {
    let what = what.to_owned();
    if let Some(NotAllowed(why)) = not_allowed(&error) {
        return RegistryError::Denied { what, why: why.clone() };
    }
    if error.is_redirect() || error.is_builder() {
        return RegistryError::Invalid { what, why: why(error) };
    }
    RegistryError::Unreachable { what, why: why(error) }
}

/// A body that was cut off.
pub(super) fn cut_off(
    what: &str,
    done: u64,
    len: Option<u64>,
    error: reqwest::Error,
) -> RegistryError {
    let of = len.map_or(String::new(), |len| format!(" of {len}"));
    let why = match error.is_timeout() {
        true => "no more came".to_owned(),
        false => why(error),
    };
    let why = format!("cut off after {done}{of} bytes: {why}");
    RegistryError::Unreachable { what: what.to_owned(), why }
}

/// A status that is neither an error nor a response to the request.
pub(in crate::registry) fn unexpected(what: &str, status: StatusCode) -> RegistryError {
    invalid(what, format!("unexpected status {}", status.as_u16()))
}

fn invalid(what: &str, why: String) -> RegistryError {
    // A header may be long, and is the server's text.
    RegistryError::Invalid { what: what.to_owned(), why: brief(&why, MESSAGE) }
}

/// Turns the statuses that are errors into errors.
pub(in crate::registry) fn check_status(
    what: &str,
    status: StatusCode,
    headers: &HeaderMap,
    now: SystemTime,
) -> Result<(), RegistryError> {
    let what = what.to_owned();
    match status.as_u16() {
        404 | 410 => Err(RegistryError::Missing { what }),
        416 => Err(invalid(&what, "the server has no such range".into())),
        // 408: the server timed out waiting for the request; it asks for it again.
        408 | 429 | 500..=599 => {
            let retry_after = retry_after(headers, now);
            Err(RegistryError::Busy { what, status: status.as_u16(), retry_after })
        }
        400..=499 => Err(RegistryError::Refused { what, status: status.as_u16() }),
        _ => Ok(()),
    }
}

/// `Retry-After`: seconds, or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

/// Refuses a compressed body: the digests cover other bytes, and compression was not asked for.
pub(in crate::registry) fn check_encoding(
    what: &str,
    headers: &HeaderMap,
) -> Result<(), RegistryError> {
    match headers.get(header::CONTENT_ENCODING) {
        Some(e) if !e.as_bytes().eq_ignore_ascii_case(b"identity") => {
            Err(invalid(what, format!("Content-Encoding {e:?} was not asked for")))
        }
        _ => Ok(()),
    }
}

fn length(what: &str, headers: &HeaderMap) -> Result<Option<u64>, RegistryError> {
    let Some(value) = headers.get(header::CONTENT_LENGTH) else { return Ok(None) };
    let number = value.to_str().ok().and_then(|v| v.parse().ok());
    number.map(Some).ok_or_else(|| invalid(what, format!("Content-Length {value:?}")))
}

/// Checks that the answer is one to the request for `range` (`ranged`: with a `Range` header).
pub(super) fn check_range(
    what: &str,
    status: StatusCode,
    headers: &HeaderMap,
    ranged: bool,
    range: ObjectRange,
    object_len: u64,
) -> Result<Served, RegistryError> {
    let (served, want) = match status {
        StatusCode::PARTIAL_CONTENT if ranged => {
            let value = headers.get(header::CONTENT_RANGE).and_then(|v| v.to_str().ok());
            check_content_range(what, value, range, object_len)?;
            (Served::Range, range.len())
        }
        StatusCode::OK => (Served::Whole, object_len),
        other => return Err(unexpected(what, other)),
    };
    match length(what, headers)? {
        Some(len) if len != want => {
            Err(invalid(what, format!("Content-Length {len} instead of {want}")))
        }
        _ => Ok(served),
    }
}

/// `bytes FIRST-LAST/LENGTH`, where the length may be `*`.
fn check_content_range(
    what: &str,
    value: Option<&str>,
    range: ObjectRange,
    object_len: u64,
) -> Result<(), RegistryError> {
    let Some(value) = value else {
        return Err(invalid(what, "Content-Range is missing".into()));
    };
    let parsed = || {
        let (unit, rest) = value.trim().split_once(' ')?;
        let (bytes, len) = rest.trim().split_once('/')?;
        let (first, last) = bytes.split_once('-')?;
        let len = match len.trim() {
            "*" => object_len,
            len => len.parse::<u64>().ok()?,
        };
        let (first, last) = (first.trim().parse::<u64>().ok()?, last.trim().parse::<u64>().ok()?);
        unit.eq_ignore_ascii_case("bytes").then_some((first, last, len))
    };
    let want = (range.start(), range.end() - 1, object_len);
    match parsed() == Some(want) {
        true => Ok(()),
        false => Err(invalid(
            what,
            format!("Content-Range {value:?} instead of bytes {}-{}/{}", want.0, want.1, want.2),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        let one = |(k, v): &(&'static str, &'static str)| {
            (header::HeaderName::from_static(k), header::HeaderValue::from_static(v))
        };
        list.iter().map(one).collect()
    }

    #[test]
    fn statuses() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let of = |status: u16, h: &[_]| {
            check_status("x", StatusCode::from_u16(status).unwrap(), &headers(h), now)
        };
        for ok in [200, 206, 304, 300] {
            assert!(of(ok, &[]).is_ok());
        }
        for gone in [404, 410] {
            assert!(matches!(of(gone, &[]), Err(RegistryError::Missing { .. })));
        }
        for refused in [400, 401, 403, 405, 451] {
            assert!(
                matches!(of(refused, &[]), Err(RegistryError::Refused { status, .. }) if status == refused)
            );
        }
        assert!(matches!(of(416, &[]), Err(RegistryError::Invalid { .. })));
        let wait = |status, header| match of(status, &[("retry-after", header)]) {
            Err(RegistryError::Busy { retry_after, status: s, .. }) if s == status => retry_after,
            other => panic!("{other:?}"),
        };
        assert_eq!(wait(429, "7"), Some(Duration::from_secs(7)));
        assert_eq!(wait(503, "Sun, 06 Nov 1994 08:49:47 GMT"), Some(Duration::from_secs(10)));
        assert_eq!(wait(500, "Sun, 06 Nov 1994 08:49:27 GMT"), Some(Duration::ZERO), "in the past");
        assert_eq!(wait(502, "soon"), None);
        assert_eq!(wait(408, "-1"), None);
    }

    #[test]
    fn encodings() {
        assert!(check_encoding("x", &headers(&[])).is_ok());
        assert!(check_encoding("x", &headers(&[("content-encoding", "Identity")])).is_ok());
        for e in ["gzip", "br", ""] {
            assert!(check_encoding("x", &headers(&[("content-encoding", e)])).is_err());
        }
    }

    #[test]
    fn ranges() {
        let range = ObjectRange::new(10, 20);
        let of = |status, ranged, h: &[_]| {
            check_range("x", StatusCode::from_u16(status).unwrap(), &headers(h), ranged, range, 100)
                .map_err(|e| match e {
                    RegistryError::Invalid { why, .. } => why,
                    other => panic!("{other}"),
                })
        };
        let range = |value| ("content-range", value);
        for good in ["bytes 10-19/100", "Bytes 10-19/*", " bytes  10-19/100 "] {
            assert_eq!(of(206, true, &[range(good)]), Ok(Served::Range), "{good}");
        }
        let good = range("bytes 10-19/100");
        assert_eq!(of(206, true, &[good, ("content-length", "10")]), Ok(Served::Range));
        for bad in [
            "bytes 10-19/101",
            "bytes 10-18/100",
            "bytes 10-20/100",
            "bytes 9-19/100",
            "bytes */100",
            "10-19/100",
            "items 10-19/100",
            "bytes 10-19",
            "",
            "bytes 10--19/100",
            "bytes 18446744073709551626-19/100",
        ] {
            assert!(of(206, true, &[range(bad)]).unwrap_err().contains("Content-Range"), "{bad}");
        }
        assert_eq!(of(206, true, &[]).unwrap_err(), "Content-Range is missing");
        for bad in ["9", "11", "100", "ten"] {
            assert!(of(206, true, &[good, ("content-length", bad)]).is_err());
        }
        assert!(of(206, false, &[good]).is_err(), "no range was requested");
        assert_eq!(of(200, true, &[]), Ok(Served::Whole));
        assert_eq!(of(200, true, &[("content-length", "100")]), Ok(Served::Whole));
        assert!(of(200, true, &[("content-length", "10")]).is_err());
        for status in [204, 304, 300, 201] {
            assert!(of(status, true, &[]).unwrap_err().contains("unexpected status"));
        }
    }
}
