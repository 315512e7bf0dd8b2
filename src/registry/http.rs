//! A registry behind an HTTP server or bucket, in XPRIM.
//!
//! Invariant: a body is exactly the bytes that were asked for, or it ends in an error. No text
//! (name, error, log) holds the URL's user, password or query. Connections are kept and shared;
//! nothing here locks. Retrying is `retry`'s.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::{Buf, Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use reqwest::header::{self, HeaderMap, HeaderName};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url, redirect};

use super::connect::scheme_shown;
use super::http_answer::{self as answer, Served};
use super::xprim::{CATALOG, MAX_CATALOG, object_path, object_shown};
use super::{CatalogAnswer, ObjectBody, Registry, RegistryError, Validator};
use crate::base::ObjectRange;
use crate::model::Digest;

/// The most memory taken for a document before any of it is there.
const AT_FIRST: usize = 64 << 10;

/// Why nothing can be asked of a server with a certificate.
const CLOCK: &str = "this machine's clock stands before 1970: set it";

/// More redirects than any bucket or mirror needs.
const MAX_REDIRECTS: usize = 5;

/// How long a registry may be silent.
#[derive(Debug, Clone, Copy)]
pub struct HttpTimeouts {
    /// Until the connection stands, TLS included.
    pub connect: Duration,
    /// Without a byte of the answer.
    pub stall: Duration,
}

impl HttpTimeouts {
    /// Such that a read with this deadline gets over a connection that died in silence: a quarter
    /// of it for the silence leaves room for three attempts.
    pub fn within(deadline: Duration) -> Self {
        let usual = Self::default();
        Self { connect: usual.connect.min(deadline / 2), stall: usual.stall.min(deadline / 4) }
    }
}

impl Default for HttpTimeouts {
    /// Connecting takes seconds at worst; a server that is silent for longer than 15 has stalled,
    /// and there must be time left for another attempt within a minute.
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), stall: Duration::from_secs(15) }
    }
}

/// A registry behind an HTTP server.
#[derive(Debug, Clone)]
pub struct Http {
    name: String,
    base: Url,
    user: Option<(String, Option<String>)>,
    client: Client,
}

