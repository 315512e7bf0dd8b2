//! The Hugging Face Hub as a registry, against a Hub of our own that redirects, refuses and lies.

use std::sync::Arc;
use std::time::Duration;

use modelfs::base::{FileRange, ObjectRange};
use modelfs::fetch::{FetchError, FetchOptions, Fetcher, FileReader, Readers, Source, Sources};
use modelfs::model::hash::{git_blob, sha256};
use modelfs::model::{
    FileIx, Manifest, ModelRef, Name, Object, Revision, SourceName, VersionEntry, VersionId,
    VersionTarget,
};
use modelfs::registry::huggingface::{Environment, HuggingFace, Token};
use modelfs::registry::{
    HttpOptions, Listing, ManifestDocument, Registry, RegistryError, Retry, Validator, Versions,
    read_catalog, read_manifest, read_object,
};
use modelfs::store::{Store, StoreOptions};
use modelfs_test_support::{HUB_TOKEN, HubFile, HubLie, HubRepo, HubServer, bytes};

/// The commits of `main` and of everything else.
const MAIN: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const OTHER: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
/// A commit that is nowhere.
const NOWHERE: &str = "cccccccccccccccccccccccccccccccccccccccc";

fn model(text: &str) -> ModelRef {
    text.parse().unwrap()
}

fn weights() -> Vec<u8> {
    bytes(7, 300_000)
}

fn file(path: &str, bytes: &[u8], lfs: bool) -> HubFile {
    HubFile { path: path.to_owned(), bytes: bytes.to_vec(), lfs }
}

