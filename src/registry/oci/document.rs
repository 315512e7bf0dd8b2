//! The documents that are made of a registry's answers and kept: the files of a manifest, and the
//! repositories with their tags. Pure.
//!
//! Invariant: the same answers make the same bytes, since the SHA-256 of a manifest document is the
//! version's identity. The names, lengths and offsets of files in an archive come from bytes whose
//! digest had matched; everything else comes from the manifest, whose digest is the revision.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::archive::Member;
use super::manifest::{Content, Layer};
use super::place::Repository;
use crate::base::ObjectRange;
use crate::model::{
    Catalog, CatalogBuilder, Check, Digest, HashAlgorithm, Locator, Manifest, ManifestBuilder,
    ManifestError, ModelRef, Name, Object, Revision, Slice, VersionEntry, VersionTarget,
};
use crate::registry::error::RegistryError;
use crate::registry::kept::{has_format, to_bytes};

/// The format of a manifest document, with the version of its form.
const MANIFEST: &str = "modelfs.oci/1";
/// The format of a document of repositories and tags.
const CATALOG: &str = "modelfs.oci.catalog/1";

/// The files of a manifest.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestDoc {
    format: String,
    repository: String,
    /// The digest of the registry's manifest.
    revision: String,
    layers: Vec<LayerDoc>,
    files: Vec<FileDoc>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LayerDoc {
    sha256: Digest,
    size: u64,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileDoc {
    path: String,
    size: u64,
    sha256: Digest,
    /// The index of its layer.
    layer: usize,
    /// Where it begins in the layer.
    offset: u64,
}

/// Repositories with their tags.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CatalogDoc {
    format: String,
    /// Tags by model by group.
    groups: BTreeMap<String, BTreeMap<String, Vec<String>>>,
    /// Why repositories were left out, each on one short line.
    left_out: Vec<String>,
}

/// Whether a document is one of ours, of files.
pub fn is_manifest(document: &[u8]) -> bool {
    has_format(document, MANIFEST)
}

/// Whether a document is one of ours, of repositories.
pub fn is_catalog(document: &[u8]) -> bool {
    has_format(document, CATALOG)
}

/// Where a layer lies below the registry's interface.
pub fn blob_path(repository: &Repository, digest: &Digest) -> String {
    format!("{repository}/blobs/sha256:{digest}")
}

impl ManifestDoc {
    /// Without layers yet.
    pub fn new(repository: &Repository, revision: &Revision) -> Self {
        Self {
            format: MANIFEST.to_owned(),
            repository: repository.to_string(),
            revision: revision.to_string(),
            layers: Vec::new(),
            files: Vec::new(),
        }
    }

    /// Adds a layer with the files that it holds; `members` are those of an archive.
    pub fn layer(&mut self, layer: &Layer, members: Vec<Member>) {
        let at = self.layers.len();
        self.layers.push(LayerDoc { sha256: layer.digest, size: layer.size });
        match &layer.content {
            Content::File(path) => {
                let (path, sha256) = (path.clone(), layer.digest);
                self.files.push(FileDoc { path, size: layer.size, sha256, layer: at, offset: 0 });
            }
            Content::Tar => self.files.extend(members.into_iter().map(|m| FileDoc {
                path: m.path,
                size: m.size,
                sha256: m.sha256,
                layer: at,
                offset: m.offset,
            })),
        }
    }

    /// The document.
    pub fn write(&self) -> Vec<u8> {
        to_bytes(self)
    }
}

