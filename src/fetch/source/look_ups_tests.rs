//! What a registry said counts for a time and is kept. Plain values.

use super::*;

const TTL: Duration = Duration::from_secs(60);

fn model() -> ModelRef {
    ModelRef { group: name("org"), model: name("net") }
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn version(text: &str, target: VersionTarget) -> VersionEntry {
    let (alias_of, published, metadata) = (None, None, None);
    VersionEntry { name: name(text), target, alias_of, published, metadata }
}

fn commit(text: &str) -> VersionTarget {
    VersionTarget::Revision(Revision::new(text))
}

fn answer(versions: Vec<VersionEntry>) -> Versions {
    Versions::Changed { versions, validator: Validator::default() }
}

fn manifest(byte: u8) -> Digest {
    Digest::from_bytes([byte; 32])
}

#[test]
fn an_answer_counts_for_the_time_to_live_and_a_missing_model_for_less() {
    let (known, now) = (LookUps::new(TTL), Instant::now());
    assert_eq!(known.knowledge(&model(), now), Knowledge::Ask { had: false });
    assert!(!known.answered(&model(), answer(vec![]), now));
    assert_eq!(known.knowledge(&model(), now), Knowledge::Answered { has: false });
    let later = now + MISSING_FOR;
    assert_eq!(known.knowledge(&model(), later), Knowledge::Ask { had: false });
    assert!(known.answered(&model(), answer(vec![version("main", commit("c1"))]), later));
    let almost = later + TTL - Duration::from_secs(1);
    assert_eq!(known.knowledge(&model(), almost), Knowledge::Answered { has: true });
    assert_eq!(known.knowledge(&model(), later + TTL), Knowledge::Ask { had: true });
    known.answered(&model(), Versions::Unchanged, later + TTL);
    assert_eq!(known.knowledge(&model(), later + TTL), Knowledge::Answered { has: true });
}

#[test]
fn a_failed_request_leaves_what_was_known() {
    let (known, now) = (LookUps::new(TTL), Instant::now());
    known.answered(&model(), answer(vec![version("main", commit("c1"))]), now);
    known.failed(&model(), "refused".into(), now + TTL);
    let failed = Knowledge::Failed { had: true, why: "refused".into() };
    assert_eq!(known.knowledge(&model(), now + TTL), failed);
    let after = now + TTL + FAILED_FOR;
    assert_eq!(known.knowledge(&model(), after), Knowledge::Ask { had: true });
    assert_eq!(known.catalog().len(), 1);
}

#[test]
fn a_revision_is_resolved_once_and_a_moved_name_again() {
    let (known, now) = (LookUps::new(TTL), Instant::now());
    let target = |at| known.version(&model(), &name("main"), at);
    known.answered(&model(), answer(vec![version("main", commit("c1"))]), now);
    assert_eq!(target(now), VersionKnowledge::Known(commit("c1")));
    known.resolved(&model(), &Revision::new("c1"), manifest(1));
    let resolved = VersionKnowledge::Known(VersionTarget::Manifest(manifest(1)));
    assert_eq!(target(now), resolved);
    assert_eq!(known.catalog().version("org", "net", "main").unwrap().hash(), Some(manifest(1)));
    known.answered(&model(), answer(vec![version("main", commit("c2"))]), now);
    assert_eq!(target(now), VersionKnowledge::Known(commit("c2")));
    known.answered(&model(), answer(vec![version("main", commit("c1"))]), now);
    assert_eq!(target(now), resolved, "the manifest of a revision is kept");
}

#[test]
fn a_tag_is_asked_by_name_and_again_after_the_time_to_live() {
    let (known, now) = (LookUps::new(TTL), Instant::now());
    let target = |at| known.version(&model(), &name("v1"), at);
    let tags = || answer(vec![version("v1", VersionTarget::Unknown)]);
    known.answered(&model(), tags(), now);
    assert_eq!(target(now), VersionKnowledge::Ask(None));
    let found = Some(version("v1", commit("sha256:a")));
    known.version_answered(&model(), &name("v1"), found, now);
    assert_eq!(target(now), VersionKnowledge::Known(commit("sha256:a")));
    known.answered(&model(), tags(), now + TTL);
    let ask = VersionKnowledge::Ask(Some(commit("sha256:a")));
    assert_eq!(target(now + TTL), ask, "a list of tags does not say where they lead");
    known.version_failed(&model(), &name("v1"), now + TTL);
    assert_eq!(target(now + TTL), VersionKnowledge::Known(commit("sha256:a")));
    assert_eq!(target(now + TTL + FAILED_FOR), ask);
}

#[test]
fn a_version_that_the_registry_lacks_is_missing_for_a_moment() {
    let (known, now) = (LookUps::new(TTL), Instant::now());
    let target = |at| known.version(&model(), &name("none"), at);
    assert_eq!(target(now), VersionKnowledge::Ask(None));
    known.version_answered(&model(), &name("none"), None, now);
    assert_eq!(target(now), VersionKnowledge::Missing);
    assert_eq!(target(now + MISSING_FOR), VersionKnowledge::Ask(None));
}

#[test]
fn what_was_looked_up_is_read_back_from_its_document() {
    let (known, now) = (LookUps::new(TTL), Instant::now());
    let listed = vec![version("main", commit("c1")), version("old", VersionTarget::Unknown)];
    known.answered(&model(), answer(listed), now);
    known.version_answered(&model(), &name("c9"), Some(version("c9", commit("c9"))), now);
    known.resolved(&model(), &Revision::new("c9"), manifest(9));
    let document = known.document();
    let again = read(&document).unwrap();
    assert_eq!(again.catalog(), known.catalog());
    assert_eq!(again.document(), document);
    let target = again.version(&model(), &name("c9"), now);
    let kept = VersionTarget::Manifest(manifest(9));
    assert_eq!(target, VersionKnowledge::Known(kept), "a name that is its revision never moves");
    assert_eq!(again.knowledge(&model(), now), Knowledge::Ask { had: true });
    assert!(read(b"{\"models\":{}}").is_none() && read(b"").is_none());
}

#[test]
fn an_expired_model_is_reported_once() {
    let (known, now) = (LookUps::new(TTL), Instant::now());
    known.answered(&model(), answer(vec![version("main", commit("c1"))]), now);
    assert!(known.take_expired(now).is_empty());
    assert_eq!(known.take_expired(now + TTL), [model()]);
    assert!(known.take_expired(now + TTL).is_empty());
    known.answered(&model(), Versions::Unchanged, now + TTL);
    assert_eq!(known.take_expired(now + TTL + TTL), [model()]);
}

#[test]
fn a_configured_model_is_shown_until_the_registry_says_that_it_lacks_it() {
    let (known, now) = (LookUps::new(TTL), Instant::now());
    known.show(&model(), None);
    assert_eq!(known.catalog().versions("org", "net").map(<[_]>::len), Some(0));
    assert_eq!(known.knowledge(&model(), now), Knowledge::Ask { had: false });
    known.failed(&model(), "refused".into(), now);
    assert!(known.catalog().versions("org", "net").is_some(), "an outage hides nothing");
    assert!(known.answered(&model(), answer(vec![]), now), "what is shown has changed");
    assert_eq!(known.catalog().versions("org", "net"), None);
}

#[test]
fn a_configured_version_is_shown_and_looked_up_when_it_is_used() {
    let (known, now) = (LookUps::new(TTL), Instant::now());
    known.show(&model(), Some(name("v1")));
    let shown = known.catalog();
    assert_eq!(shown.version("org", "net", "v1").map(|v| &v.target), Some(&VersionTarget::Unknown));
    assert_eq!(known.version(&model(), &name("v1"), now), VersionKnowledge::Ask(None));
}

#[test]
fn what_an_earlier_run_knew_of_a_configured_model_is_kept() {
    let (before, now) = (LookUps::new(TTL), Instant::now());
    before.answered(&model(), answer(vec![version("main", commit("c1"))]), now);
    before.resolved(&model(), &Revision::new("c1"), manifest(1));
    let known = LookUps::new(TTL);
    known.show(&model(), Some(name("v1")));
    known.recall(&before.document()).unwrap();
    let hash = known.catalog().version("org", "net", "main").and_then(VersionEntry::hash);
    assert_eq!(hash, Some(manifest(1)));
    assert!(known.catalog().version("org", "net", "v1").is_some());
}
