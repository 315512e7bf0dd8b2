//! What every command needs: a store, what is configured, and how a reference is found in them.
//!
//! Invariant: nothing here asks a network unless it is told so ([`Ask`]); a reference that several
//! registries know is never guessed. Shared between tasks; what blocks on the disk runs on threads
//! that may block.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use modelfs::fetch::{FetchOptions, Fetcher, Source};
use modelfs::model::{Catalog, ContentKey, Digest, FileIx, Manifest, VersionEntry, VersionRef};
use modelfs::store::{NodeKey, Store};

use super::answers::{DaemonStatus, PinInfo};
use super::suggest;
use super::types::{Call, ProgressSink};
use crate::error::{Failure, Kind};

/// A request that can be carried out.
pub trait Run: Call {
    /// Does it.
    fn run(
        self,
        ops: Arc<Ops>,
        progress: ProgressSink,
    ) -> impl Future<Output = Result<Self::Answer, Failure>> + Send;
}

/// What the commands work on.
pub struct Ops {
    /// The store.
    pub store: Store,
    /// The configured registry; none: only what the index remembers, of any registry.
    pub source: Option<Arc<Source>>,
    /// Fetches from it.
    pub fetcher: Option<Arc<Fetcher>>,
    /// The daemon that this is, if it is one.
    pub daemon: Option<Live>,
    /// How sources of other registries behave.
    pub options: FetchOptions,
    /// Where there is no cache: what the store lies in. Dropped after the store.
    pub scratch: Option<Scratch>,
}

/// An empty cache for a command that only looks, where there is none: nothing is made in its place.
pub struct Scratch {
    /// Where it lies meanwhile.
    pub folder: tempfile::TempDir,
    /// The folder that was named.
    pub instead_of: PathBuf,
}

/// Who can be asked to end the mount or to replace the worker.
pub trait Keeper: Send + Sync {
    /// Asks for the end.
    fn unmount(&self);
    /// Asks for another worker; resolves when that one is there, or says why it is not.
    fn restart(&self) -> futures_util::future::BoxFuture<'static, Result<(), String>>;
}

/// The daemon from within.
pub struct Live {
    /// What it says of itself.
    pub status: DaemonStatus,
    /// Who keeps the mount.
    pub keeper: Arc<dyn Keeper>,
}

/// Whether the registry may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Only what is remembered.
    Memory,
    /// The registry, if memory is too old.
    Registry,
}

/// A version that exists, as far as is known.
pub struct Found {
    /// In which registry.
    pub source: Arc<Source>,
    /// What it is called.
    pub version: VersionRef,
    /// Its manifest.
    pub hash: Digest,
    /// What the catalog says; none: it is not offered any more.
    pub entry: Option<VersionEntry>,
}

/// A found version whose manifest is at hand.
pub struct Known {
    /// Which.
    pub found: Found,
    /// Its files.
    pub manifest: Arc<Manifest>,
}

/// Runs what blocks where it may.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|e| Err(Failure::new(Kind::General, format!("a task failed: {e}"))))
}

/// A time as people and programs read it. A clock may stand before 1970, which this form cannot say:
/// that is 1970.
pub fn rfc3339(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(at.max(SystemTime::UNIX_EPOCH)).to_string()
}

impl Known {
    /// The blobs of its files; empty files have none.
    pub fn blobs(&self) -> Vec<ContentKey> {
        self.files().filter_map(|(_, key)| key).collect()
    }

    /// Its files, each with its blob.
    pub fn files(&self) -> impl Iterator<Item = (FileIx, Option<ContentKey>)> + '_ {
        let count = self.manifest.files().len() as u32;
        (0..count).map(FileIx).map(|ix| {
            let empty = self.manifest.file(ix).len == 0;
            (ix, (!empty).then(|| self.manifest.layout(ix).key()))
        })
    }
}

impl Ops {
    /// The registries that this knows of: the configured one, else all that the index remembers.
    fn sources(&self) -> Result<Vec<Arc<Source>>, Failure> {
        match &self.source {
            Some(source) => Ok(vec![source.clone()]),
            None => self.all_sources(),
        }
    }