/// Reads a document of files whose SHA-256 is `hash`.
pub fn parse_manifest(hash: Digest, document: &[u8]) -> Result<Manifest, RegistryError> {
    let wrong = |e: ManifestError| RegistryError::manifest(&hash, &e);
    let bad = |field: &str, why: String| wrong(ManifestError::field(field, why));
    let doc: ManifestDoc =
        serde_json::from_slice(document).map_err(|e| bad("document", e.to_string()))?;
    let repository = Repository::new(&doc.repository)
        .ok_or_else(|| bad("repository", "no repository can have that name".into()))?;
    let mut builder = ManifestBuilder::new(hash);
    let mut objects = Vec::with_capacity(doc.layers.len());
    for (i, layer) in doc.layers.iter().enumerate() {
        // Only files without bytes lie in an empty layer.
        if layer.size == 0 {
            objects.push(None);
            continue;
        }
        let object = Object {
            digest: layer.sha256,
            algorithm: HashAlgorithm::Sha256,
            locator: Locator::Path(blob_path(&repository, &layer.sha256).into()),
            len: layer.size,
            check: Check::of_whole(layer.size),
        };
        let field = |e: ManifestError| bad(&format!("layers[{i}]"), e.to_string());
        objects.push(Some(builder.object(object).map_err(field)?));
    }
    for (i, file) in doc.files.iter().enumerate() {
        let outside = || bad(&format!("files[{i}]"), "lies outside its layer".into());
        let end = file.offset.checked_add(file.size).ok_or_else(outside)?;
        let object = objects.get(file.layer).ok_or_else(outside)?;
        let slice = match (file.size, object) {
            (0, _) => None,
            (_, Some(object)) => {
                Some(Slice { object: *object, range: ObjectRange::new(file.offset, end) })
            }
            (_, None) => return Err(outside()),
        };
        builder.file(&file.path, Some(file.sha256), slice).map_err(wrong)?;
    }
    builder.build().map_err(wrong)
}

impl CatalogDoc {
    /// Of models with their tags.
    pub fn new(models: Vec<(ModelRef, Vec<String>)>, mut left_out: Vec<String>) -> Self {
        let mut groups = BTreeMap::<_, BTreeMap<_, _>>::new();
        for (model, tags) in models {
            let group = groups.entry(model.group.to_string()).or_default();
            group.insert(model.model.to_string(), tags);
        }
        left_out.sort_unstable();
        Self { format: CATALOG.to_owned(), groups, left_out }
    }

    /// The document.
    pub fn write(&self) -> Vec<u8> {
        to_bytes(self)
    }
}

/// A tag as a version: what it leads to has to be asked for.
pub fn tagged(name: Name) -> VersionEntry {
    let target = VersionTarget::Unknown;
    VersionEntry { name, target, alias_of: None, published: None, metadata: None }
}

