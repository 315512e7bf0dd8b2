//! What is being waited for: calls that have failed, or have no answer yet, and when they give up.
//!
//! Invariant: a call is listed from [`Waits::begin`] until its [`Waiting`] is dropped, however it ends.
//! Concurrency: shared; the lock is held for an insertion or a look-up.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A call without an answer is reported after this time; a remote registry answers sooner.
const SILENT: Duration = Duration::from_secs(1);

/// The calls that wait.
#[derive(Debug, Default)]
pub struct Waits(Mutex<Calls>);

#[derive(Debug, Default)]
struct Calls {
    next: u64,
    waiting: BTreeMap<u64, Call>,
}

#[derive(Debug)]
struct Call {
    last_answer: Instant,
    until: Instant,
    failed: Option<String>,
}

/// What one call waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// Why there is no answer, in one line.
    pub why: String,
    /// How long it goes on asking.
    pub left: Duration,
}

/// A call that is listed until this is dropped.
#[derive(Debug)]
pub struct Waiting {
    waits: Arc<Waits>,
    number: u64,
}

impl Waits {
    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lists a call that gives up at `until`.
    pub fn begin(self: &Arc<Self>, until: Instant) -> Waiting {
        let mut calls = self.calls();
        let number = calls.next;
        calls.next += 1;
        calls.waiting.insert(number, Call { last_answer: Instant::now(), until, failed: None });
        Waiting { waits: self.clone(), number }
    }

    /// The call that waits longest from now, of those that have failed; else of those without an answer.
    pub fn longest(&self) -> Option<Wait> {
        let now = Instant::now();
        let calls = self.calls();
        let slow =
            calls.waiting.values().filter(|c| c.failed.is_some() || now - c.last_answer >= SILENT);
        let longest = slow.max_by_key(|c| (c.failed.is_some(), c.until))?;
        Some(Wait {
            why: longest.failed.clone().unwrap_or_else(|| "no complete answer yet".to_owned()),
            left: longest.until.saturating_duration_since(now),
        })
    }
}

impl Waiting {
    /// An attempt failed; there will be others.
    pub fn failed(&self, why: &dyn std::fmt::Display) {
        if let Some(call) = self.waits.calls().waiting.get_mut(&self.number) {
            call.failed = Some(why.to_string());
        }
    }

    /// There was progress: now it gives up at `until`.
    pub fn extend(&self, until: Instant) {
        if let Some(call) = self.waits.calls().waiting.get_mut(&self.number) {
            *call = Call { last_answer: Instant::now(), until, failed: None };
        }
    }

    /// Some of the answer came.
    pub fn answered(&self) {
        if let Some(call) = self.waits.calls().waiting.get_mut(&self.number) {
            (call.last_answer, call.failed) = (Instant::now(), None);
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.waits.calls().waiting.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_failed_requests_are_listed_as_waits_with_their_remaining_time() {
        let (waits, second) = (Arc::new(Waits::default()), Duration::from_secs(1));
        let quick = waits.begin(Instant::now() + 60 * second);
        assert_eq!(waits.longest(), None, "it may be answered at once");
        tokio::time::advance(2 * second).await;
        let silent = waits.longest().unwrap();
        assert_eq!((silent.why.as_str(), silent.left), ("no complete answer yet", 58 * second));
        let failing = waits.begin(Instant::now() + 30 * second);
        failing.failed(&"refused");
        tokio::time::advance(10 * second).await;
        let failed = waits.longest().unwrap();
        assert_eq!((failed.why.as_str(), failed.left), ("refused", 20 * second));
        failing.extend(Instant::now() + 60 * second);
        assert_eq!(waits.longest().unwrap().left, 48 * second);
        quick.answered();
        assert_eq!(waits.longest(), None, "an answer is coming");
        drop(quick);
        drop(failing);
        tokio::time::advance(100 * second).await;
        assert_eq!(waits.longest(), None);
    }
}
