//! Requests to a registry.
//!
//! Invariant: `Authorization` goes to the registry and to no other host, wherever it redirects to; what
//! a place that it redirected to asks for is not answered. Trouble on the way is never "missing". No
//! text holds a URL or a login. Concurrency: shared; nothing here locks or retries, but for the one
//! request that a challenge asks for.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Method, Response, StatusCode, Url};
use serde::Deserialize;

use super::auth::{Auth, Scope};
use super::place::Place;
use crate::base::ObjectRange;
use crate::base::text::brief;
use crate::registry::api::ObjectBody;
use crate::registry::error::RegistryError;
use crate::registry::login::Logins;
use crate::registry::transport::http_client::{HttpClient, HttpOptions, Redirects};
use crate::registry::transport::{http_body, http_response};

/// Maximum size of what a registry says of an error.
const MAX_ERROR: u64 = 64 << 10;

/// A request.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    /// How errors name it.
    pub what: &'a str,
    /// What it has to be allowed.
    pub scope: Scope<'a>,
    /// Below `/v2/`, with a query.
    pub path: &'a str,
    /// What the body may be.
    pub accept: Option<&'static str>,
}

/// An answer with its body.
pub struct Answer {
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// A registry over HTTP.
pub struct Client {
    base: Url,
    http: HttpClient,
    auth: Auth,
}

impl Client {
    /// The registry at `place`. Opens no connection.
    pub fn new(
        place: &Place,
        logins: Arc<dyn Logins>,
        options: &HttpOptions,
    ) -> Result<Self, RegistryError> {
        let client = |redirects| {
            let built = HttpClient::new(place.base(), options, redirects);
            built.map_err(|why| RegistryError::BadName { name: place.to_string(), why })
        };
        let http = client(Redirects::Followed)?;
        let auth = Auth::new(place.clone(), logins, client(Redirects::Returned)?);
        Ok(Self { base: place.base().clone(), http, auth })
    }

    /// The headers of an answer without a body.
    pub async fn head(&self, ask: Ask<'_>) -> Result<HeaderMap, RegistryError> {
        let response = self.send(Method::HEAD, ask, None).await?;
        Ok(response.headers().clone())
    }

    /// A whole answer of at most `limit` bytes.
    pub async fn get(&self, ask: Ask<'_>, limit: u64) -> Result<Answer, RegistryError> {
        let response = self.send(Method::GET, ask, None).await?;
        match response.status() {
            StatusCode::OK => http_response::check_encoding(ask.what, response.headers())?,
            other => return Err(http_response::unexpected(ask.what, other)),
        }
        let headers = response.headers().clone();
        Ok(Answer { headers, body: http_body::collect(response, ask.what, limit).await? })
    }

    /// A range, neither empty nor past the end, of a blob that is `len` bytes long.
    pub async fn read(
        &self,
        ask: Ask<'_>,
        len: u64,
        range: ObjectRange,
    ) -> Result<ObjectBody, RegistryError> {
        // The whole is asked for without a range: every cache on the way can answer that.
        let ranged = range.len() < len;
        let bytes = ranged.then(|| format!("bytes={}-{}", range.start(), range.end() - 1));
        let response = self.send(Method::GET, ask, bytes.as_deref()).await?;
        http_body::receive(response, ask.what.to_owned(), ranged, len, range)
    }

    /// Opens a connection, since a read will need it. Waits for nothing and never fails.
    pub fn preconnect(&self) {
        if let Ok(url) = self.base.join("v2/")
            && let Ok(request) = self.http.request(Method::HEAD, url)
        {
            // A failure is reported by the read that needs the connection.
            tokio::spawn(async move { drop(request.send().await) });
        }
    }

    /// The path of the next page that an answer links to, below `/v2/`.
    pub fn next_page(
        &self,
        headers: &HeaderMap,
        what: &str,
    ) -> Result<Option<String>, RegistryError> {
        let invalid =
            |why: &str| RegistryError::Invalid { what: what.to_owned(), why: why.to_owned() };
        let Some(link) = next_link(headers) else { return Ok(None) };
        let url =
            self.base.join(&link).map_err(|_| invalid("the link to the next page is no URL"))?;
        if url.origin() != self.base.origin() {
            return Err(invalid("the next page is at another server"));
        }
        let path = url.path().strip_prefix("/v2/");
        let path = path.ok_or_else(|| invalid("the next page is not one of the interface"))?;
        Ok(Some(url.query().map_or(path.to_owned(), |query| format!("{path}?{query}"))))
    }

    /// Sends a request, logs in if the registry asks for it, and turns errors' statuses into errors.
    async fn send(
        &self,
        method: Method,
        ask: Ask<'_>,
        range: Option<&str>,
    ) -> Result<Response, RegistryError> {
        let mut given = self.auth.known(ask.scope);
        let mut response = self.once(&method, ask, range, given.as_ref()).await?;
        if self.is_challenge(&response) {
            let refused = given.take();
            let answer =
                self.auth.answer(response.headers(), ask.scope, refused.as_ref(), ask.what);
            given = Some(answer.await?);
            response = self.once(&method, ask, range, given.as_ref()).await?;
        }
        if response.status().is_client_error() {
            return Err(self.refused(response, ask, given.as_ref()).await);
        }
        let (status, headers) = (response.status(), response.headers());
        http_response::check_status(ask.what, status, headers, SystemTime::now())?;
        Ok(response)
    }

