//! A small Hugging Face Hub on this machine: references, paged trees, files, and a second server on
//! another port for the bytes of large files, behind signed URLs that can expire. It notes who sent a
//! token where, and lies as told.
//!
//! Runs on a thread of its own; dropping it stops it. Its lock is never held across an await.

mod answer;
mod state;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;

use answer::answer;
use state::State;
pub use state::{HUB_TOKEN, HubFile, HubLie, HubRepo, HubRequest};

/// The Hub.
pub struct HubServer {
    state: Arc<Mutex<State>>,
    hub: SocketAddr,
    runtime: Option<tokio::runtime::Runtime>,
}

impl HubServer {
    /// Starts both servers; there are no repositories, and a page has three entries.
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("test-hub")
            .enable_all()
            .build()
            .expect("a runtime");
        let state = Arc::new(Mutex::new(State { page: 3, ..State::default() }));
        let listen = || std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let (hub, cdn) = (listen(), listen());
        let address = hub.local_addr().expect("it is bound");
        lock(&state).cdn = format!("http://{}", cdn.local_addr().expect("it is bound"));
        for (listener, is_cdn) in [(hub, false), (cdn, true)] {
            runtime.spawn(serve(state.clone(), listener, is_cdn));
        }
        Self { state, hub: address, runtime: Some(runtime) }
    }

    /// The endpoint.
    pub fn url(&self) -> String {
        format!("http://{}", self.hub)
    }

    /// Puts a repository in place; `name` is `models/ORG/NAME` or `datasets/ORG/NAME`.
    pub fn put(&self, name: &str, repo: HubRepo) {
        lock(&self.state).repos.insert(name.to_owned(), repo);
    }

    /// Redirects the old name to the new one.
    pub fn rename(&self, old: &str, new: &str) {
        let mut state = lock(&self.state);
        let repo = state.repos.remove(old).expect("a repository of that name");
        state.repos.insert(new.to_owned(), repo);
        state.renamed.insert(old.to_owned(), new.to_owned());
    }

    /// Changes a repository.
    pub fn change(&self, name: &str, change: impl FnOnce(&mut HubRepo)) {
        change(lock(&self.state).repos.get_mut(name).expect("a repository of that name"));
    }

    /// What came since the last call.
    pub fn requests(&self) -> Vec<HubRequest> {
        std::mem::take(&mut lock(&self.state).log)
    }

    /// Puts so many entries on a page of a tree.
    pub fn page(&self, entries: usize) {
        lock(&self.state).page = entries;
    }

    /// Lets every signed URL that was handed out expire.
    pub fn expire(&self) {
        lock(&self.state).signature += 1;
    }

    /// Answers the next requests with 429 and a rate limit that ends in a second.
    pub fn limit(&self, requests: u32) {
        lock(&self.state).limited = requests;
    }

    /// Answers everything with 503, or no longer.
    pub fn down(&self, down: bool) {
        lock(&self.state).down = down;
    }

    /// Lies about the bytes of large files, or no longer.
    pub fn lie(&self, lie: Option<HubLie>) {
        lock(&self.state).lie = lie;
    }

    /// Changes every tree before it is sent.
    pub fn edit_tree(&self, edit: impl Fn(&mut Vec<Value>) + Send + 'static) {
        lock(&self.state).edit = Some(Box::new(edit));
    }
}

impl Drop for HubServer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("no test panics while it holds this lock")
}

async fn serve(state: Arc<Mutex<State>>, listener: std::net::TcpListener, cdn: bool) {
    listener.set_nonblocking(true).expect("a socket");
    let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
    while let Ok((stream, _)) = listener.accept().await {
        let state = state.clone();
        tokio::spawn(async move {
            let service = service_fn(|request: hyper::Request<Incoming>| {
                let answer = answer(&mut lock(&state), &request, cdn);
                async move { Ok::<_, Infallible>(answer) }
            });
            // A truncated body breaks its connection.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
