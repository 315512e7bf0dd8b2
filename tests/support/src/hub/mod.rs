//! A small Hugging Face Hub on this machine: references, paged trees, files, and a second server on
//! another port for the bytes of large files, behind signed URLs that can expire, and a third for the storage
//! service of Xet. It notes who sent a token where, and lies as told.
//!
//! Runs on a thread of its own; dropping it stops it. Its lock is never held across an await.

mod answer;
mod state;
mod xet_answer;
mod xet_file;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::Value;

use crate::answering::Answering;
use answer::{Server, answer};
use state::State;
pub use state::{HUB_TOKEN, HubFile, HubLie, HubRepo, HubRequest, XetLie};
pub use xet_file::{XetFile, XetPlaces};

/// The Hub.
pub struct HubServer {
    state: Arc<Mutex<State>>,
    hub: SocketAddr,
    _serving: Answering,
}

impl HubServer {
    /// Starts the servers; there are no repositories, and a page has three entries.
    pub fn start() -> Self {
        let state = Arc::new(Mutex::new(State { page: 3, xet_lifetime: 3600, ..State::default() }));
        let serving = Answering::start("test-hub");
        let serve = |server| {
            let state = state.clone();
            serving.serve(move |request| answer(&mut lock(&state), request, server))
        };
        let (hub, cdn, xet) = (serve(Server::Hub), serve(Server::Cdn), serve(Server::Xet));
        lock(&state).cdn = format!("http://{cdn}");
        lock(&state).xet = format!("http://{xet}");
        Self { state, hub, _serving: serving }
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

    /// Puts a file with a Xet hash into a commit of a repository.
    pub fn put_xet(&self, repo: &str, commit: &str, path: &str, file: XetFile) {
        let mut state = lock(&self.state);
        assert!(state.repos[repo].commits.contains_key(commit), "a commit of that name");
        state.xet_files.insert(format!("{repo}/{commit}/{path}"), file);
    }

    /// Lies about what Xet keeps, or no longer.
    pub fn xet_lie(&self, lie: Option<XetLie>) {
        lock(&self.state).xet_lie = lie;
    }

    /// Lets every login of the storage service expire, and grants new ones for so many seconds.
    pub fn expire_xet(&self, lifetime: u64) {
        let mut state = lock(&self.state);
        state.xet_login += 1;
        state.xet_lifetime = lifetime;
    }

    /// Changes every tree before it is sent.
    pub fn edit_tree(&self, edit: impl Fn(&mut Vec<Value>) + Send + 'static) {
        lock(&self.state).edit = Some(Box::new(edit));
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("no test panics while it holds this lock")
}
