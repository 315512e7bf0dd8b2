//! Ranges of files of the Hub that are verified by proofs, against a storage service of our own that is
//! old, refuses and lies.

use futures_util::StreamExt;
use modelfs::base::ObjectRange;
use modelfs::model::{Check, Digest, HashAlgorithm, Locator, Object, Revision, VersionId};
use modelfs::registry::huggingface::{Environment, HuggingFace, Token};
use modelfs::registry::{HttpOptions, Registry, RegistryError, Retry};
use modelfs_test_support::{
    HUB_TOKEN, HubRepo, HubRequest, HubServer, XetFile, XetLie, XetPlaces, bytes,
};

const COMMIT: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const MIB: u64 = 1 << 20;

struct Rig {
    hub: HubServer,
    registry: HuggingFace,
    file: XetFile,
    object: Object,
}

fn rig(file: XetFile) -> Rig {
    let hub = HubServer::start();
    let commits = [(COMMIT.to_owned(), vec![])].into();
    hub.put("models/org/net", HubRepo { commits, ..HubRepo::default() });
    hub.put_xet("models/org/net", COMMIT, "w.bin", file.clone());
    let token = Token::new(HUB_TOKEN).unwrap();
    let environment = Environment { endpoint: Some(hub.url()), token, home: None };
    let registry = HuggingFace::with("hf://", &environment, &HttpOptions::default()).unwrap();
    let object = Object {
        digest: file.sha256,
        algorithm: HashAlgorithm::Sha256,
        locator: Locator::Path(format!("org/net/resolve/{COMMIT}/w.bin").into()),
        len: file.len(),
        check: Check::Proof { root: Digest::from_bytes(*file.hash.as_bytes()) },
    };
    Rig { hub, registry, file, object }
}

/// A file of random bytes, in xorbs of some 60 MiB.
fn random(len: u64) -> XetFile {
    XetFile::generated(11, len, XetPlaces::InOrder(900))
}

impl Rig {
    /// A range that covers this one, and its bytes.
    async fn read(&self, start: u64, end: u64) -> Result<(ObjectRange, Vec<u8>), RegistryError> {
        let asked = ObjectRange::new(start, end);
        let mut proven = self.registry.read_proven(&self.object, asked).await?;
        assert!(proven.range.contains(&asked));
        let mut out = Vec::new();
        while let Some(piece) = proven.bytes.next().await {
            out.extend_from_slice(&piece?);
        }
        Ok((proven.range, out))
    }

    /// Reads a range and compares its bytes.
    async fn good(&self, start: u64, end: u64) -> ObjectRange {
        let (range, got) = self.read(start, end).await.unwrap();
        assert!(got == self.file.bytes(range.start()..range.end()), "other bytes of {range}");
        range
    }

    /// What came since the last time, without logins.
    fn requests(&self) -> Vec<HubRequest> {
        let all = self.hub.requests().into_iter();
        all.filter(|r| !r.path.contains("/xet-read-token/")).collect()
    }
}

fn proofs(requests: &[HubRequest]) -> usize {
    requests.iter().filter(|r| r.path.contains("/file-chunk-hashes/")).count()
}

#[tokio::test]
async fn a_page_in_a_gibibyte_costs_three_requests_and_a_part_of_the_file() {
    let rig = rig(random(1 << 30));
    let part = (rig.file.len() / 2) / MIB * MIB;
    rig.good(part, part + MIB).await;
    let requests = rig.requests();
    assert_eq!(requests.len(), 3, "{requests:?}");
    let sent: u64 = requests.iter().map(|r| r.sent).sum();
    assert!((MIB..3 * MIB / 2).contains(&sent), "{sent}");
}

#[tokio::test]
async fn what_was_proved_once_saves_the_next_proofs() {
    let rig = rig(random(300 * MIB));
    let mut at = 0;
    while at < rig.file.len() {
        let end = (at + 8 * MIB).min(rig.file.len());
        rig.good(at, end).await;
        at = end;
    }
    let requests = rig.requests();
    let proofs = proofs(&requests);
    assert!((1..=8).contains(&proofs), "{proofs} proofs for 300 MiB");
    let again = rig.good(0, 8 * MIB).await;
    assert!(again.len() >= 8 * MIB);
    assert_eq!(self::proofs(&rig.requests()), 0, "all of it is known");
}