    async fn once(
        &self,
        method: &Method,
        ask: Ask<'_>,
        range: Option<&str>,
        given: Option<&HeaderValue>,
    ) -> Result<Response, RegistryError> {
        let url = self.base.join(&format!("v2/{}", ask.path)).map_err(|e| {
            RegistryError::Invalid { what: ask.what.to_owned(), why: e.to_string() }
        })?;
        let request = self.http.request(method.clone(), url).map_err(|e| e.error(ask.what))?;
        let mut request = request.header(header::ACCEPT_ENCODING, "identity");
        for (name, value) in [(header::ACCEPT, ask.accept), (header::RANGE, range)] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        if let Some(given) = given {
            request = request.header(header::AUTHORIZATION, given);
        }
        request.send().await.map_err(|e| http_response::failed(ask.what, e))
    }

    /// Whether the registry itself asks for a login.
    fn is_challenge(&self, response: &Response) -> bool {
        response.status() == StatusCode::UNAUTHORIZED && self.is_own(response)
    }

    fn is_own(&self, response: &Response) -> bool {
        response.url().origin() == self.base.origin()
    }

    /// What an answer with a status of 4xx means.
    async fn refused(
        &self,
        response: Response,
        ask: Ask<'_>,
        given: Option<&HeaderValue>,
    ) -> RegistryError {
        let (status, own) = (response.status(), self.is_own(&response));
        let now = SystemTime::now();
        let plain = http_response::check_status(ask.what, status, response.headers(), now).err();
        let what = ask.what.to_owned();
        let Some(RegistryError::Refused { status: number, .. }) = plain else {
            let unexpected = || http_response::unexpected(ask.what, status);
            return plain.unwrap_or_else(unexpected);
        };
        if !own {
            let why = format!("the storage that the registry leads to refused with {number}");
            return RegistryError::Denied { what, why };
        }
        let said = http_body::collect(response, ask.what, MAX_ERROR).await.ok();
        let said = said.and_then(|body| first_error(&body));
        let said = said.map_or(String::new(), |said| format!(" ({said})"));
        let why = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                format!("the registry refused with {number}{said}; {}", self.auth.refusal(given))
            }
            _ => format!("the registry refused with {number}{said}"),
        };
        RegistryError::Denied { what, why }
    }
}

/// The URL of the next page in `Link: <…>; rel="next"`.
fn next_link(headers: &HeaderMap) -> Option<String> {
    let links = headers.get_all(header::LINK).iter().filter_map(|value| value.to_str().ok());
    let next = links.filter_map(|link| {
        let (url, params) = link.trim().strip_prefix('<')?.split_once('>')?;
        let is_next = params.split(';').any(|p| {
            let p = p.trim().to_ascii_lowercase();
            p == "rel=next" || p == "rel=\"next\""
        });
        is_next.then(|| url.to_owned())
    });
    next.into_iter().next()
}

/// The first error that a registry's answer names: its code and message.
fn first_error(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<One>,
    }
    #[derive(Deserialize)]
    struct One {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let errors: Errors = serde_json::from_slice(body).ok()?;
    let first = errors.errors.into_iter().next()?;
    Some(brief(&format!("{}: {}", first.code, first.message), 160))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::login::NoLogin;

    fn client(name: &str) -> Client {
        let place = Place::parse(name, None).unwrap();
        Client::new(&place, Arc::new(NoLogin), &HttpOptions::default()).unwrap()
    }

    fn link(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::LINK, value.parse().unwrap())])
    }

    #[test]
    fn pages_are_followed_on_the_registry_only() {
        let client = client("oci://h.example");
        let next = |value: &str| client.next_page(&link(value), "tags");
        let page = |path: &str| Some(path.to_owned());
        assert_eq!(
            next(r#"</v2/a/tags/list?last=v1&n=2>; rel="next""#).unwrap(),
            page("a/tags/list?last=v1&n=2")
        );
        assert_eq!(
            next("<https://h.example/v2/_catalog?last=x>; REL=next").unwrap(),
            page("_catalog?last=x")
        );
        assert_eq!(next(r#"</v2/x>; rel="prev""#).unwrap(), None);
        assert_eq!(next("rubbish").unwrap(), None);
        assert_eq!(client.next_page(&HeaderMap::new(), "tags").unwrap(), None);
        for bad in ["https://evil.example/v2/x", "http://h.example/v2/x", "//evil/v2/x", "/x"] {
            let error = next(&format!("<{bad}>; rel=next")).unwrap_err();
            assert!(matches!(error, RegistryError::Invalid { .. }), "{bad}: {error}");
        }
    }

    #[test]
    fn the_registrys_own_words_are_shown_briefly() {
        let body =
            br#"{"errors":[{"code":"DENIED","message":"no\nway","detail":{}},{"code":"X"}]}"#;
        assert_eq!(first_error(body).unwrap(), "DENIED: no\\nway");
        assert_eq!(first_error(br#"{"errors":[]}"#), None);
        assert_eq!(first_error(b"<html>"), None);
    }
}
