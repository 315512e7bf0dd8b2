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

/// What fetches from a registry into a store. Within the tokio runtime.
pub fn fetcher(registry: Arc<dyn Registry>, store: &Store, options: &FetchOptions) -> Arc<Fetcher> {
    let name = registry.name().to_owned();
    let source = Source::new(&name, Some(registry), store.clone(), options);
    Fetcher::new(Arc::new(source), store.clone(), options.clone())
}
