//! How the library's parts are wired together: one place for the daemon and for commands.
//!
//! Invariant: every number that users cannot set has its reason here. No state.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use modelfs::base::units::ByteSize;
use modelfs::config::Config;
use modelfs::fetch::{FetchOptions, Fetcher, Source, Sources};
use modelfs::model::{Digest, SourceName, VersionId};
use modelfs::registry::{Registry, RegistryError};
use modelfs::store::{Store, StoreError, StoreOptions};
use modelfs_platform::{MountOptions, Protected};

use crate::error::{Failure, Kind};

/// Bytes per group commit: a crash loses a moment of fetching, and the cost of a sync is small against it.
const COMMIT_BYTES: ByteSize = ByteSize::mib(64);

/// A commit is made at the latest after this time, for slow connections.
const COMMIT_AFTER: Duration = Duration::from_secs(1);

/// How long to wait for a first answer before one plain attempt decides: short disturbances are over by
/// then, and a user who mistyped an address is still there.
const FIRST_ANSWER: Duration = Duration::from_secs(5);

/// The longest that [`first_catalog`] may take: by then the plain attempt has not connected for 10 s or has
/// received nothing for 15.
pub const FIRST_CONTACT: Duration = Duration::from_secs(FIRST_ANSWER.as_secs() + 10 + 15);

/// The format of the documents of every registry so far, as the index records it.
const FORMAT: &str = "xprim";

/// Where a mount has its parts. All paths are absolute.
pub struct Places {
    /// The mount point.
    pub mountpoint: PathBuf,
    /// The cache folder.
    pub cache: PathBuf,
    /// The registry: a URL, or a folder. It may hold credentials.
    pub registry: String,
}

/// Where a mount with this configuration has its parts.
pub fn places(config: &Config) -> Result<Places, Failure> {
    let missing = |what: &str| Failure::usage(format!("no {what} is given"));
    let mountpoint = config.mountpoint.as_ref().ok_or_else(|| {
        missing("mount point").hint("give one: modelfs mount MOUNTPOINT, or set MODELFS_MOUNTPOINT")
    })?;
    let cache = config.cache_dir.as_ref().ok_or_else(|| missing("cache folder"))?;
    let registry = config.registry.as_ref().ok_or_else(|| Failure::no_registry("mount"))?;
    Ok(Places {
        mountpoint: mountpoint.value.clone(),
        cache: cache.value.clone(),
        registry: registry.value.0.clone(),
    })
}

/// How to mount at `mountpoint`.
pub fn mount_options(
    config: &Config,
    mountpoint: PathBuf,
    protected: Vec<Protected>,
) -> MountOptions {
    MountOptions {
        mountpoint,
        allow_other: config.allow_other.value,
        allow_non_empty: config.allow_non_empty.value,
        protected,
        threads: config.threads.value.into(),
        passthrough: !config.no_passthrough.value,
    }
}

/// How to fetch.
pub fn fetch_options(config: &Config) -> FetchOptions {
    FetchOptions {
        read_deadline: config.read_deadline.value,
        catalog_ttl: config.catalog_ttl.value,
        ..FetchOptions::default()
    }
}

/// Options of a store at `root`; without a limit it keeps the one it had.
pub fn store_options(root: &Path, limit: Option<ByteSize>) -> StoreOptions {
    StoreOptions {
        root: root.to_owned(),
        limit,
        commit_bytes: COMMIT_BYTES,
        commit_after: COMMIT_AFTER,
    }
}

/// The registry's folder, if the registry is a folder.
pub fn registry_folder(name: &str) -> Option<PathBuf> {
    // Opening an HTTP registry would look for certificates.
    let scheme = name.split(':').next().unwrap_or_default();
    if modelfs::registry::is_url(name) && !scheme.eq_ignore_ascii_case("file") {
        return None;
    }
    let registry = modelfs::registry::open(name).ok()?;
    Some(PathBuf::from(registry.name())).filter(|path| path.is_absolute())
}

