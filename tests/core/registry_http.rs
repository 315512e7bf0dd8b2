//! Registries over HTTP: that they do what registries in folders do, and what becomes of a server's
//! every misbehaviour.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use modelfs::base::{FileRange, ObjectRange};
use modelfs::fetch::{FetchOptions, Fetcher, Readers, Source, Sources};
use modelfs::model::hash::sha256;
use modelfs::model::{Check, Digest, FileIx, Manifest, Object, SourceName, VersionId};
use modelfs::registry::transport::{Address, Folder, Http, MemoryTransport, Timeouts, Transport};
use modelfs::registry::xprim::{CATALOG, Xprim};
use modelfs::registry::{
    HttpOptions, Listing, NoLogin, Registry, RegistryError, RetryPolicy, Retrying, Validator, open,
    read_catalog, read_manifest, read_object,
};
use modelfs::store::{Store, StoreOptions};
use modelfs_test_support::{Fault, Line, ModelDir, Server, ShapedProxy, TestRegistry, When, bytes};

const LEN: u64 = 300_000;

/// A registry with one object of `LEN` bytes beside a published model.
struct Setup {
    server: Server,
    registry: TestRegistry,
    model: ModelDir,
    data: Vec<u8>,
    object: Digest,
}

fn setup() -> Setup {
    let (registry, model) = (TestRegistry::new(), ModelDir::language_model(400_000));
    registry.publish("org/net@v1", &model, 65_536);
    let data = bytes(42, LEN as usize);
    let object = sha256(&data);
    std::fs::write(registry.path().join(format!("data/{object}")), &data).unwrap();
    Setup { server: Server::start(registry.path()), registry, model, data, object }
}

fn object(digest: &Digest, len: u64) -> Object {
    Object::new(*digest, len, Check::Whole)
}

/// The registry of that name, without layers around it.
fn plain(name: &str, timeouts: Timeouts) -> Xprim {
    let http = HttpOptions { timeouts, ..HttpOptions::default() };
    let transport: Arc<dyn Transport> = match Address::parse(name).unwrap() {
        Address::Http(url) => Arc::new(Http::new(&url, Arc::new(NoLogin), &http).unwrap()),
        Address::Folder(path) => Arc::new(Folder::new(&path, CATALOG, timeouts.stall).unwrap()),
    };
    Xprim::new(transport)
}

/// The files of a registry's folder, in memory.
fn in_memory(folder: &Path) -> (Arc<MemoryTransport>, Xprim) {
    let files = Arc::new(MemoryTransport::new("memory"));
    files.put(CATALOG.into(), std::fs::read(folder.join(CATALOG)).unwrap().into());
    for entry in std::fs::read_dir(folder.join("data")).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("data/{}", path.file_name().unwrap().to_str().unwrap());
        files.put(name, std::fs::read(path).unwrap().into());
    }
    (files.clone(), Xprim::new(files))
}

impl Setup {
    fn http(&self) -> Xprim {
        let stall = Duration::from_millis(300);
        plain(&self.server.url(), Timeouts { connect: Duration::from_secs(5), stall })
    }

    fn version(&self) -> VersionId {
        let catalog = std::fs::read(self.registry.path().join(CATALOG)).unwrap();
        let catalog = read_catalog(&catalog).unwrap();
        VersionId::new(catalog.version("org", "net", "v1").unwrap().hash().unwrap())
    }

    fn once(&self, fault: Fault) {
        self.server.heal();
        self.server.on("", When::Always, fault);
    }

    async fn read(&self, from: u64, to: u64) -> Result<Vec<u8>, RegistryError> {
        read_object(&self.http(), &object(&self.object, LEN), ObjectRange::new(from, to)).await
    }
}

