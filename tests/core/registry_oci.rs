//! OCI registries: artifacts that foreign tools wrote, from Docker's own registry and from one of ours
//! that pages, redirects and ignores ranges.

use std::sync::Arc;

use modelfs::base::ObjectRange;
use modelfs::model::hash::sha256;
use modelfs::model::{
    Check, FileIx, Manifest, ModelRef, Name, Object, Revision, VersionEntry, VersionId,
    VersionTarget,
};
use modelfs::registry::oci::{DockerConfig, DockerLogins, Oci, OciOptions};
use modelfs::registry::{
    Listing, Registry, RegistryError, Validator, Versions, read_catalog, read_manifest, read_object,
};
use modelfs_test_support::{
    DOCKER_USER, DockerLogin, DockerRegistry, OciServer, TokenSigner, golden_artifact, oci_bytes,
    oci_error,
};

/// The golden artifacts and the files in each.
const GOLDEN: [(&str, &[&str]); 5] = [
    ("modelpack-dir", &["README.md", "config.json", "model.safetensors", "onnx/x.json"]),
    ("modelpack-gguf", &["tiny.gguf"]),
    ("docker-v0.1-gguf", &["tiny.gguf"]),
    ("docker-v0.2-dir", &["README.md", "config.json", "model.safetensors", "onnx/x.json"]),
    ("kitops", &["model.safetensors", "config.json", "README.md"]),
];

