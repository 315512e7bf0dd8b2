//! Asks a second time when an answer takes much longer than answers do: one server of many that
//! stumbles, one packet lost at the beginning.
//!
//! `Pace` is the pure rule; [`Hedged`] applies it to a registry. Invariant: at most one request in
//! twenty is made twice, so a registry that is slow altogether is not made slower. Concurrency: one
//! lock around the pace, never held across an await.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::{Either, select};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::{CatalogAnswer, ObjectBody, Registry, RegistryError, Validator};
use crate::base::ObjectRange;
use crate::model::Digest;

/// Answers before there is an idea of how long they take.
const ENOUGH: u32 = 16;
/// The least patience: below it, nobody notices and a busy machine makes such pauses itself.
const LEAST: Duration = Duration::from_millis(250);
/// What each answer earns of a second request.
const EARNED: f64 = 0.05;
/// Second requests that can be saved up, for a moment in which several stumble.
const SAVED: f64 = 4.0;
/// Second requests under way at once, beyond the connections that are counted.
const AT_ONCE: usize = 4;
/// Documents of up to so many bytes come all at once when they begin: leaf lists. Of others nobody can
/// tell whether they stumble or are long.
const SHORT: u64 = 256 << 10;

/// How long answers take to begin, as of late, and how many second requests that allows.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Pace {
    answers: u32,
    /// Seconds, moving averages as TCP keeps them of round trips.
    mean: f64,
    deviation: f64,
    credit: f64,
}

impl Pace {
    /// Notes how long an answer took.
    fn took(&mut self, time: Duration) {
        let seconds = time.as_secs_f64();
        if self.answers == 0 {
            (self.mean, self.deviation) = (seconds, seconds / 2.0);
        } else {
            self.deviation += ((seconds - self.mean).abs() - self.deviation) / 4.0;
            self.mean += (seconds - self.mean) / 8.0;
        }
        self.answers = self.answers.saturating_add(1);
        self.credit = (self.credit + EARNED).min(SAVED);
    }

    /// How long to wait before asking a second time, once that is known.
    fn patience(&self) -> Option<Duration> {
        let usual = Duration::from_secs_f64(self.mean + 4.0 * self.deviation);
        (self.answers >= ENOUGH).then(|| usual.max(LEAST))
    }

    /// Whether a second request is earned; it is spent then.
    fn spend(&mut self) -> bool {
        let may = self.credit >= 1.0;
        self.credit -= f64::from(u8::from(may));
        may
    }
}

/// Whether the same request may have a better answer.
fn may_be_chance(error: &RegistryError) -> bool {
    error.is_transient() || matches!(error, RegistryError::WrongBytes { .. })
}

fn asks_for_time(error: &RegistryError) -> bool {
    matches!(error, RegistryError::Busy { retry_after: Some(_), .. })
}

/// A registry of which objects and short documents are asked for a second time when the first answer
/// does not begin. Whichever comes first counts; of errors that may be chance, the last.
pub struct Hedged {
    inner: Arc<dyn Registry>,
    pace: Mutex<Pace>,
    under_way: Semaphore,
}

impl Hedged {
    /// Around `inner`, of which nothing is known yet.
    pub fn new(inner: Arc<dyn Registry>) -> Self {
        Self { inner, pace: Mutex::default(), under_way: Semaphore::new(AT_ONCE) }
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().expect("nothing panics while it holds this lock")
    }

    async fn run<T, F>(&self, ask: impl Fn() -> F) -> Result<T, RegistryError>
    where
        F: Future<Output = Result<T, RegistryError>> + Unpin,
    {
        let timed = || {
            let (asked, begun) = (ask(), Instant::now());
            Box::pin(async move {
                let answer = asked.await;
                if answer.is_ok() {
                    self.pace().took(begun.elapsed());
                }
                answer
            })
        };
        let mut first = timed();
        let patience = self.pace().patience();
        let Some(patience) = patience else { return first.await };
        if let Ok(answer) = timeout(patience, &mut first).await {
            return answer;
        }
        let Ok(_place) = self.under_way.try_acquire() else { return first.await };
        if !self.pace().spend() {
            return first.await;
        }
        tracing::debug!(registry = self.inner.name(), ?patience, "asking a second time");
        match select(first, timed()).await {
            Either::Left((Err(error), other)) | Either::Right((Err(error), other))
                if may_be_chance(&error) =>
            {
                // what a server asks for is not lost
                other.await.map_err(|later| if asks_for_time(&error) { error } else { later })
            }
            Either::Left((answer, _)) | Either::Right((answer, _)) => answer,
        }
    }
}

#[async_trait]
impl Registry for Hedged {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn catalog(&self, known: &Validator) -> Result<CatalogAnswer, RegistryError> {
        self.inner.catalog(known).await
    }

