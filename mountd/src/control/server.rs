//! The daemon's end of the control API: HTTP/1.1 with JSON over a Unix socket.
//!
//! Invariant: nobody but who started the daemon and root is answered, whoever the worker is; whoever asks is heard, whatever
//! others do with their connections; the socket exists for as long as a [`Bound`] lives,
//! whoever answers there. One task
//! and one request per connection; a client that goes away stops what it asked for.

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
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::guests::{Guest, Guests, MOST, Patient};
use super::ops::{Ops, Run};
use super::types::{
    Call, Event, Evict, ForgetTrace, GetInfo, GetList, GetPath, GetStatus, GetTrace, ImportTrace,
    Pin, Prefetch, Refresh, Restart, Unmount, Unpin, Verify, parse,
};
use crate::error::{Failure, Kind};
use crate::paths;

/// How long a request may take to arrive; clients are on the same machine.
const ARRIVE: Duration = Duration::from_secs(10);

/// The largest head of a request: a path and a few headers.
const MAX_HEAD: usize = 16 << 10;

/// What is told to whom there is no room for.
const CROWDED: &str = "the daemon is answering too many other requests; try again";

/// What is told to everybody while the clock stands before 1970: hyper panics then.
const CLOCK: &str = "this machine's clock stands before 1970: set it, then ask again";

/// How long answers under way may take to end when the daemon does.
const DRAIN: Duration = Duration::from_secs(1);

/// Progress lines that may wait for a slow client; more are left out, the last line is not.
const PROGRESS_LINES: usize = 16;

/// A socket that is listened on; dropping it removes it.
pub struct Bound {
    listener: std::os::unix::net::UnixListener,
    path: PathBuf,
}

impl Bound {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The listening descriptor, for those who answer.
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

/// Listens at `path`. Whoever calls this holds the store, so that a socket found there is stale.
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

/// Answers `owner` and root until `stop` resolves, then lets answers under way end shortly.
pub async fn serve(
    listener: UnixListener,
    owner: u32,
    ops: Arc<Ops>,
    stop: impl Future<Output = ()>,
) {
    let router = router(ops);
    let mut connections = JoinSet::new();
    let mut guests = Guests::default();
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
                } else if guests.make_room() {
                    let guest = Guest::default();
                    let task = connections.spawn(converse(stream, router.clone(), guest.clone()));
                    guests.add(guest, task);
                } else if connections.len() < 2 * MOST {
                    connections.spawn(turn_away(stream, CROWDED));
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

/// Says so as soon as there is a request, whatever it is: a client takes no answer before it has asked.
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

async fn converse(stream: UnixStream, router: Router, guest: Guest) {
    let router = router.layer(Extension(guest));
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(ARRIVE)
        .max_buf_size(MAX_HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(Patient::new(stream)), TowerToHyperService::new(router))
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a control connection broke off");
    }
}

fn router(ops: Arc<Ops>) -> Router {
    Router::new()
        .route(GetStatus::PATH, route::<GetStatus>())
        .route(GetList::PATH, route::<GetList>())
        .route(GetInfo::PATH, route::<GetInfo>())
        .route(GetPath::PATH, route::<GetPath>())
        .route(Refresh::PATH, route::<Refresh>())
        .route(Prefetch::PATH, route::<Prefetch>())
        .route(Verify::PATH, route::<Verify>())
        .route(Pin::PATH, route::<Pin>())
        .route(Unpin::PATH, route::<Unpin>())
        .route(Evict::PATH, route::<Evict>())
        .route(GetTrace::PATH, route::<GetTrace>())
        .route(ImportTrace::PATH, route::<ImportTrace>())
        .route(ForgetTrace::PATH, route::<ForgetTrace>())
        .route(Restart::PATH, route::<Restart>())
        .route(Unmount::PATH, route::<Unmount>())
        .fallback(async || failed(&Failure::usage("no such path in this API")))
        .with_state(ops)
}

fn route<C: Run>() -> MethodRouter<Arc<Ops>> {
    match (C::STREAMED, C::READS) {
        (true, _) => post(streamed::<C>),
        (false, true) => post(plain::<C>).merge(get(plain::<C>)),
        (false, false) => post(plain::<C>),
    }
}

async fn read<C: Call>(request: Request) -> Result<C, Failure> {
    let guest = request.extensions().get::<Guest>().cloned().unwrap_or_default();
    let body = tokio::time::timeout(ARRIVE, axum::body::to_bytes(request.into_body(), C::MOST))
        .await
        .map_err(|_| Failure::usage("the request did not arrive in time"))?
        .map_err(|e| Failure::usage(format!("the request's body: {e}")))?;
    match guest.has_asked() {
        true => parse(&body),
        false => Err(Failure::new(Kind::General, CROWDED)),
    }
}

async fn plain<C: Run>(State(ops): State<Arc<Ops>>, request: Request) -> Response {
    let answer = async { read::<C>(request).await?.run(ops, Arc::new(|_| {})).await };
    match answer.await {
        Ok(answer) => json(StatusCode::OK, line(&answer)),
        Err(failure) => failed(&failure),
    }
}

async fn streamed<C: Run>(State(ops): State<Arc<Ops>>, request: Request) -> Response {
    let call = match read::<C>(request).await {
        Ok(call) => call,
        Err(failure) => return failed(&failure),
    };
    let (lines, mut out) = mpsc::channel::<Bytes>(PROGRESS_LINES);
    tokio::spawn(async move {
        let progress = lines.clone();
        let sink = Arc::new(move |p| {
            let _ = progress.try_send(line(&Event::<C::Answer>::Progress(p)));
        });
        let end = tokio::select! {
            end = call.run(ops, sink) => end,
            // Nobody listens any more: dropping the work stops it.
            () = lines.closed() => return,
        };
        let last = end.map_or_else(Event::Error, Event::Done);
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
    async fn who_finds_no_room_is_told_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let turns_away = async {
            let (stream, _) = listener.accept().await.unwrap();
            turn_away(stream, CROWDED).await;
        };
        let none: crate::control::types::ProgressSink = Arc::new(|_| {});
        let client = crate::control::client::Client::new(&path);
        let (failure, ()) = tokio::join!(client.call(&GetStatus {}, &none), turns_away);
        assert_eq!(failure.unwrap_err().message, CROWDED);
    }

    #[tokio::test]
    async fn a_path_too_long_for_a_socket_is_refused_with_a_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let failure = bind(&dir.path().join("x".repeat(120))).err().unwrap();
        assert!(failure.hint.is_some());
    }
}