/// Reads a document of repositories and tags.
pub fn parse_catalog(document: &[u8]) -> Result<Catalog, RegistryError> {
    let bad = |why: String| RegistryError::Invalid { what: "the kept catalog".into(), why };
    let doc: CatalogDoc = serde_json::from_slice(document).map_err(|e| bad(e.to_string()))?;
    let name = |text: &str| Name::new(text).map_err(|e| bad(format!("'{text}' {e}")));
    let mut out = CatalogBuilder::default();
    for (group, models) in &doc.groups {
        out.group(name(group)?);
        for (model, tags) in models {
            out.model(name(model)?);
            for tag in tags {
                out.version(tagged(name(tag)?));
            }
        }
    }
    for why in doc.left_out {
        out.left_out(why);
    }
    out.build().map_err(|twice| bad(format!("'{twice}' occurs twice")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::hash::sha256;
    use crate::model::{FileIx, MAX_LEAF};

    fn layer(bytes: &[u8], content: Content) -> Layer {
        Layer { digest: sha256(bytes), size: bytes.len() as u64, content }
    }

    fn doc() -> ManifestDoc {
        let repository = Repository::new("org/net").unwrap();
        ManifestDoc::new(&repository, &Revision::new("sha256:00"))
    }

    fn read(doc: &ManifestDoc) -> Result<Manifest, RegistryError> {
        let document = doc.write();
        assert!(is_manifest(&document) && !is_catalog(&document));
        parse_manifest(sha256(&document), &document)
    }

    #[test]
    fn a_document_becomes_a_manifest_of_layers_and_their_members() {
        let mut doc = doc();
        doc.layer(&layer(b"weights", Content::File("model.bin".into())), Vec::new());
        doc.layer(&layer(b"", Content::File("empty".into())), Vec::new());
        let member = |path: &str, offset, size| Member {
            path: path.into(),
            offset,
            size,
            sha256: sha256(path.as_bytes()),
        };
        let members = vec![member("a.json", 2, 3), member("b/none", 5, 0)];
        doc.layer(&layer(b"..abc..", Content::Tar), members);
        let manifest = read(&doc).unwrap();
        let files: Vec<_> = manifest.files().iter().map(|f| (f.path.as_str(), f.len)).collect();
        assert_eq!(files, [("model.bin", 7), ("empty", 0), ("a.json", 3), ("b/none", 0)]);
        let locators: Vec<_> = manifest.objects().iter().map(|o| o.locator.clone()).collect();
        let path = |b: &[u8]| Locator::Path(format!("org/net/blobs/sha256:{}", sha256(b)).into());
        assert_eq!(locators, [path(b"weights"), path(b"..abc..")]);
        assert_eq!(manifest.slices(FileIx(2))[0].range, ObjectRange::new(2, 5));
        assert!(manifest.slices(FileIx(1)).is_empty() && manifest.slices(FileIx(3)).is_empty());
        assert_eq!(manifest.files()[0].sha256, Some(sha256(b"weights")));
    }

    #[test]
    fn a_large_layer_is_verified_as_a_whole_and_not_held_in_memory() {
        for (size, check) in [(MAX_LEAF, Check::Whole), (MAX_LEAF + 1, Check::WholeLarge)] {
            let mut doc = doc();
            let layer = Layer { size, ..layer(b"weights", Content::File("model.bin".into())) };
            doc.layer(&layer, Vec::new());
            let manifest = read(&doc).unwrap();
            let [object] = manifest.objects() else { panic!("one object") };
            assert_eq!((object.len, object.check), (size, check));
        }
    }

    #[test]
    fn documents_that_contradict_themselves_are_refused() {
        type Change = fn(&mut ManifestDoc);
        let changes: [(Change, &str); 7] = [
            (|d| d.files[0].layer = 1, "outside"),
            (|d| d.files[0].offset = 1, "outside"),
            (|d| d.files[0].offset = u64::MAX, "outside"),
            (|d| d.files[0].path = "../x".into(), "'..'"),
            (|d| d.files[0].path = "/x".into(), "absolute"),
            (|d| d.repository = "../x".into(), "repository"),
            (|d| d.layers[0].size = 0, "outside"),
        ];
        for (change, why) in changes {
            let mut doc = doc();
            doc.layer(&layer(b"weights", Content::File("model.bin".into())), Vec::new());
            change(&mut doc);
            let error = read(&doc).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_catalog_is_read_as_it_was_written() {
        let model = |m: &str| m.parse::<ModelRef>().unwrap();
        let tags = |t: &[&str]| t.iter().map(|t| t.to_string()).collect::<Vec<_>>();
        let models = vec![(model("g/b"), tags(&["v2", "v1"])), (model("g/a"), tags(&[]))];
        let document = CatalogDoc::new(models, vec!["x has '--'".into()]).write();
        assert!(is_catalog(&document) && !is_manifest(&document));
        let catalog = parse_catalog(&document).unwrap();
        assert_eq!(catalog.versions("g", "a").unwrap().len(), 0);
        let versions = catalog.versions("g", "b").unwrap();
        assert_eq!(versions.iter().map(|v| v.name.as_str()).collect::<Vec<_>>(), ["v1", "v2"]);
        assert!(versions.iter().all(|v| v.target == VersionTarget::Unknown));
        assert_eq!(catalog.left_out().first, ["x has '--'"]);
    }
}
