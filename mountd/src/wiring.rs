//! How the library's parts are wired together: one place for the daemon and for commands.
//!
//! Invariant: every number that users cannot set has its reason here. No state.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use modelfs::base::units::ByteSize;
use modelfs::config::{Config, Policy, SourceKind};
use modelfs::fetch::{FetchOptions, Fetcher, Source, Sources};
use modelfs::model::{Digest, SourceName, VersionId};
use modelfs::registry::{
    ConnectOptions, HostPolicy, HttpOptions, Logins, Registry, RegistryError, Timeouts, open_with,
};
use modelfs::store::{Store, StoreError, StoreOptions};
use modelfs_platform::{MountOptions, Protected};

use crate::error::{Failure, Kind};
use crate::sources::SourcePlan;

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

/// Where a mount has its parts. All paths are absolute.
pub struct Places {
    /// The mount point.
    pub mountpoint: PathBuf,
    /// The cache folder.
    pub cache: PathBuf,
}

/// Where a mount with this configuration has its parts.
pub fn places(config: &Config) -> Result<Places, Failure> {
    let missing = |what: &str| Failure::usage(format!("no {what} is given"));
    let mountpoint = config.mountpoint.as_ref().ok_or_else(|| {
        missing("mount point").hint("give one: modelfs mount MOUNTPOINT, or set MODELFS_MOUNTPOINT")
    })?;
    let cache = config.cache_dir.as_ref().ok_or_else(|| missing("cache folder"))?;
    Ok(Places { mountpoint: mountpoint.value.clone(), cache: cache.value.clone() })
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

/// How servers are asked, by a configuration's policy and deadline.
pub fn http_options(config: &Config) -> HttpOptions {
    let timeouts = Timeouts::within(config.read_deadline.value);
    HttpOptions { timeouts, policy: host_policy(&config.policy) }
}

fn host_policy(policy: &Policy) -> HostPolicy {
    let denies = policy.deny_private_addresses.as_ref().is_some_and(|denies| denies.value);
    if policy.allowed_hosts.is_empty() {
        return HostPolicy::default().denying_private(denies);
    }
    let policy = policy.clone();
    HostPolicy::of_hosts(move |host, port| {
        let lacks = |list| format!("the host {host} is not in allowed_hosts ({list})");
        policy.allows(host, port).map_err(lacks)
    })
    .denying_private(denies)
}

/// A source and its registry.
pub struct OpenSource {
    /// What is configured of it.
    pub plan: SourcePlan,
    /// Its registry. It has not been asked for anything.
    pub registry: Arc<dyn Registry>,
}

impl OpenSource {
    /// Puts a source's registry together. Opens no connection.
    pub fn open(
        plan: SourcePlan,
        http: &HttpOptions,
        logins: Arc<dyn Logins>,
    ) -> Result<Self, Failure> {
        let (http, plain_http) = (http.clone(), plan.plain_http);
        let options = ConnectOptions { http, plain_http, logins: Some(logins) };
        let registry = open_with(&plan.address.0, &options).map_err(|error| {
            let failure = Failure::from(error);
            match &plan.name {
                Some(name) => Failure {
                    message: format!("the source '{name}': {}", failure.message),
                    ..failure
                },
                None => failure,
            }
        })?;
        Ok(Self { plan, registry })
    }

    /// The key of what is remembered of it.
    pub fn name(&self) -> SourceName {
        let named = self.plan.name.clone();
        named.unwrap_or_else(|| SourceName::of_address(self.registry.name()))
    }

    /// The format of its documents, as the index records it.
    fn format(&self) -> &'static str {
        match self.plan.kind {
            SourceKind::HuggingFace => "huggingface",
            SourceKind::Oci => "oci",
            SourceKind::Http | SourceKind::Folder | SourceKind::Bucket | SourceKind::Ollama => {
                "xprim"
            }
        }
    }

    fn source(&self, asked: bool, store: &Store, options: &FetchOptions) -> Arc<Source> {
        let catalog_ttl = self.plan.ttl.unwrap_or(options.catalog_ttl);
        let options = FetchOptions { catalog_ttl, ..options.clone() };
        let registry = asked.then(|| Arc::clone(&self.registry));
        let source = Source::new(self.name(), registry, store.clone(), &options);
        source.show(self.plan.models.iter().cloned());
        Arc::new(source.at(self.registry.name().to_owned()))
    }
}

/// These sources, of which only what the index remembers is looked at.
pub fn remembered(open: &[OpenSource], store: &Store, options: &FetchOptions) -> Arc<Sources> {
    merged(open, false, store, options)
}

fn merged(open: &[OpenSource], asked: bool, store: &Store, options: &FetchOptions) -> Arc<Sources> {
    let one = |open: &OpenSource| (open.source(asked, store, options), open.plan.groups.clone());
    Arc::new(Sources::new(open.iter().map(one).collect()))
}

/// A fetcher from sources into a store. Must be called within the tokio runtime.
pub fn fetcher(
    open: &[OpenSource],
    store: &Store,
    options: &FetchOptions,
) -> Result<Arc<Fetcher>, StoreError> {
    for source in open {
        store.uses(&source.name(), source.registry.name(), source.format())?;
    }
    Ok(Fetcher::new(merged(open, true, store, options), store.clone(), options.clone()))
}

/// Makes sure that there is a catalog: of each source the registry's, else the one last seen. A source
/// that cannot be reached keeps no other from being served; fails if there is a catalog of none.
pub async fn first_catalogs(sources: &Sources) -> Result<(), Failure> {
    let all: Vec<_> = sources.iter().map(|(_, source)| source).collect();
    let asked = all.iter().map(|source| async move {
        match source.registry() {
            Some(registry) => first_catalog(&*registry, source).await,
            None => Ok(()),
        }
    });
    let outcomes = join_all(asked).await;
    let served = outcomes.iter().any(Result::is_ok);
    let mut failed = outcomes.into_iter().zip(&all).filter_map(|(o, s)| Some((o.err()?, s)));
    if !served && let Some((failure, _)) = failed.next() {
        return Err(failure);
    }
    for (failure, source) in failed {
        tracing::warn!(source = %source.name(), "{}; the other sources are served", failure.message);
    }
    Ok(())
}

/// Retries bridge an outage for as long as a read would wait, which is too long for an interactive command:
/// when the answer is late, one plain attempt decides.
async fn first_catalog(registry: &dyn Registry, source: &Source) -> Result<(), Failure> {
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
    let outcome: Result<(), Failure> = outcome.await;
    outcome.map_err(|failure| {
        source.give_up(failure.message.clone());
        no_catalog(registry.name(), failure)
    })
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
    fn the_policy_of_a_configuration_says_which_list_lacks_a_host() {
        let text = "[policy]\nallowed_hosts = [\"*.example.org\"]\ndeny_private_addresses = true";
        let layer = modelfs::config::parse(text, Path::new("/f"), modelfs::config::Level::User);
        let config = Config::resolve([layer.unwrap()]).unwrap();
        let policy = host_policy(&config.policy);
        assert!(policy.denies_private());
        assert!(!host_policy(&Policy::default()).denies_private());
        let options = HttpOptions { policy, ..HttpOptions::default() };
        assert!(format!("{options:?}").contains("restricts_hosts: true"));
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
