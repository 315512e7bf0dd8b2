//! What a registry's manifest says: which layers there are, and what each of them holds.
//!
//! Knows the kinds of model artifacts: CNCF ModelPack, KitOps, Docker models, and any artifact whose
//! layers have titles. Pure; the caller has compared the digest of the bytes.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::base::text::brief;
use crate::model::Digest;
use crate::model::hash::sha256;

/// What is asked for: manifests and indexes, by the names of OCI and of Docker.
pub const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, \
    application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json";

/// Layers of a manifest of 4 MiB, the most that registries take.
const MAX_LAYERS: usize = 32_768;

/// How model formats call their layers.
const CNCF: [&str; 2] = ["application/vnd.cncf.model.", "application/vnd.cnai.model."];
const KITOPS: &str = "application/vnd.kitops.modelkit.";
const DOCKER: &str = "application/vnd.docker.ai.";

/// Annotations that name the file that a layer holds, the most specific first.
const PATHS: [&str; 3] =
    ["org.cncf.model.filepath", "org.cnai.model.filepath", "org.opencontainers.image.title"];
/// ORAS sets this to `true` for a folder, which it has packed.
const UNPACK: &str = "io.deis.oras.content.unpack";
/// What stands for "nothing" where a manifest must name something.
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// A manifest, or a list of manifests.
#[derive(Debug)]
pub enum Document {
    /// The manifest of one artifact.
    Image(Image),
    /// Manifests to choose from, the likeliest first.
    Index(Vec<Digest>),
}

/// The manifest of one artifact.
#[derive(Debug, Deserialize)]
pub struct Image {
    #[serde(default)]
    layers: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    manifests: Vec<Descriptor>,
}

/// Enough of either to tell them apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Either {
    schema_version: u64,
    layers: Option<serde::de::IgnoredAny>,
    manifests: Option<serde::de::IgnoredAny>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    artifact_type: Option<String>,
    platform: Option<Platform>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Clone, Deserialize)]
struct Platform {
    #[serde(default)]
    os: String,
}

/// A layer that holds files of the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// The SHA-256 of its bytes.
    pub digest: Digest,
    /// Its length.
    pub size: u64,
    /// What it holds.
    pub content: Content,
}

/// What a layer holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// One file, as it is. The path is not yet checked.
    File(String),
    /// The files of a tar archive.
    Tar,
}

/// A path without the `./` that some tools write before it.
pub fn relative(mut path: &str) -> &str {
    while let Some(rest) = path.strip_prefix("./") {
        path = rest.trim_start_matches('/');
    }
    path
}

/// The SHA-256 in `sha256:<hex>`; or why it is none, in one line.
pub fn digest_of(text: &str) -> Result<Digest, String> {
    let hex = text.strip_prefix("sha256:").and_then(|hex| hex.parse().ok());
    hex.ok_or_else(|| format!("digest '{}' is not a SHA-256", brief(text, 80)))
}

/// Reads a manifest; or says why it is none, in one line.
pub fn parse(body: &[u8]) -> Result<Document, String> {
    let json = |e: serde_json::Error| brief(&e.to_string(), 200);
    let either: Either = serde_json::from_slice(body).map_err(json)?;
    if either.schema_version != 2 {
        return Err(format!("schemaVersion {} is not 2", either.schema_version));
    }
    match (either.layers, either.manifests) {
        (Some(_), Some(_)) => Err("has both layers and manifests".into()),
        (_, None) => {
            let image: Image = serde_json::from_slice(body).map_err(json)?;
            match image.layers.len() > MAX_LAYERS {
                true => Err(format!("more than {MAX_LAYERS} layers")),
                false => Ok(Document::Image(image)),
            }
        }
        (None, Some(_)) => {
            let index: Index = serde_json::from_slice(body).map_err(json)?;
            candidates(&index.manifests).map(Document::Index)
        }
    }
}

/// The manifests of an index that may be the model: those that say so first, attestations never.
fn candidates(manifests: &[Descriptor]) -> Result<Vec<Digest>, String> {
    let attests = |d: &Descriptor| {
        let kind = d.annotations.iter().flatten().any(|(k, _)| k == "vnd.docker.reference.type");
        kind || d.platform.as_ref().is_some_and(|p| p.os == "unknown")
    };
    let is_manifest = |d: &Descriptor| d.media_type.is_empty() || d.media_type.contains("manifest");
    let is_list = |d: &Descriptor| d.media_type.contains("manifest.list");
    let mut usable: Vec<_> =
        manifests.iter().filter(|d| is_manifest(d) && !is_list(d) && !attests(d)).collect();
    usable.sort_by_key(|d| !d.artifact_type.as_deref().is_some_and(is_model));
    usable.iter().map(|d| digest_of(&d.digest)).collect()
}

