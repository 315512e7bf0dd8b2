//! OCI registries that lie, refuse and lead elsewhere: no byte of theirs is believed, no login goes where
//! it does not belong, and trouble is never "not found".

use std::sync::Arc;
use std::time::Duration;

use modelfs::base::{FileRange, ObjectRange};
use modelfs::fetch::{FetchError, FetchOptions, Fetcher, Source, Sources};
use modelfs::model::hash::sha256;
use modelfs::model::{FileIx, Name, Revision, SourceName};
use modelfs::registry::oci::{DockerConfig, DockerLogins, Oci, OciOptions};
use modelfs::registry::{Registry, RegistryError, Validator, read_object};
use modelfs::store::{Store, StoreOptions};
use modelfs_test_support::{
    OCI_USER, OciAnswer, OciLogin, OciRequest, OciServer, golden_artifact, oci_bytes, oci_error,
};

use crate::registry_huggingface::file_reader;
use crate::registry_oci::{manifest, model, open, revision};

/// What no host but the registry and its token service may see: the password, and base64 of the login.
const SECRETS: [&str; 3] = ["planted-secret", "bWU6cGxhbnRlZC1zZWNyZXQ=", "planted-token-for"];

fn server() -> OciServer {
    let server = OciServer::start();
    server.golden("org/net", "v1", "modelpack-gguf");
    server
}

fn shows_no_secret(text: &str) {
    assert!(!SECRETS.iter().any(|secret| text.contains(secret)), "{text}");
    assert!(!text.contains('\n'), "{text}");
}

/// A registry whose login is kept as docker keeps it.
struct LoggedIn {
    registry: Oci,
    _home: tempfile::TempDir,
}

fn logged_in(server: &OciServer, entry: serde_json::Value) -> LoggedIn {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("config.json");
    let config = serde_json::json!({ "auths": { server.host(): entry } });
    std::fs::write(&file, config.to_string()).unwrap();
    let config = DockerConfig { files: vec![file], helpers: None };
    let logins = Arc::new(DockerLogins { config, host: server.host() });
    let options = OciOptions { logins, ..OciOptions::default() };
    let registry = Oci::open(&format!("oci://{}/org", server.host()), options).unwrap();
    LoggedIn { registry, _home: home }
}

fn user() -> serde_json::Value {
    serde_json::json!({ "username": OCI_USER.0, "password": OCI_USER.1 })
}

async fn version(r: &Oci) -> Result<Option<Revision>, RegistryError> {
    let found = r.version(&model("org/net"), &Name::new("v1").unwrap()).await?;
    Ok(found.map(|_| Revision::new("there")))
}

async fn resolved(r: &Oci) -> RegistryError {
    let revision = revision(r, "org/net", "v1").await.expect("the tag is there");
    r.resolve(&model("org/net"), &revision).await.expect_err("it is wrong")
}

#[tokio::test]
async fn a_token_is_fetched_once_for_a_repository_and_again_when_it_expired() {
    let server = server();
    server.golden("org/other", "v1", "modelpack-gguf");
    server.login(OciLogin::Token { realm: server.realm(), private: false });
    let r = open(&server.host(), "/org");
    let tokens = |requests: Vec<OciRequest>| {
        requests.iter().filter(|r| r.path.starts_with("/token")).count()
    };
    let m = manifest(&r, "org/net", "v1").await;
    let object = &m.objects()[0];
    read_object(&r, object, ObjectRange::new(0, object.len)).await.unwrap();
    assert_eq!(tokens(server.requests()), 1);
    manifest(&r, "org/other", "v1").await;
    assert_eq!(tokens(server.requests()), 1, "another repository needs another token");
    server.expire();
    read_object(&r, object, ObjectRange::new(0, 10)).await.unwrap();
    assert_eq!(tokens(server.requests()), 1);
    assert!(r.list(&Validator::default()).await.is_ok(), "the catalog has a scope of its own");
}

#[tokio::test]
async fn a_login_goes_to_the_token_service_and_its_token_to_the_registry() {
    let (registry, service) = (server(), OciServer::start());
    let token = OciLogin::Token { realm: service.realm(), private: true };
    registry.login(token.clone());
    service.login(token);
    let r = logged_in(&registry, user());
    assert!(version(&r.registry).await.unwrap().is_some());
    for request in registry.requests() {
        let given = request.authorization.unwrap_or_default();
        assert!(given.is_empty() || given.starts_with("Bearer planted-token"), "{given}");
    }
    let asked = service.requests();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert!(asked[0].path.contains("service=test&scope=repository%3Aorg%2Fnet%3Apull"));
    assert_eq!(asked[0].authorization.as_deref(), Some("Basic bWU6cGxhbnRlZC1zZWNyZXQ="));
    let error = version(&open(&registry.host(), "/org")).await.unwrap_err();
    assert!(matches!(error, RegistryError::Denied { .. }), "{error}");
    let login = format!("docker login {}", registry.host());
    assert!(error.to_string().contains(&login), "{error}");
}

