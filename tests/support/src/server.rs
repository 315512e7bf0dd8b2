//! A registry behind a real HTTP/1.1 server on this machine, which fails as told.
//!
//! Serves a folder (`models.json`, `data/…`) with ranges, ETags and HEAD from a thread of its own,
//! so that tests that know nothing of tokio can use it, too. Keeps a log of what was asked and sent.
//! Dropping it stops it. Its locks are never held across an await.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;

use crate::answer;
use crate::fault::{Fault, Rules, When};

/// One request and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `GET` or `HEAD`.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The `Range` header, if there was one.
    pub range: Option<String>,
    /// Names of all headers, lower-case, with their values.
    pub headers: Vec<(String, String)>,
    /// The answer's status.
    pub status: u16,
    /// Bytes of the body that went out so far.
    pub sent: u64,
}

pub(crate) struct Shared {
    pub(crate) root: PathBuf,
    pub(crate) rules: Mutex<Rules>,
    log: Mutex<Vec<Request>>,
    /// Counts calls of `reset`: bytes of requests from before it are not counted any more.
    epoch: AtomicU64,
}

/// Where a request stands in the log.
#[derive(Clone, Copy)]
pub(crate) struct LogEntry {
    epoch: u64,
    at: usize,
}

impl Shared {
    fn log(&self) -> MutexGuard<'_, Vec<Request>> {
        self.log.lock().expect("no test panics while it holds this lock")
    }

    pub(crate) fn logged(&self, request: Request) -> LogEntry {
        let mut log = self.log();
        log.push(request);
        LogEntry { epoch: self.epoch.load(Ordering::SeqCst), at: log.len() - 1 }
    }

    pub(crate) fn sent(&self, entry: LogEntry, bytes: u64) {
        let mut log = self.log();
        if self.epoch.load(Ordering::SeqCst) == entry.epoch {
            log[entry.at].sent += bytes;
        }
    }
}

/// A registry server.
pub struct Server {
    shared: Arc<Shared>,
    address: SocketAddr,
    up: watch::Sender<bool>,
    listening: watch::Receiver<bool>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Server {
    /// Serves a folder on a port of its own.
    pub fn start(folder: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("test-server")
            .enable_all()
            .build()
            .expect("a runtime");
        let shared = Arc::new(Shared {
            root: folder.to_owned(),
            rules: Mutex::default(),
            log: Mutex::default(),
            epoch: AtomicU64::new(0),
        });
        let (up, wanted) = watch::channel(true);
        let (told, listening) = watch::channel(false);
        let (first, address) = std::sync::mpsc::channel();
        runtime.spawn(serve(shared.clone(), wanted, told, first));
        let address = address.recv().expect("the server listens");
        Self { shared, address, up, listening, runtime: Some(runtime) }
    }

    /// The registry's URL, without a slash at its end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Does `fault` to requests, but for a head, whose path contains `path`.
    pub fn on(&self, path: &str, when: When, fault: Fault) {
        self.rules().add(path, when, fault);
    }

    /// Forgets all faults.
    pub fn heal(&self) {
        *self.rules() = Rules::default();
    }

    /// Forgets the faults that were asked for with exactly this path.
    pub fn heal_path(&self, path: &str) {
        self.rules().forget(path);
    }

    fn rules(&self) -> MutexGuard<'_, Rules> {
        self.shared.rules.lock().expect("no test panics while it holds this lock")
    }

    /// What was asked since the last [`Server::reset`], in order.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.log().clone()
    }

    /// How many requests there were for what lies at paths that begin so, for example `/data/`: not
    /// for its head, which a client asks for to have a connection.
    pub fn requests_for(&self, prefix: &str) -> usize {
        let counts = |r: &&Request| r.path.starts_with(prefix) && r.method != "HEAD";
        self.shared.log().iter().filter(counts).count()
    }

    /// Bytes of bodies that went out.
    pub fn bytes_sent(&self) -> u64 {
        self.shared.log().iter().map(|r| r.sent).sum()
    }

    /// Empties the log.
    pub fn reset(&self) {
        let mut log = self.shared.log();
        self.shared.epoch.fetch_add(1, Ordering::SeqCst);
        log.clear();
    }

    /// Breaks every connection and refuses new ones, as a machine does that went down.
    pub fn go_away(&self) {
        self.turn(false);
    }

    /// Listens again, on the same port.
    pub fn come_back(&self) {
        self.turn(true);
    }

    fn turn(&self, up: bool) {
        self.up.send_replace(up);
        let mut listening = self.listening.clone();
        let runtime = self.runtime.as_ref().expect("it runs until it is dropped");
        let (done, wait) = std::sync::mpsc::channel();
        runtime.spawn(async move {
            let _ = listening.wait_for(|now| *now == up).await;
            let _ = done.send(());
        });
        // Blocks a thread, not a runtime: tests may call it from either.
        wait.recv().expect("the server turns");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Not `drop`: that waits, which is forbidden within another runtime.
            runtime.shutdown_background();
        }
    }
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    // The port is taken again while old connections linger on it.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    // As many as a test may have waiting at once.
    socket.listen(256)
}

/// Listens while it is wanted; closes the port and every connection while it is not.
async fn serve(
    shared: Arc<Shared>,
    mut wanted: watch::Receiver<bool>,
    told: watch::Sender<bool>,
    first: std::sync::mpsc::Sender<SocketAddr>,
) {
    let mut address = SocketAddr::from(([127, 0, 0, 1], 0));
    loop {
        let listener = listen(address).expect("a free port of this machine");
        address = listener.local_addr().expect("it is bound");
        let _ = first.send(address);
        told.send_replace(true);
        let mut connections = tokio::task::JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    if let Ok((stream, _)) = accepted {
                        let _ = stream.set_nodelay(true);
                        connections.spawn(connection(shared.clone(), stream));
                    }
                }
                Some(_) = connections.join_next() => {}
                _ = wanted.wait_for(|up| !up) => break,
            }
        }
        drop(listener);
        connections.shutdown().await;
        told.send_replace(false);
        if wanted.wait_for(|up| *up).await.is_err() {
            return;
        }
    }
}

async fn connection(shared: Arc<Shared>, stream: tokio::net::TcpStream) {
    let service = service_fn(|request| {
        let shared = shared.clone();
        async move { answer::answer(shared, request).await.ok_or(Broken) }
    });
    let io = TokioIo::new(stream);
    // A broken connection is what some faults are for.
    let _ = http1::Builder::new().timer(TokioTimer::new()).serve_connection(io, service).await;
}

/// Ends a connection without an answer.
#[derive(Debug)]
struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("broken as told")
    }
}

impl std::error::Error for Broken {}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
