//! The documents that are made of the Hub's answers and kept: the references of a repository, and the
//! files of a commit. Pure.
//!
//! Invariant: the same answers make the same bytes, since the SHA-256 of a manifest document is the
//! version's identity. A document has what the Hub said, in order; what of it can be believed is
//! decided when it is read: a file is in the manifest only if the commit binds what its bytes are
//! checked by.

use serde::{Deserialize, Serialize};

use super::answers::{Refs, TreeEntry};
use super::name::{Repo, RepoType, shown, version_name};
use crate::base::ObjectRange;
use crate::model::hash::{git_blob, lfs_pointer, sha256};
use crate::model::{
    Catalog, CatalogBuilder, Check, Digest, FilePath, GitId, HashAlgorithm, Locator, MAX_LEAF,
    Manifest, ManifestBuilder, ManifestError, ModelRef, Name, Object, Revision, Slice,
    VersionEntry, VersionId, VersionTarget,
};
use crate::registry::error::RegistryError;
use crate::registry::kept::{has_format, to_bytes};
use crate::trust::xet::XetHash;

/// The format of a manifest document, with the version of its form.
const MANIFEST: &str = "modelfs.huggingface/1";
/// The format of a document of references.
const CATALOG: &str = "modelfs.huggingface.refs/1";

/// Maximum length of a file that is read as a whole even if its ranges can be proved: three requests for a
/// range take about as long as all of it, which is verified at once.
const MIN_PROVEN: u64 = 16 << 20;

/// A document of the files of a commit.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestDoc {
    format: String,
    r#type: String,
    repo: String,
    commit: GitId,
    files: Vec<FileDoc>,
}

/// A file, as the Hub lists it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileDoc {
    path: String,
    size: u64,
    /// The id of its git blob.
    oid: String,
    /// The SHA-256 of its bytes, if its git blob is a pointer to them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    lfs: Option<String>,
    /// Its Xet hash.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    xet: Option<String>,
}

/// A document of the references of a repository.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CatalogDoc {
    format: String,
    r#type: String,
    repo: String,
    refs: Vec<RefDoc>,
}

/// A reference: how a revision is called, and the commit that it leads to.
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(deny_unknown_fields)]
struct RefDoc {
    name: String,
    commit: String,
}

/// Whether a document is one of ours, of files.
pub fn is_manifest(document: &[u8]) -> bool {
    has_format(document, MANIFEST)
}

/// Whether a document is one of ours, of references.
pub fn is_catalog(document: &[u8]) -> bool {
    has_format(document, CATALOG)
}