pub fn model(text: &str) -> ModelRef {
    text.parse().unwrap()
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// A registry that is asked without any login.
pub fn open(host: &str, path: &str) -> Oci {
    Oci::open(&format!("oci://{host}{path}"), OciOptions::default()).unwrap()
}

/// What a version's name leads to.
pub async fn revision(r: &dyn Registry, of: &str, version: &str) -> Option<Revision> {
    match r.version(&model(of), &name(version)).await.unwrap()?.target {
        VersionTarget::Revision(revision) => Some(revision),
        other => panic!("{other:?}"),
    }
}

/// The manifest of a tag.
pub async fn manifest(r: &dyn Registry, of: &str, tag: &str) -> Manifest {
    let revision = revision(r, of, tag).await.expect("the tag is there");
    r.resolve(&model(of), &revision).await.unwrap().manifest
}

/// The bytes of a file.
async fn read(r: &dyn Registry, m: &Manifest, file: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for slice in m.slices(FileIx(file as u32)) {
        out.extend(read_object(r, m.object(slice.object), slice.range).await.unwrap());
    }
    out
}

/// That every file of a version has the bytes that its SHA-256 names.
async fn all_right(r: &dyn Registry, m: &Manifest, paths: &[&str]) {
    assert_eq!(m.files().iter().map(|f| f.path.as_str()).collect::<Vec<_>>(), paths);
    for (i, file) in m.files().iter().enumerate() {
        assert_eq!(Some(sha256(&read(r, m, i).await)), file.sha256, "{}", file.path);
    }
}

async fn listed(r: &dyn Registry) -> (Vec<String>, Validator) {
    let Listing::Changed { catalog, document, validator } =
        r.list(&Validator::default()).await.unwrap()
    else {
        panic!("nothing was known")
    };
    assert_eq!(read_catalog(&document).unwrap(), catalog);
    let text = |(g, m, v): (&Name, &Name, &VersionEntry)| format!("{g}/{m}@{}", v.name);
    (catalog.iter().map(text).collect(), validator)
}

#[tokio::test]
async fn artifacts_of_foreign_tools_are_read_from_dockers_registry() {
    let server = DockerRegistry::start(DockerLogin::Anyone);
    for (artifact, _) in GOLDEN {
        server.push(&format!("org/{artifact}"), "v1", artifact);
    }
    let digest = server.push("org/sub/net", "latest", "modelpack-gguf");
    server.push("alone", "v1", "modelpack-gguf");
    let r = open(server.host(), "");
    let (names, validator) = listed(&r).await;
    let want = [
        "_/alone@v1",
        "org/docker-v0.1-gguf@v1",
        "org/docker-v0.2-dir@v1",
        "org/kitops@v1",
        "org/modelpack-dir@v1",
        "org/modelpack-gguf@v1",
        "org/sub--net@latest",
    ];
    assert_eq!(names, want);
    assert!(matches!(r.list(&validator).await, Ok(Listing::Unchanged)));
    assert!(r.capabilities().listable);
    for (artifact, paths) in GOLDEN {
        let of = format!("org/{artifact}");
        let m = manifest(&r, &of, "v1").await;
        all_right(&r, &m, paths).await;
        // What is kept is read without the registry, and made again the same.
        let again = r.manifest(&VersionId::new(m.hash())).await.unwrap();
        assert_eq!(read_manifest(VersionId::new(m.hash()), &again.document).unwrap(), m);
    }
    let below = open(server.host(), "/org/sub");
    assert_eq!(listed(&below).await.0, ["org--sub/net@latest"]);
    let by_digest = digest.replace(':', "-");
    for version in ["latest", &by_digest, &format!("@{by_digest}")] {
        let found = revision(&below, "org--sub/net", version).await;
        assert_eq!(found, Some(Revision::new(digest.as_str())), "{version}");
    }
    for (of, version) in [("org--sub/net", "v2"), ("org--sub/none", "v1"), ("other/net", "v1")] {
        assert_eq!(revision(&below, of, version).await, None, "{of} {version}");
    }
    assert_eq!(revision(&below, "org--sub/net", &format!("sha256-{}", "0".repeat(64))).await, None);
}

#[tokio::test]
async fn a_range_is_asked_for_and_sent() {
    let server = DockerRegistry::start(DockerLogin::Anyone);
    server.push("org/net", "v1", "modelpack-dir");
    let r = open(server.host(), "/org");
    let m = manifest(&r, "org/net", "v1").await;
    let weights = m.objects().iter().find(|o| o.len == 262_225).expect("the weights");
    let whole = read_object(&r, weights, ObjectRange::new(0, weights.len)).await.unwrap();
    for (from, to) in [(0, 1), (100_000, 100_100), (262_224, 262_225), (7, 7)] {
        let got = read_object(&r, weights, ObjectRange::new(from, to)).await.unwrap();
        assert_eq!(got, whole[from as usize..to as usize], "{from}..{to}");
    }
    let past = ObjectRange::new(0, weights.len + 1);
    assert!(matches!(r.read(weights, past).await, Err(RegistryError::Invalid { .. })));
    let longer = Object { len: weights.len + 1, ..weights.clone() };
    let error = r.read(&longer, ObjectRange::new(5, 10)).await.err().unwrap();
    assert!(matches!(error, RegistryError::Invalid { .. }), "{error}");
}

#[tokio::test]
async fn dockers_registry_with_users_wants_the_login_that_docker_keeps() {
    let server = DockerRegistry::start(DockerLogin::User);
    server.push("org/net", "v1", "modelpack-gguf");
    let error = open(server.host(), "/org").version(&model("org/net"), &name("v1")).await;
    let error = error.unwrap_err();
    assert!(matches!(error, RegistryError::Denied { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(&format!("docker login {}", server.host())), "{text}");
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("config.json");
    let (user, password) = DOCKER_USER;
    let login = |password: &str| {
        let entry = serde_json::json!({"username": user, "password": password});
        let config = serde_json::json!({"auths": {server.host(): entry}});
        std::fs::write(&file, config.to_string()).unwrap();
    };
    login("wrong");
    let config = DockerConfig { files: vec![file.clone()], helpers: None };
    let logins = Arc::new(DockerLogins { config, host: server.host().to_owned() });
    let options = OciOptions { logins, ..OciOptions::default() };
    let r = Oci::open(&format!("oci://{}/org", server.host()), options).unwrap();
    let error = r.version(&model("org/net"), &name("v1")).await.unwrap_err().to_string();
    assert!(error.contains("docker login") && !error.contains("wrong"), "{error}");
    // A new login takes effect without a restart.
    login(password);
    let m = manifest(&r, "org/net", "v1").await;
    all_right(&r, &m, &["tiny.gguf"]).await;
    assert_eq!(listed(&r).await.0, ["org/net@v1"]);
}

#[tokio::test]
async fn a_login_in_the_registrys_name_is_used_and_not_shown() {
    let server = DockerRegistry::start(DockerLogin::User);
    server.push("org/net", "v1", "modelpack-gguf");
    let (user, password) = DOCKER_USER;
    let r = open(&format!("{user}:{password}@{}", server.host()), "/org");
    assert_eq!(r.name(), format!("oci://{}/org", server.host()));
    all_right(&r, &manifest(&r, "org/net", "v1").await, &["tiny.gguf"]).await;
}

#[tokio::test]
async fn dockers_registry_with_a_token_service_is_read() {
    let (signer, service) = (Arc::new(TokenSigner::new()), OciServer::start());
    let realm = service.realm();
    let server = DockerRegistry::start(DockerLogin::Token(&signer, &realm));
    server.push("org/net", "v1", "modelpack-gguf");
    let by = signer.clone();
    service.on(move |request| {
        let scope = "service=test&scope=repository%3Aorg%2Fnet%3Apull&";
        let body = match request.path.contains(scope) {
            true => serde_json::json!({"token": by.token("org/net", &["pull"])}),
            false => return Some(oci_error(401, "UNAUTHORIZED")),
        };
        Some((200, Vec::new(), body.to_string().into()))
    });
    let r = open(server.host(), "/org");
    all_right(&r, &manifest(&r, "org/net", "v1").await, &["tiny.gguf"]).await;
    assert_eq!(service.requests().len(), 1, "one token for everything");
    let error = r.version(&model("org/other"), &name("v1")).await.unwrap_err();
    assert!(matches!(error, RegistryError::Denied { .. }), "{error}");
}

#[tokio::test]
async fn lists_are_read_page_by_page() {
    let server = OciServer::start();
    for repository in ["org/a", "org/b", "org/c", "org/d--e", "other/x", "org/empty"] {
        for tag in ["v1", "v2", "v3", "v4", "v5"] {
            server.golden(repository, tag, "modelpack-gguf");
        }
    }
    let signature = format!("sha256-{}.sig", "0".repeat(64));
    server.golden("org/a", &signature, "modelpack-gguf");
    let r = open(&server.host(), "/org");
    let (names, _) = listed(&r).await;
    assert_eq!(names.len(), 4 * 5, "{names:?}");
    assert_eq!(names[..2], ["org/a@v1", "org/a@v2"]);
    let Listing::Changed { catalog, .. } = r.list(&Validator::default()).await.unwrap() else {
        panic!("nothing was known")
    };
    assert_eq!(catalog.left_out().count, 1);
    assert!(catalog.left_out().first[0].contains("'org/d--e' has '--'"), "{catalog:?}");
}

#[tokio::test]
async fn a_model_is_looked_up_by_its_tags() {
    let server = OciServer::start();
    server.golden("org/a/b", "v2", "modelpack-gguf");
    server.golden("org/a/b", "v1", "modelpack-gguf");
    let r = open(&server.host(), "/org");
    let known = Validator::default();
    let Versions::Changed { versions, validator } =
        r.lookup(&model("org/a--b"), &known).await.unwrap()
    else {
        panic!("nothing was known")
    };
    assert_eq!(versions.iter().map(|v| v.name.as_str()).collect::<Vec<_>>(), ["v1", "v2"]);
    assert!(versions.iter().all(|v| v.target == VersionTarget::Unknown));
    let again = r.lookup(&model("org/a--b"), &validator).await.unwrap();
    assert!(matches!(again, Versions::Unchanged));
    server.requests();
    for nothing in ["org/none", "other/a"] {
        let found = r.lookup(&model(nothing), &known).await.unwrap();
        assert!(matches!(found, Versions::Changed { versions, .. } if versions.is_empty()));
    }
    assert_eq!(server.requests().len(), 1, "a group that is not this source's is never asked for");
}

#[tokio::test]
async fn a_registry_that_cannot_be_listed_says_so_and_looks_up() {
    let server = OciServer::start();
    server.golden("org/net", "v1", "modelpack-gguf");
    server.on(|r| r.path.contains("_catalog").then(|| oci_error(404, "UNSUPPORTED")));
    let r = open(&server.host(), "/org");
    let error = r.list(&Validator::default()).await.unwrap_err();
    assert!(matches!(error, RegistryError::Invalid { .. }), "{error}");
    assert!(error.to_string().contains("cannot be listed"), "{error}");
    assert!(!r.capabilities().listable);
    assert!(revision(&r, "org/net", "v1").await.is_some());
    server.heal();
    assert_eq!(listed(&r).await.0, ["org/net@v1"]);
    assert!(r.capabilities().listable);
}

#[tokio::test]
async fn a_registry_that_ignores_ranges_works() {
    let server = OciServer::start();
    server.golden("org/net", "v1", "modelpack-dir");
    let (_, blobs) = golden_artifact("modelpack-dir");
    let weights = blobs.into_iter().max_by_key(Vec::len).unwrap();
    let want = weights.clone();
    let path = format!("/v2/org/net/blobs/sha256:{}", sha256(&weights));
    server.on(move |r| (r.path == path).then(|| oci_bytes(&weights, None)));
    let r = open(&server.host(), "/org");
    let m = manifest(&r, "org/net", "v1").await;
    let object = m.objects().iter().find(|o| o.len == 262_225).unwrap();
    let got = read_object(&r, object, ObjectRange::new(1000, 2000)).await.unwrap();
    assert_eq!(got, want[1000..2000]);
    let asked = server.requests();
    assert!(asked.iter().any(|a| a.range.as_deref() == Some("bytes=1000-1999")), "{asked:?}");
}

#[tokio::test]
async fn an_index_leads_to_the_manifest_of_a_model() {
    let server = OciServer::start();
    let good = server.golden("org/net", "v1", "modelpack-gguf");
    let image = server.put(br#"{"schemaVersion":2,"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2}]}"#);
    let index = |of: &[&str]| {
        let entry = |digest: &&str| serde_json::json!({"digest": digest, "size": 1});
        let manifests: Vec<_> = of.iter().map(entry).collect();
        serde_json::json!({"schemaVersion": 2, "manifests": manifests}).to_string()
    };
    let digest = server.tag("org/net", "both", index(&[&image, &good]).as_bytes());
    server.tag("org/net", "none", index(&[&image]).as_bytes());
    let r = open(&server.host(), "/org");
    let m = manifest(&r, "org/net", "both").await;
    all_right(&r, &m, &["tiny.gguf"]).await;
    assert_eq!(revision(&r, "org/net", "both").await, Some(Revision::new(digest)));
    let none = revision(&r, "org/net", "none").await.unwrap();
    let error = r.resolve(&model("org/net"), &none).await.unwrap_err().to_string();
    assert!(error.contains("a container image"), "{error}");
}

#[tokio::test]
async fn the_same_layer_twice_is_fetched_by_the_same_digest() {
    let server = OciServer::start();
    let layer = server.put(b"same");
    let layers: Vec<_> = ["a", "b/c"]
        .iter()
        .map(|path| {
            serde_json::json!({
                "mediaType": "application/octet-stream", "digest": layer, "size": 4,
                "annotations": {"org.opencontainers.image.title": path},
            })
        })
        .collect();
    let manifest_json = serde_json::json!({"schemaVersion": 2, "layers": layers});
    server.tag("org/net", "v1", manifest_json.to_string().as_bytes());
    let r = open(&server.host(), "/org");
    let m = manifest(&r, "org/net", "v1").await;
    all_right(&r, &m, &["a", "b/c"]).await;
    assert!(m.objects().iter().all(|o| o.digest == sha256(b"same") && o.check == Check::Whole));
}
