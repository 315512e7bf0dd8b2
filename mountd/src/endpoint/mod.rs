//! The read-only part of the Hub's HTTP interface, for programs that insist on asking the Hub: models, trees,
//! references and files of the mount, by the names and commits of its Hugging Face view.
//!
//! Invariant: it listens on a loopback address alone and answers requests without the token with 401; an outage
//! is never a missing model or file. One task for each connection.

mod asked;
mod documents;
mod token;
mod view;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use modelfs::vfs::{Vfs, VfsError};
use serde_json::Value;
use tokio::net::TcpListener;

use asked::{Asked, NotAsked};
use documents::{Tree, TreeQuery};
pub use token::Token;
use view::HubView;

/// The pause between attempts to listen: the worker before this one may still do so.
const PAUSE: Duration = Duration::from_millis(200);
/// How often it is tried before the log says so.
const TRIES: u32 = 10;

/// What the Hub calls the reason of an error.
const ERROR_CODE: HeaderName = HeaderName::from_static("x-error-code");
const ERROR_MESSAGE: HeaderName = HeaderName::from_static("x-error-message");
const COMMIT: HeaderName = HeaderName::from_static("x-repo-commit");
const LINKED_SIZE: HeaderName = HeaderName::from_static("x-linked-size");
const LINKED_ETAG: HeaderName = HeaderName::from_static("x-linked-etag");

struct Shared {
    view: HubView,
    token: Token,
}

