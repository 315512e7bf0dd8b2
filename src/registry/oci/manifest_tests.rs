//! Manifests, those that foreign tools wrote among them.

use super::*;

fn layers(json: &str) -> Result<Vec<Layer>, String> {
    match parse(json.as_bytes())? {
        Document::Image(image) => image.layers(),
        Document::Index(_) => panic!("an index"),
    }
}

fn contents(json: &str) -> Vec<Content> {
    layers(json).unwrap().into_iter().map(|l| l.content).collect()
}

fn file(path: &str) -> Content {
    Content::File(path.into())
}

/// The media type, size and annotations of a layer.
type LayerOf<'a> = (&'a str, u64, &'a [(&'a str, &'a str)]);

/// A manifest of these layers.
fn manifest(layers: &[LayerOf<'_>]) -> String {
    let layers: Vec<_> = layers
        .iter()
        .map(|(media_type, size, annotations)| {
            let annotations: BTreeMap<_, _> = annotations.iter().copied().collect();
            serde_json::json!({
                "mediaType": media_type,
                "digest": format!("sha256:{}", "ab".repeat(32)),
                "size": size,
                "annotations": annotations,
            })
        })
        .collect();
    serde_json::json!({ "schemaVersion": 2, "layers": layers }).to_string()
}

const TITLE: &str = "org.opencontainers.image.title";
const PATH: &str = "org.cncf.model.filepath";

macro_rules! golden {
    ($name:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/oci/", $name, ".json"))
    };
}

#[test]
fn what_modctl_and_docker_wrote_is_files_by_their_names() {
    let folder = ["README.md", "config.json", "model.safetensors", "onnx/x.json"].map(file);
    assert_eq!(contents(golden!("modelpack-dir")), folder);
    assert_eq!(contents(golden!("docker-v0.2-dir")), folder);
    assert_eq!(contents(golden!("modelpack-gguf")), [file("tiny.gguf")]);
    assert_eq!(contents(golden!("docker-v0.1-gguf")), [file("tiny.gguf")]);
    let weights = &layers(golden!("modelpack-dir")).unwrap()[2];
    assert_eq!(weights.size, 262_225);
    assert!(weights.digest.to_string().starts_with("ef1de120fc254aa6"));
}

#[test]
fn what_kit_wrote_is_archives() {
    let layers = layers(golden!("kitops")).unwrap();
    assert!(layers.iter().all(|l| l.content == Content::Tar));
    assert_eq!(layers.iter().map(|l| l.size).collect::<Vec<_>>(), [151_552, 2048, 2048]);
}

#[test]
fn older_names_and_other_tools_are_read_too() {
    let json = manifest(&[
        ("application/vnd.cnai.model.weight.v1.raw", 1, &[("org.cnai.model.filepath", "./a/w")]),
        ("application/vnd.cnai.model.doc.v1.tar", 1, &[(PATH, "docs")]),
        ("application/octet-stream", 1, &[(TITLE, "titled.bin")]),
        ("application/vnd.oci.image.layer.v1.tar", 1, &[(TITLE, "what-oras-calls-any-file")]),
        ("application/vnd.oci.image.layer.v1.tar", 1, &[(TITLE, "dir"), (UNPACK, "true")]),
        ("application/vnd.oci.empty.v1+json", 2, &[(TITLE, "nothing")]),
        ("application/vnd.in-toto+json", 1, &[]),
    ]);
    let want = [
        file("a/w"),
        Content::Tar,
        file("titled.bin"),
        file("what-oras-calls-any-file"),
        Content::Tar,
    ];
    assert_eq!(contents(&json), want);
}

#[test]
fn docker_layers_without_names_are_called_as_docker_does() {
    let gguf = "application/vnd.docker.ai.gguf.v3";
    let json = manifest(&[
        (gguf, 1, &[]),
        ("application/vnd.docker.ai.license", 1, &[]),
        ("application/vnd.docker.ai.mmproj", 1, &[]),
        ("application/vnd.docker.ai.chat.template.file", 1, &[]),
        ("application/vnd.docker.ai.vllm.config.tar", 1, &[]),
    ]);
    let want = ["model.gguf", "LICENSE", "model.mmproj", "template.jinja"].map(file);
    assert_eq!(contents(&json)[..4], want);
    assert_eq!(contents(&json)[4], Content::Tar);
    let json = manifest(&[(gguf, 1, &[]), (gguf, 1, &[(PATH, "named.gguf")]), (gguf, 1, &[])]);
    let want = ["model-00001-of-00002.gguf", "named.gguf", "model-00002-of-00002.gguf"];
    assert_eq!(contents(&json), want.map(file));
}

#[test]
fn what_cannot_be_served_says_so() {
    let cncf = |end: &str| format!("application/vnd.cncf.model.weight.v1.{end}");
    for end in ["tar+gzip", "tar+zstd", "tar.gz"] {
        let error = layers(&manifest(&[(&cncf(end), 1, &[(PATH, "x")])])).unwrap_err();
        assert!(error.contains("layers[0]: is packed with"), "{error}");
        assert!(error.contains("package it uncompressed"), "{error}");
    }
    let kit = "application/vnd.kitops.modelkit.model.v1.tar+gzip";
    assert!(layers(&manifest(&[(kit, 1, &[])])).unwrap_err().contains("gzip"));
    let oras = "application/vnd.oci.image.layer.v1.tar+gzip";
    let annotations: &[_] = &[(TITLE, "dir"), (UNPACK, "true")];
    assert!(layers(&manifest(&[(oras, 1, annotations)])).unwrap_err().contains("gzip"));
    let error = layers(&manifest(&[(&cncf("raw"), 1, &[])])).unwrap_err();
    assert!(error.contains("has no name of a file"), "{error}");
    let image = manifest(&[("application/vnd.oci.image.layer.v1.tar+gzip", 1, &[])]);
    assert!(layers(&image).unwrap_err().contains("a container image"));
    let empty = layers(&manifest(&[(&cncf("raw"), 0, &[(PATH, "x")])])).unwrap_err();
    assert!(empty.contains("empty by its size, but not by its digest"), "{empty}");
    let other = manifest(&[(&cncf("raw"), 1, &[(PATH, "x")])]).replace("sha256:", "sha512:");
    assert!(layers(&other).unwrap_err().contains("is not a SHA-256"));
}

#[test]
fn an_index_offers_models_first_and_attestations_never() {
    let entry = |n: u8, more: &str| {
        let digest = format!("{n:02x}").repeat(32);
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        format!(r#"{{"mediaType":"{media_type}","digest":"sha256:{digest}","size":1{more}}}"#)
    };
    let json = format!(
        r#"{{"schemaVersion":2,"manifests":[{},{},{},{},{}]}}"#,
        entry(1, ""),
        entry(2, r#","platform":{"architecture":"unknown","os":"unknown"}"#),
        entry(3, r#","annotations":{"vnd.docker.reference.type":"attestation-manifest"}"#),
        entry(4, r#","artifactType":"application/vnd.cncf.model.manifest.v1+json""#),
        entry(5, "").replace("manifest.v1", "index.v1"),
    );
    let Document::Index(found) = parse(json.as_bytes()).unwrap() else { panic!("no index") };
    assert_eq!(found, [4, 1].map(|n| Digest::from_bytes([n; 32])));
}

#[test]
fn what_is_no_manifest_is_refused() {
    for (json, why) in [
        ("", "EOF"),
        ("[]", "invalid"),
        (r#"{"schemaVersion":1,"layers":[]}"#, "schemaVersion 1"),
        (r#"{"schemaVersion":2,"layers":[],"manifests":[]}"#, "both"),
        (r#"{"schemaVersion":2,"layers":[{"digest":"sha256:x"}]}"#, "size"),
        (r#"{"schemaVersion":2,"layers":[{"digest":"x","size":-1}]}"#, "invalid"),
    ] {
        let error = parse(json.as_bytes()).unwrap_err();
        assert!(error.contains(why), "{json}: {error}");
    }
    assert_eq!(relative("././/a/./b"), "a/./b");
}