/// Refuses a URL with a scheme that no registry has. Others are not opened: that would look for
/// certificates.
pub fn check_registry(name: &str) -> Result<(), Failure> {
    let scheme = name.split(':').next().unwrap_or_default().to_ascii_lowercase();
    if modelfs::registry::is_url(name)
        && !matches!(&*scheme, "http" | "https" | "file" | "hf" | "oci")
    {
        modelfs::registry::open(name)?;
    }
    Ok(())
}

/// A fetcher from a registry into a store. Must be called within the tokio runtime.
pub fn fetcher(
    registry: Arc<dyn Registry>,
    store: &Store,
    options: &FetchOptions,
) -> Result<Arc<Fetcher>, StoreError> {
    let name = SourceName::of_address(registry.name());
    store.uses(&name, registry.name(), FORMAT)?;
    let source = Source::new(name, Some(registry), store.clone(), options);
    let sources = Arc::new(Sources::one(Arc::new(source)));
    Ok(Fetcher::new(sources, store.clone(), options.clone()))
}

/// Makes sure that there is a catalog: the registry's, else the one last seen. Retries bridge an outage for
/// as long as a read would wait, which is too long for an interactive command: when the answer is late, one
/// plain attempt decides.
pub async fn first_catalog(registry: &dyn Registry, source: &Source) -> Result<(), Failure> {
    let outcome = async {
        let mut asked = std::pin::pin!(source.catalog());
        if let Ok(in_time) = tokio::time::timeout(FIRST_ANSWER, &mut asked).await {
            return in_time.map(drop).map_err(Failure::from);
        }
        tokio::select! {
            late = &mut asked => late.map(drop).map_err(Failure::from),
            plain = answers(registry) => match plain {
                Ok(()) => asked.await.map(drop).map_err(Failure::from),
                Err(error) => Err(error.into()),
            },
        }
    };
    outcome.await.map_err(|failure| no_catalog(registry.name(), failure))
}

/// Whether a registry answers at all. It is not asked for its catalog: a large one would be sent twice.
async fn answers(registry: &dyn Registry) -> Result<(), RegistryError> {
    let nothing = Digest::from_bytes([0; 32]);
    match registry.manifest(&VersionId::new(nothing)).await {
        Err(error @ RegistryError::Refused { .. }) => Err(error),
        Err(error) if error.is_transient() => Err(error),
        _ => Ok(()),
    }
}

/// A registry without a catalog counts as unreachable: no version was looked up in it yet.
fn no_catalog(registry: &str, failure: Failure) -> Failure {
    let kind = match failure.kind {
        Kind::NotFound | Kind::NotCached => Kind::Network,
        kind => kind,
    };
    Failure::new(kind, format!("the registry {registry} cannot be reached: {}", failure.message))
        .hint("check the address; this registry was never reached before, so nothing of it is remembered")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_told_from_a_server() {
        let at = |name: &str| registry_folder(name).map(|p| p.display().to_string());
        assert_eq!(at("/srv/models/").as_deref(), Some("/srv/models"));
        assert_eq!(at("file:///srv/models").as_deref(), Some("/srv/models"));
        assert_eq!((at("https://h/x"), at("http:x"), at("ftp://h/x")), (None, None, None));
    }

    #[test]
    fn a_url_with_an_unknown_scheme_is_refused() {
        assert_eq!(check_registry("ftp://h/x").unwrap_err().exit_code, 2);
        for name in ["/srv/models", "file:///srv", "http://h", "HTTPS://h"] {
            assert!(check_registry(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn a_missing_catalog_is_a_network_failure_that_names_the_registry() {
        let failure = no_catalog("http://h", Failure::new(Kind::NotFound, "the catalog: 404"));
        assert_eq!(failure.exit_code, 5);
        assert!(failure.message.contains("http://h") && failure.message.contains("the catalog"));
        let damaged = no_catalog("r", Failure::new(Kind::Verification, "x"));
        assert_eq!(damaged.exit_code, 6);
    }
}
