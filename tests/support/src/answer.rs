//! How the test server answers one request: right, then as wrong as it was told to be.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::{self, StreamExt};
use http_body_util::StreamBody;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::{Method, Response, StatusCode, header};

use crate::fault::Fault;
use crate::server::{LogEntry, Request, Shared};

/// Pieces as a network brings them.
const PIECE: u64 = 64 << 10;

/// What was sent must arrive before the connection breaks: hyper flushes between polls, and the
/// kernel needs a moment.
const FLUSH: Duration = Duration::from_millis(20);

type Pieces = Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, std::io::Error>> + Send + Sync>>;

/// A body that says a length of its own choosing.
pub(crate) struct Sized {
    body: StreamBody<Pieces>,
    len: Option<u64>,
}

impl Body for Sized {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn size_hint(&self) -> SizeHint {
        self.len.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// What is sent of a file.
struct Plan {
    start: u64,
    len: u64,
    /// Where it ends early, and how.
    stop: Option<(u64, Stop)>,
    extra: u64,
    flip: Option<u64>,
    piece: u64,
    pause: Duration,
    /// Whether the body ends before what was declared.
    linger: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Stop {
    Stall,
    Break,
}

/// The answer; `None` breaks the connection.
pub(crate) async fn answer(
    shared: Arc<Shared>,
    request: hyper::Request<Incoming>,
) -> Option<Response<Sized>> {
    // A proxy is asked for the whole URL.
    let path = request.uri().path_and_query().map_or("/", |p| p.as_str()).to_owned();
    let head = request.method() == Method::HEAD;
    let rules = || shared.rules.lock().expect("no test panics with this lock");
    let faults = if head { Vec::new() } else { rules().next(&path) };
    let headers = request.headers();
    let text = |name| headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let range = text(header::RANGE);
    let mut log = Request {
        method: request.method().to_string(),
        path: path.clone(),
        range: range.clone(),
        headers: headers
            .iter()
            .map(|(k, v)| (k.to_string(), String::from_utf8_lossy(v.as_bytes()).into_owned()))
            .collect(),
        status: 0,
        sent: 0,
    };
    for fault in &faults {
        match fault {
            Fault::Delay(time) => tokio::time::sleep(*time).await,
            Fault::Gone => {
                shared.logged(log);
                return None;
            }
            Fault::Status(status, retry_after) => {
                log.status = *status;
                shared.logged(log);
                let mut out = empty(*status);
                if let Some(after) = retry_after {
                    out.headers_mut().insert(header::RETRY_AFTER, after.parse().ok()?);
                }
                return Some(out);
            }
            Fault::Redirect(to) => {
                log.status = 302;
                shared.logged(log);
                let mut out = empty(302);
                let to = to.clone().unwrap_or(path);
                out.headers_mut().insert(header::LOCATION, to.parse().ok()?);
                return Some(out);
            }
            _ => {}
        }
    }
    if !head && request.method() != Method::GET {
        log.status = 405;
        shared.logged(log);
        return Some(empty(405));
    }
    let known = text(header::IF_NONE_MATCH);
    let instead = faults.iter().find_map(|fault| match fault {
        Fault::Serve(bytes) => Some(Found::instead(bytes)),
        _ => None,
    });
    let found = match instead {
        Some(found) => Ok(Some(found)),
        None => find(&shared.root, request.uri().path()),
    };
    let Found { content, len: all, tag } = match found {
        Ok(Some(found)) => found,
        other => {
            log.status = if other.is_ok() { 404 } else { 500 };
            let status = log.status;
            shared.logged(log);
            return Some(empty(status));
        }
    };
    let mut out = Response::builder()
        .header(header::ETAG, tag.as_str())
        .header(header::ACCEPT_RANGES, "bytes");
    if known.is_some_and(|known| known == tag) {
        log.status = 304;
        shared.logged(log);
        return out.status(304).body(empty(304).into_body()).ok();
    }
    let ignore = faults.contains(&Fault::IgnoreRange);
    let (status, start, end) = match range.as_deref().filter(|_| !ignore).map(|r| parse(r, all)) {
        Some(Some((start, end))) => (206, start, end),
        Some(None) => (416, 0, 0),
        None => (200, 0, all),
    };
    log.status = status;
    let entry = shared.logged(log);
    let mut plan = Plan {
        start,
        len: end - start,
        stop: None,
        extra: 0,
        flip: None,
        piece: PIECE,
        pause: Duration::ZERO,
        linger: false,
    };
    let mut declared = Some(plan.len);
    let mut content_range = match status {
        206 => Some(format!("bytes {start}-{}/{all}", end - 1)),
        416 => Some(format!("bytes */{all}")),
        _ => None,
    };
    for fault in faults {
        match fault {
            Fault::Stall(n) => plan.stop = Some((n, Stop::Stall)),
            Fault::Reset(n) | Fault::Truncate(n) => plan.stop = Some((n, Stop::Break)),
            Fault::Short(n) => (plan.len, declared) = (plan.len.min(n), None),
            Fault::ExtraBytes(n) => (plan.extra, declared) = (n, None),
            Fault::FlipBit(at) => plan.flip = Some(at),
            Fault::WrongContentLength(n) => (declared, plan.linger) = (Some(n), true),
            Fault::WrongContentRange(text) => content_range = Some(text),
            Fault::Encoding(e) => out = out.header(header::CONTENT_ENCODING, e),
            Fault::Drip(n, pause) => (plan.piece, plan.pause) = (n.max(1), pause),
            Fault::Chunked => declared = None,
            _ => {}
        }
    }
    if let Some(text) = content_range {
        out = out.header(header::CONTENT_RANGE, text);
    }
    let len = declared;
    let body =
        if head { stream::empty().boxed_sync() } else { pieces(shared, entry, content, plan) };
    out.status(status).body(Sized { body: StreamBody::new(body), len }).ok()
}

trait BoxedSync {
    fn boxed_sync(self) -> Pieces;
}

impl<S: Stream<Item = Result<Frame<Bytes>, std::io::Error>> + Send + Sync + 'static> BoxedSync
    for S
{
    fn boxed_sync(self) -> Pieces {
        Box::pin(self)
    }
}

fn empty(status: u16) -> Response<Sized> {
    let body = StreamBody::new(stream::empty().boxed_sync());
    let mut out = Response::new(Sized { body, len: Some(0) });
    *out.status_mut() = StatusCode::from_u16(status).expect("a test's status");
    out
}

/// Where bytes are read from.
enum Content {
    File(File),
    Memory(Vec<u8>),
}

impl Content {
    fn read(&self, buffer: &mut [u8], at: u64) -> std::io::Result<()> {
        match self {
            Self::File(file) => file.read_exact_at(buffer, at),
            Self::Memory(bytes) => {
                buffer.copy_from_slice(&bytes[at as usize..][..buffer.len()]);
                Ok(())
            }
        }
    }
}

/// What stands under a path.
struct Found {
    content: Content,
    len: u64,
    tag: String,
}

impl Found {
    fn instead(bytes: &[u8]) -> Self {
        let tag = format!("\"{}\"", modelfs::model::hash::sha256(bytes));
        Self { content: Content::Memory(bytes.to_vec()), len: bytes.len() as u64, tag }
    }
}

/// A file of the folder.
fn find(root: &Path, path: &str) -> std::io::Result<Option<Found>> {
    let path = path.trim_start_matches('/');
    if path.split('/').any(|part| part == "..") {
        return Ok(None);
    }
    match File::open(root.join(path)) {
        Ok(file) => {
            let meta = file.metadata()?;
            let modified = meta.modified()?.duration_since(std::time::UNIX_EPOCH);
            let modified = modified.unwrap_or_default().as_nanos();
            let tag = format!("\"{:x}-{:x}-{modified:x}\"", meta.ino(), meta.len());
            let found = Found { content: Content::File(file), len: meta.len(), tag };
            Ok(meta.is_file().then_some(found))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// `bytes=A-B` or `bytes=A-` within `all` bytes; none: there is no such range.
fn parse(range: &str, all: u64) -> Option<(u64, u64)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let first: u64 = first.parse().ok()?;
    let end =
        if last.is_empty() { all } else { last.parse::<u64>().ok()?.saturating_add(1).min(all) };
    (first < end).then_some((first, end))
}

fn pieces(shared: Arc<Shared>, entry: LogEntry, content: Content, plan: Plan) -> Pieces {
    let end = plan.len + plan.extra;
    let state = (shared, content, plan, 0u64);
    stream::unfold(Some(state), move |state| async move {
        let (shared, content, plan, at) = state?;
        let stop = plan.stop.filter(|(n, _)| at >= *n).map(|(_, stop)| stop);
        match stop {
            Some(Stop::Stall) => std::future::pending().await,
            Some(Stop::Break) => {
                tokio::time::sleep(FLUSH).await;
                return Some((Err(std::io::ErrorKind::ConnectionReset.into()), None));
            }
            None if at == end => {
                if plan.linger {
                    tokio::time::sleep(FLUSH).await;
                }
                return None;
            }
            None => {}
        }
        if !plan.pause.is_zero() {
            tokio::time::sleep(plan.pause).await;
        }
        let most = plan.stop.map_or(end, |(n, _)| n.min(end));
        let upto = most.min(at + plan.piece);
        let from_file = upto.min(plan.len).saturating_sub(at) as usize;
        let mut piece = vec![0; from_file];
        // Small enough to be read here: it is in the page cache.
        if let Err(e) = content.read(&mut piece, plan.start + at) {
            return Some((Err(e), None));
        }
        if let Some(i) = plan.flip.and_then(|f| f.checked_sub(plan.start + at))
            && let Some(byte) = piece.get_mut(i as usize)
        {
            *byte ^= 1;
        }
        // What is too much is anything.
        piece.resize((upto - at) as usize, b'?');
        shared.sent(entry, piece.len() as u64);
        Some((Ok(Frame::data(Bytes::from(piece))), Some((shared, content, plan, upto))))
    })
    .fuse()
    .boxed_sync()
}
