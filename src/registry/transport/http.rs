//! Files behind an HTTP server or bucket.
//!
//! Invariant: a body is exactly the bytes that were asked for, or it ends in an error. No text
//! (name, error, log) holds the user, password or query of the URL. Connections are kept and shared;
//! nothing here locks or retries.

use std::time::SystemTime;

use async_trait::async_trait;
use percent_encoding::percent_decode_str;
use reqwest::header::{self, HeaderMap, HeaderName};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url, redirect};

use super::address::scheme_shown;
use super::api::{Document, Resource, Transport, range_shown};
use super::http_body;
use super::http_response as response;
use super::http_rules::{CLOCK, client, follow, may_connect};
use super::timeouts::Timeouts;
use crate::base::ObjectRange;
use crate::registry::api::{ObjectBody, Validator};
use crate::registry::error::RegistryError;

/// Files behind an HTTP server.
#[derive(Debug, Clone)]
pub struct Http {
    name: String,
    base: Url,
    user: Option<(String, Option<String>)>,
    client: Client,
}

impl Http {
    /// The files below a URL, whose user and password are sent as basic authentication, and whose query
    /// is sent with every request.
    pub fn new(url: &str, timeouts: Timeouts) -> Result<Self, RegistryError> {
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
        let client = client(&base, timeouts).redirect(redirect::Policy::custom(follow));
        let client = client.build().map_err(|e| bad(&name, response::why(e)))?;
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
        let response = request.send().await.map_err(|e| response::failed(what, e))?;
        response::check_status(what, response.status(), response.headers(), SystemTime::now())?;
        Ok(response)
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
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

#[async_trait]
impl Transport for Http {
    fn name(&self) -> &str {
        &self.name
    }

    async fn document(
        &self,
        file: Resource<'_>,
        limit: u64,
        known: &Validator,
    ) -> Result<Document, RegistryError> {
        let mut request = self.get(file.path);
        if let Some(etag) = &known.etag {
            request = request.header(header::IF_NONE_MATCH, etag);
        }
        if let Some(time) = &known.last_modified {
            request = request.header(header::IF_MODIFIED_SINCE, time);
        }
        let response = self.send(request, file.shown).await?;
        match response.status() {
            StatusCode::NOT_MODIFIED if *known != Validator::default() => {
                return Ok(Document::Unchanged);
            }
            StatusCode::OK => response::check_encoding(file.shown, response.headers())?,
            other => return Err(response::unexpected(file.shown, other)),
        }
        let headers = response.headers();
        let validator = Validator {
            etag: text(headers, header::ETAG),
            last_modified: text(headers, header::LAST_MODIFIED),
        };
        let body = http_body::collect(response, file.shown, limit).await?;
        Ok(Document::Changed { body, validator })
    }

    async fn range(
        &self,
        file: Resource<'_>,
        len: u64,
        range: ObjectRange,
    ) -> Result<ObjectBody, RegistryError> {
        let what = range_shown(file, range);
        let mut request = self.get(file.path);
        // The whole is asked for without a range: every cache on the way can answer that.
        let ranged = range.len() < len;
        if ranged {
            let bytes = format!("bytes={}-{}", range.start(), range.end() - 1);
            request = request.header(header::RANGE, bytes);
        }
        let response = self.send(request, &what).await?;
        http_body::receive(response, what, ranged, len, range)
    }

    /// Sends a request for the head of a file: there is no other way to have a connection opened.
    fn preconnect(&self, path: &str) {
        if !may_connect(&self.base, SystemTime::now()) {
            return;
        }
        let request = self.request(Method::HEAD, path);
        // A failure is reported by the read that needs the connection.
        tokio::spawn(async move { drop(request.send().await) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(url: &str) -> Result<Http, RegistryError> {
        Http::new(url, Timeouts::default())
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
}
