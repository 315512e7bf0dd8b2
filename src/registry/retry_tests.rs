//! Tests of `retry.rs`.

use proptest::prelude::*;

use super::super::{Call, Fault, Faulty, Memory, When};
use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn policy() -> RetryPolicy {
    RetryPolicy { base: SECOND, max: 8 * SECOND, attempts: 5 }
}

#[test]
fn pauses_double_up_to_the_longest() {
    let p = RetryPolicy { attempts: 100, ..policy() };
    let pauses: Vec<_> =
        (1..7).map(|n| p.delay(n, 1.0, None, 60 * SECOND).unwrap().as_secs_f64()).collect();
    assert_eq!(pauses, [1.0, 2.0, 4.0, 8.0, 8.0, 8.0]);
    assert_eq!(p.delay(2, 0.0, None, 60 * SECOND), Some(SECOND), "half, with no luck");
    assert_eq!(p.delay(99, 1.0, None, 60 * SECOND), Some(8 * SECOND), "no overflow");
}

#[test]
fn it_ends() {
    let p = policy();
    assert!(p.delay(4, 0.5, None, 60 * SECOND).is_some());
    assert_eq!(p.delay(5, 0.5, None, 60 * SECOND), None, "five have failed");
    assert_eq!(p.delay(1, 1.0, None, SECOND), None, "nothing would be left");
    assert_eq!(p.delay(1, 0.5, None, SECOND), Some(Duration::from_millis(750)));
}

#[test]
fn a_server_may_ask_for_patience() {
    let p = policy();
    assert_eq!(p.delay(1, 0.5, Some(30 * SECOND), 60 * SECOND), Some(30 * SECOND));
    assert_eq!(p.delay(3, 1.0, Some(SECOND), 60 * SECOND), Some(4 * SECOND), "more is fine");
    assert_eq!(p.delay(1, 0.5, Some(61 * SECOND), 60 * SECOND), None, "too long for us");
}

#[test]
fn random_numbers_are_in_range_and_differ() {
    let some: Vec<f64> = (0..100).map(|_| random()).collect();
    assert!(some.iter().all(|r| (0.0..1.0).contains(r)));
    assert!(some.windows(2).any(|w| w[0] != w[1]));
}

proptest! {
    #[test]
    fn pauses_are_within_bounds(
        failed in 1u32..200, random in 0.0f64..1.0, base in 1u64..5000, max in 1u64..60_000,
        after in proptest::option::of(0u64..100_000), left in 0u64..100_000, attempts in 1u32..200,
    ) {
        let ms = Duration::from_millis;
        let p = RetryPolicy { base: ms(base), max: ms(max), attempts };
        let after = after.map(ms);
        if let Some(pause) = p.delay(failed, random, after, ms(left)) {
            prop_assert!(pause < ms(left) && failed < attempts);
            prop_assert!(pause >= after.unwrap_or_default());
            prop_assert!(pause <= ms(max).max(after.unwrap_or_default()));
            prop_assert!(pause >= ms(base.min(max)) / 2);
        }
    }
}

fn faulty() -> (Arc<Faulty>, Arc<Memory>, Digest) {
    let memory = Arc::new(Memory::new("mem"));
    let digest = memory.insert(&b"bytes"[..]);
    memory.set_catalog(&b"{}"[..]);
    (Arc::new(Faulty::new(memory.clone())), memory, digest)
}

fn unreachable() -> RegistryError {
    RegistryError::Unreachable { what: "x".into(), why: "refused".into() }
}

fn busy(retry_after: u64) -> RegistryError {
    let retry_after = Some(Duration::from_secs(retry_after));
    RegistryError::Busy { what: "x".into(), status: 503, retry_after }
}

#[tokio::test(start_paused = true)]
async fn passing_trouble_is_waited_out() {
    let (faulty, _, digest) = faulty();
    let r = Retrying::new(faulty.clone(), policy(), DEADLINE);
    let range = ObjectRange::new(0, 5);
    for call in [Call::Catalog, Call::Document(None), Call::Object(None)] {
        faulty.on(call, When::Nth(0), Fault::Fail(busy(7)));
        faulty.on(call, When::Nth(1), Fault::Fail(unreachable()));
    }
    let start = Instant::now();
    r.catalog(&Validator::default()).await.unwrap();
    let took = start.elapsed();
    assert!(8 * SECOND <= took && took <= 9 * SECOND, "{took:?}: 7 s as asked and 1 to 2");
    assert_eq!(r.document(&digest, 5).await.unwrap(), &b"bytes"[..]);
    drop(r.object(&digest, 5, range).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn the_deadline_holds_whatever_happens() {
    let (faulty, _, digest) = faulty();
    let many = RetryPolicy { attempts: 1000, ..policy() };
    let r = Retrying::new(faulty.clone(), many, 20 * SECOND);
    faulty.on(Call::Document(None), When::Always, Fault::Fail(unreachable()));
    let start = Instant::now();
    assert_eq!(r.document(&digest, 5).await.unwrap_err().to_string(), "x: refused");
    assert!(start.elapsed() <= 20 * SECOND && start.elapsed() >= 11 * SECOND);
    // It fails, then hangs: what is told is what failed.
    faulty.heal();
    faulty.on(Call::Document(None), When::Nth(0), Fault::Fail(unreachable()));
    faulty.on(Call::Document(None), When::Always, Fault::Stall(0));
    let start = Instant::now();
    assert_eq!(r.document(&digest, 5).await.unwrap_err().to_string(), "x: refused");
    assert_eq!(start.elapsed().as_secs(), 20);
    faulty.heal();
    faulty.on(Call::Catalog, When::Always, Fault::Stall(0));
    let error = r.catalog(&Validator::default()).await.unwrap_err();
    assert_eq!(error.to_string(), "models.json: no answer within 20s");
}

#[tokio::test(start_paused = true)]
async fn wrong_bytes_are_asked_for_once_more_and_what_is_final_never() {
    let (faulty, memory, digest) = faulty();
    let r = Retrying::new(faulty.clone(), policy(), DEADLINE);
    faulty.on(Call::Document(None), When::First(1), Fault::FlipBit(0));
    r.document(&digest, 5).await.unwrap();
    memory.insert_as(digest, &b"forged"[..]);
    memory.reset_counts();
    faulty.heal();
    let error = r.document(&digest, 9).await.unwrap_err();
    assert!(matches!(error, RegistryError::WrongBytes { .. }), "{error}");
    assert_eq!(memory.counts().documents, 2);
    memory.remove(&digest);
    memory.reset_counts();
    let error = r.document(&digest, 9).await.unwrap_err();
    assert!(matches!(error, RegistryError::Missing { .. }), "{error}");
    assert_eq!(memory.counts().documents, 1);
}