impl Http {
    /// The registry at a URL, of which user and password are sent as basic authentication, and the
    /// query with every request.
    pub fn new(url: &str, timeouts: HttpTimeouts) -> Result<Self, RegistryError> {
        let bad = |name: &str, why: String| RegistryError::BadName { name: name.to_owned(), why };
        // What cannot be parsed may hold a password anywhere: not shown.
        let mut base = Url::parse(url).map_err(|e| bad(scheme_shown(url), e.to_string()))?;
        let user = (!base.username().is_empty() || base.password().is_some())
            .then(|| (decoded(base.username()), base.password().map(decoded)));
        let name = shown(&base);
        if !matches!(base.scheme(), "http" | "https") {
            return Err(bad(&name, "the URL is not http or https".into()));
        }
        let cannot = |()| bad(&name, "the URL has no host".into());
        base.set_username("").and_then(|()| base.set_password(None)).map_err(cannot)?;
        base.set_fragment(None);
        let mut client = Client::builder()
            .user_agent(concat!("modelfs/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(timeouts.connect)
            .read_timeout(timeouts.stall)
            .redirect(redirect::Policy::custom(follow))
            // A Referer would carry the query on to whom a redirect leads.
            .referer(false)
            .http2_adaptive_window(true);
        if is_local(&base) {
            // Nobody reaches this machine through a proxy.
            client = client.no_proxy();
        }
        let client = client.build().map_err(|e| bad(&name, answer::why(e)))?;
        Ok(Self { name, base, user, client })
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.request(Method::GET, path)
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let mut url = self.base.clone();
        url.set_path(&format!("{}/{path}", self.base.path().trim_end_matches('/')));
        let request = self.client.request(method, url).header(header::ACCEPT_ENCODING, "identity");
        match &self.user {
            Some((user, password)) => request.basic_auth(user, password.as_deref()),
            None => request,
        }
    }

    async fn send(&self, request: RequestBuilder, what: &str) -> Result<Response, RegistryError> {
        if !may_connect(&self.base, SystemTime::now()) {
            let (what, why) = (what.to_owned(), CLOCK.to_owned());
            return Err(RegistryError::Unreachable { what, why });
        }
        let response = request.send().await.map_err(|e| answer::failed(what, e))?;
        answer::check_status(what, response.status(), response.headers(), SystemTime::now())?;
        Ok(response)
    }

    /// A whole document of at most `limit` bytes.
    async fn collect(
        &self,
        mut response: Response,
        what: &str,
        limit: u64,
    ) -> Result<Bytes, RegistryError> {
        let too_long = || RegistryError::Invalid {
            what: what.into(),
            why: format!("more than {limit} bytes"),
        };
        let length = response.content_length();
        if length.is_some_and(|len| len > limit) {
            return Err(too_long());
        }
        // What is announced costs nothing until it comes.
        let announced = usize::try_from(length.unwrap_or_default()).unwrap_or(usize::MAX);
        let mut body = BytesMut::with_capacity(announced.min(AT_FIRST));
        loop {
            match response.chunk().await {
                Ok(Some(piece)) => body.extend_from_slice(&piece),
                Ok(None) => return Ok(body.freeze()),
                Err(e) => return Err(answer::cut_off(what, body.len() as u64, length, e)),
            }
            if body.len() as u64 > limit {
                return Err(too_long());
            }
        }
    }
}

/// A URL without user, password, query and fragment, and without a slash at its end.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // Only URLs that have none of these refuse.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.as_str().trim_end_matches('/').to_owned()
}

/// What percent-encoded text means; broken escapes stand for themselves.
fn decoded(text: &str) -> String {
    let hex = |b: &u8| char::from(*b).to_digit(16);
    let (mut out, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, tail @ ..] = rest {
        let escape = match (first, tail) {
            (b'%', [a, b, after @ ..]) => hex(a).zip(hex(b)).map(|(a, b)| (a * 16 + b, after)),
            _ => None,
        };
        let (byte, after) = escape.map_or((*first, tail), |(byte, after)| (byte as u8, after));
        out.push(byte);
        rest = after;
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn is_local(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether a connection can be tried at this time. Certificates begin later than 1970, and rustls
/// panics where the clock stands before that.
fn may_connect(url: &Url, now: SystemTime) -> bool {
    url.scheme() != "https" || now >= SystemTime::UNIX_EPOCH
}

fn follow(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let from = attempt.previous().last().map(Url::scheme);
    if from == Some("https") && attempt.url().scheme() != "https" {
        attempt.error("redirected from https to http")
    } else if attempt.previous().len() > MAX_REDIRECTS {
        attempt.error(format!("more than {MAX_REDIRECTS} redirects"))
    } else if !may_connect(attempt.url(), SystemTime::now()) {
        attempt.error(CLOCK)
    } else {
        attempt.follow()
    }
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

#[async_trait]
impl Registry for Http {
    fn name(&self) -> &str {
        &self.name
    }

    async fn catalog(&self, known: &Validator) -> Result<CatalogAnswer, RegistryError> {
        let mut request = self.get(CATALOG);
        if let Some(etag) = &known.etag {
            request = request.header(header::IF_NONE_MATCH, etag);
        }
        if let Some(time) = &known.last_modified {
            request = request.header(header::IF_MODIFIED_SINCE, time);
        }
        let response = self.send(request, CATALOG).await?;
        match response.status() {
            StatusCode::NOT_MODIFIED if *known != Validator::default() => {
                return Ok(CatalogAnswer::Unchanged);
            }
            StatusCode::OK => answer::check_encoding(CATALOG, response.headers())?,
            other => return Err(answer::unexpected(CATALOG, other)),
        }
        let headers = response.headers();
        let validator = Validator {
            etag: text(headers, header::ETAG),
            last_modified: text(headers, header::LAST_MODIFIED),
        };
        let body = self.collect(response, CATALOG, MAX_CATALOG).await?;
        let catalog = super::parse_catalog(body.clone()).await?;
        Ok(CatalogAnswer::Changed { catalog, body, validator })
    }

    async fn document(&self, digest: &Digest, limit: u64) -> Result<Bytes, RegistryError> {
        let what = object_shown(digest);
        let response = self.send(self.get(&object_path(digest)), &what).await?;
        if response.status() != StatusCode::OK {
            return Err(answer::unexpected(&what, response.status()));
        }
        answer::check_encoding(&what, response.headers())?;
        let body = self.collect(response, &what, limit).await?;
        super::check_sha256(digest, &body)?;
        Ok(body)
    }

    async fn object(
        &self,
        digest: &Digest,
        object_len: u64,
        range: ObjectRange,
    ) -> Result<ObjectBody, RegistryError> {
        super::check_range(digest, object_len, range)?;
        if range.is_empty() {
            return Ok(stream::empty().boxed());
        }
        let what = super::range_shown(digest, range);
        let mut request = self.get(&object_path(digest));
        // The whole is asked for without a range: every cache on the way can answer that.
        let ranged = range.len() < object_len;
        if ranged {
            let bytes = format!("bytes={}-{}", range.start(), range.end() - 1);
            request = request.header(header::RANGE, bytes);
        }
        let response = self.send(request, &what).await?;
        let (status, headers) = (response.status(), response.headers());
        answer::check_encoding(&what, headers)?;
        let served = answer::check_range(&what, status, headers, ranged, range, object_len)?;
        let (skip, more) = match served {
            Served::Range => (0, false),
            Served::Whole => (range.start(), range.end() < object_len),
        };
        let body = Body { response, what, skip, done: 0, len: range.len(), more, extra: false };
        Ok(stream::unfold(Some(body), Body::next).boxed())
    }

    /// A request for nothing, since there is no other way to have a connection opened.
    fn expect_reads(&self, document: &Digest) {
        if !may_connect(&self.base, SystemTime::now()) {
            return;
        }
        let request = self.request(Method::HEAD, &object_path(document));
        // whatever becomes of it, whoever reads will hear of it
        tokio::spawn(async move { drop(request.send().await) });
    }
}

/// A body on its way.
struct Body {
    response: Response,
    what: String,
    /// Bytes before those that were asked for.
    skip: u64,
    done: u64,
    len: u64,
    /// Whether more bytes follow by right, since the server sends the whole object.
    more: bool,
    /// Whether more bytes came than by right.
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
                // All that was asked for is there: how the connection ends is its own business.
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
            Some(e) => answer::cut_off(&self.what, self.done, Some(self.len), e),
            None => RegistryError::Unreachable {
                what: self.what.clone(),
                why: format!("cut off after {} of {} bytes", self.done, self.len),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(url: &str) -> Result<Http, RegistryError> {
        Http::new(url, HttpTimeouts::default())
    }

    #[test]
    fn secrets_are_sent_and_never_shown() {
        let r = open("https://me%40x:p%3Ass@host.example:8443/base/?sig=s3cret#f").unwrap();
        assert_eq!(r.name(), "https://host.example:8443/base");
        let request = r.get("models.json").build().unwrap();
        assert_eq!(request.url().as_str(), "https://host.example:8443/base/models.json?sig=s3cret");
        // base64 of "me@x:p:ss"
        assert_eq!(request.headers()[header::AUTHORIZATION], "Basic bWVAeDpwOnNz");
        assert!(request.headers()[header::AUTHORIZATION].is_sensitive());
        for url in
            ["http://me:s3cret@", "https://me:s3cret@host:99999/x?s3cret", "ftp://me:s3cret@h/"]
        {
            let text = open(url).unwrap_err().to_string();
            assert!(!text.contains("s3cret"), "{text}");
        }
    }

    #[test]
    fn a_clock_before_1970_is_no_panic_where_certificates_are_checked() {
        let before = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
        for (url, now, may) in [
            ("https://h", before, false),
            ("http://h", before, true),
            ("https://h", SystemTime::UNIX_EPOCH, true),
        ] {
            assert_eq!(may_connect(&Url::parse(url).unwrap(), now), may, "{url}");
        }
    }

    #[test]
    fn a_slash_at_the_end_makes_no_difference() {
        for base in ["http://h/a/b", "http://h/a/b/", "http://h/a/b//"] {
            let url = open(base).unwrap().get("data/x").build().unwrap().url().to_string();
            assert_eq!(url, "http://h/a/b/data/x");
        }
        let url = open("http://h").unwrap().get("models.json").build().unwrap().url().to_string();
        assert_eq!(url, "http://h/models.json");
    }

    #[test]
    fn escapes_are_decoded_and_broken_ones_kept() {
        assert_eq!(decoded("a%20%c3%bcb%"), "a üb%");
        assert_eq!(decoded("%zz%4"), "%zz%4");
    }

    #[test]
    fn only_this_machine_is_local() {
        for (url, local) in [
            ("http://127.0.0.1:8/", true),
            ("http://localhost/", true),
            ("http://[::1]:80/", true),
            ("http://127.0.0.1.example/", false),
            ("http://10.0.0.1/", false),
        ] {
            assert_eq!(is_local(&Url::parse(url).unwrap()), local, "{url}");
        }
    }
}
