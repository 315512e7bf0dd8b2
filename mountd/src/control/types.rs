//! Requests of the control API and how they travel: the same types in the server and the client.
//!
//! Invariant: additions only within `/v1`. A [`Call`] ties a request to its path and answer, so that
//! neither side can disagree. Plain values.

use modelfs::base::text::{MESSAGE, brief};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::answers::{
    Checked, Freed, Info, List, MountedPath, Pinned, Prefetched, Refreshed, Restarting, Status,
    Traced, Unmounting, Unpinned, Untraced,
};
pub use super::reference::Ref;
use crate::error::Failure;

/// A request: where it goes and what comes back.
pub trait Call: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Its path.
    const PATH: &'static str;
    /// Whether it only looks: then GET does as well as POST.
    const READS: bool = false;
    /// Whether it takes long: then the answer is a stream of [`Event`] lines.
    const STREAMED: bool = false;
    /// Whether it must not be asked again when its answer is lost: a second time is another thing.
    const ONCE: bool = false;
    /// The most bytes of a request: references and owners are a few hundred.
    const MOST: usize = 64 << 10;
    /// What comes back.
    type Answer: Serialize + DeserializeOwned + Send + 'static;
}

/// Reads a request's body; none at all stands for one that says nothing.
pub fn parse<C: Call>(body: &[u8]) -> Result<C, Failure> {
    let body: &[u8] = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body)
        .map_err(|e| Failure::usage(brief(&format!("the request's body: {e}"), MESSAGE)))
}

macro_rules! calls {
    ($($call:ty => $path:literal, $answer:ty $(, $flag:ident)*;)*) => {
        $(impl Call for $call {
            const PATH: &'static str = $path;
            $(const $flag: bool = true;)*
            type Answer = $answer;
        })*
    };
}

calls! {
    GetStatus => "/v1/status", Status, READS;
    GetList => "/v1/list", List, READS;
    GetInfo => "/v1/info", Info, READS;
    GetPath => "/v1/path", MountedPath, READS;
    Refresh => "/v1/refresh", Refreshed;
    Prefetch => "/v1/prefetch", Prefetched, STREAMED;
    Verify => "/v1/verify", Checked, STREAMED;
    Pin => "/v1/pin", Pinned;
    Unpin => "/v1/unpin", Unpinned;
    Evict => "/v1/evict", Freed;
    GetTrace => "/v1/trace", Traced, READS;
    ForgetTrace => "/v1/trace/forget", Untraced;
    Restart => "/v1/restart", Restarting, ONCE;
    Unmount => "/v1/unmount", Unmounting, ONCE;
}

impl Call for ImportTrace {
    const PATH: &'static str = "/v1/trace/import";
    // The document, with what JSON needs to carry JSON.
    const MOST: usize = 2 * modelfs::model::trace::MAX_DOCUMENT;
    type Answer = Traced;
}

/// One line of a streamed answer: any number of the first, then one of the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event<T> {
    /// How far it is.
    Progress(Progress),
    /// It is done.
    Done(T),
    /// It failed.
    Error(Failure),
}

/// How far something long is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// In all.
    pub total: u64,
    /// Done by now.
    pub done: u64,
    /// Of it, done before the command began.
    pub at_start: u64,
}

/// What is told how far it is; from any thread.
pub type ProgressSink = std::sync::Arc<dyn Fn(Progress) + Send + Sync>;

/// Asks how daemon and cache are.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct GetStatus {}

/// Asks for versions.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct GetList {
    /// All that the registry offers, not only what is cached.
    #[serde(default)]
    pub remote: bool,
}

/// Asks about one version.
#[derive(Debug, Serialize, Deserialize)]
pub struct GetInfo {
    /// Which.
    pub reference: Ref,
}

/// Asks where a version is mounted.
#[derive(Debug, Serialize, Deserialize)]
pub struct GetPath {
    /// Which.
    pub reference: Ref,
}

/// Asks the registry for its catalog now.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Refresh {}

/// Fetches all of a version.
#[derive(Debug, Serialize, Deserialize)]
pub struct Prefetch {
    /// Which.
    pub reference: Ref,
}

/// Re-hashes what is cached.
#[derive(Debug, Serialize, Deserialize)]
pub struct Verify {
    /// Of which version; none: of all.
    pub reference: Option<Ref>,
}

/// Keeps a version from eviction.
#[derive(Debug, Serialize, Deserialize)]
pub struct Pin {
    /// Which.
    pub reference: Ref,
    /// For whom.
    pub owner: String,
}

/// Lets a version go.
#[derive(Debug, Serialize, Deserialize)]
pub struct Unpin {
    /// Which.
    pub reference: Ref,
    /// For whom.
    pub owner: String,
}

/// Gives space back.
#[derive(Debug, Serialize, Deserialize)]
pub struct Evict {
    /// Of which version; none: of all.
    pub reference: Option<Ref>,
    /// Also what is pinned.
    #[serde(default)]
    pub force: bool,
}

/// Asks for the recorded load of a version.
#[derive(Debug, Serialize, Deserialize)]
pub struct GetTrace {
    /// Which.
    pub reference: Ref,
}

/// Takes a load that was recorded elsewhere.
#[derive(Debug, Serialize, Deserialize)]
pub struct ImportTrace {
    /// The document, as exported.
    pub document: Box<serde_json::value::RawValue>,
}

/// Forgets the recorded load of a version.
#[derive(Debug, Serialize, Deserialize)]
pub struct ForgetTrace {
    /// Which.
    pub reference: Ref,
}

/// Asks for another worker, of the program that is now installed.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Restart {}

/// Asks the daemon to unmount and end.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Unmount {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_stream_say_what_they_are() {
        let line = serde_json::to_string(&Event::<u8>::Progress(Progress::default())).unwrap();
        assert_eq!(line, r#"{"progress":{"total":0,"done":0,"at_start":0}}"#);
        assert_eq!(serde_json::to_string(&Event::Done(7)).unwrap(), r#"{"done":7}"#);
    }

    #[test]
    fn requests_without_a_body_have_their_defaults() {
        assert!(!serde_json::from_str::<GetList>("{}").unwrap().remote);
        serde_json::from_str::<GetStatus>("{}").unwrap();
    }
}
