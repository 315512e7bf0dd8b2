//! A registry of artifacts as a registry of models.
//!
//! A tag or digest names a version; its revision is the digest of the registry's manifest; its document
//! is made of that manifest and of the archives that it names. Invariant: bytes that are named by a
//! digest match it before they are read. Concurrency: shared; locks are never held across an await.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use lru::LruCache;
use parking_lot::Mutex;
use reqwest::header::HeaderMap;
use serde::Deserialize;

use super::archive::{Member, members};
use super::auth::Scope;
use super::client::{Ask, Client};
use super::document::{CatalogDoc, ManifestDoc, blob_path, parse_catalog, parse_manifest, tagged};
use super::manifest::{self, ACCEPT, Content, Document, Image, Layer, digest_of};
use super::place::{Place, Repository, is_tag};
use crate::base::ObjectRange;
use crate::base::text::{MESSAGE, brief};
use crate::model::hash::sha256;
use crate::model::{
    Digest, Leaves, Locator, MAX_LEAF, ModelRef, Name, Object, Revision, VersionEntry, VersionId,
    VersionTarget,
};
use crate::registry::api::{
    Capabilities, Listing, ManifestDocument, ObjectBody, Registry, Validator, Versions,
};
use crate::registry::error::RegistryError;
use crate::registry::login::{Logins, NoLogin};
use crate::registry::transport::HttpOptions;

/// Maximum size of a manifest: what registries take at most, by the specification.
const MAX_MANIFEST: u64 = 4 << 20;
/// Maximum size of a page of names: thousands of them, with up to 255 bytes each.
const MAX_PAGE: u64 = 8 << 20;
/// How many names a page is asked for: as many as registries give.
const PAGE: usize = 1000;
/// Maximum number of names in a list: what a small machine can hold while it reads.
const MAX_NAMES: usize = 100_000;
/// Maximum number of repositories that are asked for their tags, one request each.
const MAX_REPOSITORIES: usize = 5_000;
/// Repositories that are asked for their tags at the same time.
const AT_ONCE: usize = 8;
/// Maximum number of manifests of an index that are tried.
const MAX_CANDIDATES: usize = 16;
/// Versions of which is remembered what they were made of, some hundred bytes each.
const MADE: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");
/// How a version is called that is named by its digest, followed by 64 hex digits.
const BY_DIGEST: &str = "sha256-";

/// How a registry is asked.
#[derive(Debug, Clone)]
pub struct OciOptions {
    /// How servers are asked.
    pub http: HttpOptions,
    /// Whether it speaks plain HTTP; `None`: if it is on this machine.
    pub plain_http: Option<bool>,
    /// Where its logins come from.
    pub logins: Arc<dyn Logins>,
}

impl Default for OciOptions {
    fn default() -> Self {
        Self { http: HttpOptions::default(), plain_http: None, logins: Arc::new(NoLogin) }
    }
}

/// An OCI registry, or the repositories below a path of it.
pub struct Oci {
    name: String,
    place: Place,
    client: Client,
    /// Whether it refused to list its repositories when it was last asked.
    unlisted: AtomicBool,
    made: Mutex<LruCache<Digest, (Repository, Revision)>>,
}

#[derive(Deserialize)]
struct Repositories {
    repositories: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Tags {
    tags: Option<Vec<String>>,
}

impl Oci {
    /// The registry that `oci://host[:port][/path]` means. Opens no connection.
    pub fn open(name: &str, options: OciOptions) -> Result<Self, RegistryError> {
        let place = Place::parse(name, options.plain_http)?;
        let client = Client::new(&place, options.logins, &options.http)?;
        let made = Mutex::new(LruCache::new(MADE));
        let unlisted = AtomicBool::new(false);
        Ok(Self { name: place.to_string(), place, client, unlisted, made })
    }

    /// All names of a paged list that begins at `path`; `read` finds those of a page.
    async fn pages<T: for<'a> Deserialize<'a>>(
        &self,
        first: Ask<'_>,
        read: impl Fn(T) -> Option<Vec<String>>,
    ) -> Result<Vec<String>, RegistryError> {
        let what = first.what;
        let mut path = format!("{}?n={PAGE}", first.path);
        let mut names = Vec::new();
        loop {
            let answer = self.client.get(Ask { path: &path, ..first }, MAX_PAGE).await?;
            let page = serde_json::from_slice(&answer.body).map_err(|e| invalid(what, e))?;
            names.extend(read(page).unwrap_or_default());
            if names.len() > MAX_NAMES {
                return Err(invalid(what, format!("more than {MAX_NAMES} names")));
            }
            match self.client.next_page(&answer.headers, what)? {
                // A page that leads to itself would never end.
                Some(next) if next == path => return Err(invalid(what, "a page leads to itself")),
                Some(next) => path = next,
                None => return Ok(names),
            }
        }
    }

