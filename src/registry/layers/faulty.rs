//! A registry that fails on command, for tests.
//!
//! Rules are applied in the order in which they were added; the first that matches decides.
//! Concurrency: shared; its lock is never held across an await.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, future, stream};

use crate::base::ObjectRange;
use crate::model::{
    Check, Digest, Leaves, ModelRef, Name, Object, Revision, VersionEntry, VersionId,
};
use crate::registry::api::{
    Capabilities, Listing, ManifestDocument, ObjectBody, ProvenBody, Registry, Validator, Versions,
};
use crate::registry::error::RegistryError;

/// Which calls a fault is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// Of `list`, `lookup`, `version` and `resolve`.
    Catalog,
    /// Of `manifest` and `leaves`, for the document with one digest or any.
    Document(Option<Digest>),
    /// Of `read`, for the object with one digest or any.
    Object(Option<Digest>),
}

/// Which of the calls, or of a test server's requests, that fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Every one.
    Always,
    /// Only the nth, counted from 0 and from when the rule was added.
    Nth(u64),
    /// The first n.
    First(u64),
}

impl When {
    /// Whether it is the turn of the call that came after `earlier` others that fit.
    pub fn is_now(self, earlier: u64) -> bool {
        match self {
            Self::Always => true,
            Self::Nth(n) => earlier == n,
            Self::First(n) => earlier < n,
        }
    }
}

/// What goes wrong.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The call fails.
    Fail(RegistryError),
    /// The call, or an object's opening, takes longer.
    Delay(Duration),
    /// The body ends with `Unreachable` after so many bytes. Of objects.
    CutOff(u64),
    /// The body stops after so many bytes and never goes on. Of objects; others never answer.
    Stall(u64),
    /// One bit of the byte at this offset in the object is wrong, if it is asked for. Documents then
    /// fail with `WrongBytes`.
    FlipBit(u64),
}

struct Rule {
    call: Call,
    when: When,
    fault: Fault,
    seen: u64,
}

/// A registry that fails as told.
pub struct Faulty {
    inner: Arc<dyn Registry>,
    rules: Mutex<Vec<Rule>>,
}

impl Faulty {
    /// Around `inner`; without rules it does what that does.
    pub fn new(inner: Arc<dyn Registry>) -> Self {
        Self { inner, rules: Mutex::default() }
    }

    fn rules(&self) -> MutexGuard<'_, Vec<Rule>> {
        self.rules.lock().expect("nothing panics while it holds this lock")
    }

    /// Adds a rule.
    pub fn on(&self, call: Call, when: When, fault: Fault) {
        self.rules().push(Rule { call, when, fault, seen: 0 });
    }

    /// Forgets all rules.
    pub fn heal(&self) {
        self.rules().clear();
    }

    /// Every rule counts the calls that fit it, even if an earlier one decides.
    fn fault(&self, call: Call) -> Option<Fault> {
        let mut out = None;
        for rule in self.rules().iter_mut() {
            let fits = match (rule.call, call) {
                (Call::Document(None), Call::Document(_))
                | (Call::Object(None), Call::Object(_)) => true,
                (rule, call) => rule == call,
            };
            if !fits {
                continue;
            }
            let nth = rule.seen;
            rule.seen += 1;
            if rule.when.is_now(nth) && out.is_none() {
                out = Some(rule.fault.clone());
            }
        }
        out
    }

    /// What a fault does to a call before it is made; what is left is for the body.
    async fn before(&self, call: Call) -> Result<Option<Fault>, RegistryError> {
        match self.fault(call) {
            Some(Fault::Fail(error)) => Err(error),
            Some(Fault::Delay(time)) => {
                tokio::time::sleep(time).await;
                Ok(None)
            }
            Some(Fault::Stall(_)) if !matches!(call, Call::Object(_)) => future::pending().await,
            other => Ok(other),
        }
    }
}