/// Why a request has no answer.
enum Refusal {
    /// Of which the Hub has a word: status, word, reason.
    Named(StatusCode, &'static str, String),
    /// Without one.
    Status(StatusCode),
}

/// Answers requests at this address. Never ends; while it cannot listen, it tries again.
pub async fn serve(address: SocketAddr, vfs: Arc<Vfs>, token: Token) {
    let listener = listen(address).await;
    let shared = Arc::new(Shared { view: HubView::new(vfs), token });
    let app = Router::new().fallback(answer).with_state(shared);
    if let Err(error) = axum::serve(listener, app).await {
        tracing::error!(%error, %address, "the Hub's interface is not answered any more");
    }
}

async fn listen(address: SocketAddr) -> TcpListener {
    let mut tries = 0;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) => {
                tries += 1;
                if tries == TRIES {
                    tracing::error!(%error, %address, "cannot listen for the Hub's interface");
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let answered = match authorized(&parts.headers, &shared.token) {
        true => respond(&shared.view, &parts.method, &parts.uri, &parts.headers).await,
        false => Err(Refusal::Status(StatusCode::UNAUTHORIZED)),
    };
    answered.unwrap_or_else(|refusal| match refusal {
        Refusal::Status(status) => status.into_response(),
        Refusal::Named(status, code, reason) => {
            let mut out = (status, reason.clone()).into_response();
            out.headers_mut().insert(ERROR_CODE, HeaderValue::from_static(code));
            if let Ok(reason) = HeaderValue::from_str(&reason) {
                out.headers_mut().insert(ERROR_MESSAGE, reason);
            }
            out
        }
    })
}

fn authorized(headers: &HeaderMap, token: &Token) -> bool {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    given.and_then(|value| value.strip_prefix("Bearer ")).is_some_and(|given| token.is(given))
}

async fn respond(
    view: &HubView,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Response, Refusal> {
    let asked = Asked::of(method, uri.path()).map_err(|why| {
        Refusal::Status(match why {
            NotAsked::Method => StatusCode::METHOD_NOT_ALLOWED,
            NotAsked::Path => StatusCode::NOT_FOUND,
        })
    })?;
    let (Asked::Model(model, _)
    | Asked::Tree(model, ..)
    | Asked::Refs(model)
    | Asked::File(model, ..)) = &asked;
    let repository = view.repository(model).await.map_err(|e| refusal(e, "RepoNotFound"))?;
    let at = async |revision: &str| {
        let commit = view.commit(repository, revision).await;
        commit.map_err(|e| refusal(e, "RevisionNotFound"))
    };
    let tree = async |commit: &str| -> Result<Tree, Refusal> {
        view.tree(repository, commit).await.map_err(|e| refusal(e, "RevisionNotFound"))
    };
    match &asked {
        Asked::Refs(_) => {
            let branches = view.references(repository).await;
            let branches = branches.map_err(|e| refusal(e, "RepoNotFound"))?;
            Ok(json(&documents::refs(&branches)))
        }
        Asked::Model(model, revision) => {
            let commit = at(revision).await?;
            let blobs = uri.query().is_some_and(|query| query.contains("blobs="));
            let document = documents::model(model, &commit, &tree(&commit).await?, blobs);
            Ok(json(&document))
        }
        Asked::Tree(_, revision, folder) => {
            let commit = at(revision).await?;
            let query = Query::<TreeQuery>::try_from_uri(uri);
            let Query(query) = query.map_err(|_| Refusal::Status(StatusCode::BAD_REQUEST))?;
            let page = documents::tree(&tree(&commit).await?, folder.as_ref(), &query);
            let (page, next) = page.ok_or_else(|| not_found("EntryNotFound"))?;
            let mut out = json(&page);
            if let (Some(next), Some(host)) = (next, headers.get(header::HOST)) {
                let host = host.to_str().unwrap_or_default();
                let link = next_page(host, uri.path(), &query, next);
                if let Ok(link) = HeaderValue::from_str(&link) {
                    out.headers_mut().insert(header::LINK, link);
                }
            }
            Ok(out)
        }
        Asked::File(_, revision, path) => {
            let commit = at(revision).await?;
            let file = view.file(repository, &commit, path.as_str()).await;
            let file = file.map_err(|e| refusal(e, "EntryNotFound"))?;
            let tree = tree(&commit).await?;
            let entry = tree.files.get(path.as_str()).ok_or_else(|| not_found("EntryNotFound"))?;
            let asked = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
            let range = asked::range(asked, file.size);
            let mut out = match (range, *method == Method::HEAD) {
                (Err(()), _) => {
                    let mut out = StatusCode::RANGE_NOT_SATISFIABLE.into_response();
                    set(&mut out, header::CONTENT_RANGE, &format!("bytes */{}", file.size));
                    return Ok(out);
                }
                (Ok(_), true) => {
                    let mut out = StatusCode::OK.into_response();
                    set(&mut out, header::CONTENT_LENGTH, &file.size.to_string());
                    out
                }
                (Ok(None), false) => {
                    let mut out = view.body(file.ino, 0, file.size).into_response();
                    set(&mut out, header::CONTENT_LENGTH, &file.size.to_string());
                    out
                }
                (Ok(Some((start, end))), false) => {
                    let body = view.body(file.ino, start, end);
                    let mut out = (StatusCode::PARTIAL_CONTENT, body).into_response();
                    set(&mut out, header::CONTENT_LENGTH, &(end - start).to_string());
                    let sent = format!("bytes {start}-{}/{}", end - 1, file.size);
                    set(&mut out, header::CONTENT_RANGE, &sent);
                    out
                }
            };
            set(&mut out, header::CONTENT_TYPE, "application/octet-stream");
            set(&mut out, header::ACCEPT_RANGES, "bytes");
            set(&mut out, header::ETAG, &format!("\"{}\"", entry.tag()));
            set(&mut out, COMMIT, &commit);
            if entry.is_large() {
                set(&mut out, LINKED_SIZE, &file.size.to_string());
                set(&mut out, LINKED_ETAG, &format!("\"{}\"", entry.tag()));
            }
            Ok(out)
        }
    }
}

fn next_page(host: &str, path: &str, query: &TreeQuery, next: usize) -> String {
    let recursive = if query.is_recursive() { "recursive=true&" } else { "" };
    let page = query.page();
    format!("<http://{host}{path}?{recursive}limit={page}&cursor={next}>; rel=\"next\"")
}

fn set(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

fn json(document: &Value) -> Response {
    axum::Json(document).into_response()
}

fn not_found(code: &'static str) -> Refusal {
    Refusal::Named(StatusCode::NOT_FOUND, code, "not found".to_owned())
}

/// The answer to an error of the tree: only "not found" is one.
fn refusal(error: VfsError, code: &'static str) -> Refusal {
    match error {
        VfsError::NotFound | VfsError::NotFolder | VfsError::IsFolder => not_found(code),
        VfsError::TimedOut { .. } => Refusal::Status(StatusCode::GATEWAY_TIMEOUT),
        VfsError::Unavailable { .. } => Refusal::Status(StatusCode::SERVICE_UNAVAILABLE),
        VfsError::Corrupt { .. }
        | VfsError::Stale
        | VfsError::NoAttribute
        | VfsError::NoAttributes => Refusal::Status(StatusCode::BAD_GATEWAY),
    }
}
