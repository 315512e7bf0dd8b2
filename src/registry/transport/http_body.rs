//! The bodies of HTTP responses: of documents, whole and bounded, and of ranges as they arrive.
//!
//! Invariant: a range has exactly the bytes that were asked for, or ends in an error.

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use reqwest::Response;

use super::http_response::{self as response, Served};
use crate::base::ObjectRange;
use crate::registry::api::ObjectBody;
use crate::registry::error::RegistryError;

/// Maximum memory allocated for a document before any of it arrived.
const INITIAL_CAPACITY: usize = 64 << 10;

/// A whole document of at most `limit` bytes.
pub(in crate::registry) async fn collect(
    mut response: Response,
    what: &str,
    limit: u64,
) -> Result<Bytes, RegistryError> {
    let too_long =
        || RegistryError::Invalid { what: what.into(), why: format!("more than {limit} bytes") };
    let length = response.content_length();
    if length.is_some_and(|len| len > limit) {
        return Err(too_long());
    }
    // An announced length allocates nothing before bytes arrive.
    let announced = usize::try_from(length.unwrap_or_default()).unwrap_or(usize::MAX);
    let mut body = BytesMut::with_capacity(announced.min(INITIAL_CAPACITY));
    loop {
        match response.chunk().await {
            Ok(Some(piece)) => body.extend_from_slice(&piece),
            Ok(None) => return Ok(body.freeze()),
            Err(e) => return Err(response::cut_off(what, body.len() as u64, length, e)),
        }
        if body.len() as u64 > limit {
            return Err(too_long());
        }
    }
}

/// The bytes of a range of an object that is `len` bytes long. `ranged`: the request asked for the
/// range and not for the whole; a server may send the whole all the same.
pub(in crate::registry) fn receive(
    response: Response,
    what: String,
    ranged: bool,
    len: u64,
    range: ObjectRange,
) -> Result<ObjectBody, RegistryError> {
    let (status, headers) = (response.status(), response.headers());
    response::check_encoding(&what, headers)?;
    let served = response::check_range(&what, status, headers, ranged, range, len)?;
    let (skip, more) = match served {
        Served::Range => (0, false),
        Served::Whole => (range.start(), range.end() < len),
    };
    let body = Body { response, what, skip, done: 0, len: range.len(), more, extra: false };
    Ok(stream::unfold(Some(body), Body::next).boxed())
}

/// A body that is being received.
struct Body {
    response: Response,
    what: String,
    /// Bytes before those that were asked for.
    skip: u64,
    done: u64,
    len: u64,
    /// Whether more bytes may follow, since the server sends the whole object.
    more: bool,
    /// Whether more bytes came than may follow.
    extra: bool,
}

impl Body {
    async fn next(this: Option<Self>) -> Option<(Result<Bytes, RegistryError>, Option<Self>)> {
        let mut this = this?;
        loop {
            if this.extra {
                let why = "more bytes than were asked for".into();
                return Some((Err(RegistryError::Invalid { what: this.what, why }), None));
            }
            let room = this.len - this.done;
            if room == 0 && this.more {
                return None;
            }
            let mut piece = match this.response.chunk().await {
                Ok(Some(piece)) => piece,
                // All that was asked for is there: how the connection ends does not matter.
                Ok(None) | Err(_) if room == 0 => return None,
                Ok(None) => return Some((Err(this.short(None)), None)),
                Err(e) => return Some((Err(this.short(Some(e))), None)),
            };
            let skipped = this.skip.min(piece.len() as u64);
            this.skip -= skipped;
            piece.advance(skipped as usize);
            if piece.len() as u64 > room {
                piece.truncate(room as usize);
                this.extra = !this.more;
            }
            if !piece.is_empty() {
                this.done += piece.len() as u64;
                return Some((Ok(piece), Some(this)));
            }
        }
    }

    fn short(&self, error: Option<reqwest::Error>) -> RegistryError {
        match error {
            Some(e) => response::cut_off(&self.what, self.done, Some(self.len), e),
            None => RegistryError::Unreachable {
                what: self.what.clone(),
                why: format!("cut off after {} of {} bytes", self.done, self.len),
            },
        }
    }
}