#[tokio::test]
async fn an_identity_token_is_posted_to_the_service() {
    let server = server();
    server.login(OciLogin::Token { realm: server.realm(), private: true });
    let given = |r: &OciRequest| -> Option<OciAnswer> {
        let body = br#"{"access_token":"planted-token-for:repository:org/net:pull#0"}"#;
        (r.method == "POST" && r.path == "/token").then(|| (200, Vec::new(), body.to_vec()))
    };
    server.on(given);
    let r = logged_in(&server, serde_json::json!({ "identitytoken": "planted-secret" }));
    assert!(version(&r.registry).await.unwrap().is_some());
    for request in server.requests() {
        shows_no_secret(&request.path);
    }
}

#[tokio::test]
async fn a_redirect_to_another_host_takes_no_login_along() {
    for login in ["basic", "token"] {
        let (registry, storage) = (server(), OciServer::start());
        registry.login(match login {
            "basic" => OciLogin::Basic,
            _ => OciLogin::Token { realm: registry.realm(), private: true },
        });
        let (_, blobs) = golden_artifact("modelpack-gguf");
        for blob in &blobs {
            storage.put(blob);
        }
        let host = storage.host();
        registry.on(move |r| {
            let (_, digest) = r.path.rsplit_once("/blobs/")?;
            r.authorization.as_ref()?;
            let to = format!("http://{host}/v2/x/blobs/{digest}?signature=1");
            Some((307, vec![("location", to)], Vec::new()))
        });
        let r = logged_in(&registry, user());
        let m = manifest(&r.registry, "org/net", "v1").await;
        let object = &m.objects()[0];
        let got = read_object(&r.registry, object, ObjectRange::new(1, 9)).await.unwrap();
        assert_eq!(got, blobs[0][1..9], "{login}");
        let asked = storage.requests();
        assert_eq!(asked.len(), 1, "{login}: {asked:?}");
        assert_eq!(asked[0].authorization, None, "{login}");
        assert_eq!(asked[0].range.as_deref(), Some("bytes=1-8"));
        // A storage that asks for a login gets none, even if it names a service.
        let realm = storage.realm();
        storage.login(OciLogin::Token { realm, private: true });
        let error = read_object(&r.registry, object, ObjectRange::new(1, 9)).await.unwrap_err();
        assert!(error.to_string().contains("the storage that the registry leads to"), "{error}");
        let asked = storage.requests();
        assert!(asked.iter().all(|r| r.authorization.is_none()), "{asked:?}");
        assert_eq!(asked.len(), 1, "the service was not asked: {asked:?}");
    }
}

#[tokio::test]
async fn a_token_service_that_leads_elsewhere_is_not_followed() {
    let (registry, elsewhere) = (server(), OciServer::start());
    registry.login(OciLogin::Token { realm: registry.realm(), private: true });
    let to = elsewhere.realm();
    registry.on(move |r| {
        r.path.starts_with("/token").then(|| (307, vec![("location", to.clone())], Vec::new()))
    });
    let r = logged_in(&registry, user());
    let error = version(&r.registry).await.unwrap_err();
    assert!(matches!(error, RegistryError::Invalid { .. }), "{error}");
    assert_eq!(elsewhere.requests(), []);
}

#[tokio::test]
async fn refusals_say_what_to_do_and_show_no_secret() {
    let server = server();
    let login = |r: &LoggedIn| r.registry.name().to_owned();
    let cases: [(OciAnswer, &str); 6] = [
        (oci_error(403, "DENIED"), "DENIED: as told"),
        (oci_error(401, "UNAUTHORIZED"), "no WWW-Authenticate"),
        (
            (401, vec![("www-authenticate", "Negotiate".into())], Vec::new()),
            "login of kind Negotiate",
        ),
        (
            (401, vec![("www-authenticate", "Bearer realm=\"ftp://x\"".into())], Vec::new()),
            "no http or https URL",
        ),
        (
            (401, vec![("www-authenticate", "Basic realm=\"x\"".into())], b"<html>".to_vec()),
            "docker login",
        ),
        (oci_error(400, "NAME_INVALID"), "NAME_INVALID"),
    ];
    for (answer, why) in cases {
        let r = logged_in(&server, user());
        let told = answer.clone();
        server.on(move |_| Some(told.clone()));
        // A list has a body that says why; a head has none.
        let known = Validator::default();
        let error = r.registry.lookup(&model("org/net"), &known).await.unwrap_err();
        assert!(matches!(error, RegistryError::Denied { .. }), "{error:?}");
        assert!(error.to_string().contains(why), "{why}: {error}");
        shows_no_secret(&error.to_string());
        assert!(!login(&r).contains("planted"));
        let error = version(&r.registry).await.unwrap_err();
        assert!(matches!(error, RegistryError::Denied { .. }), "{why}: {error:?}");
    }
}

