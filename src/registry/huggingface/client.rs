//! Requests to the Hub over HTTP: the login, redirects, and where the bytes of files are.
//!
//! Invariant: the token is sent to the endpoint's host and nowhere else: a redirect on that host keeps
//! it (a renamed repository), one to another host drops it. Where a file was redirected to is a signed
//! URL, in effect a password: it is kept in memory and stands in no text. Concurrency: shared; the lock
//! around these URLs is never held across an await.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use bytes::Bytes;
use lru::LruCache;
use reqwest::header::{self, HeaderMap};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};

use super::refusal::{self, Subject};
use crate::base::ObjectRange;
use crate::registry::api::ObjectBody;
use crate::registry::error::RegistryError;
use crate::registry::login::{Login, Logins};
use crate::registry::transport::http_client::{HttpClient, HttpOptions, MAX_REDIRECTS, Redirects};
use crate::registry::transport::{http_body, http_response};

/// Where the Hub is, unless `HF_ENDPOINT` says otherwise.
const ENDPOINT: &str = "https://huggingface.co";
/// Maximum number of files whose place is remembered, a kilobyte each: the shards of many models.
const MAX_PLACES: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");

/// What a request is for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// How errors name it.
    pub what: &'a str,
    /// The page of its repository, below the endpoint.
    pub page: &'a str,
}

/// An answer of the interface for programs.
#[derive(Debug)]
pub struct Answer {
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body; `None`: what the caller knows is the current state.
    pub body: Option<Bytes>,
}

/// The Hub.
pub struct Hub {
    endpoint: Url,
    login: Login,
    http: HttpClient,
    /// By the file's path below the endpoint.
    places: Mutex<LruCache<String, Url>>,
}

fn bad_endpoint(why: &str) -> RegistryError {
    RegistryError::BadName { name: "HF_ENDPOINT".into(), why: format!("{why}: write https://HOST") }
}

/// The URL of an endpoint, as `HF_ENDPOINT` has it; none: the usual one.
pub fn endpoint(given: Option<&str>) -> Result<Url, RegistryError> {
    let endpoint =
        Url::parse(given.unwrap_or(ENDPOINT)).map_err(|e| bad_endpoint(&e.to_string()))?;
    if !matches!(endpoint.scheme(), "http" | "https") || !endpoint.has_host() {
        return Err(bad_endpoint("is no http or https URL"));
    }
    let credentials = !endpoint.username().is_empty() || endpoint.password().is_some();
    if credentials || endpoint.query().is_some() || endpoint.fragment().is_some() {
        return Err(bad_endpoint("has more than a host and a path"));
    }
    Ok(endpoint)
}

impl Hub {
    /// The Hub at an endpoint, which is the value of `HF_ENDPOINT`; none: the usual one. Opens no connection.
    pub fn new(
        endpoint: Option<&str>,
        logins: Arc<dyn Logins>,
        options: &HttpOptions,
    ) -> Result<Self, RegistryError> {
        let endpoint = self::endpoint(endpoint)?;
        // Redirects are followed here, since they decide about the token.
        let http = HttpClient::new(&endpoint, options, Redirects::Returned);
        let http = http.map_err(|why| bad_endpoint(&why))?;
        let places = Mutex::new(LruCache::new(MAX_PLACES));
        Ok(Self { endpoint, login: Login::new(logins), http, places })
    }

    /// The client of HTTP, which follows no redirects.
    pub fn http(&self) -> &HttpClient {
        &self.http
    }

    /// Whether the Hub is asked over https.
    pub fn is_encrypted(&self) -> bool {
        self.endpoint.scheme() == "https"
    }

    /// The URL of a repository's page, for people.
    fn page(&self, page: &str) -> String {
        format!("{}/{page}", self.endpoint.as_str().trim_end_matches('/'))
    }

