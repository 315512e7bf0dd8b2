//! Files of the Hub whose ranges are proved, from the registry to the store: what is kept, what is refused,
//! and what the digest of the whole decides.

use std::sync::Arc;
use std::time::{Duration, Instant};

use modelfs::base::FileRange;
use modelfs::fetch::{
    CachedFile, FetchError, FetchOptions, Fetcher, FileReader, Readers, Source, Sources,
};
use modelfs::model::hash::sha256;
use modelfs::model::{Check, ContentKey, FileIx, Manifest, Revision, SourceName};
use modelfs::registry::huggingface::{Environment, HuggingFace};
use modelfs::registry::{HttpOptions, Registry, RegistryError};
use modelfs::store::{Store, StoreOptions};
use modelfs_test_support::{HubRepo, HubRequest, HubServer, XetFile, XetLie, XetPlaces};

const COMMIT: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const MIB: u64 = 1 << 20;

struct Rig {
    hub: HubServer,
    fetcher: Arc<Fetcher>,
    manifest: Arc<Manifest>,
    file: XetFile,
    _cache: tempfile::TempDir,
}

async fn rig(file: XetFile) -> Rig {
    let hub = HubServer::start();
    let commits = [(COMMIT.to_owned(), vec![])].into();
    hub.put("models/org/net", HubRepo { commits, ..HubRepo::default() });
    hub.put_xet("models/org/net", COMMIT, "w.bin", file.clone());
    let environment = Environment { endpoint: Some(hub.url()), ..Environment::default() };
    let registry = HuggingFace::with("hf://", &environment, &HttpOptions::default()).unwrap();
    let model = "org/net".parse().unwrap();
    let made = registry.resolve(&model, &Revision::new(COMMIT)).await.unwrap();
    let cache = tempfile::tempdir().unwrap();
    let options =
        FetchOptions { read_deadline: Duration::from_secs(10), ..FetchOptions::default() };
    let store = Store::open(StoreOptions::at(cache.path())).unwrap();
    let name = SourceName::of_address("hf://");
    let source = Source::new(name, Some(Arc::new(registry)), store.clone(), &options);
    let fetcher = Fetcher::new(Arc::new(Sources::one(Arc::new(source))), store, options);
    hub.requests();
    Rig { hub, fetcher, manifest: Arc::new(made.manifest), file, _cache: cache }
}

fn random(len: u64) -> XetFile {
    XetFile::generated(5, len, XetPlaces::InOrder(900))
}

impl Rig {
    fn open(&self) -> Result<Arc<CachedFile>, FetchError> {
        self.fetcher.file(self.fetcher.sources().first(), &self.manifest, FileIx(0))
    }

    fn reader(&self) -> Arc<FileReader> {
        self.fetcher.reader(&self.open().unwrap(), Readers::OfOneHandle, Arc::new(|_, _| ()))
    }

    async fn read(&self, at: u64, len: u64) -> Result<Vec<u8>, FetchError> {
        Ok(self.reader().read(FileRange::at(at, len)).await?.to_vec())
    }

    async fn good(&self, at: u64, len: u64) {
        let got = self.read(at, len).await.unwrap();
        assert!(got == self.file.bytes(at..at + len), "other bytes at {at}");
    }

    fn key(&self) -> ContentKey {
        self.manifest.layout(FileIx(0)).key()
    }

    fn cached(&self) -> u64 {
        self.fetcher.store().presence(&self.key()).0.0
    }

    fn compared(&self) -> Option<bool> {
        self.fetcher.store().whole_check(&self.key()).unwrap()
    }

    async fn read_all(&self) {
        let reader = self.reader();
        let mut at = 0;
        while at < self.file.len() {
            let range = FileRange::at(at, MIB.min(self.file.len() - at));
            let got = reader.read(range).await.unwrap();
            assert!(got == self.file.bytes(range.start()..range.end()), "other bytes at {at}");
            at = range.end();
        }
    }

    /// Waits until nothing is under way.
    async fn idle(&self) {
        until(|| self.fetcher.in_flight().flights == 0).await;
    }
}