    /// The configured registry first, then all others that the index remembers.
    pub fn all_sources(&self) -> Result<Vec<Arc<Source>>, Failure> {
        let mut sources: Vec<_> = self.source.iter().cloned().collect();
        for name in self.store.sources()? {
            if sources.first().is_none_or(|s| s.name() != name) {
                let source = Source::new(&name, None, self.store.clone(), &self.options);
                sources.push(Arc::new(source));
            }
        }
        Ok(sources)
    }

    /// The catalog of a source, if there is one to be had.
    pub async fn catalog(source: &Source, ask: Ask) -> Result<Arc<Catalog>, Failure> {
        match (ask, source.catalog_now()) {
            (Ask::Memory, Some(catalog)) => Ok(catalog),
            _ => Ok(source.catalog().await?),
        }
    }

    /// Asks a registry out of turn, if it may not have been asked just now: a command that works
    /// without a daemon began with that.
    pub async fn ask_again(&self, source: &Arc<Source>, patience: Duration) {
        if self.daemon.is_some() {
            source.ask_again(patience).await;
        }
    }

    /// The catalog of a source and what it says of a version. One that was published a moment ago is
    /// not in the catalog yet, so the registry is asked again.
    async fn look_up(
        &self,
        source: &Arc<Source>,
        version: &VersionRef,
        ask: Ask,
    ) -> (Result<Arc<Catalog>, Failure>, Option<VersionEntry>) {
        let entry = |catalog: &Result<Arc<Catalog>, Failure>| {
            catalog.as_ref().ok().and_then(|c| c.find(version).cloned())
        };
        let catalog = Self::catalog(source, ask).await;
        match entry(&catalog) {
            None if ask == Ask::Registry && catalog.is_ok() => {
                self.ask_again(source, source.patience()).await;
                let catalog = Self::catalog(source, ask).await;
                let entry = entry(&catalog);
                (catalog, entry)
            }
            entry => (catalog, entry),
        }
    }

    /// Finds a version: in the catalog, else among what the index remembers.
    pub async fn find(&self, version: &VersionRef, ask: Ask) -> Result<Found, Failure> {
        let mut found = Vec::new();
        let mut seen: Option<(Arc<Source>, Arc<Catalog>)> = None;
        for source in self.sources()? {
            let (catalog, entry) = self.look_up(&source, version, ask).await;
            let hash = match &entry {
                Some(entry) => Some(entry.hash),
                None => self.remembered(&source, version)?,
            };
            if let Some(hash) = hash {
                found.push(Found { source, version: version.clone(), hash, entry });
                continue;
            }
            match (catalog, &self.source) {
                (Ok(catalog), _) => seen = Some((source, catalog)),
                // Not even a catalog is remembered: that it is not cached is all there is to say.
                (Err(failure), _) if ask == Ask::Memory && failure.kind == Kind::NotCached => {}
                (Err(failure), Some(_)) => return Err(failure),
                (Err(_), None) => {}
            }
        }
        match (found.pop(), found.pop()) {
            (Some(one), None) => Ok(one),
            (Some(a), Some(b)) => Err(Failure::usage(format!(
                "{version} is known from several registries: {} and {}",
                a.source.name(),
                b.source.name()
            ))
            .hint("say which with --registry")),
            (None, _) => Err(self.not_found(version, ask, seen)),
        }
    }

    fn not_found(
        &self,
        version: &VersionRef,
        ask: Ask,
        seen: Option<(Arc<Source>, Arc<Catalog>)>,
    ) -> Failure {
        let near = seen.as_ref().map(|(_, c)| suggest::nearest(c, version)).unwrap_or_default();
        let meant = match near.len() {
            0 => String::new(),
            _ => format!("did you mean {}? ", near.join(" or ")),
        };
        let trouble = seen.as_ref().and_then(|(source, _)| source.trouble());
        match (&self.source, seen) {
            // It may have it by now.
            (Some(_), Some((source, _))) if trouble.is_some() && ask == Ask::Registry => {
                let (name, why) = (source.name(), trouble.unwrap_or_default());
                Failure::new(
                    Kind::Network,
                    format!("{version} is not in the catalog last seen of {name}: {why}"),
                )
            }
            (Some(_), Some((source, _))) => Failure::new(
                Kind::NotFound,
                format!("{version} is not in the registry {}", source.name()),
            )
            .hint(format!("{meant}`modelfs list --remote` shows what there is")),
            _ if ask == Ask::Registry => {
                Failure::no_registry(&format!("{version} is not known here: to look it up"))
            }
            _ => Failure::new(Kind::NotCached, format!("{version} is not cached"))
                .hint(format!("{meant}`modelfs list` shows what is")),
        }
    }

