//! Requests to the storage service, and for the bytes of xorbs.
//!
//! Invariant: the service's login goes to the service alone; URLs of xorbs are signed, and stand in no
//! text. No redirect is followed. Concurrency: shared.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::TryStreamExt;
use reqwest::header::{self, HeaderName, HeaderValue};
use reqwest::{Method, Response, StatusCode, Url};
use serde::de::DeserializeOwned;

use super::super::client::Hub;
use super::access::{Access, Accesses, FileOf};
use super::incoming::Incoming;
use super::multipart::Parts;
use super::terms::{AnswerV1, AnswerV2, Fetch, Terms};
use super::xorb_reader::XorbReader;
use crate::base::ObjectRange;
use crate::base::text::{MESSAGE, brief};
use crate::registry::error::RegistryError;
use crate::registry::transport::http_client::HttpClient;
use crate::registry::transport::{http_body, http_response};
use crate::trust::xet::{Proof, XetHash};

/// Maximum size of a proof. One for a megabyte of a file of 50 GB has some 33 kB.
const MAX_PROOF: u64 = 1 << 20;
/// Maximum size of the list of terms: some 30,000 of them, for at most 64 MiB of a file.
const MAX_TERMS: u64 = 8 << 20;

/// What the service says to a request for a proof.
pub enum Proved {
    /// The proof.
    Proof(Proof),
    /// It gives none, for this reason.
    Refused(String),
}

/// The storage service.
pub struct Service {
    http: HttpClient,
    accesses: Accesses,
    /// The service has shown that it knows version 1 of terms only.
    only_v1: AtomicBool,
}

impl Service {
    /// The service that the Hub's logins name; `http` follows no redirects.
    pub fn new(http: HttpClient) -> Self {
        Self { http, accesses: Accesses::new(), only_v1: AtomicBool::new(false) }
    }