#[tokio::test]
async fn chunks_are_read_however_they_are_stored() {
    let zeros_and_text: Vec<u8> =
        (0..700_000u32).map(|i| if i % 3 == 0 { 0 } else { (i / 1000) as u8 }).collect();
    let files = [
        XetFile::new(bytes(3, 600_000), XetPlaces::InOrder(3), 0),
        XetFile::new(zeros_and_text.clone(), XetPlaces::InOrder(100), 1),
        XetFile::new(zeros_and_text.clone(), XetPlaces::InOrder(2), 2),
        XetFile::new(zeros_and_text, XetPlaces::Scattered, 2),
        XetFile::new(bytes(4, 1_000_000), XetPlaces::Scattered, 0),
        XetFile::new(bytes(5, 5000), XetPlaces::InOrder(100), 1),
    ];
    for file in files {
        let rig = rig(file);
        let len = rig.file.len();
        for lie in [None, Some(XetLie::OnlyVersion1)] {
            rig.hub.xet_lie(lie);
            for (start, end) in [(0, 1), (len / 2, len / 2 + 1), (len - 1, len), (0, len)] {
                rig.good(start, end).await;
            }
        }
    }
}

#[tokio::test]
async fn an_old_service_is_asked_in_the_new_way_once() {
    let rig = rig(random(20 * MIB));
    rig.hub.xet_lie(Some(XetLie::OnlyVersion1));
    for part in [0, 10] {
        rig.good(part * MIB, (part + 1) * MIB).await;
    }
    let paths: Vec<_> = rig.requests().into_iter().map(|r| r.path).collect();
    let new = paths.iter().filter(|p| p.contains("/v2/reconstructions/")).count();
    let old = paths.iter().filter(|p| p.contains("/v1/reconstructions/")).count();
    assert_eq!((new, old), (1, 2), "{paths:?}");
}

#[tokio::test]
async fn every_lie_ends_the_body_with_an_error_and_is_forgotten() {
    let rig = rig(random(40 * MIB));
    for lie in [
        XetLie::WrongByte,
        XetLie::OtherChunk,
        XetLie::ManySmallChunks,
        XetLie::Bomb,
        XetLie::Truncated,
        XetLie::OtherRange,
        XetLie::NoRange,
        XetLie::OtherNode,
        XetLie::OtherPlace,
        XetLie::OtherLength,
    ] {
        // A place of its own for each, so that its proof is needed.
        rig.hub.xet_lie(Some(lie));
        let place = rig.file.len() / 2;
        let Err(error) = rig.read(place, place + 1000).await else { panic!("{lie:?} is believed") };
        if matches!(lie, XetLie::WrongByte | XetLie::OtherChunk | XetLie::OtherNode) {
            assert!(matches!(error, RegistryError::WrongBytes { .. }), "{lie:?}: {error}");
            assert_eq!(error.retry(), Retry::Once);
        }
        let shown = error.to_string();
        assert!(!shown.contains("sig=") && !shown.contains("secret"), "{shown}");
        assert!(shown.contains("org/net/w.bin"), "{shown}");
    }
    rig.hub.xet_lie(None);
    rig.requests();
    rig.good(rig.file.len() / 2, rig.file.len() / 2 + 1000).await;
    assert_eq!(proofs(&rig.requests()), 1, "nothing was learned of a lie");
}

#[tokio::test]
async fn chunks_that_come_before_they_are_needed_are_held_up_to_the_length_of_the_terms() {
    // Chunks of zeros have 128 KiB and are stored in a few hundred bytes.
    let content = [bytes(6, 2 * MIB as usize), vec![0; 30 * MIB as usize]].concat();
    let rig = rig(XetFile::new(content, XetPlaces::InOrder(1000), 1));
    rig.hub.xet_lie(Some(XetLie::LastChunkFirst));
    let error = rig.read(0, 1000).await.unwrap_err();
    assert!(matches!(error, RegistryError::Invalid { .. }), "{error}");
    assert!(error.to_string().contains("longer than its terms said"), "{error}");
    rig.hub.xet_lie(None);
    rig.good(0, 1000).await;
}

#[tokio::test]
async fn wrong_bytes_below_known_nodes_are_refused() {
    let rig = rig(random(40 * MIB));
    rig.good(0, 8 * MIB).await;
    rig.requests();
    for lie in [XetLie::WrongByte, XetLie::OtherChunk] {
        rig.hub.xet_lie(Some(lie));
        let error = rig.read(8 * MIB, 12 * MIB).await.unwrap_err();
        assert!(matches!(error, RegistryError::WrongBytes { .. }), "{error}");
    }
    assert_eq!(proofs(&rig.requests()), 0, "they were known");
}

#[tokio::test]
async fn a_file_that_cannot_be_proved_is_asked_about_once() {
    for lie in [
        XetLie::NoProof(404),
        XetLie::NoProof(501),
        XetLie::NoProof(400),
        XetLie::HugeProof,
        XetLie::HugeWindow,
    ] {
        let rig = rig(random(70 * MIB));
        rig.hub.xet_lie(Some(lie));
        for _ in 0..2 {
            let error = rig.read(MIB, 2 * MIB).await.unwrap_err();
            assert!(matches!(error, RegistryError::Unproven { .. }), "{lie:?}: {error}");
            assert_eq!(error.retry(), Retry::Never);
        }
        assert_eq!(rig.requests().len(), 1, "{lie:?}");
    }
}