    /// A path below the endpoint, each part of it encoded.
    fn url<'a>(&self, parts: impl IntoIterator<Item = &'a str>) -> Url {
        let mut url = self.endpoint.clone();
        let mut path = url.path_segments_mut().expect("an http URL has a path");
        path.pop_if_empty().extend(parts);
        drop(path);
        url
    }

    /// A whole answer of at most `limit` bytes to a question about a repository: the parts of its path
    /// below the endpoint, and its query.
    pub async fn ask(
        &self,
        wanted: Wanted<'_>,
        path: &[&str],
        query: Option<&str>,
        limit: u64,
        known: Option<&str>,
    ) -> Result<Answer, RegistryError> {
        let parts = path.iter().enumerate();
        // The first part is the repository's: it has slashes of its own.
        let parts = parts.flat_map(|(i, part)| match i {
            0 => part.split('/').collect::<Vec<_>>(),
            _ => vec![*part],
        });
        let mut url = self.url(parts);
        url.set_query(query);
        let (response, _) = self
            .send(wanted, url, |request| match known {
                Some(etag) => request.header(header::IF_NONE_MATCH, etag),
                None => request,
            })
            .await?;
        let headers = response.headers().clone();
        match response.status() {
            StatusCode::NOT_MODIFIED if known.is_some() => Ok(Answer { headers, body: None }),
            StatusCode::OK => {
                http_response::check_encoding(wanted.what, &headers)?;
                let body = http_body::collect(response, wanted.what, limit).await?;
                Ok(Answer { headers, body: Some(body) })
            }
            other => Err(http_response::unexpected(wanted.what, other)),
        }
    }

    /// A range, neither empty nor past the end, of a file that is `len` bytes long; `path` is below the
    /// endpoint.
    pub async fn read(
        &self,
        wanted: Wanted<'_>,
        path: &str,
        len: u64,
        range: ObjectRange,
    ) -> Result<ObjectBody, RegistryError> {
        // The whole is asked for without a range: every cache on the way can answer that.
        let ranged = range.len() < len;
        let with_range = |request: RequestBuilder| match ranged {
            true => {
                let bytes = format!("bytes={}-{}", range.start(), range.end() - 1);
                request.header(header::RANGE, bytes)
            }
            false => request,
        };
        let what = format!("{} bytes {}-{}", wanted.what, range.start(), range.end() - 1);
        let wanted = Wanted { what: &what, ..wanted };
        let place = self.places().get(path).cloned();
        if let Some(place) = place {
            match self.send(wanted, place, with_range).await {
                Ok((response, _)) => {
                    return http_body::receive(response, what, ranged, len, range);
                }
                // A signed URL has a lifetime. The Hub knows the next one, and another host if this one
                // is in trouble.
                Err(error) => {
                    self.places().pop(path);
                    if !may_have_expired(&error) {
                        return Err(error);
                    }
                }
            }
        }
        let (response, place) = self.send(wanted, self.url(path.split('/')), with_range).await?;
        if !self.is_endpoint(&place) {
            self.places().put(path.to_owned(), place);
        }
        http_body::receive(response, what, ranged, len, range)
    }

    fn places(&self) -> MutexGuard<'_, LruCache<String, Url>> {
        self.places.lock().expect("nothing panics while it holds this lock")
    }

    fn is_endpoint(&self, url: &Url) -> bool {
        url.origin() == self.endpoint.origin()
    }

    /// Sends a request and follows redirects. Returns the answer and where it came from.
    async fn send(
        &self,
        wanted: Wanted<'_>,
        mut url: Url,
        with: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<(Response, Url), RegistryError> {
        let what = wanted.what;
        let invalid = |why: &str| RegistryError::Invalid { what: what.into(), why: why.into() };
        // What another host leads back to is its idea, not the user's.
        let mut token = match self.is_endpoint(&url) {
            true => self.login.header(what).await?,
            false => None,
        };
        let (mut own, mut renewed) = (self.is_endpoint(&url), false);
        let mut redirects = 0;
        while redirects <= MAX_REDIRECTS {
            let request = self.http.request(Method::GET, url.clone());
            let request = request.map_err(|e| e.error(what))?;
            let mut request = with(request).header(header::ACCEPT_ENCODING, "identity");
            if let Some(token) = &token {
                request = request.header(header::AUTHORIZATION, token);
            }
            let response = request.send().await.map_err(|e| http_response::failed(what, e))?;
            let (status, headers) = (response.status(), response.headers());
            if status == StatusCode::UNAUTHORIZED && own && !std::mem::replace(&mut renewed, true) {
                // A token that was replaced meanwhile.
                if let Some(other) = self.login.another(token.as_ref(), what).await? {
                    token = Some(other);
                    continue;
                }
            }
            let moved = matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308);
            if !moved {
                self.check(wanted, &url, token.is_some(), status, headers)?;
                return Ok((response, url));
            }
            let to = headers.get(header::LOCATION).and_then(|to| to.to_str().ok());
            let next = to.and_then(|to| url.join(to).ok());
            let next = next.filter(|next| matches!(next.scheme(), "http" | "https"));
            let next = next.ok_or_else(|| invalid("redirected to no http URL"))?;
            if url.scheme() == "https" && next.scheme() != "https" {
                return Err(invalid("redirected from https to http"));
            }
            if !self.is_endpoint(&next) {
                (token, own) = (None, false);
            }
            (url, redirects) = (next, redirects + 1);
        }
        Err(invalid("more redirects than can be"))
    }

    fn check(
        &self,
        wanted: Wanted<'_>,
        url: &Url,
        with_token: bool,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Result<(), RegistryError> {
        let now = SystemTime::now();
        if !self.is_endpoint(url) {
            return http_response::check_status(wanted.what, status, headers, now);
        }
        let page = self.page(wanted.page);
        let subject = Subject { what: wanted.what, page: &page, with_token };
        refusal::check(subject, status, headers, now)
    }
}

/// Whether a signed URL may have come to its end.
fn may_have_expired(error: &RegistryError) -> bool {
    matches!(
        error,
        RegistryError::Refused { .. }
            | RegistryError::Denied { .. }
            | RegistryError::Missing { .. }
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::login::NoLogin;

    fn hub(endpoint: &str) -> Result<Hub, RegistryError> {
        Hub::new(Some(endpoint), Arc::new(NoLogin), &HttpOptions::default())
    }

    #[test]
    fn paths_are_encoded_part_by_part_below_the_endpoint() {
        for endpoint in ["http://h/mirror", "http://h/mirror/"] {
            let hub = hub(endpoint).unwrap();
            let url = hub.url("o/n/resolve/c/a b#?%.bin".split('/'));
            assert_eq!(url.as_str(), "http://h/mirror/o/n/resolve/c/a%20b%23%3F%25.bin");
            assert_eq!(hub.page("o/n"), "http://h/mirror/o/n");
        }
        let slashes = hub("http://h").unwrap().url(["revision", "refs/pr/1"]);
        assert_eq!(slashes.as_str(), "http://h/revision/refs%2Fpr%2F1");
    }

    #[test]
    fn an_endpoint_that_cannot_be_one_is_refused_without_showing_it() {
        for bad in ["ftp://secret", "https://u:secret@h", "h/secret", "https://h/?secret", ""] {
            let error = hub(bad).err().expect(bad).to_string();
            assert!(error.contains("HF_ENDPOINT") && !error.contains("secret"), "{error}");
        }
    }
}