impl Faulty {
    /// What a fault does to a document.
    async fn before_document(&self, digest: Digest) -> Result<(), RegistryError> {
        let what = format!("document {digest:?}");
        match self.before(Call::Document(Some(digest))).await? {
            Some(Fault::FlipBit(_)) => {
                Err(RegistryError::WrongBytes { what, why: "SHA-256 mismatch".into() })
            }
            Some(Fault::CutOff(n)) => {
                Err(RegistryError::Unreachable { what, why: format!("cut off after {n} bytes") })
            }
            _ => Ok(()),
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Registry for Faulty {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn list(&self, known: &Validator) -> Result<Listing, RegistryError> {
        self.before(Call::Catalog).await?;
        self.inner.list(known).await
    }

    async fn lookup(&self, model: &ModelRef, known: &Validator) -> Result<Versions, RegistryError> {
        self.before(Call::Catalog).await?;
        self.inner.lookup(model, known).await
    }

    async fn version(
        &self,
        model: &ModelRef,
        name: &Name,
    ) -> Result<Option<VersionEntry>, RegistryError> {
        self.before(Call::Catalog).await?;
        self.inner.version(model, name).await
    }

    async fn resolve(
        &self,
        model: &ModelRef,
        revision: &Revision,
    ) -> Result<ManifestDocument, RegistryError> {
        self.before(Call::Catalog).await?;
        self.inner.resolve(model, revision).await
    }

    async fn manifest(&self, version: &VersionId) -> Result<ManifestDocument, RegistryError> {
        self.before_document(version.digest()).await?;
        self.inner.manifest(version).await
    }

    async fn leaves(&self, object: &Object, range: ObjectRange) -> Result<Leaves, RegistryError> {
        if let Check::Leaves { list, .. } = object.check {
            self.before_document(list).await?;
        }
        self.inner.leaves(object, range).await
    }

    async fn read(&self, object: &Object, range: ObjectRange) -> Result<ObjectBody, RegistryError> {
        let fault = self.before(Call::Object(Some(object.digest))).await?;
        let body = self.inner.read(object, range).await?;
        let len = range.len();
        Ok(match fault {
            Some(Fault::CutOff(n)) if n < len => {
                let what = format!("{object} bytes {range}");
                let why = format!("cut off after {n} of {len} bytes");
                let end = stream::iter([Err(RegistryError::Unreachable { what, why })]);
                first(body, n).chain(end).boxed()
            }
            Some(Fault::Stall(n)) if n < len => first(body, n).chain(stream::pending()).boxed(),
            Some(Fault::FlipBit(at)) if range.start() <= at && at < range.end() => {
                flip(body, at - range.start())
            }
            _ => body,
        })
    }

    async fn read_proven(
        &self,
        object: &Object,
        range: ObjectRange,
    ) -> Result<ProvenBody, RegistryError> {
        self.before(Call::Object(Some(object.digest))).await?;
        self.inner.read_proven(object, range).await
    }

    fn preconnect(&self, version: &VersionId) {
        self.inner.preconnect(version);
    }
}

/// The first `n` bytes of a body.
fn first(body: ObjectBody, n: u64) -> ObjectBody {
    let pieces = body.scan(n, |left, piece| {
        let out = match piece {
            _ if *left == 0 => None,
            Ok(piece) => {
                let piece =
                    piece.slice(..piece.len().min(usize::try_from(*left).unwrap_or(usize::MAX)));
                *left -= piece.len() as u64;
                Some(Ok(piece))
            }
            error => Some(error),
        };
        future::ready(out)
    });
    pieces.boxed()
}

/// The body with one bit of the byte at `at` flipped.
fn flip(body: ObjectBody, at: u64) -> ObjectBody {
    let pieces = body.scan(0u64, move |start, piece| {
        let piece = piece.map(|piece| {
            let within = at.checked_sub(*start).filter(|i| *i < piece.len() as u64);
            *start += piece.len() as u64;
            match within {
                Some(i) => {
                    let mut bytes = piece.to_vec();
                    bytes[i as usize] ^= 1;
                    Bytes::from(bytes)
                }
                None => piece,
            }
        });
        future::ready(Some(piece))
    });
    pieces.boxed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{Memory, read_object};

    fn object(digest: Digest, len: u64) -> Object {
        Object::new(digest, len, Check::Whole)
    }

    fn registry() -> (Faulty, Digest, Vec<u8>) {
        let memory = Memory::new("mem");
        let bytes: Vec<u8> = (0..200_000u32).map(|i| (i % 251) as u8).collect();
        let digest = memory.insert(bytes.clone());
        (Faulty::new(Arc::new(memory)), digest, bytes)
    }

    #[tokio::test]
    async fn injected_faults_cut_bodies_at_the_given_offset() {
        let (r, d, bytes) = registry();
        let all = ObjectRange::new(0, 200_000);
        let whole = object(d, 200_000);
        let read = || read_object(&r, &whole, all);
        r.on(Call::Object(None), When::Nth(1), Fault::CutOff(70_000));
        r.on(Call::Object(Some(d)), When::Always, Fault::FlipBit(150_000));
        let flipped = read().await.unwrap();
        let wrong: Vec<_> = (0..bytes.len()).filter(|i| flipped[*i] != bytes[*i]).collect();
        assert_eq!(wrong, [150_000]);
        let error = read().await.unwrap_err();
        assert!(error.to_string().ends_with("cut off after 70000 of 200000 bytes"), "{error}");
        let before = ObjectRange::new(5, 150_000);
        let right = read_object(&r, &object(d, 200_000), before).await.unwrap();
        assert!(right == bytes[5..150_000], "the wrong byte was not asked for");
        r.heal();
        assert!(read().await.unwrap() == bytes);
    }

    #[tokio::test(start_paused = true)]
    async fn injected_stalls_delays_and_failures_happen_as_configured() {
        let (r, d, _) = registry();
        r.on(Call::Object(Some(d)), When::First(1), Fault::Stall(100_000));
        let mut body = r.read(&object(d, 200_000), ObjectRange::new(0, 200_000)).await.unwrap();
        let mut got = 0;
        let read = async {
            while let Some(piece) = body.next().await {
                got += piece.unwrap().len();
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(3600), read).await.is_err());
        assert_eq!(got, 100_000);
        let missing = RegistryError::Missing { what: "it".into() };
        r.on(Call::Document(None), When::First(2), Fault::Fail(missing));
        r.on(Call::Document(Some(d)), When::Nth(2), Fault::Delay(Duration::from_secs(9)));
        let start = tokio::time::Instant::now();
        let version = VersionId::new(d);
        for _ in 0..2 {
            assert!(matches!(r.manifest(&version).await, Err(RegistryError::Missing { .. })));
        }
        let error = r.manifest(&version).await.unwrap_err();
        assert!(matches!(error, RegistryError::Invalid { .. }), "no fault, but no manifest either");
        assert_eq!(start.elapsed().as_secs(), 9);
    }
}
