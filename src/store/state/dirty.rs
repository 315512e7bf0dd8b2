//! The blobs that wait for a commit, and the wake-up of the thread that commits them.
//!
//! Invariant: code that makes a part dirty, or changes a file's stamp, adds its blob afterwards.
//! Concurrency: one lock, inside which nothing else is taken.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::entry::BlobEntry;

/// When a group is committed: whichever comes first.
#[derive(Debug, Clone, Copy)]
pub struct CommitPolicy {
    /// After this many bytes.
    pub bytes: u64,
    /// After this long.
    pub after: Duration,
}

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// A group is full or old.
    pub commit: bool,
    /// Names and documents have outgrown their headroom.
    pub collect: bool,
}

/// The queue.
#[derive(Debug)]
pub struct DirtyQueue {
    policy: CommitPolicy,
    inner: Mutex<Inner>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    entries: HashMap<u32, Arc<BlobEntry>>,
    /// Bytes written to them.
    bytes: u64,
    since: Option<Instant>,
    collect: bool,
    stop: bool,
}

impl Inner {
    /// How long until the group must be committed; none if it is empty.
    fn due_in(&self, policy: CommitPolicy) -> Option<Duration> {
        let since = self.since?;
        if self.bytes >= policy.bytes {
            return Some(Duration::ZERO);
        }
        Some(policy.after.saturating_sub(since.elapsed()))
    }
}

impl DirtyQueue {
    /// An empty queue.
    pub fn new(policy: CommitPolicy) -> Self {
        Self { policy, inner: Mutex::default(), wake: Condvar::new() }
    }

    /// Adds a blob with `bytes` more that are dirty, or with a stamp that the index does not have yet.
    pub fn add(&self, entry: &Arc<BlobEntry>, bytes: u64) {
        let mut inner = self.inner.lock();
        inner.entries.entry(entry.id).or_insert_with(|| entry.clone());
        inner.bytes += bytes;
        let first = inner.since.is_none();
        inner.since.get_or_insert_with(Instant::now);
        if first || inner.bytes >= self.policy.bytes {
            self.wake.notify_all();
        }
    }

    /// Takes everything: the next group.
    pub fn take(&self) -> Vec<Arc<BlobEntry>> {
        let mut inner = self.inner.lock();
        (inner.bytes, inner.since) = (0, None);
        std::mem::take(&mut inner.entries).into_values().collect()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.inner.lock().entries.is_empty()
    }

    /// Asks the commit thread for a collection of names and documents.
    pub fn request_collection(&self) {
        self.inner.lock().collect = true;
        self.wake.notify_all();
    }

    /// Ends the commit thread.
    pub fn stop(&self) {
        self.inner.lock().stop = true;
        self.wake.notify_all();
    }

    /// Waits until something is due, at most for `idle`. `None`: the thread shall end.
    pub fn wait(&self, idle: Duration) -> Option<Due> {
        let mut inner = self.inner.lock();
        let wait = inner.due_in(self.policy).map_or(idle, |due| due.min(idle));
        if !inner.stop && !wait.is_zero() && !inner.collect {
            self.wake.wait_for(&mut inner, wait);
        }
        if inner.stop {
            return None;
        }
        let commit = inner.due_in(self.policy).is_some_and(|due| due.is_zero());
        Some(Due { commit, collect: std::mem::take(&mut inner.collect) })
    }
}
