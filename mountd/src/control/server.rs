//! The daemon's end of the control API: HTTP/1.1 with JSON over a Unix socket.
//!
//! Invariant: only root and the user who started the daemon are answered, not the worker's user; every
//! request is answered, whatever other clients do with their connections; the socket exists for as long
//! as a [`Bound`] lives, whichever process answers there. One task and one request per connection; a
//! client that goes away stops what it asked for.

use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Extension, Router};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use modelfs::manager::{Manager, no_progress};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::connection_limit::{Connection, ConnectionLimit, MAX_CONNECTIONS};
use super::event::Event;
use super::routes::{self, Route, Style, Visitor, parse};
use super::write_timeout::WriteTimeout;
use crate::error::{Failure, Kind};
use crate::paths;

/// How long a request may take to arrive; clients are on the same machine.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest head of a request: a path and a few headers.
const MAX_HEAD: usize = 16 << 10;

/// The answer to a client that is turned away.
const OVERLOADED: &str = "the daemon is answering too many other requests; try again";

/// The answer to every client while the clock is before 1970: hyper panics then.
const CLOCK: &str = "this machine's clock is before 1970: set it, then try again";

/// How long answers in progress may take when the daemon ends.
const DRAIN: Duration = Duration::from_secs(1);

/// Progress lines that may wait for a slow client; more are left out, the last line is not.
const PROGRESS_LINES: usize = 16;

/// A socket that this process listens on; dropping it removes it.
pub struct Bound {
    listener: std::os::unix::net::UnixListener,
    path: PathBuf,
}

impl Bound {
    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The listening descriptor, for the process that answers.
    pub fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "removing the socket");
        }
    }
}

/// Listens at `path`. The caller holds the store, so a socket found there is stale.
pub fn bind(path: &Path) -> Result<Bound, Failure> {
    let failed = |action: &str, e: std::io::Error| {
        Failure::new(Kind::General, format!("{}: {action}: {e}", path.display()))
            .hint("set XDG_RUNTIME_DIR to a folder of your own with a short path")
    };
    if let Some(folder) = path.parent() {
        paths::private_folder(folder)?;
    }
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(failed("removing a stale socket", e));
        }
        _ => {}
    }
    let listener =
        std::os::unix::net::UnixListener::bind(path).map_err(|e| failed("listening", e))?;
    let bound = Bound { listener, path: path.to_owned() };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .map_err(|e| failed("closing the socket to others", e))?;
    Ok(bound)
}

/// Answers `owner` and root until `stop` resolves, then gives answers in progress a moment to end.
pub async fn serve(
    listener: UnixListener,
    owner: u32,
    manager: Manager,
    stop: impl Future<Output = ()>,
) {
    let router = router(manager);
    let mut connections = JoinSet::new();
    let mut limit = ConnectionLimit::default();
    tokio::pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) if may_ask(&stream, owner) => {
                if SystemTime::now() < SystemTime::UNIX_EPOCH {
                    connections.spawn(turn_away(stream, CLOCK));
                } else if limit.make_room() {
                    let connection = Connection::default();
                    let served = converse(stream, router.clone(), connection.clone());
                    limit.add(connection, connections.spawn(served));
                } else if connections.len() < 2 * MAX_CONNECTIONS {
                    connections.spawn(turn_away(stream, OVERLOADED));
                }
            }
            Ok(_) => tracing::warn!("refused a control connection of another user"),
            Err(error) => {
                // Out of descriptors: they come back; without a pause this would spin.
                tracing::warn!(%error, "accepting a control connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(DRAIN, drained).await;
    connections.shutdown().await;
}

fn may_ask(stream: &UnixStream, owner: u32) -> bool {
    stream.peer_cred().is_ok_and(|peer| peer.uid() == owner || peer.uid() == 0)
}

/// Answers any request with an error. Waits for the request first: a client reads no answer before it has
/// sent one.
async fn turn_away(mut stream: UnixStream, why: &str) {
    tracing::warn!("{why}");
    let body = line(&Failure::new(Kind::General, why));
    let head = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let said = async {
        // A byte, not readiness: a stream may be called readable with nothing there.
        let mut first = [0];
        stream.read_exact(&mut first).await?;
        stream.write_all(&[head.as_bytes(), &body].concat()).await?;
        stream.shutdown().await?;
        // Until it is read: to close with a request unread breaks the connection for both.
        stream.take(MAX_HEAD as u64).read_to_end(&mut Vec::new()).await
    };
    // A client that is gone wants no answer.
    let _ = tokio::time::timeout(DRAIN, said).await;
}

async fn converse(stream: UnixStream, router: Router, connection: Connection) {
    let router = router.layer(Extension(connection));
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(ARRIVAL_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(WriteTimeout::new(stream)), TowerToHyperService::new(router))
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a control connection broke off");
    }
}