    /// The tags of a repository that name versions, sorted.
    async fn tags(&self, repository: &Repository) -> Result<Vec<String>, RegistryError> {
        let what = format!("the tags of {repository}");
        let path = format!("{repository}/tags/list");
        let scope = Scope::Pull(repository);
        let ask = Ask { what: &what, scope, path: &path, accept: None };
        let mut tags = self.pages(ask, |page: Tags| page.tags).await?;
        // What cannot be a tag cannot be asked for; the others belong to signatures and the like.
        tags.retain(|tag| is_tag(tag) && !tag.starts_with(BY_DIGEST));
        tags.sort_unstable();
        tags.dedup();
        Ok(tags)
    }

    /// The repositories below the path of this source, with the model that each is, and why others are
    /// left out.
    async fn repositories(
        &self,
    ) -> Result<(Vec<(Repository, ModelRef)>, Vec<String>), RegistryError> {
        let ask =
            Ask { what: "the catalog", scope: Scope::Catalog, path: "_catalog", accept: None };
        let names = self.pages(ask, |page: Repositories| page.repositories).await;
        // Most public registries do not offer it: that is not trouble.
        let refused =
            matches!(names, Err(RegistryError::Missing { .. } | RegistryError::Denied { .. }));
        self.unlisted.store(refused, Ordering::Relaxed);
        let names = match names {
            Err(RegistryError::Missing { .. }) => return Err(self.cannot_be_listed()),
            names => names?,
        };
        let (mut found, mut left_out) = (Vec::new(), Vec::new());
        for name in names {
            match (Repository::new(&name), self.place.model(&name)) {
                (Some(repository), Some(Ok(model))) => found.push((repository, model)),
                (_, Some(Err(why))) => left_out.push(why),
                (None, Some(Ok(_))) | (_, None) => {}
            }
        }
        found.sort_unstable();
        found.dedup();
        if found.len() > MAX_REPOSITORIES {
            let why = format!(
                "more than {MAX_REPOSITORIES} repositories: name a path of the registry, {}/PATH",
                self.name
            );
            return Err(invalid("the catalog", why));
        }
        Ok((found, left_out))
    }

    fn cannot_be_listed(&self) -> RegistryError {
        let why = format!("{} cannot be listed: models are looked up by name", self.name);
        invalid("the catalog", why)
    }

