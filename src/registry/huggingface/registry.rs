//! The Hub, or one repository of it, as a registry.
//!
//! Names: `group/model` is the repository `org/name`; a version is a branch, a tag, a commit, or what else
//! the Hub calls a revision, with `--` for each slash. One request lists the references of a repository,
//! one per thousand files reads the tree of a commit, and none is made per file.
//! Invariant: a manifest is made of one commit. Concurrency: shared; its lock is never held across an
//! await.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use lru::LruCache;
use reqwest::header;

use super::answers::{RevisionInfo, TreeEntry, next_page, parse};
use super::client::{Answer, Hub, Wanted};
use super::document::{CatalogDoc, ManifestDoc, entry, parse_manifest};
use super::name::{Repo, RepoType, Scope, revisions_of, shown};
use super::token::Environment;
use super::xet::{FileOf, Xet};
use crate::base::ObjectRange;
use crate::model::hash::sha256;
use crate::model::{
    Catalog, Check, Digest, GitId, Leaves, Locator, MAX_FILES, ModelRef, Name, Object, Revision,
    VersionEntry, VersionId,
};
use crate::registry::api::{
    Capabilities, Listing, ManifestDocument, ObjectBody, ProvenBody, Registry, Validator, Versions,
};
use crate::registry::error::RegistryError;
use crate::registry::login::Logins;
use crate::registry::transport::HttpOptions;
use crate::trust::xet::XetHash;

/// Maximum size of the list of references: a hundred thousand of them.
const MAX_REFS: u64 = 16 << 20;
/// Maximum size of what the Hub says of a revision, which may come with a list of all files.
const MAX_REVISION: u64 = 64 << 20;
/// Maximum size of a page of a tree: a thousand files with the longest paths.
const MAX_PAGE: u64 = 16 << 20;
/// Maximum number of pages: a million files and as many folders, a thousand at a time.
const MAX_PAGES: usize = 2 * MAX_FILES / 1000;
/// Maximum number of manifests of which it is remembered what commit they are of.
const MAX_KNOWN: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

/// The Hub as a registry.
pub struct HuggingFace {
    name: String,
    scope: Scope,
    hub: Hub,
    xet: Xet,
    /// The commits of the manifests that were made, by the SHA-256 of their documents.
    made: Mutex<LruCache<Digest, (Repo, GitId)>>,
}

impl HuggingFace {
    /// The registry of that name (`hf://…`), with the endpoint and token of this environment.
    pub fn with(
        name: &str,
        environment: &Environment,
        options: &HttpOptions,
    ) -> Result<Self, RegistryError> {
        let logins = Arc::new(environment.clone());
        Self::open(name, environment.endpoint.as_deref(), logins, options)
    }

    /// The registry of that name at an endpoint, as `HF_ENDPOINT` has it; none: the usual one.
    pub fn open(
        name: &str,
        endpoint: Option<&str>,
        logins: Arc<dyn Logins>,
        options: &HttpOptions,
    ) -> Result<Self, RegistryError> {
        let scope = Scope::parse(name)?;
        let hub = Hub::new(endpoint, logins, options)?;
        let xet = Xet::new(hub.http().clone());
        let made = Mutex::new(LruCache::new(MAX_KNOWN));
        Ok(Self { name: scope.to_string(), scope, hub, xet, made })
    }

    /// The repository that a model is, if it can be one of this registry.
    fn repo(&self, model: &ModelRef) -> Option<Repo> {
        match &self.scope {
            Scope::Models => Repo::new(RepoType::Model, model.clone()),
            Scope::One(repo) => (repo.id() == model).then(|| repo.clone()),
        }
    }

    /// The references of a repository; `None`: they are still what `known` identifies.
    async fn refs(
        &self,
        repo: &Repo,
        known: &Validator,
    ) -> Result<Option<(CatalogDoc, Validator)>, RegistryError> {
        let (what, page) = (repo.to_string(), repo.page());
        let wanted = Wanted { what: &what, page: &page };
        let etag = known.etag.as_deref();
        let Answer { headers, body } =
            self.hub.ask(wanted, &[&repo.api(), "refs"], None, MAX_REFS, etag).await?;
        let Some(body) = body else { return Ok(None) };
        let etag = headers.get(header::ETAG).and_then(|e| e.to_str().ok()).map(str::to_owned);
        let doc = CatalogDoc::new(repo, parse(&what, &body)?);
        Ok(Some((doc, Validator { etag, last_modified: None })))
    }