    /// A proof for a range, neither empty nor past the end, of the file with this hash.
    pub async fn proof(
        &self,
        hub: &Hub,
        file: FileOf<'_>,
        root: &XetHash,
        range: ObjectRange,
    ) -> Result<Proved, RegistryError> {
        const DIRTY: HeaderName = HeaderName::from_static("x-range-dirty");
        let what = format!("a proof for {}", file.what);
        let path = ["v2", "file-chunk-hashes", &root.to_string()];
        let (response, _) = self.ask(hub, file, &what, &path, (DIRTY, range)).await?;
        let status = response.status();
        let refused = |why: String| Ok(Proved::Refused(brief(&why, MESSAGE)));
        match status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND
            | StatusCode::GONE
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::BAD_REQUEST
            | StatusCode::NOT_IMPLEMENTED => {
                return refused(format!("the storage service answered {}", status.as_u16()));
            }
            _ => return Err(failed(&what, &response)),
        }
        match http_body::collect(response, &what, MAX_PROOF).await {
            Ok(body) => parse(&what, &body).map(Proved::Proof),
            Err(RegistryError::Invalid { why, .. }) => refused(format!("the proof has {why}")),
            Err(error) => Err(error),
        }
    }

    /// What a range, neither empty nor past the end, of the file with this hash consists of; and where the
    /// service is that says so.
    pub async fn terms(
        &self,
        hub: &Hub,
        file: FileOf<'_>,
        root: &XetHash,
        range: ObjectRange,
    ) -> Result<(Terms, Url), RegistryError> {
        let what = format!("the parts of {}", file.what);
        let root = root.to_string();
        let invalid = |e: super::terms::TermsError| RegistryError::Invalid {
            what: what.clone(),
            why: e.to_string(),
        };
        let old = self.only_v1.load(Ordering::Relaxed);
        let mut after_refusal = false;
        if !old {
            let path = ["v2", "reconstructions", &root];
            let (response, place) =
                self.ask(hub, file, &what, &path, (header::RANGE, range)).await?;
            match response.status() {
                StatusCode::OK => {
                    let body = http_body::collect(response, &what, MAX_TERMS).await?;
                    let terms = parse::<AnswerV2>(&what, &body)?.terms(range.len());
                    return Ok((terms.map_err(invalid)?, place));
                }
                StatusCode::NOT_FOUND | StatusCode::NOT_IMPLEMENTED => after_refusal = true,
                _ => return Err(failed(&what, &response)),
            }
        }
        let path = ["v1", "reconstructions", &root];
        let (response, place) = self.ask(hub, file, &what, &path, (header::RANGE, range)).await?;
        if response.status() != StatusCode::OK {
            return Err(failed(&what, &response));
        }
        if after_refusal {
            self.only_v1.store(true, Ordering::Relaxed);
        }
        let body = http_body::collect(response, &what, MAX_TERMS).await?;
        let terms = parse::<AnswerV1>(&what, &body)?.terms(range.len());
        Ok((terms.map_err(invalid)?, place))
    }

    /// The chunks that one request brings. `service` is where the request's URL came from.
    pub async fn chunks(
        &self,
        what: &str,
        service: &Url,
        fetch: &Fetch,
    ) -> Result<XorbReader, RegistryError> {
        let invalid = |why: &str| RegistryError::Invalid { what: what.into(), why: why.into() };
        // The parser's error would show the URL.
        let url = Url::parse(&fetch.url).map_err(|_| invalid("its bytes are at no URL"))?;
        let secure = url.scheme() == "https";
        if !secure && (service.scheme() == "https" || url.scheme() != "http") {
            return Err(invalid("its bytes are at a place without https"));
        }
        let ranges: Vec<_> = fetch.ranges.iter().map(|range| range.bytes.clone()).collect();
        let listed: Vec<_> = ranges.iter().map(|r| format!("{}-{}", r.start(), r.end())).collect();
        let value = format!("bytes={}", listed.join(","));
        let response = self.send(url, what, None, (header::RANGE, &value)).await?;
        let status = response.status();
        match status {
            StatusCode::PARTIAL_CONTENT => {}
            // The signature has a lifetime; another answer has another one.
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let (what, status) = (what.to_owned(), status.as_u16());
                return Err(RegistryError::Busy { what, status, retry_after: None });
            }
            _ => return Err(failed(what, &response)),
        }
        http_response::check_encoding(what, response.headers())?;
        let parts = Parts::of(response.headers(), &ranges).map_err(|why| invalid(&why))?;
        let cut_off = what.to_owned();
        let pieces = response.bytes_stream();
        let pieces = pieces.map_err(move |e| http_response::failed(&cut_off, e));
        let incoming = Incoming::new(what.to_owned(), pieces);
        Ok(XorbReader::new(incoming, parts, fetch.ranges.clone()))
    }

    /// Asks the service; `header` says for which range. A login that it refuses is renewed once. Returns the
    /// answer, and where the service is.
    async fn ask(
        &self,
        hub: &Hub,
        file: FileOf<'_>,
        what: &str,
        path: &[&str],
        header: (HeaderName, ObjectRange),
    ) -> Result<(Response, Url), RegistryError> {
        let (name, range) = header;
        let value = format!("bytes={}-{}", range.start(), range.end() - 1);
        let mut refused: Option<Arc<Access>> = None;
        loop {
            let access = self.accesses.get(hub, file, refused.as_ref()).await?;
            let mut url = access.service.clone();
            url.path_segments_mut().expect("an http URL has a path").pop_if_empty().extend(path);
            let authorization = Some(&access.authorization);
            let response = self.send(url, what, authorization, (name.clone(), &value)).await?;
            if response.status() == StatusCode::UNAUTHORIZED && refused.is_none() {
                refused = Some(access);
                continue;
            }
            if response.status() == StatusCode::OK {
                http_response::check_encoding(what, response.headers())?;
            }
            return Ok((response, access.service.clone()));
        }
    }

    async fn send(
        &self,
        url: Url,
        what: &str,
        authorization: Option<&HeaderValue>,
        (name, value): (HeaderName, &str),
    ) -> Result<Response, RegistryError> {
        let request = self.http.request(Method::GET, url).map_err(|e| e.error(what))?;
        let mut request = request.header(header::ACCEPT_ENCODING, "identity").header(name, value);
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        request.send().await.map_err(|e| http_response::failed(what, e))
    }
}

/// The error that a status is, or a status that fits no request here.
fn failed(what: &str, response: &Response) -> RegistryError {
    let (status, headers) = (response.status(), response.headers());
    http_response::check_status(what, status, headers, SystemTime::now())
        .err()
        .unwrap_or_else(|| http_response::unexpected(what, status))
}

fn parse<T: DeserializeOwned>(what: &str, body: &Bytes) -> Result<T, RegistryError> {
    serde_json::from_slice(body).map_err(|e| RegistryError::Invalid {
        what: what.to_owned(),
        // The text may show a piece of the answer, and URLs in it are signed.
        why: format!("it is not as it should be: line {} column {}", e.line(), e.column()),
    })
}