/// Whether a media type belongs to a format of models.
fn is_model(media_type: &str) -> bool {
    CNCF.iter().chain([&KITOPS, &DOCKER]).any(|prefix| media_type.starts_with(prefix))
}

impl Image {
    /// The layers that hold files of the model; or why it is no model that can be read, in one line.
    pub fn layers(&self) -> Result<Vec<Layer>, String> {
        let mut unnamed = Unnamed::of(&self.layers);
        let mut out = Vec::new();
        for (i, layer) in self.layers.iter().enumerate() {
            let field = |why: String| format!("layers[{i}]: {why}");
            let Some(content) = content(layer, &mut unnamed).map_err(field)? else { continue };
            let digest = digest_of(&layer.digest).map_err(field)?;
            if layer.size == 0 && digest != sha256(b"") {
                return Err(field("is empty by its size, but not by its digest".into()));
            }
            out.push(Layer { digest, size: layer.size, content });
        }
        match out.is_empty() {
            false => Ok(out),
            true => Err("no layer names a file: it is not a model, or a container image".into()),
        }
    }
}

/// What a layer holds, if it holds files.
fn content(layer: &Descriptor, unnamed: &mut Unnamed) -> Result<Option<Content>, String> {
    let media_type = layer.media_type.split(';').next().unwrap_or_default().trim();
    let annotation = |name: &str| layer.annotations.as_ref()?.get(name).map(String::as_str);
    let path = PATHS.iter().find_map(|name| annotation(name)).filter(|path| !path.is_empty());
    let file = |path: &str| Content::File(relative(path).to_owned());
    if media_type == EMPTY {
        return Ok(None);
    }
    if !is_model(media_type) {
        return match (path, annotation(UNPACK) == Some("true")) {
            (Some(_), true) => packed(media_type).map(Some),
            (Some(path), false) => Ok(Some(file(path))),
            (None, _) => Ok(None),
        };
    }
    if ends_as_tar(media_type) {
        return packed(media_type).map(Some);
    }
    match path {
        Some(path) => Ok(Some(file(path))),
        None => match unnamed.next(media_type) {
            Some(path) => Ok(Some(Content::File(path))),
            None => Err(format!("'{}' has no name of a file", brief(media_type, 100))),
        },
    }
}

/// Whether a media type is one of an archive, compressed or not.
fn ends_as_tar(media_type: &str) -> bool {
    compression(media_type).is_some()
        || media_type.ends_with(".tar")
        || media_type.ends_with("+tar")
}

fn compression(media_type: &str) -> Option<&'static str> {
    let ends = |end: &&str| media_type.ends_with(*end);
    if ["+gzip", ".gzip", ".tar.gz"].iter().any(ends) {
        return Some("gzip");
    }
    ["+zstd", ".zstd", ".tar.zst"].iter().any(ends).then_some("zstd")
}

/// The content of an archive's layer.
fn packed(media_type: &str) -> Result<Content, String> {
    match compression(media_type) {
        None => Ok(Content::Tar),
        Some(how) => Err(format!(
            "is packed with {how} ({}): modelfs reads no compressed layers; package it uncompressed",
            brief(media_type, 100)
        )),
    }
}

/// Names for the layers of Docker models that have none: the same that Docker gives them.
struct Unnamed {
    counts: [(&'static str, &'static str, usize, usize); 5],
}

impl Unnamed {
    fn of(layers: &[Descriptor]) -> Self {
        let unnamed = |d: &&Descriptor| {
            !PATHS.iter().any(|name| d.annotations.iter().flatten().any(|(k, _)| k == name))
        };
        let count = |kind: &str| {
            let same = |d: &&Descriptor| d.media_type.strip_prefix(DOCKER) == Some(kind);
            layers.iter().filter(unnamed).filter(same).count()
        };
        let of = |kind, name| (kind, name, count(kind), 0);
        Self {
            counts: [
                of("gguf.v3", "model.gguf"),
                of("safetensors", "model.safetensors"),
                of("mmproj", "model.mmproj"),
                of("chat.template.file", "template.jinja"),
                of("license", "LICENSE"),
            ],
        }
    }

    /// The name of the next layer of this type: `model.gguf`, or `model-00001-of-00002.gguf`.
    fn next(&mut self, media_type: &str) -> Option<String> {
        let kind = media_type.strip_prefix(DOCKER)?;
        let (_, name, all, seen) = self.counts.iter_mut().find(|(k, ..)| *k == kind)?;
        *seen += 1;
        if *all == 1 {
            return Some((*name).to_owned());
        }
        let (stem, end) = name.split_once('.').unwrap_or((name, ""));
        let dot = if end.is_empty() { "" } else { "." };
        Some(format!("{stem}-{seen:05}-of-{all:05}{dot}{end}"))
    }
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
