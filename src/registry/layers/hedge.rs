//! Hedged requests: makes a request a second time when its answer takes much longer than usual,
//! because one server of many is slow or a packet was lost.
//!
//! `Pace` is the pure rule; [`Hedged`] applies it to a registry. Invariant: at most one request in
//! twenty is made twice, so that a registry that is slow altogether does not become slower.
//! Concurrency: one lock around the pace, never held across an await.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::{Either, select};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::base::ObjectRange;
use crate::model::{Leaves, ModelRef, Name, Object, Revision, VersionEntry, VersionId};
use crate::registry::api::{
    Capabilities, Listing, ManifestDocument, ObjectBody, ProvenBody, Registry, Validator, Versions,
};
use crate::registry::error::RegistryError;

/// Number of answers needed to know how long they usually take.
const MIN_ANSWERS: u32 = 16;
/// Minimum delay of a second request: a shorter one goes unnoticed, and a busy machine causes it by
/// itself.
const MIN_DELAY: Duration = Duration::from_millis(250);
/// The share of a second request that each answer earns.
const EARNED: f64 = 0.05;
/// Maximum number of second requests that can be saved, for a moment in which several are slow.
const MAX_SAVED: f64 = 4.0;
/// Maximum number of second requests at once; they come on top of the limit on connections.
const MAX_HEDGES: usize = 4;
/// Maximum number of leaves whose digests (256 KiB) arrive all at once when they begin to. Of a longer
/// list of unknown length it is unclear whether it is late or long.
const MAX_LEAVES: u64 = 8 << 10;

/// How long answers have taken to begin lately, and how many second requests that allows.
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
        self.credit = (self.credit + EARNED).min(MAX_SAVED);
    }

    /// How long to wait before the second request, once that is known.
    fn hedge_delay(&self) -> Option<Duration> {
        let usual = Duration::from_secs_f64(self.mean + 4.0 * self.deviation);
        (self.answers >= MIN_ANSWERS).then(|| usual.max(MIN_DELAY))
    }

    /// Whether a second request is earned; it is spent then.
    fn spend(&mut self) -> bool {
        let may = self.credit >= 1.0;
        self.credit -= f64::from(u8::from(may));
        may
    }
}

/// Whether the other request may have a better answer.
fn may_be_chance(error: &RegistryError) -> bool {
    error.is_transient() || matches!(error, RegistryError::WrongBytes { .. })
}

fn asks_for_time(error: &RegistryError) -> bool {
    matches!(error, RegistryError::Busy { retry_after: Some(_), .. })
}

/// A registry that is asked for objects and short leaf lists a second time when the first answer does
/// not begin. The first answer counts; of errors that may be chance, the last.
pub struct Hedged {
    inner: Arc<dyn Registry>,
    pace: Mutex<Pace>,
    under_way: Semaphore,
}