impl ManifestDoc {
    /// Of the whole tree of a commit, in any order.
    pub fn new(repo: &Repo, commit: GitId, entries: Vec<TreeEntry>) -> Self {
        let files = entries.into_iter().filter(|e| e.r#type == "file");
        let mut files: Vec<FileDoc> = files
            .map(|e| FileDoc {
                path: e.path,
                size: e.size,
                oid: e.oid,
                lfs: e.lfs.map(|lfs| lfs.oid),
                // The Hub masks the hashes of gated repositories.
                xet: e.xet_hash.filter(|x| x.parse::<XetHash>().is_ok()),
            })
            .collect();
        files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        let (format, repo_type) = (MANIFEST.to_owned(), repo.kind().word().to_owned());
        Self { format, r#type: repo_type, repo: repo.id().to_string(), commit, files }
    }

    /// The same as it is where the Hub shows no Xet hashes: to a reader without access.
    pub fn without_xet(mut self) -> Self {
        self.files.iter_mut().for_each(|file| file.xet = None);
        self
    }

    /// The document.
    pub fn write(&self) -> Vec<u8> {
        to_bytes(self)
    }
}

/// Reads a document of files; the caller has compared its SHA-256.
pub fn parse_manifest(version: VersionId, document: &[u8]) -> Result<Manifest, RegistryError> {
    let hash = version.digest();
    let wrong = |e: ManifestError| RegistryError::manifest(&hash, &e);
    let bad = |e: String| wrong(ManifestError::field("document", e));
    let doc: ManifestDoc = serde_json::from_slice(document).map_err(|e| bad(e.to_string()))?;
    let repo = repo_of(&doc.r#type, &doc.repo).map_err(bad)?;
    let place = format!("{}/resolve/{}", repo.page(), doc.commit);
    let mut builder = ManifestBuilder::new(hash);
    builder.revision(Revision::new(doc.commit.to_string()));
    for file in &doc.files {
        match file.object(&place) {
            Err(why) => builder.left_out(why),
            Ok((sha256, object)) => {
                let mut slices = Vec::new();
                if let Some(object) = object {
                    let range = ObjectRange::new(0, object.len);
                    slices.push(Slice { object: builder.object(object).map_err(wrong)?, range });
                }
                builder.file(&file.path, sha256, slices).map_err(wrong)?;
            }
        }
    }
    builder.build().map_err(wrong)
}

/// The repository that a document is of.
fn repo_of(kind: &str, id: &str) -> Result<Repo, String> {
    let kind = RepoType::from_word(kind).ok_or("type: is neither model nor dataset")?;
    let id: ModelRef = id.parse().map_err(|e| format!("repo: {e}"))?;
    Repo::new(kind, id).ok_or_else(|| "repo: the Hub can have none of that name".into())
}

impl FileDoc {
    /// The SHA-256 of the file, if it is known, and its bytes, if it has any. Else why the file cannot be
    /// in the tree, on one short line.
    fn object(&self, place: &str) -> Result<(Option<Digest>, Option<Object>), String> {
        let shown = shown(&self.path);
        FilePath::new(&self.path).map_err(|why| format!("{shown} {why}"))?;
        let oid: GitId =
            self.oid.parse().map_err(|why| format!("{shown}: its blob id is {why}"))?;
        let locator = || format!("{place}/{}", self.path).into();
        let Some(lfs) = &self.lfs else {
            return match self.size {
                0 if oid == git_blob(b"") => Ok((None, None)),
                0 => Err(format!("{shown} is not empty by its blob id, and has no size")),
                len if len > MAX_LEAF => Err(format!(
                    "{shown} has {len} bytes, and its blob id can only verify {MAX_LEAF}"
                )),
                len => Ok((None, Some(Object::git_blob(oid, len, locator())))),
            };
        };
        let digest: Digest =
            lfs.parse().map_err(|_| format!("{shown}: its SHA-256 is not given"))?;
        if oid != git_blob(lfs_pointer(&digest, self.size).as_bytes()) {
            return Err(format!("{shown}: the commit does not bind its SHA-256 and size"));
        }
        if self.size == 0 {
            let empty = digest == sha256(b"");
            return empty.then_some((Some(digest), None)).ok_or(format!("{shown} is not empty"));
        }
        let object = Object {
            digest,
            algorithm: HashAlgorithm::Sha256,
            locator: Locator::Path(locator()),
            len: self.size,
            check: self.check(),
        };
        Ok((Some(digest), Some(object)))
    }
}

impl FileDoc {
    /// How a file is verified of which git has a pointer: by ranges if it has a Xet hash.
    fn check(&self) -> Check {
        let root = self.xet.as_ref().and_then(|xet| xet.parse::<XetHash>().ok());
        match root.filter(|_| self.size > MIN_PROVEN) {
            Some(root) => Check::Proof { root: Digest::from_bytes(*root.as_bytes()) },
            None => Check::of_whole(self.size),
        }
    }
}

impl CatalogDoc {
    /// Of the references of a repository.
    pub fn new(repo: &Repo, refs: Refs) -> Self {
        let own = refs.branches.into_iter().chain(refs.tags);
        let own = own.map(|r| RefDoc { name: r.name, commit: r.target_commit });
        let made = refs.converts.into_iter();
        let made = made.map(|r| RefDoc { name: r.r#ref, commit: r.target_commit });
        let (format, repo_type) = (CATALOG.to_owned(), repo.kind().word().to_owned());
        let refs = own.chain(made).collect();
        Self { format, r#type: repo_type, repo: repo.id().to_string(), refs }
    }

    /// The document.
    pub fn write(&self) -> Vec<u8> {
        to_bytes(self)
    }

    /// The catalog of the repository.
    pub fn catalog(&self) -> Result<Catalog, RegistryError> {
        let wrong = |why| RegistryError::Invalid { what: "the references".into(), why };
        let repo = repo_of(&self.r#type, &self.repo).map_err(wrong)?;
        let mut builder = CatalogBuilder::default();
        builder.group(repo.id().group.clone());
        builder.model(repo.id().model.clone());
        let mut refs: Vec<_> = self.refs.iter().map(|r| (version_name(&r.name), r)).collect();
        // A name that is a revision as it stands comes before one that was mapped to it; a branch
        // before a tag, as they came.
        refs.sort_by(|(a, x), (b, y)| (a, *a != x.name).cmp(&(b, *b != y.name)));
        let mut last = None;
        for (name, r) in refs {
            let shown = shown(&r.name);
            match (Name::new(&name), r.commit.parse::<GitId>()) {
                (Err(why), _) => builder.left_out(format!("{shown} {why}")),
                (_, Err(_)) => builder.left_out(format!("{shown} leads to no commit")),
                (Ok(name), _) if last.as_ref() == Some(&name) => {
                    builder.left_out(format!("{shown} is also the name of another revision"));
                }
                (Ok(name), Ok(commit)) => {
                    last = Some(name.clone());
                    builder.version(entry(name, commit));
                }
            }
        }
        builder.build().map_err(|name| wrong(format!("{name} occurs twice")))
    }
}

/// The version of that name that is this commit.
pub fn entry(name: Name, commit: GitId) -> VersionEntry {
    let target = VersionTarget::Revision(Revision::new(commit.to_string()));
    VersionEntry { name, target, alias_of: None, published: None, metadata: None }
}

/// Reads a document of references.
pub fn parse_catalog(document: &[u8]) -> Result<Catalog, RegistryError> {
    let wrong = |e: serde_json::Error| RegistryError::Invalid {
        what: "the references".into(),
        why: e.to_string(),
    };
    serde_json::from_slice::<CatalogDoc>(document).map_err(wrong)?.catalog()
}

#[cfg(test)]
#[path = "document_tests.rs"]
mod tests;