    /// The commit of a revision, if the repository has it.
    async fn commit(&self, repo: &Repo, revision: &str) -> Result<Option<GitId>, RegistryError> {
        let what = format!("{repo} at {}", shown(revision));
        let page = repo.page();
        let wanted = Wanted { what: &what, page: &page };
        let path = [&repo.api(), "revision", revision];
        // Without that, the answer has a list of all files.
        let query = Some("expand=sha");
        let answer = match self.hub.ask(wanted, &path, query, MAX_REVISION, None).await {
            Ok(answer) => answer.body.unwrap_or_default(),
            Err(RegistryError::Missing { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let info: RevisionInfo = parse(&what, &answer)?;
        let commit = info.sha.parse::<GitId>().map_err(|e| RegistryError::Invalid {
            what: what.clone(),
            why: format!("its commit is {e}"),
        })?;
        match revision.parse::<GitId>() {
            Ok(asked) if asked != commit => {
                let why = format!("another commit than the one that was asked for: {commit}");
                Err(RegistryError::Invalid { what, why })
            }
            _ => Ok(Some(commit)),
        }
    }

    /// All files of a commit.
    async fn tree(&self, repo: &Repo, commit: GitId) -> Result<Vec<TreeEntry>, RegistryError> {
        let what = format!("the files of {repo} at {commit}");
        let page = repo.page();
        let wanted = Wanted { what: &what, page: &page };
        let path = [&repo.api(), "tree", &commit.to_string()];
        let invalid = |why: &str| RegistryError::Invalid { what: what.clone(), why: why.into() };
        let (mut files, mut query) = (Vec::new(), "recursive=true&expand=false".to_owned());
        for _ in 0..MAX_PAGES {
            let answer = self.hub.ask(wanted, &path, Some(&query), MAX_PAGE, None).await?;
            let body = answer.body.unwrap_or_default();
            let page: Vec<TreeEntry> = parse(&what, &body)?;
            files.extend(page.into_iter().filter(|e| e.r#type != "directory"));
            if files.len() > MAX_FILES {
                return Err(invalid("more files than a version can have"));
            }
            match next_page(&what, &answer.headers)? {
                None => return Ok(files),
                Some(next) if next == query => return Err(invalid("a page follows itself")),
                Some(next) => query = next,
            }
        }
        Err(invalid("more pages than there can be"))
    }

    /// Makes the manifest of a commit; if it is `known`, in the form that has this SHA-256. The Hub shows Xet
    /// hashes only to readers with access, so that one commit has two forms.
    async fn make(
        &self,
        repo: &Repo,
        commit: GitId,
        known: Option<Digest>,
    ) -> Result<ManifestDocument, RegistryError> {
        let entries = self.tree(repo, commit).await?;
        let (owner, stopped) = (repo.clone(), |_| RegistryError::Unreachable {
            what: format!("the files of {repo}"),
            why: "the process is shutting down".into(),
        });
        // On the blocking pool: a million files take seconds.
        let make = move || {
            let doc = ManifestDoc::new(&owner, commit, entries);
            let mut document = Bytes::from(doc.write());
            if known.is_some_and(|known| known != sha256(&document)) {
                let masked = Bytes::from(doc.without_xet().write());
                if known == Some(sha256(&masked)) {
                    document = masked;
                }
            }
            let manifest = parse_manifest(VersionId::new(sha256(&document)), &document)?;
            Ok(ManifestDocument { document, manifest })
        };
        let made = tokio::task::spawn_blocking(make).await.map_err(stopped)??;
        let left = made.manifest.left_out();
        if let Some(first) = left.first.first() {
            let (registry, count) = (&self.name, left.count);
            tracing::warn!(registry, %repo, %commit, count, first, "files are left out");
        }
        let mut known = self.made.lock().expect("nothing panics while it holds this lock");
        known.put(made.manifest.hash(), (repo.clone(), commit));
        drop(known);
        Ok(made)
    }

    /// Not what this registry has.
    fn none(&self, model: &ModelRef) -> RegistryError {
        RegistryError::Missing { what: format!("{model} (of {})", self.name) }
    }
}

/// Where an object is.
struct Place<'a> {
    /// Below the endpoint.
    path: &'a str,
    /// The page of its repository.
    page: &'a str,
    commit: &'a str,
    /// How errors name it.
    what: String,
}

/// Where an object is; an error if the range goes past its end.
fn place(object: &Object, range: ObjectRange) -> Result<Place<'_>, RegistryError> {
    // Both come from a manifest, hence from the Hub.
    let parts = match &object.locator {
        Locator::Path(path) => path.split_once("/resolve/").and_then(|(page, rest)| {
            let (commit, file) = rest.split_once('/')?;
            Some((path, page, commit, file))
        }),
        Locator::Digest => None,
    };
    let Some((path, page, commit, file)) = parts else {
        let (what, why) = (object.to_string(), "has no path in a repository".into());
        return Err(RegistryError::Invalid { what, why });
    };
    let what = shown(&format!("{page}/{file}"));
    if range.end() > object.len {
        let why = format!("bytes {range} are past the end of {} bytes", object.len);
        return Err(RegistryError::Invalid { what, why });
    }
    Ok(Place { path, page, commit, what })
}

/// The versions of the one model of a catalog.
fn versions_of(catalog: &Catalog, repo: &Repo) -> Vec<VersionEntry> {
    let id = repo.id();
    let found = catalog.versions(id.group.as_str(), id.model.as_str());
    found.unwrap_or_default().to_vec()
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Registry for HuggingFace {
    fn name(&self) -> &str {
        &self.name
    }

    fn capabilities(&self) -> Capabilities {
        let listable = matches!(self.scope, Scope::One(_));
        Capabilities {
            listable,
            names_manifests: false,
            ranged_reads: true,
            leaves_in_advance: true,
        }
    }

    async fn list(&self, known: &Validator) -> Result<Listing, RegistryError> {
        let Scope::One(repo) = &self.scope else {
            return Err(RegistryError::Invalid {
                what: "the catalog".into(),
                why: format!("{} cannot be listed: models are looked up by name", self.name),
            });
        };
        let Some((doc, validator)) = self.refs(repo, known).await? else {
            return Ok(Listing::Unchanged);
        };
        let catalog = doc.catalog()?;
        Ok(Listing::Changed { catalog, document: doc.write().into(), validator })
    }

    async fn lookup(&self, model: &ModelRef, known: &Validator) -> Result<Versions, RegistryError> {
        let nothing =
            || Versions::Changed { versions: Vec::new(), validator: Validator::default() };
        let Some(repo) = self.repo(model) else { return Ok(nothing()) };
        match self.refs(&repo, known).await {
            Ok(None) => Ok(Versions::Unchanged),
            Ok(Some((doc, validator))) => {
                let versions = versions_of(&doc.catalog()?, &repo);
                Ok(Versions::Changed { versions, validator })
            }
            Err(error @ RegistryError::Missing { .. }) => {
                tracing::debug!(registry = self.name, %error, "looked up");
                Ok(nothing())
            }
            Err(error) => Err(error),
        }
    }

    async fn version(
        &self,
        model: &ModelRef,
        name: &Name,
    ) -> Result<Option<VersionEntry>, RegistryError> {
        let Some(repo) = self.repo(model) else { return Ok(None) };
        for revision in revisions_of(name.as_str()) {
            if let Some(commit) = self.commit(&repo, &revision).await? {
                return Ok(Some(entry(name.clone(), commit)));
            }
        }
        Ok(None)
    }

    async fn resolve(
        &self,
        model: &ModelRef,
        revision: &Revision,
    ) -> Result<ManifestDocument, RegistryError> {
        let repo = self.repo(model).ok_or_else(|| self.none(model))?;
        let commit = revision.as_str().parse().map_err(|e| RegistryError::Invalid {
            what: format!("{repo} at {}", shown(revision.as_str())),
            why: format!("{e}"),
        })?;
        self.make(&repo, commit, None).await
    }

    /// Of a manifest that was made before; the Hub itself knows no manifests.
    async fn manifest(&self, version: &VersionId) -> Result<ManifestDocument, RegistryError> {
        let known = {
            let mut made = self.made.lock().expect("nothing panics while it holds this lock");
            made.get(&version.digest()).cloned()
        };
        let Some((repo, commit)) = known else {
            return Err(RegistryError::Missing { what: version.to_string() });
        };
        let made = self.make(&repo, commit, Some(version.digest())).await?;
        if made.manifest.hash() != version.digest() {
            // Nothing of a commit may change, and no Xet hash of its files.
            tracing::error!(registry = self.name, %repo, %commit, "the Hub says something else of a commit than before");
            let why = "the Hub now says something else of this commit".into();
            return Err(RegistryError::WrongBytes { what: format!("{repo} at {commit}"), why });
        }
        Ok(made)
    }

    async fn leaves(&self, object: &Object, _: ObjectRange) -> Result<Leaves, RegistryError> {
        match object.check {
            Check::Whole | Check::WholeLarge | Check::GitBlob => Ok(Leaves::whole(object)),
            Check::Proof { .. } | Check::Leaves { .. } => Err(RegistryError::Invalid {
                what: object.to_string(),
                why: "the Hub has no leaf lists".into(),
            }),
        }
    }

    async fn read(&self, object: &Object, range: ObjectRange) -> Result<ObjectBody, RegistryError> {
        let Place { path, page, what, .. } = place(object, range)?;
        if range.is_empty() {
            return Ok(stream::empty().boxed());
        }
        self.hub.read(Wanted { what: &what, page }, path, object.len, range).await
    }

    async fn read_proven(
        &self,
        object: &Object,
        range: ObjectRange,
    ) -> Result<ProvenBody, RegistryError> {
        let Place { page, commit, what, .. } = place(object, range)?;
        let Check::Proof { root } = object.check else {
            let why = "it has no Xet hash".into();
            return Err(RegistryError::Unproven { what, why });
        };
        if range.is_empty() {
            return Ok(ProvenBody { range, bytes: stream::empty().boxed() });
        }
        let (file, root) =
            (FileOf { what: &what, page, commit }, XetHash::from_bytes(*root.as_bytes()));
        self.xet.read(&self.hub, file, root, object.len, range).await
    }

    /// Connections to the Hub carry several requests at once.
    fn preconnect(&self, _: &VersionId) {}
}