impl Hedged {
    /// Around `inner`, of which nothing is known yet.
    pub fn new(inner: Arc<dyn Registry>) -> Self {
        Self { inner, pace: Mutex::default(), under_way: Semaphore::new(MAX_HEDGES) }
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
        let delay = self.pace().hedge_delay();
        let Some(delay) = delay else { return first.await };
        if let Ok(answer) = timeout(delay, &mut first).await {
            return answer;
        }
        let Ok(_permit) = self.under_way.try_acquire() else { return first.await };
        if !self.pace().spend() {
            return first.await;
        }
        tracing::debug!(registry = self.inner.name(), ?delay, "asking a second time");
        match select(first, timed()).await {
            Either::Left((Err(error), other)) | Either::Right((Err(error), other))
                if may_be_chance(&error) =>
            {
                // What a server asked for is not lost.
                other.await.map_err(|later| if asks_for_time(&error) { error } else { later })
            }
            Either::Left((answer, _)) | Either::Right((answer, _)) => answer,
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Registry for Hedged {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn list(&self, known: &Validator) -> Result<Listing, RegistryError> {
        self.inner.list(known).await
    }

    async fn lookup(&self, model: &ModelRef, known: &Validator) -> Result<Versions, RegistryError> {
        self.inner.lookup(model, known).await
    }

    async fn version(
        &self,
        model: &ModelRef,
        name: &Name,
    ) -> Result<Option<VersionEntry>, RegistryError> {
        self.inner.version(model, name).await
    }

    async fn resolve(
        &self,
        model: &ModelRef,
        revision: &Revision,
    ) -> Result<ManifestDocument, RegistryError> {
        self.inner.resolve(model, revision).await
    }

    async fn manifest(&self, version: &VersionId) -> Result<ManifestDocument, RegistryError> {
        self.inner.manifest(version).await
    }

    async fn leaves(&self, object: &Object, range: ObjectRange) -> Result<Leaves, RegistryError> {
        match object.leaf_count() <= MAX_LEAVES {
            true => self.run(|| self.inner.leaves(object, range)).await,
            false => self.inner.leaves(object, range).await,
        }
    }

    async fn read(&self, object: &Object, range: ObjectRange) -> Result<ObjectBody, RegistryError> {
        self.run(|| self.inner.read(object, range)).await
    }

    async fn read_proven(
        &self,
        object: &Object,
        range: ObjectRange,
    ) -> Result<ProvenBody, RegistryError> {
        // It has requests that follow from another: a second would begin anew.
        self.inner.read_proven(object, range).await
    }

    fn preconnect(&self, version: &VersionId) {
        self.inner.preconnect(version);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Check, Digest, HashAlgorithm};
    use crate::registry::{Call, Fault, Faulty, Memory, When, read_object};

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
        read_object(r, &Object::new(*digest, len, Check::Whole), ObjectRange::new(0, len)).await
    }

    fn asked(memory: &Memory) -> usize {
        memory.counts().objects.len()
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_late_is_overtaken_by_its_hedge() {
        let (memory, faulty, hedged, digest) = known(40).await;
        faulty.on(Call::Object(None), When::Nth(0), Fault::Delay(9000 * MS));
        let begun = Instant::now();
        assert_eq!(read(&hedged, &digest).await.unwrap(), DOCUMENT);
        // in the time of a paused clock, so nothing that a machine does counts
        assert!(begun.elapsed() < 400 * MS, "{:?}", begun.elapsed());
        assert_eq!(asked(&memory), 41, "the one that stumbled never came through");
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_answer_counts_and_a_failed_hedge_is_ignored() {
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
    async fn an_error_of_the_transport_is_returned_at_once() {
        let (memory, faulty, hedged, digest) = known(40).await;
        let gone = RegistryError::Missing { what: "x".into() };
        faulty.on(Call::Object(None), When::Nth(0), Fault::Fail(gone));
        assert!(read(&hedged, &digest).await.is_err());
        assert_eq!(asked(&memory), 40);
    }

    #[tokio::test(start_paused = true)]
    async fn a_uniformly_slow_registry_gets_few_hedged_requests() {
        let (memory, faulty, hedged, digest) = known(40).await;
        faulty.on(Call::Document(None), When::Always, Fault::Delay(3000 * MS));
        let list = memory.insert(digest.as_bytes().to_vec());
        let check = Check::Leaves { size: 4096, digest: HashAlgorithm::Sha256, list };
        let object = Object::new(digest, DOCUMENT.len() as u64, check);
        for _ in 0..100 {
            hedged.leaves(&object, ObjectRange::new(0, 1)).await.unwrap();
        }
        let spent = 40.0 * EARNED + 100.0 * EARNED - hedged.pace().credit;
        assert!(spent <= 7.0, "{spent}");
        assert!(hedged.pace().hedge_delay().unwrap() > 3000 * MS, "it is known by now");
    }

    proptest! {
        #[test]
        fn never_more_than_one_in_twenty(times in proptest::collection::vec(0u64..5000, 0..300)) {
            let (mut pace, mut spent) = (Pace::default(), 0.0);
            for (n, ms) in times.iter().enumerate() {
                pace.took(*ms as u32 * MS);
                spent += f64::from(u8::from(pace.spend()));
                prop_assert!(spent <= EARNED * (n + 1) as f64 + 1e-9);
                prop_assert_eq!(pace.hedge_delay().is_some(), n + 1 >= MIN_ANSWERS as usize);
                prop_assert!(pace.hedge_delay().is_none_or(|p| p >= MIN_DELAY && p.as_secs() < 60));
            }
        }
    }
}