#[track_caller]
fn unreachable<T>(result: Result<T, RegistryError>, why: &str) {
    let error = result.err().expect("an error");
    assert!(matches!(error, RegistryError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains(why), "{error}");
    assert!(!error.to_string().contains('\n'), "{error}");
}

#[track_caller]
fn invalid<T>(result: Result<T, RegistryError>, why: &str) {
    let error = result.err().expect("an error");
    assert!(matches!(error, RegistryError::Invalid { .. }), "{error}");
    assert!(error.to_string().contains(why), "{error}");
}

async fn manifest(r: &dyn Registry) -> Manifest {
    let answer = r.list(&Validator::default()).await.unwrap();
    let Listing::Changed { catalog, document, validator } = answer else {
        panic!("nothing was known")
    };
    assert_eq!(read_catalog(&document).unwrap(), catalog);
    assert!(matches!(r.list(&validator).await, Ok(Listing::Unchanged)));
    let hash = catalog.find(&"org/net@v1".parse().unwrap()).unwrap().hash().unwrap();
    let version = VersionId::new(hash);
    let found = r.manifest(&version).await.unwrap();
    assert_eq!(read_manifest(version, &found.document).unwrap(), found.manifest);
    found.manifest
}

/// What every kind of registry does.
async fn same_behaviour(s: &Setup, r: &Xprim) {
    let m = manifest(r).await;
    for (i, file) in m.files().iter().enumerate() {
        let mut got = Vec::new();
        for slice in m.slices(FileIx(i as u32)) {
            let o = m.object(slice.object);
            got.extend(read_object(r, o, slice.range).await.unwrap());
        }
        assert!(got == s.model.bytes(file.path.as_str()), "{}", file.path);
    }
    for (from, to) in [(0, LEN), (0, 1), (1, 70_000), (LEN - 1, LEN), (5, 5), (0, 0), (LEN, LEN)] {
        let got =
            read_object(r, &object(&s.object, LEN), ObjectRange::new(from, to)).await.unwrap();
        assert!(got == s.data[from as usize..to as usize], "{from}..{to}");
    }
    let part = ObjectRange::new(0, 10);
    let gone = sha256(b"gone");
    let missing = r.read(&object(&gone, LEN), part).await.err().unwrap();
    assert!(matches!(missing, RegistryError::Missing { .. }), "{missing}");
    let missing = r.document(&gone, 10).await.unwrap_err();
    assert!(matches!(missing, RegistryError::Missing { .. }), "{missing}");
    invalid(r.read(&object(&s.object, LEN - 1), part).await, "");
    invalid(r.read(&object(&s.object, LEN + 1), part).await, "");
    invalid(r.read(&object(&s.object, LEN + 1), ObjectRange::new(0, LEN + 1)).await, "");
    invalid(r.read(&object(&s.object, LEN), ObjectRange::new(0, LEN + 1)).await, "past the end");
    invalid(r.document(&s.object, LEN - 1).await, "more than 299999 bytes");
    assert!(r.document(&s.object, LEN).await.unwrap() == s.data);
}

#[tokio::test]
async fn every_kind_of_registry_does_the_same() {
    let s = setup();
    let folder = s.registry.path().to_str().unwrap();
    for name in [s.server.url(), s.server.url() + "/", folder.into(), format!("file://{folder}")] {
        same_behaviour(&s, &plain(&name, Timeouts::default())).await;
        assert_eq!(manifest(&*open(&name).unwrap()).await.hash(), s.version().digest());
    }
    same_behaviour(&s, &in_memory(s.registry.path()).1).await;
    // A server that knows nothing of ranges or lengths is slower, and that is all.
    s.once(Fault::IgnoreRange);
    s.server.on("", When::Always, Fault::Drip(33_333, Duration::ZERO));
    for (from, to) in [(0, LEN), (1, 70_000), (LEN - 1, LEN)] {
        assert!(s.read(from, to).await.unwrap() == s.data[from as usize..to as usize]);
    }
    s.server.on("", When::Always, Fault::Chunked);
    for (from, to) in [(0, LEN), (1, 70_000), (LEN - 1, LEN)] {
        assert!(s.read(from, to).await.unwrap() == s.data[from as usize..to as usize]);
    }
}

#[tokio::test]
async fn a_forged_document_is_wrong_bytes_everywhere() {
    let s = setup();
    let forged = sha256(b"the real one");
    std::fs::write(s.registry.path().join(format!("data/{forged}")), "forged").unwrap();
    let folder = plain(s.registry.path().to_str().unwrap(), Timeouts::default());
    for r in [s.http(), folder, in_memory(s.registry.path()).1] {
        let error = r.document(&forged, 100).await.unwrap_err();
        assert!(matches!(error, RegistryError::WrongBytes { .. }), "{error}");
        let error = r.manifest(&VersionId::new(forged)).await.unwrap_err();
        assert!(matches!(error, RegistryError::WrongBytes { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_truncated_body_is_an_error() {
    let s = setup();
    s.once(Fault::Truncate(100_000));
    unreachable(s.read(0, LEN).await, "cut off after 100000 of 300000 bytes");
    unreachable(s.read(10, 200_010).await, "cut off after 100000 of 200000 bytes");
    unreachable(s.http().document(&s.object, LEN).await, "cut off after 100000 of 300000");
    s.server.on("", When::Always, Fault::Chunked);
    unreachable(s.read(0, LEN).await, "cut off after 100000 of 300000 bytes");
    s.once(Fault::IgnoreRange);
    s.server.on("", When::Always, Fault::Reset(100_000));
    unreachable(s.read(50_000, 150_000).await, "cut off after 50000 of 100000 bytes");
    assert!(s.read(50_000, 90_000).await.unwrap() == s.data[50_000..90_000], "all there before");
    s.once(Fault::Short(100_000));
    unreachable(s.read(0, LEN).await, "cut off after 100000 of 300000 bytes");
    unreachable(s.read(10, 200_010).await, "cut off after 100000 of 200000 bytes");
    s.once(Fault::Gone);
    unreachable(s.read(0, 9).await, "bytes 0-8: ");
}

#[tokio::test]
async fn a_silent_server_is_not_waited_for() {
    let s = setup();
    let start = Instant::now();
    s.once(Fault::Stall(100_000));
    unreachable(s.read(0, LEN).await, "cut off after 100000 of 300000 bytes: no more came");
    unreachable(s.http().document(&s.object, LEN).await, "no more came");
    s.once(Fault::Delay(Duration::from_secs(60)));
    unreachable(s.read(0, LEN).await, "timed out");
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    // Slow is not silent: 30 pauses that together are longer than the limit.
    s.once(Fault::Drip(10_000, Duration::from_millis(30)));
    assert!(s.read(0, LEN).await.unwrap() == s.data);
}

#[tokio::test]
async fn answers_to_other_questions_are_invalid() {
    let s = setup();
    for wrong in ["bytes 0-8/300000", "bytes 1-10/300000", "bytes 0-9/300001", "0-9", ""] {
        s.once(Fault::WrongContentRange(wrong.into()));
        invalid(s.read(0, 10).await, "Content-Range");
    }
    s.once(Fault::ExtraBytes(1));
    invalid(s.read(0, 100_000).await, "more bytes than were asked for");
    invalid(s.read(0, LEN).await, "more bytes than were asked for");
    s.once(Fault::WrongContentLength(LEN + 1));
    invalid(s.read(0, LEN).await, "Content-Length 300001 instead of 300000");
    invalid(s.read(0, 10).await, "Content-Length");
    invalid(s.http().document(&s.object, LEN).await, "more than 300000 bytes");
    s.once(Fault::Encoding("gzip".into()));
    invalid(s.read(0, 10).await, "Content-Encoding");
    invalid(s.http().document(&s.object, LEN).await, "Content-Encoding");
    invalid(s.http().list(&Validator::default()).await, "Content-Encoding");
    s.once(Fault::Status(304, None));
    invalid(s.http().list(&Validator::default()).await, "unexpected status 304");
    s.once(Fault::Status(204, None));
    invalid(s.http().document(&s.object, LEN).await, "unexpected status 204");
    s.once(Fault::Status(416, None));
    invalid(s.read(0, 10).await, "no such range");
    // Too long without saying so beforehand.
    s.once(Fault::Chunked);
    invalid(s.http().document(&s.object, LEN - 1).await, "more than 299999 bytes");
}

#[tokio::test]
async fn a_flipped_bit_is_noticed_where_there_is_a_digest() {
    let s = setup();
    s.once(Fault::FlipBit(LEN - 1));
    let error = s.http().document(&s.object, LEN).await.unwrap_err();
    assert!(matches!(error, RegistryError::WrongBytes { .. }), "{error}");
    assert!(s.read(0, LEN).await.unwrap() != s.data, "objects are verified above");
}

#[tokio::test]
async fn statuses_say_what_they_say() {
    let s = setup();
    for (status, after, wait) in
        [(503, None, None), (429, Some("3"), Some(3)), (500, Some("x"), None)]
    {
        s.once(Fault::Status(status, after.map(str::to_owned)));
        match s.read(0, 10).await {
            Err(RegistryError::Busy { status: got, retry_after, .. }) => {
                assert_eq!((got, retry_after), (status, wait.map(Duration::from_secs)));
            }
            other => panic!("{other:?}"),
        }
    }
    for status in [401, 403, 418] {
        s.once(Fault::Status(status, None));
        let error = s.http().list(&Validator::default()).await.err().unwrap();
        assert!(matches!(error, RegistryError::Refused { status: got, .. } if got == status));
    }
    s.once(Fault::Status(410, None));
    assert!(matches!(s.read(0, 10).await, Err(RegistryError::Missing { .. })));
}

#[tokio::test]
async fn errors_are_short_and_say_what_was_asked_for() {
    let s = setup();
    s.once(Fault::Status(503, None));
    let short = s.object.to_string()[..12].to_owned();
    let text = s.read(10, 20).await.unwrap_err().to_string();
    assert_eq!(text, format!("data/{short}… bytes 10-19: the server answered 503"));
}

#[tokio::test]
async fn redirects_are_followed_but_not_for_ever() {
    let s = setup();
    let other = Server::start(s.registry.path());
    let (path, there) = (format!("/data/{}", s.object), other.url());
    s.server.on(&path, When::Always, Fault::Redirect(Some(format!("{there}{path}"))));
    let url = s.server.url().replace("http://", "http://user:s3cret@") + "/?token=s3cret";
    let r = plain(&url, Timeouts::default());
    let got = read_object(&r, &object(&s.object, LEN), ObjectRange::new(7, 9)).await.unwrap();
    assert!(got == s.data[7..9]);
    let sent = |server: &Server, name: &str| {
        let headers = server.requests()[0].headers.clone();
        headers.into_iter().find(|(k, _)| k == name).map(|(_, v)| v)
    };
    assert_eq!(sent(&s.server, "authorization").as_deref(), Some("Basic dXNlcjpzM2NyZXQ="));
    assert_eq!(sent(&other, "authorization"), None, "not for another server");
    assert_eq!(sent(&other, "referer"), None);
    assert_eq!(sent(&other, "range").as_deref(), Some("bytes=7-8"));
    assert!(sent(&s.server, "user-agent").unwrap().starts_with("modelfs/"));
    assert_eq!(s.server.requests()[0].path, format!("{path}?token=s3cret"));
    s.once(Fault::Redirect(None));
    s.server.reset();
    let error = r.document(&s.object, LEN).await.unwrap_err();
    assert_eq!(s.server.requests().len(), 6);
    assert!(!error.to_string().contains("s3cret") && !r.name().contains("s3cret"), "{error}");
    invalid(Err::<(), _>(error), "more than 5 redirects");
}

#[tokio::test]
async fn no_secret_is_printed_when_the_registry_is_unreachable() {
    let s = setup();
    let url = s.server.url().replace("http://", "http://user:s3cret@") + "/?token=s3cret";
    s.server.go_away();
    let error = plain(&url, Timeouts::default()).list(&Validator::default()).await.err().unwrap();
    assert!(!error.to_string().contains("s3cret") && !format!("{error:?}").contains("s3cret"));
    unreachable(Err::<(), _>(error), "models.json: ");
}

#[tokio::test]
async fn the_catalog_is_sent_again_only_when_it_changed() {
    let s = setup();
    let r = s.http();
    manifest(&r).await;
    let asked: Vec<_> = s
        .server
        .requests()
        .into_iter()
        .filter(|q| q.path == "/models.json")
        .map(|q| q.status)
        .collect();
    assert_eq!(asked, [200, 304]);
    let Listing::Changed { validator, .. } = r.list(&Validator::default()).await.unwrap() else {
        panic!("nothing was known")
    };
    s.registry.publish("org/net@v2", &ModelDir::of(&[("a", 10)]), 65_536);
    let Listing::Changed { catalog, .. } = r.list(&validator).await.unwrap() else {
        panic!("it changed")
    };
    assert_eq!(catalog.len(), 2);
    std::fs::write(s.registry.path().join("models.json"), "<html>").unwrap();
    invalid(r.list(&validator).await, "models.json");
    std::fs::remove_file(s.registry.path().join("models.json")).unwrap();
    assert!(matches!(r.list(&validator).await, Err(RegistryError::Missing { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_bridged_by_asking_again() {
    let s = setup();
    let ms = Duration::from_millis;
    let policy = RetryPolicy { base: ms(20), max: ms(100), attempts: 1000 };
    let r = Retrying::new(Arc::new(s.http()), policy, Duration::from_secs(20));
    s.server.go_away();
    unreachable(s.read(0, 9).await, "");
    unreachable(s.http().manifest(&s.version()).await, "");
    let back = async {
        tokio::time::sleep(ms(300)).await;
        tokio::task::block_in_place(|| s.server.come_back());
    };
    let version = s.version();
    let (manifest, ()) = tokio::join!(r.manifest(&version), back);
    assert_eq!(manifest.unwrap().manifest.hash(), version.digest());
    s.server.go_away();
    let short = Retrying::new(Arc::new(s.http()), policy, ms(400));
    let start = Instant::now();
    unreachable(short.list(&Validator::default()).await, "models.json");
    assert!(start.elapsed() < Duration::from_secs(5));
}

/// The manifest of the published model, as a daemon with an empty cache learns of it.
async fn learned(url: &str, cache: &Path) -> (Arc<Fetcher>, Arc<Manifest>) {
    let (options, store) = (FetchOptions::default(), Store::open(StoreOptions::at(cache)).unwrap());
    let source = Arc::new(Source::new(
        SourceName::of_address(url),
        Some(open(url).unwrap()),
        store.clone(),
        &options,
    ));
    let catalog = source.catalog().await.unwrap();
    let hash = catalog.version("org", "net", "v1").unwrap().hash().unwrap();
    let manifest = source.manifest(&hash).await.unwrap();
    (Fetcher::new(Arc::new(Sources::one(source)), store, options), manifest)
}

#[test]
fn a_first_read_far_away_needs_no_new_connection() {
    let (s, runtime) = (setup(), tokio::runtime::Runtime::new().unwrap());
    let line = Line { round_trip: Duration::from_millis(50), bits_per_second: None };
    let (proxy, cache) =
        (ShapedProxy::start(s.server.address(), line), tempfile::tempdir().unwrap());
    let url = format!("http://{}", proxy.address());
    let (fetcher, manifest) = runtime.block_on(learned(&url, cache.path()));
    let started = Instant::now();
    while proxy.connections() < 2 || s.server.requests().iter().all(|r| r.method != "HEAD") {
        assert!(started.elapsed() < Duration::from_secs(20), "no second connection is opened");
        std::thread::sleep(Duration::from_millis(5));
    }
    // its answer comes, and it is free
    std::thread::sleep(2 * line.round_trip);
    let before = s.server.requests_for("/data/");
    let file = fetcher.file(fetcher.sources().first(), &manifest, FileIx(0)).unwrap();
    let reader = fetcher.reader(&file, Readers::OfOneHandle, Arc::new(|_, _| ()));
    runtime.block_on(reader.read(FileRange::new(0, 100))).unwrap();
    assert_eq!((s.server.requests_for("/data/") - before, proxy.connections()), (2, 2));
}
