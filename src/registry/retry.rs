//! Asks again when asking again may help, and when.
//!
//! [`RetryPolicy`] is a pure schedule; [`Retrying`] applies it to a registry. Invariant: no call
//! takes longer than its deadline, whatever the registry does. Stateless between calls.

use std::future::Future;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout_at};

use super::{CatalogAnswer, ObjectBody, Registry, RegistryError, Validator, Waits};
use crate::base::ObjectRange;
use crate::model::Digest;

/// How long a call may take, attempts and pauses together: what people wait for before they look.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// When to ask again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryPolicy {
    /// The pause after the first failure, doubled with each further one.
    pub base: Duration,
    /// The longest pause, but for what a server asks for.
    pub max: Duration,
    /// The most attempts, the first included.
    pub attempts: u32,
}

impl Default for RetryPolicy {
    /// A hiccup is bridged at once; after 0.25, 0.5, 1, 2, 4 s … the deadline decides, not the count.
    fn default() -> Self {
        Self { base: Duration::from_millis(250), max: Duration::from_secs(10), attempts: 12 }
    }
}

impl RetryPolicy {
    /// The pause before the next attempt, after `failed` have failed (at least 1), or none if there
    /// is to be no other: too many failed, or the pause would leave nothing of the `left` time.
    ///
    /// `random`, in `[0, 1)`, spreads clients that failed together over the upper half of the
    /// pause. A server's `Retry-After` is never undercut.
    pub fn delay(
        &self,
        failed: u32,
        random: f64,
        retry_after: Option<Duration>,
        left: Duration,
    ) -> Option<Duration> {
        if failed >= self.attempts {
            return None;
        }
        let doubled = 1u32.checked_shl(failed.saturating_sub(1)).unwrap_or(u32::MAX);
        let full = self.base.saturating_mul(doubled).min(self.max);
        let pause = full.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0);
        let pause = pause.max(retry_after.unwrap_or_default());
        (pause < left).then_some(pause)
    }
}

/// A number in `[0, 1)` that differs between processes and calls.
pub fn random() -> f64 {
    // 53 bits are what fits into an f64.
    (RandomState::new().build_hasher().finish() >> 11) as f64 / (1u64 << 53) as f64
}

/// A registry that is asked again when an answer may come later.
///
/// Opening an object is asked again, too; what breaks off in an object's body is for `fetch`, which
/// knows what it has. Wrong bytes are asked for once more: a proxy may have garbled them.
pub struct Retrying {
    inner: Arc<dyn Registry>,
    policy: RetryPolicy,
    deadline: Duration,
    waits: Arc<Waits>,
}

impl Retrying {
    /// Around `inner`, each call within `deadline`.
    pub fn new(inner: Arc<dyn Registry>, policy: RetryPolicy, deadline: Duration) -> Self {
        Self { inner, policy, deadline, waits: Arc::default() }
    }

    /// The same, and its calls are listed there while they wait.
    pub fn listed_in(self, waits: Arc<Waits>) -> Self {
        Self { waits, ..self }
    }

    async fn run<T, F>(
        &self,
        what: impl Fn() -> String,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, RegistryError>
    where
        F: Future<Output = Result<T, RegistryError>>,
    {
        let end = Instant::now() + self.deadline;
        let waiting = self.waits.begin(end);
        let (mut failed, mut wrong) = (0u32, false);
        let mut last = None;
        loop {
            let error = match timeout_at(end, attempt()).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => error,
                // What failed before says more than that time was up.
                Err(_) => {
                    let why = format!("no answer within {:?}", self.deadline);
                    return Err(
                        last.unwrap_or_else(|| RegistryError::Unreachable { what: what(), why })
                    );
                }
            };
            failed += 1;
            let again = match &error {
                RegistryError::WrongBytes { .. } => !std::mem::replace(&mut wrong, true),
                other => other.is_worth_waiting(),
            };
            let retry_after = match &error {
                RegistryError::Busy { retry_after, .. } => *retry_after,
                _ => None,
            };
            let left = end.saturating_duration_since(Instant::now());
            let Some(pause) =
                self.policy.delay(failed, random(), retry_after, left).filter(|_| again)
            else {
                return Err(error);
            };
            tracing::debug!(registry = self.inner.name(), failed, ?pause, %error, "asking again");
            waiting.failed(&error);
            last = Some(error);
            sleep(pause).await;
        }
    }
}

#[async_trait]
impl Registry for Retrying {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn catalog(&self, known: &Validator) -> Result<CatalogAnswer, RegistryError> {
        self.run(|| super::xprim::CATALOG.into(), || self.inner.catalog(known)).await
    }

    async fn document(&self, digest: &Digest, limit: u64) -> Result<Bytes, RegistryError> {
        let what = || super::xprim::object_shown(digest);
        self.run(what, || self.inner.document(digest, limit)).await
    }

    async fn object(
        &self,
        digest: &Digest,
        object_len: u64,
        range: ObjectRange,
    ) -> Result<ObjectBody, RegistryError> {
        let what = || super::range_shown(digest, range);
        self.run(what, || self.inner.object(digest, object_len, range)).await
    }

    fn expect_reads(&self, document: &Digest) {
        self.inner.expect_reads(document);
    }
}

#[cfg(test)]
#[path = "retry_tests.rs"]
mod tests;
