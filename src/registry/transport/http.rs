//! Files behind an HTTP server or bucket.
//!
//! Invariant: a body is exactly the bytes that were asked for, or it ends in an error. No text
//! (name, error, log) holds the user, password or query of the URL. Connections are kept and shared;
//! nothing here locks or retries.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use percent_encoding::percent_decode_str;
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};

use super::address::scheme_shown;
use super::api::{Document, Resource, Transport, range_shown};
use super::http_body;
use super::http_client::{HttpClient, HttpOptions, NotSent, Redirects};
use super::http_response as response;
use crate::base::ObjectRange;
use crate::registry::api::{ObjectBody, Validator};
use crate::registry::credentials::{Credentials, Secret};
use crate::registry::error::RegistryError;
use crate::registry::login::{Login, Logins};

/// Files behind an HTTP server.
#[derive(Debug, Clone)]
pub struct Http {
    name: String,
    base: Url,
    login: Login,
    client: HttpClient,
}

impl Http {
    /// The files below a URL, whose user and password are sent as basic authentication, and whose query
    /// is sent with every request. Without a user in the URL, the login is that of `logins`.
    pub fn new(
        url: &str,
        logins: Arc<dyn Logins>,
        options: &HttpOptions,
    ) -> Result<Self, RegistryError> {
        let bad = |name: &str, why: String| RegistryError::BadName { name: name.to_owned(), why };
        // What cannot be parsed may hold a password anywhere: not shown.
        let mut base = Url::parse(url).map_err(|e| bad(scheme_shown(url), e.to_string()))?;
        let login = match !base.username().is_empty() || base.password().is_some() {
            true => Login::new(Arc::new(Given(Credentials::Password {
                user: decoded(base.username()),
                password: Secret::new(base.password().map(decoded).unwrap_or_default()),
            }))),
            false => Login::new(logins),
        };
        let name = shown(&base);
        if !matches!(base.scheme(), "http" | "https") {
            return Err(bad(&name, "the URL is not http or https".into()));
        }
        let cannot = |()| bad(&name, "the URL has no host".into());
        base.set_username("").and_then(|()| base.set_password(None)).map_err(cannot)?;
        base.set_fragment(None);
        let client = HttpClient::new(&base, options, Redirects::Followed);
        let client = client.map_err(|why| bad(&name, why))?;
        Ok(Self { name, base, login, client })
    }

    fn get(&self, path: &str) -> Result<RequestBuilder, NotSent> {
        self.request(Method::GET, path)
    }

    fn request(&self, method: Method, path: &str) -> Result<RequestBuilder, NotSent> {
        let mut url = self.base.clone();
        url.set_path(&format!("{}/{path}", self.base.path().trim_end_matches('/')));
        let request = self.client.request(method, url)?;
        Ok(request.header(header::ACCEPT_ENCODING, "identity"))
    }

    async fn send(&self, request: RequestBuilder, what: &str) -> Result<Response, RegistryError> {
        let known = self.login.header(what).await?;
        let again = request.try_clone();
        let sent = authorized(request, known.as_ref()).send().await;
        let mut response = sent.map_err(|e| response::failed(what, e))?;
        // What a redirect led to is not told the login, whatever it asks for.
        let own = response.url().origin() == self.base.origin();
        if response.status() == StatusCode::UNAUTHORIZED
            && own
            && let Some(again) = again
            && let Some(other) = self.login.another(known.as_ref(), what).await?
        {
            let sent = authorized(again, Some(&other)).send().await;
            response = sent.map_err(|e| response::failed(what, e))?;
        }
        response::check_status(what, response.status(), response.headers(), SystemTime::now())?;
        Ok(response)
    }
}

fn authorized(request: RequestBuilder, login: Option<&HeaderValue>) -> RequestBuilder {
    match login {
        Some(login) => request.header(header::AUTHORIZATION, login),
        None => request,
    }
}

/// The login in a URL.
#[derive(Debug)]
struct Given(Credentials);

#[async_trait]
impl Logins for Given {
    async fn login(&self, _: &str) -> Result<Option<Credentials>, String> {
        Ok(Some(self.0.clone()))
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
        let mut request = self.get(file.path).map_err(|e| e.error(file.shown))?;
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
        let mut request = self.get(file.path).map_err(|e| e.error(&what))?;
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
        let Ok(request) = self.request(Method::HEAD, path) else { return };
        let this = self.clone();
        // A failure is reported by the read that needs the connection.
        tokio::spawn(async move { drop(this.send(request, "a connection").await) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::login::NoLogin;

    fn open(url: &str) -> Result<Http, RegistryError> {
        Http::new(url, Arc::new(NoLogin), &HttpOptions::default())
    }

    #[tokio::test]
    async fn secrets_are_sent_and_never_shown() {
        let r = open("https://me%40x:p%3Ass@host.example:8443/base/?sig=s3cret#f").unwrap();
        assert_eq!(r.name(), "https://host.example:8443/base");
        let request = r.get("models.json").unwrap().build().unwrap();
        assert_eq!(request.url().as_str(), "https://host.example:8443/base/models.json?sig=s3cret");
        // base64 of "me@x:p:ss"
        let login = r.login.header("x").await.unwrap().unwrap();
        let request = authorized(r.get("models.json").unwrap(), Some(&login)).build().unwrap();
        assert_eq!(request.headers()[header::AUTHORIZATION], "Basic bWVAeDpwOnNz");
        assert!(request.headers()[header::AUTHORIZATION].is_sensitive());
        assert!(!format!("{r:?}").contains("p:ss"));
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
            let url = open(base).unwrap().get("data/x").unwrap().build().unwrap().url().to_string();
            assert_eq!(url, "http://h/a/b/data/x");
        }
        let bare = open("http://h").unwrap().get("models.json").unwrap();
        let url = bare.build().unwrap().url().to_string();
        assert_eq!(url, "http://h/models.json");
    }

    #[test]
    fn escapes_are_decoded_and_broken_ones_kept() {
        assert_eq!(decoded("a%20%c3%bcb%"), "a üb%");
        assert_eq!(decoded("%zz%4"), "%zz%4");
    }
}
