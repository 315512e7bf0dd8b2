//! Tests of `retrying.rs`.

use tokio::time::Instant;

use super::*;
use crate::model::Check;
use crate::registry::{Call, Fault, Faulty, Memory, When, read_object};

const SECOND: Duration = Duration::from_secs(1);
/// A version without files.
const MANIFEST: &[u8] = br#"{"total_size":0,"chunk_size":1,"chunks":[],"files":[]}"#;

fn policy() -> RetryPolicy {
    RetryPolicy { base: SECOND, max: 8 * SECOND, attempts: 5 }
}

fn faulty() -> (Arc<Faulty>, Arc<Memory>, VersionId) {
    let memory = Arc::new(Memory::new("mem"));
    let version = VersionId::new(memory.insert(MANIFEST));
    memory.set_catalog(&b"{}"[..]);
    (Arc::new(Faulty::new(memory.clone())), memory, version)
}

fn unreachable() -> RegistryError {
    RegistryError::Unreachable { what: "x".into(), why: "refused".into() }
}

fn busy(retry_after: u64) -> RegistryError {
    let retry_after = Some(Duration::from_secs(retry_after));
    RegistryError::Busy { what: "x".into(), status: 503, retry_after }
}

#[tokio::test(start_paused = true)]
async fn transient_errors_are_retried() {
    let (faulty, _, version) = faulty();
    let r = Retrying::new(faulty.clone(), policy(), DEADLINE);
    for call in [Call::Catalog, Call::Document(None)] {
        faulty.on(call, When::Nth(0), Fault::Fail(busy(7)));
        faulty.on(call, When::Nth(1), Fault::Fail(unreachable()));
    }
    let start = Instant::now();
    r.list(&Validator::default()).await.unwrap();
    let took = start.elapsed();
    assert!(8 * SECOND <= took && took <= 9 * SECOND, "{took:?}: 7 s as asked and 1 to 2");
    assert_eq!(r.manifest(&version).await.unwrap().document, MANIFEST);
    // The catalog again: a registry that lists everything looks up in its list.
    faulty.on(Call::Catalog, When::Nth(0), Fault::Fail(unreachable()));
    r.lookup(&"g/m".parse().unwrap(), &Validator::default()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_deadline_holds_whatever_happens() {
    let (faulty, _, version) = faulty();
    let many = RetryPolicy { attempts: 1000, ..policy() };
    let r = Retrying::new(faulty.clone(), many, 20 * SECOND);
    faulty.on(Call::Document(None), When::Always, Fault::Fail(unreachable()));
    let start = Instant::now();
    assert_eq!(r.manifest(&version).await.unwrap_err().to_string(), "x: refused");
    assert!(start.elapsed() <= 20 * SECOND && start.elapsed() >= 11 * SECOND);
    // It fails, then hangs: what is told is what failed.
    faulty.heal();
    faulty.on(Call::Document(None), When::Nth(0), Fault::Fail(unreachable()));
    faulty.on(Call::Document(None), When::Always, Fault::Stall(0));
    let start = Instant::now();
    assert_eq!(r.manifest(&version).await.unwrap_err().to_string(), "x: refused");
    assert_eq!(start.elapsed().as_secs(), 20);
    faulty.heal();
    faulty.on(Call::Catalog, When::Always, Fault::Stall(0));
    let error = r.list(&Validator::default()).await.unwrap_err();
    assert_eq!(error.to_string(), "the catalog: no answer within 20s");
}

#[tokio::test(start_paused = true)]
async fn wrong_bytes_are_requested_once_more_and_final_errors_never() {
    let (faulty, memory, version) = faulty();
    let r = Retrying::new(faulty.clone(), policy(), DEADLINE);
    faulty.on(Call::Document(None), When::First(1), Fault::FlipBit(0));
    r.manifest(&version).await.unwrap();
    memory.insert_as(version.digest(), &b"forged"[..]);
    memory.reset_counts();
    faulty.heal();
    let error = r.manifest(&version).await.unwrap_err();
    assert!(matches!(error, RegistryError::WrongBytes { .. }), "{error}");
    assert_eq!(memory.counts().documents, 2);
    memory.remove(&version.digest());
    memory.reset_counts();
    let error = r.manifest(&version).await.unwrap_err();
    assert!(matches!(error, RegistryError::Missing { .. }), "{error}");
    assert_eq!(memory.counts().documents, 1);
}

#[tokio::test(start_paused = true)]
async fn object_reads_are_not_retried_by_the_document_layer() {
    let (faulty, memory, _) = faulty();
    let r = Retrying::new(faulty.clone(), policy(), DEADLINE);
    let object = Object::new(memory.insert(&b"bytes"[..]), 5, Check::Whole);
    faulty.on(Call::Object(None), When::Nth(0), Fault::Fail(unreachable()));
    let range = ObjectRange::new(0, 5);
    assert!(read_object(&r, &object, range).await.is_err());
    assert_eq!(read_object(&r, &object, range).await.unwrap(), b"bytes");
}