#[tokio::test]
async fn a_service_in_trouble_says_nothing_about_proofs() {
    let rig = rig(random(20 * MIB));
    for status in [500, 503, 429] {
        rig.hub.xet_lie(Some(XetLie::NoProof(status)));
        let error = rig.read(MIB, 2 * MIB).await.unwrap_err();
        assert!(error.is_transient(), "{status}: {error}");
    }
    rig.hub.xet_lie(None);
    rig.good(MIB, 2 * MIB).await;
}

#[tokio::test]
async fn each_server_gets_its_own_login_and_no_other() {
    let rig = rig(random(200 * MIB));
    rig.good(MIB, 2 * MIB).await;
    let requests = rig.hub.requests();
    let hub = format!("Bearer {HUB_TOKEN}");
    for r in &requests {
        let sent = r.authorization.as_deref();
        match (r.xet, r.cdn) {
            (true, _) => assert_eq!(sent, Some("Bearer xet_planted_secret_0"), "{r:?}"),
            (_, true) => assert_eq!(sent, None, "{r:?}"),
            _ => assert_eq!(sent, Some(&*hub), "{r:?}"),
        }
    }
    let logins = |all: &[HubRequest]| all.iter().filter(|r| r.path.contains("read-token")).count();
    assert_eq!((logins(&requests), requests.len()), (1, 4));
    rig.good(90 * MIB, 91 * MIB).await;
    assert_eq!(logins(&rig.hub.requests()), 0, "it is still valid");
    rig.hub.expire_xet(20);
    rig.good(180 * MIB, 181 * MIB).await;
    let requests = rig.hub.requests();
    let refused = requests.iter().filter(|r| r.xet).count();
    assert_eq!(refused, 3, "one was refused, and sent again: {requests:?}");
    assert!(logins(&requests) > 1, "a login that ends in 20 seconds is not used again");
}

#[tokio::test]
async fn a_signed_link_that_has_expired_is_replaced() {
    let rig = rig(random(20 * MIB));
    let mut proven = rig.registry.read_proven(&rig.object, ObjectRange::new(0, MIB)).await.unwrap();
    rig.hub.expire();
    let error = proven.bytes.next().await.unwrap().unwrap_err();
    assert!(error.is_transient(), "the next answer has a new link: {error}");
    rig.good(0, MIB).await;
}

#[tokio::test]
async fn a_range_past_the_end_is_refused() {
    let rig = rig(random(MIB));
    let len = rig.file.len();
    let error = rig.read(len - 1, len + 1).await.unwrap_err();
    assert!(matches!(error, RegistryError::Invalid { .. }), "{error}");
}

#[tokio::test]
async fn a_commit_that_was_seen_without_access_is_the_same_version_with_access() {
    let rig = rig(random(20 * MIB));
    rig.hub.change("models/org/net", |repo| repo.gated = true);
    let (model, commit) = ("org/net".parse().unwrap(), Revision::new(COMMIT));
    let masked = rig.registry.resolve(&model, &commit).await.unwrap();
    assert_eq!(masked.manifest.objects()[0].check, Check::Whole, "no Xet hash is shown");
    rig.hub.change("models/org/net", |repo| repo.gated = false);
    let version = VersionId::new(masked.manifest.hash());
    assert_eq!(rig.registry.manifest(&version).await.unwrap().document, masked.document);
    let shown = rig.registry.resolve(&model, &commit).await.unwrap();
    assert_eq!(shown.manifest.objects()[0].check, rig.object.check, "another version has it");
    let version = VersionId::new(shown.manifest.hash());
    assert_eq!(rig.registry.manifest(&version).await.unwrap().document, shown.document);
}

#[tokio::test]
async fn a_xet_hash_that_changes_for_a_file_of_a_commit_is_refused() {
    let rig = rig(random(20 * MIB));
    let (model, commit) = ("org/net".parse().unwrap(), Revision::new(COMMIT));
    let made = rig.registry.resolve(&model, &commit).await.unwrap();
    let mut other = XetFile::generated(12, 20 * MIB, XetPlaces::InOrder(900));
    other.sha256 = rig.file.sha256;
    assert_eq!(other.len(), rig.file.len());
    rig.hub.put_xet("models/org/net", COMMIT, "w.bin", other);
    let version = VersionId::new(made.manifest.hash());
    let error = rig.registry.manifest(&version).await.unwrap_err();
    assert!(matches!(error, RegistryError::WrongBytes { .. }), "{error}");
}
