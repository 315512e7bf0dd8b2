//! How the parts below are put together: one place for daemon and commands alike.
//!
//! Invariant: every number that users cannot set has its reason here.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use modelfs::base::units::ByteSize;
use modelfs::fetch::{FetchOptions, Fetcher, Source};
use modelfs::registry::Registry;
use modelfs::store::{Store, StoreOptions};

/// A read that has waited for a minute has outlived most readers' patience and short outages.
pub const READ_DEADLINE: Duration = Duration::from_secs(60);

/// New versions appear within a minute; the conditional request costs next to nothing.
pub const CATALOG_TTL: Duration = Duration::from_secs(60);

/// Fetched bytes in memory: enough for every connection to hold a 10 MiB chunk, small beside what
/// loads a model.
const MEMORY: ByteSize = ByteSize::mib(256);

/// Requests at once: fills a fast line at usual round trips, and no server minds.
const CONNECTIONS: usize = 16;

/// One group commit for so many bytes: a crash loses seconds of fetching, a sync is well paid.
const COMMIT_BYTES: ByteSize = ByteSize::mib(256);

/// And at the latest after so long, for slow lines.
const COMMIT_AFTER: Duration = Duration::from_secs(2);

/// A store at `root`; without a limit, the one it had.
pub fn store_options(root: &Path, limit: Option<ByteSize>) -> StoreOptions {
    StoreOptions {
        root: root.to_owned(),
        limit,
        commit_bytes: COMMIT_BYTES,
        commit_after: COMMIT_AFTER,
    }
}

/// Fetching with the usual numbers.
pub fn fetch_options() -> FetchOptions {
    FetchOptions {
        read_deadline: READ_DEADLINE,
        catalog_ttl: CATALOG_TTL,
        memory: MEMORY,
        connections: CONNECTIONS,
    }
}

/// What fetches from a registry into a store. Within the tokio runtime.
pub fn fetcher(
    registry: Arc<dyn Registry>,
    store: &Store,
    options: &FetchOptions,
) -> Arc<Fetcher> {
    let name = registry.name().to_owned();
    let source = Source::new(&name, Some(registry), store.clone(), options);
    Fetcher::new(Arc::new(source), store.clone(), options.clone())
}