    /// A manifest by its digest. The bytes have matched.
    async fn manifest_bytes(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Bytes, RegistryError> {
        let what = format!("{repository}@sha256:{digest:?}");
        let path = format!("{repository}/manifests/sha256:{digest}");
        let scope = Scope::Pull(repository);
        let ask = Ask { what: &what, scope, path: &path, accept: Some(ACCEPT) };
        let body = self.client.get(ask, MAX_MANIFEST).await?.body;
        match sha256(&body) == *digest {
            true => Ok(body),
            false => Err(RegistryError::WrongBytes { what, why: "SHA-256 mismatch".into() }),
        }
    }

    /// The layers of the model that a manifest, or the first usable one of an index, describes.
    async fn layers(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Vec<Layer>, RegistryError> {
        let what = format!("{repository}@sha256:{digest:?}");
        let read = |body: &[u8]| manifest::parse(body).map_err(|why| invalid(&what, why));
        let layers = |image: &Image| image.layers().map_err(|why| invalid(&what, why));
        let candidates = match read(&self.manifest_bytes(repository, digest).await?)? {
            Document::Image(image) => return layers(&image),
            Document::Index(candidates) => candidates,
        };
        let mut first = None;
        for digest in candidates.iter().take(MAX_CANDIDATES) {
            let body = self.manifest_bytes(repository, digest).await?;
            let found = match read(&body)? {
                Document::Image(image) => layers(&image),
                Document::Index(_) => Err(invalid(&what, "an index within an index")),
            };
            match found {
                Ok(layers) => return Ok(layers),
                Err(error) => first = first.or(Some(error)),
            }
        }
        Err(first.unwrap_or_else(|| invalid(&what, "an index without a manifest of a model")))
    }

    /// The files in a layer that is an archive, after all of it has matched its digest.
    async fn members(
        &self,
        repository: &Repository,
        layer: &Layer,
    ) -> Result<Vec<Member>, RegistryError> {
        let what = format!("layer {:?} of {repository}", layer.digest);
        if layer.size > MAX_LEAF {
            let why = format!(
                "an archive of {} bytes: modelfs reads archives of up to {MAX_LEAF}; package its files \
                 as layers of their own",
                layer.size
            );
            return Err(invalid(&what, why));
        }
        let path = blob_path(repository, &layer.digest);
        let scope = Scope::Pull(repository);
        let ask = Ask { what: &what, scope, path: &path, accept: None };
        let body = self.client.get(ask, layer.size).await?.body;
        let digest = layer.digest;
        let stopped = |_| unreachable(&what, "the process is shutting down");
        let found =
            tokio::task::spawn_blocking(move || (sha256(&body) == digest).then(|| members(&body)));
        match found.await.map_err(stopped)? {
            None => Err(RegistryError::WrongBytes { what, why: "SHA-256 mismatch".into() }),
            Some(found) => found.map_err(|why| invalid(&what, why)),
        }
    }

    /// The document of a revision.
    async fn make(
        &self,
        repository: &Repository,
        revision: &Revision,
    ) -> Result<ManifestDocument, RegistryError> {
        let what = format!("{repository}@{revision}");
        let digest = digest_of(revision.as_str()).map_err(|why| invalid(&what, why))?;
        let mut doc = ManifestDoc::new(repository, revision);
        for layer in self.layers(repository, &digest).await? {
            let members = match &layer.content {
                Content::File(_) => Vec::new(),
                Content::Tar => self.members(repository, &layer).await?,
            };
            doc.layer(&layer, members);
        }
        let document = doc.write();
        let hash = sha256(&document);
        let manifest = parse_manifest(hash, &document)?;
        self.made.lock().put(hash, (repository.clone(), revision.clone()));
        Ok(ManifestDocument { document: document.into(), manifest })
    }
}

fn invalid(what: &str, why: impl ToString) -> RegistryError {
    RegistryError::Invalid { what: what.to_owned(), why: brief(&why.to_string(), MESSAGE) }
}

fn unreachable(what: &str, why: &str) -> RegistryError {
    RegistryError::Unreachable { what: what.to_owned(), why: why.to_owned() }
}

/// How the interface writes the name of a version: as a tag or a digest; `None` if it can be neither.
fn reference(version: &Name) -> Option<String> {
    let name = version.as_str();
    let hex = name.strip_prefix('@').unwrap_or(name).strip_prefix(BY_DIGEST);
    match hex.and_then(|hex| hex.parse::<Digest>().ok()) {
        Some(digest) => Some(format!("sha256:{digest}")),
        None => is_tag(name).then(|| name.to_owned()),
    }
}

/// The digest of a manifest that an answer names.
fn content_digest(headers: &HeaderMap) -> Option<Digest> {
    digest_of(headers.get("docker-content-digest")?.to_str().ok()?).ok()
}

/// Identifies a list by its content: registries give nothing that does.
fn validator_of(content: &[u8]) -> Validator {
    Validator { etag: Some(sha256(content).to_string()), last_modified: None }
}

#[async_trait]
impl Registry for Oci {
    fn name(&self) -> &str {
        &self.name
    }

    /// Whether it lists its repositories is known only once it was asked.
    fn capabilities(&self) -> Capabilities {
        let listable = !self.unlisted.load(Ordering::Relaxed);
        Capabilities {
            listable,
            names_manifests: false,
            ranged_reads: true,
            leaves_in_advance: false,
        }
    }

    async fn list(&self, known: &Validator) -> Result<Listing, RegistryError> {
        let (repositories, mut left_out) = self.repositories().await?;
        let asked = stream::iter(repositories).map(async |(repository, model)| {
            match self.tags(&repository).await {
                Ok(tags) => Ok(Ok((model, tags))),
                // One repository that may not be read does not take the others down.
                Err(e @ (RegistryError::Missing { .. } | RegistryError::Denied { .. })) => {
                    Ok(Err(brief(&e.to_string(), MESSAGE)))
                }
                Err(error) => Err(error),
            }
        });
        let mut models = Vec::new();
        let mut asked = asked.buffered(AT_ONCE);
        while let Some(found) = asked.try_next().await? {
            match found {
                Ok((_, tags)) if tags.is_empty() => {}
                Ok(found) => models.push(found),
                Err(why) => left_out.push(why),
            }
        }
        let document = CatalogDoc::new(models, left_out).write();
        let validator = validator_of(&document);
        if validator == *known {
            return Ok(Listing::Unchanged);
        }
        let catalog = parse_catalog(&document)?;
        Ok(Listing::Changed { catalog, document: document.into(), validator })
    }

    async fn lookup(&self, model: &ModelRef, known: &Validator) -> Result<Versions, RegistryError> {
        let tags = match self.place.repository(model) {
            None => Vec::new(),
            Some(repository) => match self.tags(&repository).await {
                Err(RegistryError::Missing { .. }) => Vec::new(),
                tags => tags?,
            },
        };
        let validator = validator_of(tags.join("\n").as_bytes());
        if validator == *known {
            return Ok(Versions::Unchanged);
        }
        // A tag is a name that every path can hold.
        let versions = tags.iter().filter_map(|tag| Name::new(tag).ok()).map(tagged).collect();
        Ok(Versions::Changed { versions, validator })
    }

    async fn version(
        &self,
        model: &ModelRef,
        name: &Name,
    ) -> Result<Option<VersionEntry>, RegistryError> {
        let Some((repository, reference)) = self.place.repository(model).zip(reference(name))
        else {
            return Ok(None);
        };
        let what = format!("{repository}:{}", brief(name.as_str(), 80));
        let path = format!("{repository}/manifests/{reference}");
        let scope = Scope::Pull(&repository);
        let ask = Ask { what: &what, scope, path: &path, accept: Some(ACCEPT) };
        let headers = match self.client.head(ask).await {
            Err(RegistryError::Missing { .. }) => return Ok(None),
            headers => headers?,
        };
        let digest = match (digest_of(&reference), content_digest(&headers)) {
            (Ok(asked), _) => asked,
            (Err(_), Some(digest)) => digest,
            // The header is not required; the bytes have the digest, whatever says so.
            (Err(_), None) => sha256(&self.client.get(ask, MAX_MANIFEST).await?.body),
        };
        let target = VersionTarget::Revision(Revision::new(format!("sha256:{digest}")));
        Ok(Some(VersionEntry { target, ..tagged(name.clone()) }))
    }

    async fn resolve(
        &self,
        model: &ModelRef,
        revision: &Revision,
    ) -> Result<ManifestDocument, RegistryError> {
        let what = || format!("{model}@{revision}");
        match self.place.repository(model) {
            Some(repository) => self.make(&repository, revision).await,
            None => Err(RegistryError::Missing { what: what() }),
        }
    }

    /// Makes the document again, of what it was made of by this process.
    async fn manifest(&self, version: &VersionId) -> Result<ManifestDocument, RegistryError> {
        let known = self.made.lock().get(&version.digest()).cloned();
        let Some((repository, revision)) = known else {
            return Err(RegistryError::Missing { what: version.to_string() });
        };
        let made = self.make(&repository, &revision).await?;
        if made.manifest.hash() != version.digest() {
            let why = "the same manifest gave another document".into();
            return Err(RegistryError::WrongBytes { what: version.to_string(), why });
        }
        Ok(made)
    }

    /// A layer is its own only leaf: registries know the digest of all of it.
    async fn leaves(&self, object: &Object, _: ObjectRange) -> Result<Leaves, RegistryError> {
        Ok(Leaves::whole(object))
    }

    async fn read(&self, object: &Object, range: ObjectRange) -> Result<ObjectBody, RegistryError> {
        let what = format!(
            "layer {:?} bytes {}-{}",
            object.digest,
            range.start(),
            range.end().saturating_sub(1)
        );
        let Locator::Path(path) = &object.locator else {
            return Err(invalid(&what, "no repository is known that has it"));
        };
        let repository = path.rsplit_once("/blobs/").and_then(|(r, _)| Repository::new(r));
        let repository = repository.ok_or_else(|| invalid(&what, "its place is no layer's"))?;
        // The range comes from a manifest, hence from a registry.
        if range.end() > object.len {
            let why = format!("past the end of a layer of {} bytes", object.len);
            return Err(invalid(&what, why));
        }
        if range.is_empty() {
            return Ok(stream::empty().boxed());
        }
        let ask = Ask { what: &what, scope: Scope::Pull(&repository), path, accept: None };
        self.client.read(ask, object.len, range).await
    }

    fn preconnect(&self, _: &VersionId) {
        self.client.preconnect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_named_by_tag_or_digest() {
        let hex = "ab".repeat(32);
        let of = |name: &str| reference(&Name::new(name).unwrap());
        let digest = Some(format!("sha256:{hex}"));
        assert_eq!(of(&format!("sha256-{hex}")), digest);
        assert_eq!(of(&format!("@sha256-{hex}")), digest, "as in a reference");
        assert_eq!(of("v1.0"), Some("v1.0".into()));
        assert_eq!(of("sha256-ab"), Some("sha256-ab".into()), "a tag may be called so");
        for neither in ["@v1", ".git", "a b", "sha256:ab"] {
            assert_eq!(of(neither), None, "{neither}");
        }
    }
}