fn router(manager: Manager) -> Router {
    struct Table(Router<Manager>);
    impl Visitor for Table {
        fn visit<R: Route>(&mut self) {
            self.0 = std::mem::take(&mut self.0).route(R::PATH, handler::<R>());
        }
    }
    let mut table = Table(Router::new());
    routes::visit_all(&mut table);
    let unknown = async || failed(&Failure::usage("no such path in this API"));
    table.0.fallback(unknown).with_state(manager)
}

fn handler<R: Route>() -> MethodRouter<Manager> {
    match R::STYLE {
        Style::Read => post(plain::<R>).merge(get(plain::<R>)),
        Style::Change | Style::Once => post(plain::<R>),
        Style::Stream => post(streamed::<R>),
    }
}

async fn read<R: Route>(request: Request) -> Result<R, Failure> {
    let connection = request.extensions().get::<Connection>().cloned().unwrap_or_default();
    let body = axum::body::to_bytes(request.into_body(), R::MAX_BODY);
    let body = tokio::time::timeout(ARRIVAL_TIMEOUT, body)
        .await
        .map_err(|_| Failure::usage("the request did not arrive in time"))?
        .map_err(|e| Failure::usage(format!("the request's body: {e}")))?;
    match connection.request_arrived() {
        true => parse(&body),
        false => Err(Failure::new(Kind::General, OVERLOADED)),
    }
}

async fn plain<R: Route>(State(manager): State<Manager>, request: Request) -> Response {
    let answer =
        async { Ok::<_, Failure>(read::<R>(request).await?.run(manager, no_progress()).await?) };
    match answer.await {
        Ok(answer) => json(StatusCode::OK, line(&answer)),
        Err(failure) => failed(&failure),
    }
}

async fn streamed<R: Route>(State(manager): State<Manager>, request: Request) -> Response {
    let command = match read::<R>(request).await {
        Ok(command) => command,
        Err(failure) => return failed(&failure),
    };
    let (lines, mut out) = mpsc::channel::<Bytes>(PROGRESS_LINES);
    tokio::spawn(async move {
        let progress = lines.clone();
        let sink = Arc::new(move |p| {
            let _ = progress.try_send(line(&Event::<R::Answer>::Progress(p)));
        });
        let end = tokio::select! {
            end = command.run(manager, sink) => end,
            // The client has gone: dropping the work stops it.
            () = lines.closed() => return,
        };
        let last = end.map_or_else(|error| Event::Error(error.into()), Event::Done);
        let _ = lines.send(line(&last)).await;
    });
    let body = futures_util::stream::poll_fn(move |cx| {
        out.poll_recv(cx).map(|line| line.map(Ok::<_, Infallible>))
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(body)).into_response()
}

fn line<T: Serialize>(value: &T) -> Bytes {
    let mut text = serde_json::to_vec(value).expect("answers are plain data with string keys");
    text.push(b'\n');
    text.into()
}

fn json(status: StatusCode, body: Bytes) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn failed(failure: &Failure) -> Response {
    let status = match failure.kind {
        Kind::Usage => StatusCode::BAD_REQUEST,
        Kind::NotFound | Kind::NotCached => StatusCode::NOT_FOUND,
        Kind::Network => StatusCode::BAD_GATEWAY,
        Kind::Storage => StatusCode::INSUFFICIENT_STORAGE,
        Kind::General | Kind::Interrupted | Kind::Verification => StatusCode::INTERNAL_SERVER_ERROR,
    };
    json(status, line(failure))
}

#[cfg(test)]
mod tests {
    use super::*;
    use modelfs::manager::GetStatus;

    #[tokio::test]
    async fn a_socket_replaces_a_stale_one_is_closed_to_others_and_goes_with_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/x.sock");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "stale").unwrap();
        let bound = bind(&path).unwrap();
        let mode = |p: &Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        drop(bound);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_client_that_is_turned_away_is_told_why() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let turns_away = async {
            let (stream, _) = listener.accept().await.unwrap();
            turn_away(stream, OVERLOADED).await;
        };
        let client = crate::control::client::Client::new(&path);
        let quiet = no_progress();
        let (failure, ()) = tokio::join!(client.call(&GetStatus {}, &quiet), turns_away);
        assert_eq!(failure.unwrap_err().message, OVERLOADED);
    }

    #[tokio::test]
    async fn a_path_too_long_for_a_socket_is_refused_with_a_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let failure = bind(&dir.path().join("x".repeat(120))).err().unwrap();
        assert!(failure.hint.is_some());
    }
}