fn repo() -> HubRepo {
    let files = vec![
        file("config.json", br#"{"a":1}"#, false),
        file("empty", b"", false),
        file("model 1.safetensors", &weights(), true),
        file("onnx/model.onnx", b"small but large", true),
        file("tokenizer.json", b"tokens", false),
    ];
    let name = |name: &str, commit: &str| (name.to_owned(), commit.to_owned());
    HubRepo {
        branches: vec![name("main", MAIN), name("fix/it", OTHER)],
        tags: vec![name("v1", OTHER)],
        others: vec![name("refs/pr/1", OTHER)],
        commits: [(MAIN.to_owned(), files), (OTHER.to_owned(), vec![file("x", b"old", false)])]
            .into(),
        ..HubRepo::default()
    }
}

fn setup() -> HubServer {
    let hub = HubServer::start();
    hub.put("models/org/net", repo());
    hub
}

fn registry(hub: &HubServer, name: &str, token: Option<&str>) -> HuggingFace {
    let token = token.and_then(|t| Token::new(t).unwrap());
    let environment = Environment { endpoint: Some(hub.url()), token, home: None };
    HuggingFace::with(name, &environment, &HttpOptions::default()).unwrap()
}

async fn found(r: &dyn Registry, of: &str) -> Vec<VersionEntry> {
    match r.lookup(&model(of), &Validator::default()).await.unwrap() {
        Versions::Changed { versions, .. } => versions,
        Versions::Unchanged => panic!("nothing was known"),
    }
}

async fn resolved(r: &dyn Registry, commit: &str) -> ManifestDocument {
    r.resolve(&model("org/net"), &Revision::new(commit)).await.unwrap()
}

fn of_path(manifest: &Manifest, path: &str) -> Object {
    let ix = manifest.files().iter().position(|f| f.path.as_str() == path).expect(path);
    manifest.object(manifest.slices(FileIx(ix as u32))[0].object).clone()
}

async fn read(
    r: &dyn Registry,
    object: &Object,
    from: u64,
    to: u64,
) -> Result<Vec<u8>, RegistryError> {
    read_object(r, object, ObjectRange::new(from, to)).await
}

fn commit_of(entry: &VersionEntry) -> &str {
    match &entry.target {
        VersionTarget::Revision(revision) => revision.as_str(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_lookup_is_one_request_and_reads_no_tree() {
    let hub = setup();
    let r = registry(&hub, "hf://", None);
    assert!(!r.capabilities().listable);
    let versions = found(&r, "org/net").await;
    let names: Vec<_> = versions.iter().map(|v| (v.name.as_str(), commit_of(v))).collect();
    assert_eq!(names, [("fix--it", OTHER), ("main", MAIN), ("v1", OTHER)]);
    let paths: Vec<_> = hub.requests().into_iter().map(|r| r.path).collect();
    assert_eq!(paths, ["/api/models/org/net/refs"]);
}

#[tokio::test]
async fn a_lookup_that_knows_the_state_is_told_that_it_is_unchanged() {
    let hub = setup();
    let r = registry(&hub, "hf://", None);
    let first = r.lookup(&model("org/net"), &Validator::default()).await.unwrap();
    let Versions::Changed { validator, .. } = first else { panic!("nothing was known") };
    let again = r.lookup(&model("org/net"), &validator).await.unwrap();
    assert!(matches!(again, Versions::Unchanged));
    hub.change("models/org/net", |repo| repo.branches[0].1 = OTHER.to_owned());
    let moved = r.lookup(&model("org/net"), &validator).await.unwrap();
    let Versions::Changed { versions, .. } = moved else { panic!("the branch moved") };
    assert_eq!(commit_of(&versions[1]), OTHER);
}

#[tokio::test]
async fn one_repository_is_listed_and_its_list_is_read_back() {
    let hub = setup();
    let r = registry(&hub, "hf://org/net", None);
    assert!(r.capabilities().listable);
    let listed = r.list(&Validator::default()).await.unwrap();
    let Listing::Changed { catalog, document, validator } = listed else { panic!("new") };
    assert_eq!(catalog.versions("org", "net").unwrap().len(), 3);
    assert_eq!(read_catalog(&document).unwrap(), catalog);
    assert!(matches!(r.list(&validator).await.unwrap(), Listing::Unchanged));
    assert!(found(&r, "org/other").await.is_empty(), "of another repository it knows nothing");
    let whole = registry(&hub, "hf://", None).list(&Validator::default()).await.unwrap_err();
    assert!(whole.to_string().contains("looked up by name"), "{whole}");
}

#[tokio::test]
async fn commits_and_unlisted_revisions_are_versions_too() {
    let hub = setup();
    let r = registry(&hub, "hf://", None);
    for (version, commit) in [
        (MAIN, Some(MAIN)),
        ("main", Some(MAIN)),
        ("fix--it", Some(OTHER)),
        ("refs--pr--1", Some(OTHER)),
        (NOWHERE, None),
        ("nowhere", None),
    ] {
        let name = Name::new(version).unwrap();
        let entry = r.version(&model("org/net"), &name).await.unwrap();
        assert_eq!(entry.as_ref().map(commit_of), commit, "{version}");
        assert!(entry.is_none_or(|e| e.name == name));
    }
}

#[tokio::test]
async fn a_tree_is_read_by_pages_and_without_a_request_per_file() {
    let hub = setup();
    let r = registry(&hub, "hf://", None);
    let made = resolved(&r, MAIN).await;
    let requests = hub.requests();
    // Five files, three a page.
    assert_eq!(requests.len(), 2, "{requests:?}");
    assert!(requests.iter().all(|r| r.path.contains("/tree/") && r.path.contains("expand=false")));
    let paths: Vec<_> = made.manifest.files().iter().map(|f| f.path.as_str()).collect();
    let want = ["config.json", "empty", "model 1.safetensors", "onnx/model.onnx", "tokenizer.json"];
    assert_eq!(paths, want);
    assert_eq!(made.manifest.hash(), sha256(&made.document));
    let version = VersionId::new(made.manifest.hash());
    assert_eq!(read_manifest(version, &made.document).unwrap(), made.manifest);
    assert_eq!(resolved(&r, MAIN).await.document, made.document, "the same each time");
    assert_eq!(r.manifest(&version).await.unwrap().document, made.document);
}

#[tokio::test]
async fn files_are_read_by_range_and_checked_by_what_the_commit_binds() {
    let hub = setup();
    let r = registry(&hub, "hf://", None);
    let manifest = resolved(&r, MAIN).await.manifest;
    let all = weights();
    let object = of_path(&manifest, "model 1.safetensors");
    assert_eq!((object.digest, object.len), (sha256(&all), all.len() as u64));
    for (from, to) in [(0, 1), (100, 70_000), (0, object.len), (object.len - 1, object.len)] {
        let got = read(&r, &object, from, to).await.unwrap();
        assert!(got == all[from as usize..to as usize], "{from}..{to}");
    }
    let config = of_path(&manifest, "config.json");
    assert_eq!(config.digest, git_blob(br#"{"a":1}"#).digest());
    let got = read(&r, &config, 0, config.len).await.unwrap();
    let leaves = r.leaves(&config, ObjectRange::new(0, config.len)).await.unwrap();
    assert!(leaves.matches(0, &got) && !leaves.matches(0, br#"{"a":2}"#));
    assert!(hub.requests().iter().all(|r| r.encoding.as_deref() == Some("identity")));
    let past = read(&r, &config, 0, config.len + 1).await.unwrap_err();
    assert!(matches!(past, RegistryError::Invalid { .. }), "{past}");
}

#[tokio::test]
async fn the_place_of_a_large_file_is_asked_for_once_until_it_expires() {
    let hub = setup();
    let r = registry(&hub, "hf://", None);
    let object = of_path(&resolved(&r, MAIN).await.manifest, "model 1.safetensors");
    hub.requests();
    let kinds = || hub.requests().iter().map(|r| r.cdn).collect::<Vec<_>>();
    read(&r, &object, 0, 10).await.unwrap();
    assert_eq!(kinds(), [false, true]);
    read(&r, &object, 10, 20).await.unwrap();
    assert_eq!(kinds(), [true]);
    hub.expire();
    assert!(read(&r, &object, 20, 30).await.unwrap() == weights()[20..30]);
    assert_eq!(kinds(), [true, false, true]);
    read(&r, &object, 30, 40).await.unwrap();
    assert_eq!(kinds(), [true]);
}

#[tokio::test]
async fn the_token_goes_to_the_endpoint_and_nowhere_else() {
    let hub = setup();
    hub.change("models/org/net", |repo| repo.private = true);
    let r = registry(&hub, "hf://", Some(HUB_TOKEN));
    assert_eq!(found(&r, "org/net").await.len(), 3);
    let object = of_path(&resolved(&r, MAIN).await.manifest, "model 1.safetensors");
    read(&r, &object, 0, 10).await.unwrap();
    read(&r, &object, 10, 20).await.unwrap();
    let requests = hub.requests();
    assert_eq!(requests.iter().filter(|r| r.cdn).count(), 2);
    for request in requests {
        let sent = request.authorization == Some(format!("Bearer {HUB_TOKEN}"));
        assert_eq!(sent, !request.cdn, "{request:?}");
        assert!(request.cdn == request.authorization.is_none(), "{request:?}");
    }
}

#[tokio::test]
async fn a_renamed_private_repository_is_found_under_its_old_name() {
    let hub = setup();
    hub.change("models/org/net", |repo| repo.private = true);
    hub.rename("models/org/net", "models/new/name");
    let r = registry(&hub, "hf://", Some(HUB_TOKEN));
    assert_eq!(found(&r, "org/net").await.len(), 3);
    let manifest = resolved(&r, MAIN).await.manifest;
    for path in ["config.json", "model 1.safetensors"] {
        read(&r, &of_path(&manifest, path), 0, 5).await.unwrap();
    }
}

#[tokio::test]
async fn what_the_hub_does_not_have_is_nothing_and_says_that_it_may_be_private() {
    let hub = setup();
    for token in [None, Some(HUB_TOKEN)] {
        let r = registry(&hub, "hf://", token);
        assert!(found(&r, "org/none").await.is_empty());
        let r = registry(&hub, "hf://org/none", token);
        let error = r.list(&Validator::default()).await.unwrap_err();
        assert!(matches!(error, RegistryError::Missing { .. }), "{error}");
        assert!(error.to_string().contains("private"), "{error}");
    }
    hub.requests();
    let r = registry(&hub, "hf://", None);
    assert!(found(&r, "o..rg/net").await.is_empty());
    assert!(hub.requests().is_empty(), "no repository is called so");
}

#[tokio::test]
async fn a_private_repository_needs_the_token_and_a_wrong_one_is_no_absence() {
    let hub = setup();
    hub.change("models/org/net", |repo| repo.private = true);
    assert!(found(&registry(&hub, "hf://", None), "org/net").await.is_empty());
    let r = registry(&hub, "hf://", Some("hf_wrong_secret"));
    let error = r.lookup(&model("org/net"), &Validator::default()).await.unwrap_err();
    assert!(matches!(error, RegistryError::Denied { .. }), "{error}");
    assert!(error.to_string().contains("HF_TOKEN"), "{error}");
    assert!(!error.to_string().contains("secret"), "{error}");
}

#[tokio::test]
async fn a_gated_repository_says_where_to_accept_its_licence() {
    let hub = setup();
    hub.change("models/org/net", |repo| repo.gated = true);
    for token in [None, Some(HUB_TOKEN)] {
        let r = registry(&hub, "hf://", token);
        let object = of_path(&resolved(&r, MAIN).await.manifest, "config.json");
        let error = read(&r, &object, 0, 5).await.unwrap_err();
        assert!(matches!(error, RegistryError::Denied { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(&format!("accept its licence at {}/org/net", hub.url())), "{text}");
        assert!(text.contains("org/net/config.json"), "{text}");
        assert!(!text.contains(HUB_TOKEN));
    }
}

#[tokio::test]
async fn a_rate_limit_is_waited_for_as_long_as_the_hub_says() {
    let hub = setup();
    hub.limit(1);
    let r = registry(&hub, "hf://", None);
    let error = r.lookup(&model("org/net"), &Validator::default()).await.unwrap_err();
    let second = Some(Duration::from_secs(1));
    assert_eq!(error.retry(), Retry::Later { not_before: second }, "{error}");
    assert_eq!(found(&r, "org/net").await.len(), 3);
}

#[tokio::test]
async fn an_outage_is_never_a_missing_repository() {
    let hub = setup();
    let r = registry(&hub, "hf://", None);
    let object = of_path(&resolved(&r, MAIN).await.manifest, "model 1.safetensors");
    read(&r, &object, 0, 10).await.unwrap();
    hub.down(true);
    let name = Name::new("main").unwrap();
    let errors = [
        r.lookup(&model("org/net"), &Validator::default()).await.map(drop),
        r.version(&model("org/net"), &name).await.map(drop),
        r.resolve(&model("org/net"), &Revision::new(MAIN)).await.map(drop),
        read(&r, &object, 0, 10).await.map(drop),
    ];
    for answer in errors {
        let error = answer.unwrap_err();
        assert!(error.is_transient(), "{error}");
    }
    hub.down(false);
    read(&r, &object, 0, 10).await.unwrap();
}

#[tokio::test]
async fn a_server_that_ignores_ranges_serves_the_range_all_the_same() {
    let hub = setup();
    let r = registry(&hub, "hf://", None);
    let object = of_path(&resolved(&r, MAIN).await.manifest, "model 1.safetensors");
    hub.lie(Some(HubLie::NoRange));
    assert!(read(&r, &object, 500, 900).await.unwrap() == weights()[500..900]);
}

#[tokio::test]
async fn a_body_that_ends_early_is_an_error() {
    let hub = setup();
    let r = registry(&hub, "hf://", None);
    let object = of_path(&resolved(&r, MAIN).await.manifest, "model 1.safetensors");
    hub.lie(Some(HubLie::Truncated));
    let error = read(&r, &object, 0, 1000).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unreachable { .. }), "{error}");
    assert!(!error.to_string().contains("sig="), "a signed URL is a password: {error}");
}

#[tokio::test]
async fn a_tree_that_lies_about_a_digest_loses_that_file_and_no_other() {
    let hub = setup();
    hub.edit_tree(|entries| {
        for entry in entries {
            if entry["path"] == "onnx/model.onnx" {
                entry["lfs"]["oid"] = sha256(b"something else").to_string().into();
            }
            if entry["path"] == "tokenizer.json" {
                entry["path"] = "../../etc/passwd".into();
            }
        }
    });
    let manifest = resolved(&registry(&hub, "hf://", None), MAIN).await.manifest;
    let paths: Vec<_> = manifest.files().iter().map(|f| f.path.as_str()).collect();
    assert_eq!(paths, ["config.json", "empty", "model 1.safetensors"]);
    let left = manifest.left_out();
    assert_eq!(left.count, 2, "{left:?}");
    assert!(left.first.iter().any(|why| why.contains("does not bind")), "{left:?}");
}

#[tokio::test]
async fn a_tree_without_an_end_is_given_up() {
    let hub = setup();
    hub.page(0);
    let r = registry(&hub, "hf://", None);
    let error = r.resolve(&model("org/net"), &Revision::new(MAIN)).await.unwrap_err();
    assert!(matches!(error, RegistryError::Invalid { .. }), "{error}");
    assert!(hub.requests().len() < 10);
}

#[tokio::test]
async fn datasets_are_read_under_their_own_name() {
    let hub = HubServer::start();
    hub.put("datasets/org/data", repo());
    let r = registry(&hub, "hf://datasets/org/data", None);
    assert_eq!(r.name(), "hf://datasets/org/data");
    assert_eq!(found(&r, "org/data").await.len(), 3);
    let manifest = r.resolve(&model("org/data"), &Revision::new(MAIN)).await.unwrap().manifest;
    for path in ["config.json", "model 1.safetensors"] {
        read(&r, &of_path(&manifest, path), 0, 5).await.unwrap();
    }
}

/// A reader of the model with a cache of its own.
async fn reader(hub: &HubServer, cache: &std::path::Path) -> (Arc<Fetcher>, Arc<Manifest>) {
    let r = registry(hub, "hf://", None);
    let hash = resolved(&r, MAIN).await.manifest.hash();
    let deadline = Duration::from_secs(5);
    let options = FetchOptions { read_deadline: deadline, ..FetchOptions::default() };
    let store = Store::open(StoreOptions::at(cache)).unwrap();
    let source =
        Source::new(SourceName::of_address("hf://"), Some(Arc::new(r)), store.clone(), &options);
    let source = Arc::new(source);
    let manifest = source.manifest(&hash).await.unwrap();
    (Fetcher::new(Arc::new(Sources::one(source)), store, options), manifest)
}

/// A reader of one file for one handle.
pub fn file_reader(fetcher: &Fetcher, manifest: &Arc<Manifest>, ix: FileIx) -> Arc<FileReader> {
    let file = fetcher.file(fetcher.sources().first(), manifest, ix).unwrap();
    fetcher.reader(&file, Readers::OfOneHandle, Arc::new(|_, _| ()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_gets_every_file_and_never_a_wrong_byte() {
    let hub = setup();
    let folder = tempfile::tempdir().unwrap();
    let (fetcher, manifest) = reader(&hub, folder.path()).await;
    let large = manifest.files().iter().position(|f| f.path.as_str() == "model 1.safetensors");
    let large = FileIx(large.unwrap() as u32);
    let whole = FileRange::at(0, weights().len() as u64);
    hub.lie(Some(HubLie::WrongByte));
    let file = file_reader(&fetcher, &manifest, large);
    let error = file.read(whole).await.unwrap_err();
    assert!(matches!(error, FetchError::Corrupt { .. }), "{error}");
    hub.lie(None);
    assert!(*file.read(whole).await.unwrap() == *weights());
    let config = file_reader(&fetcher, &manifest, FileIx(0));
    let got = config.read(FileRange::at(0, 7)).await.unwrap();
    assert_eq!(*got, *br#"{"a":1}"#);
    hub.requests();
    assert!(*file.read(whole).await.unwrap() == *weights());
    assert!(hub.requests().is_empty(), "it is in the cache");
}