#[tokio::test]
async fn trouble_is_never_not_found() {
    let server = server();
    let r = open(&server.host(), "/org");
    for (status, transient) in [(500, true), (502, true), (503, true), (429, true), (418, false)] {
        let answer: OciAnswer = (status, vec![("retry-after", "7".into())], Vec::new());
        server.on(move |_| Some(answer.clone()));
        let known = Validator::default();
        let errors = [
            version(&r).await.unwrap_err(),
            r.lookup(&model("org/net"), &known).await.unwrap_err(),
            r.list(&known).await.unwrap_err(),
        ];
        for error in errors {
            assert!(!matches!(error, RegistryError::Missing { .. }), "{status}: {error}");
            assert_eq!(error.is_transient(), transient, "{status}: {error}");
            if let RegistryError::Busy { retry_after, .. } = error {
                assert_eq!(retry_after, Some(Duration::from_secs(7)));
            }
        }
    }
    // Nor is the absence of the token service that of the model.
    server.heal();
    server.login(OciLogin::Token { realm: server.realm(), private: false });
    for status in [404, 410] {
        server.on(move |r| r.path.starts_with("/token").then(|| oci_error(status, "GONE")));
        let error = version(&r).await.unwrap_err();
        assert!(matches!(error, RegistryError::Invalid { .. }), "{error}");
    }
    server.on(|r| r.path.starts_with("/token").then(|| oci_error(503, "BUSY")));
    assert!(version(&r).await.unwrap_err().is_transient());
    let host = server.host();
    drop(server);
    let error = version(&open(&host, "/org")).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn a_manifest_with_another_digest_is_refused() {
    let server = server();
    let r = open(&server.host(), "/org");
    server.on(|r| {
        let by_digest = r.method == "GET" && r.path.contains("/manifests/sha256:");
        by_digest.then(|| (200, Vec::new(), br#"{"schemaVersion":2,"layers":[]}"#.to_vec()))
    });
    let error = resolved(&r).await;
    assert!(matches!(error, RegistryError::WrongBytes { .. }), "{error}");
    let huge = vec![b' '; (4 << 20) + 1];
    server.on(move |r| {
        let by_digest = r.method == "GET" && r.path.contains("/manifests/sha256:");
        by_digest.then(|| (200, Vec::new(), huge.clone()))
    });
    assert!(resolved(&r).await.to_string().contains("more than 4194304 bytes"));
}

#[tokio::test]
async fn a_tag_is_resolved_by_its_bytes_where_no_digest_is_named() {
    let server = server();
    let want = revision(&open(&server.host(), "/org"), "org/net", "v1").await;
    let (body, _) = golden_artifact("modelpack-gguf");
    server.on(move |r| r.path.ends_with("/manifests/v1").then(|| (200, Vec::new(), body.clone())));
    assert_eq!(revision(&open(&server.host(), "/org"), "org/net", "v1").await, want);
}

#[tokio::test]
async fn an_archive_is_believed_only_after_all_of_it_matched() {
    let server = OciServer::start();
    server.golden("org/net", "v1", "kitops");
    let r = open(&server.host(), "/org");
    let (_, blobs) = golden_artifact("kitops");
    let archive = blobs.iter().max_by_key(|b| b.len()).unwrap().clone();
    let path = format!("/v2/org/net/blobs/sha256:{}", sha256(&archive));
    // One bit of the name in the first header; its checksum is made right again.
    let mut other = archive.clone();
    other[0] ^= 1;
    let sum: u32 = other[..148].iter().chain(&other[156..512]).map(|b| u32::from(*b)).sum();
    other[148..156].copy_from_slice(format!("{:06o}\0 ", sum + 8 * 32).as_bytes());
    for lie in [other, archive[..archive.len() - 512].to_vec(), [&archive[..], b"x"].concat()] {
        let path = path.clone();
        server.on(move |r| (r.path == path).then(|| oci_bytes(&lie, r.range.as_deref())));
        let error = resolved(&r).await;
        let refused =
            matches!(error, RegistryError::WrongBytes { .. } | RegistryError::Invalid { .. });
        assert!(refused, "{error}");
    }
    server.heal();
    assert_eq!(manifest(&r, "org/net", "v1").await.files().len(), 3);
}

#[tokio::test]
async fn archives_and_layers_beyond_the_limits_are_named() {
    let server = OciServer::start();
    let r = open(&server.host(), "/org");
    for (media_type, size, why) in [
        ("application/vnd.cncf.model.weight.v1.tar", 67_108_865_u64, "up to 67108864"),
        ("application/vnd.cncf.model.weight.v1.tar+gzip", 10, "package it uncompressed"),
        ("application/vnd.cncf.model.weight.v1.raw", u64::MAX, "layers[0]"),
    ] {
        let layer = serde_json::json!({
            "mediaType": media_type, "size": size, "digest": format!("sha256:{}", "ab".repeat(32)),
            "annotations": {"org.cncf.model.filepath": "w"},
        });
        let json = serde_json::json!({"schemaVersion": 2, "layers": [layer]}).to_string();
        server.tag("org/net", "v1", json.as_bytes());
        let error = resolved(&r).await;
        assert!(matches!(error, RegistryError::Invalid { .. }), "{error}");
        assert!(error.to_string().contains(why), "{error}");
    }
}

#[tokio::test]
async fn paths_that_leave_the_version_are_refused() {
    let server = OciServer::start();
    let r = open(&server.host(), "/org");
    let layer = server.put(b"data");
    for path in ["../x", "/etc/passwd", "a/../../x", "a\\b", ".modelfs/x"] {
        let layers = [serde_json::json!({
            "mediaType": "application/octet-stream", "digest": layer, "size": 4,
            "annotations": {"org.opencontainers.image.title": path},
        })];
        let json = serde_json::json!({"schemaVersion": 2, "layers": layers}).to_string();
        server.tag("org/net", "v1", json.as_bytes());
        let error = resolved(&r).await;
        assert!(matches!(error, RegistryError::Invalid { .. }), "{path}: {error}");
    }
}

#[tokio::test]
async fn lists_that_have_no_end_are_given_up() {
    let server = server();
    let r = open(&server.host(), "/org");
    server.on(|r| {
        let link = format!("<{}>; rel=\"next\"", r.path);
        let body = br#"{"tags":["v1"]}"#.to_vec();
        r.path.contains("/tags/list").then(|| (200, vec![("link", link)], body))
    });
    let known = Validator::default();
    let error = r.lookup(&model("org/net"), &known).await.unwrap_err();
    assert!(error.to_string().contains("leads to itself"), "{error}");
    server.on(|r| {
        let link = "<http://127.0.0.1:1/v2/org/net/tags/list>; rel=\"next\"".to_owned();
        let body = br#"{"tags":["v1"]}"#.to_vec();
        r.path.contains("/tags/list").then(|| (200, vec![("link", link)], body))
    });
    let error = r.lookup(&model("org/net"), &known).await.unwrap_err();
    assert!(error.to_string().contains("another server"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_never_gets_a_wrong_byte() {
    let server = server();
    let r = open(&server.host(), "/org");
    let m = Arc::new(manifest(&r, "org/net", "v1").await);
    let (_, blobs) = golden_artifact("modelpack-gguf");
    let right = blobs[0].clone();
    let mut wrong = right.clone();
    wrong[1000] ^= 1;
    server.on(move |r| r.path.contains("/blobs/").then(|| oci_bytes(&wrong, r.range.as_deref())));
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(StoreOptions::at(folder.path())).unwrap();
    let options = FetchOptions::default();
    let name = SourceName::of_address(r.name());
    let source = Arc::new(Source::new(name, Some(Arc::new(r)), store.clone(), &options));
    let fetcher = Fetcher::new(Arc::new(Sources::one(source)), store, options);
    let file = file_reader(&fetcher, &m, FileIx(0));
    let error = file.read(FileRange::at(0, 10)).await.unwrap_err();
    assert!(matches!(error, FetchError::Corrupt { .. }), "{error:?}");
    let whole = FileRange::at(0, right.len() as u64);
    server.heal();
    assert!(*file.read(whole).await.unwrap() == *right);
}