    /// The newest manifest of a version that is not in the catalog but was used here.
    fn remembered(&self, source: &Source, version: &VersionRef) -> Result<Option<Digest>, Failure> {
        for (known, hash) in self.store.known_versions(source.name())?.into_iter().rev() {
            if known == *version && source.manifest_now(&hash)?.is_some() {
                return Ok(Some(hash));
            }
        }
        Ok(None)
    }

    /// Finds a version with its manifest; the registry is asked for it if `ask` says so.
    pub async fn find_known(&self, version: &VersionRef, ask: Ask) -> Result<Known, Failure> {
        let found = self.find(version, ask).await?;
        let manifest = match ask {
            Ask::Registry => found.source.manifest(&found.hash).await?,
            Ask::Memory => found.source.manifest_now(&found.hash)?.ok_or_else(|| {
                Failure::new(Kind::NotCached, format!("nothing of {version} is cached"))
                    .hint("`modelfs list` shows what is")
            })?,
        };
        Ok(Known { found, manifest })
    }

    /// Every version of a source whose manifest is here, also those not offered any more.
    pub fn known(&self, source: &Arc<Source>, catalog: &Catalog) -> Result<Vec<Known>, Failure> {
        let mut all = self.store.known_versions(source.name())?;
        all.extend(catalog.iter().map(|(group, model, entry)| {
            let model = modelfs::model::ModelRef { group: group.clone(), model: model.clone() };
            (VersionRef { model, version: entry.name.clone() }, entry.hash)
        }));
        all.sort_unstable();
        all.dedup();
        let mut known = Vec::new();
        for (version, hash) in all {
            if let Some(manifest) = source.manifest_now(&hash)? {
                let entry = catalog.find(&version).filter(|e| e.hash == hash).cloned();
                let found = Found { source: source.clone(), version, hash, entry };
                known.push(Known { found, manifest });
            }
        }
        Ok(known)
    }

    /// [`Self::known`] of every registry.
    pub async fn known_everywhere(self: &Arc<Self>) -> Result<Vec<Known>, Failure> {
        let mut all = Vec::new();
        for source in self.all_sources()? {
            let catalog = Self::catalog(&source, Ask::Memory).await.unwrap_or_default();
            let ops = self.clone();
            all.extend(blocking(move || ops.known(&source, &catalog)).await?);
        }
        Ok(all)
    }

    /// Gives a version its row in the index, so that what is cached of it is listed offline.
    pub fn remember(&self, found: &Found) -> Result<(), Failure> {
        let r = &found.version;
        let key = NodeKey::Version {
            group: r.model.group.as_str().into(),
            model: r.model.model.as_str().into(),
            version: r.version.as_str().into(),
            hash: found.hash,
        };
        self.store.nodes(found.source.name(), &[key])?;
        Ok(())
    }

    /// The pins of one version of one source.
    pub fn pins_of(&self, found: &Found) -> Result<Vec<PinInfo>, Failure> {
        let pins = self.store.pins()?.into_iter();
        let ours = pins.filter(|p| p.source == found.source.name() && p.version == found.version);
        Ok(ours.map(|p| pin_info(&p)).collect())
    }
}

/// A pin as answers show it.
pub fn pin_info(pin: &modelfs::store::Pin) -> PinInfo {
    PinInfo {
        reference: (&pin.version).into(),
        owner: pin.owner.clone(),
        since: rfc3339(pin.since),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_in_utc_to_the_second() {
        let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(1_700_000_000_999);
        assert_eq!(rfc3339(at), "2023-11-14T22:13:20Z");
        let before = SystemTime::UNIX_EPOCH - std::time::Duration::from_secs(1);
        assert_eq!(rfc3339(before), "1970-01-01T00:00:00Z");
    }
}