async fn until(mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(30), "it never happens");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn sent(requests: &[HubRequest]) -> u64 {
    requests.iter().map(|r| r.sent).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_read_without_the_rest_of_the_file() {
    let rig = rig(random(200 * MIB)).await;
    let Check::Proof { .. } = rig.manifest.objects()[0].check else { panic!("it has a Xet hash") };
    let middle = rig.file.len() / 2;
    rig.good(middle, 4096).await;
    rig.idle().await;
    let requests = rig.hub.requests();
    assert_eq!(requests.len(), 4, "a login and three more: {requests:?}");
    assert!(sent(&requests) < 3 * MIB / 2, "{}", sent(&requests));
    assert!((MIB..2 * MIB).contains(&rig.cached()), "{}", rig.cached());
    rig.good(middle, 4096).await;
    assert!(rig.hub.requests().is_empty(), "it is in the cache");
    assert_eq!(rig.compared(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_read_to_its_end_is_compared_with_its_sha256_once() {
    let rig = rig(random(100 * MIB)).await;
    rig.read_all().await;
    until(|| rig.compared().is_some()).await;
    assert_eq!(rig.compared(), Some(true));
    assert_eq!(rig.cached(), rig.file.len());
    let requests = rig.hub.requests();
    let proofs = requests.iter().filter(|r| r.path.contains("file-chunk-hashes")).count();
    assert!(proofs <= 8, "{proofs} proofs for 100 MiB");
    let most = rig.file.len() + rig.file.len() / 2;
    assert!(sent(&requests) < most, "{} of {}", sent(&requests), rig.file.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_lie_is_an_error_and_leaves_nothing_in_the_store() {
    let rig = rig(random(40 * MIB)).await;
    for lie in [
        XetLie::WrongByte,
        XetLie::OtherChunk,
        XetLie::OtherNode,
        XetLie::OtherPlace,
        XetLie::OtherLength,
        XetLie::OtherRange,
        XetLie::ManySmallChunks,
        XetLie::Bomb,
        XetLie::NoRange,
    ] {
        rig.hub.xet_lie(Some(lie));
        let error = rig.read(20 * MIB, 4096).await.expect_err("a lie");
        let FetchError::Registry(why) = &error else { panic!("{lie:?}: {error}") };
        let wrong = matches!(why, RegistryError::WrongBytes { .. } | RegistryError::Invalid { .. });
        assert!(wrong, "{lie:?}: {error}");
        rig.idle().await;
        assert_eq!(rig.cached(), 0, "{lie:?}");
    }
    rig.hub.xet_lie(None);
    rig.good(20 * MIB, 4096).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_without_proofs_is_fetched_and_verified_as_a_whole() {
    for lie in [XetLie::NoProof(404), XetLie::HugeProof] {
        let rig = rig(random(20 * MIB)).await;
        rig.hub.xet_lie(Some(lie));
        rig.good(MIB, 4096).await;
        assert_eq!((rig.cached(), rig.compared()), (rig.file.len(), Some(true)), "{lie:?}");
        assert!(rig.hub.requests().iter().any(|r| r.path.contains("/resolve/")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_that_is_too_large_leads_to_the_whole_after_parts_were_proved() {
    let rig = rig(random(80 * MIB)).await;
    rig.good(0, 4096).await;
    rig.idle().await;
    assert!(rig.cached() > 0);
    rig.hub.xet_lie(Some(XetLie::HugeWindow));
    rig.good(60 * MIB, 4096).await;
    assert_eq!((rig.cached(), rig.compared()), (rig.file.len(), Some(true)));
    rig.good(0, 4096).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_xet_hash_of_another_file_is_found_out_when_the_whole_is_here() {
    let mut file = random(20 * MIB);
    file.sha256 = sha256(b"what the commit binds");
    let rig = rig(file).await;
    rig.good(0, 4096).await;
    assert_eq!(rig.compared(), None, "so far it is what the Hub asserts");
    rig.read_all().await;
    until(|| rig.compared() == Some(false)).await;
    until(|| rig.cached() == 0).await;
    let Err(error) = rig.open() else { panic!("it is another file") };
    assert!(matches!(error, FetchError::Corrupt { .. }), "{error}");
}