    async fn document(&self, digest: &Digest, limit: u64) -> Result<Bytes, RegistryError> {
        match limit <= SHORT {
            true => self.run(|| self.inner.document(digest, limit)).await,
            false => self.inner.document(digest, limit).await,
        }
    }

    async fn object(
        &self,
        digest: &Digest,
        object_len: u64,
        range: ObjectRange,
    ) -> Result<ObjectBody, RegistryError> {
        self.run(|| self.inner.object(digest, object_len, range)).await
    }

    fn expect_reads(&self, document: &Digest) {
        self.inner.expect_reads(document);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Call, Fault, Faulty, Memory, When, read_object};
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const DOCUMENT: &[u8] = b"bytes";

    /// A registry whose answers have taken 20 ms so often.
    async fn known(answers: u32) -> (Arc<Memory>, Arc<Faulty>, Hedged, Digest) {
        let memory = Arc::new(Memory::new("memory://a"));
        let digest = memory.insert(DOCUMENT.to_vec());
        let faulty = Arc::new(Faulty::new(memory.clone()));
        faulty.on(Call::Object(None), When::First(u64::from(answers)), Fault::Delay(20 * MS));
        let hedged = Hedged::new(faulty.clone());
        for _ in 0..answers {
            read(&hedged, &digest).await.unwrap();
        }
        faulty.heal();
        (memory, faulty, hedged, digest)
    }

    async fn read(r: &dyn Registry, digest: &Digest) -> Result<Vec<u8>, RegistryError> {
        let len = DOCUMENT.len() as u64;
        read_object(r, digest, len, ObjectRange::new(0, len)).await
    }

    fn asked(memory: &Memory) -> usize {
        memory.counts().objects.len()
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_stumbles_is_overtaken() {
        let (memory, faulty, hedged, digest) = known(40).await;
        faulty.on(Call::Object(None), When::Nth(0), Fault::Delay(9000 * MS));
        let begun = Instant::now();
        assert_eq!(read(&hedged, &digest).await.unwrap(), DOCUMENT);
        // in the time of a paused clock, so nothing that a machine does counts
        assert!(begun.elapsed() < 400 * MS, "{:?}", begun.elapsed());
        assert_eq!(asked(&memory), 41, "the one that stumbled never came through");
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_counts_if_it_comes_first_or_the_second_fails() {
        let (memory, faulty, hedged, digest) = known(60).await;
        faulty.on(Call::Object(None), When::Nth(0), Fault::Delay(600 * MS));
        faulty.on(Call::Object(None), When::Nth(1), Fault::Delay(9000 * MS));
        assert_eq!(read(&hedged, &digest).await.unwrap(), DOCUMENT);
        assert_eq!(asked(&memory), 61);
        let busy = RegistryError::Busy { what: "x".into(), status: 503, retry_after: None };
        let missing = RegistryError::Missing { what: "x".into() };
        for (error, gets) in [(missing, None), (busy, Some(DOCUMENT))] {
            faulty.heal();
            faulty.on(Call::Object(None), When::Nth(0), Fault::Delay(9000 * MS));
            faulty.on(Call::Object(None), When::Nth(1), Fault::Fail(error));
            assert_eq!(read(&hedged, &digest).await.ok().as_deref(), gets);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_is_told_at_once() {
        let (memory, faulty, hedged, digest) = known(40).await;
        let gone = RegistryError::Missing { what: "x".into() };
        faulty.on(Call::Object(None), When::Nth(0), Fault::Fail(gone));
        assert!(read(&hedged, &digest).await.is_err());
        assert_eq!(asked(&memory), 40);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_slow_altogether_is_hardly_asked_more() {
        let (_, faulty, hedged, digest) = known(40).await;
        faulty.on(Call::Document(None), When::Always, Fault::Delay(3000 * MS));
        for _ in 0..100 {
            hedged.document(&digest, 9).await.unwrap();
        }
        let spent = 40.0 * EARNED + 100.0 * EARNED - hedged.pace().credit;
        assert!(spent <= 7.0, "{spent}");
        assert!(hedged.pace().patience().unwrap() > 3000 * MS, "it is known by now");
    }

    proptest! {
        #[test]
        fn never_more_than_one_in_twenty(times in proptest::collection::vec(0u64..5000, 0..300)) {
            let (mut pace, mut spent) = (Pace::default(), 0.0);
            for (n, ms) in times.iter().enumerate() {
                pace.took(*ms as u32 * MS);
                spent += f64::from(u8::from(pace.spend()));
                prop_assert!(spent <= EARNED * (n + 1) as f64 + 1e-9);
                prop_assert_eq!(pace.patience().is_some(), n + 1 >= ENOUGH as usize);
                prop_assert!(pace.patience().is_none_or(|p| p >= LEAST && p.as_secs() < 60));
            }
        }
    }
}
