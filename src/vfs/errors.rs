//! Maps errors of the lower layers to [`VfsError`], and keeps the last failure of each file.
//!
//! Invariant: an outage never becomes `NotFound`: only a catalog that was read can say that a name does
//! not exist.
//! Concurrency: the mapping is pure; the failures have one lock.

use std::hash::Hash;
use std::num::NonZeroUsize;
use std::sync::Mutex;

use lru::LruCache;

use super::sync::lock;
use super::types::VfsError;
use crate::base::FileRange;
use crate::fetch::FetchError;
use crate::registry::RegistryError;
use crate::store::StoreError;

/// Maximum number of files whose last failure is kept: more than a user looks at; a line each.
const MAX_FAILURES: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

/// Maps an error of the store.
pub(super) fn of_store(error: &StoreError) -> VfsError {
    let reason = one_line(error);
    VfsError::Unavailable {
        reason: error.next_step().map_or(reason.clone(), |step| format!("{reason}; {step}")),
    }
}

/// Maps an error of fetching. The tree itself looks up names in the catalog, so "not found" here is a
/// registry that lacks what its catalog promises.
pub(super) fn of_fetch(error: &FetchError) -> VfsError {
    let reason = one_line(error);
    match error {
        FetchError::Registry(e) => match e {
            RegistryError::WrongBytes { .. } | RegistryError::Invalid { .. } => {
                VfsError::Corrupt { reason }
            }
            RegistryError::Unreachable { .. }
            | RegistryError::NoFolder { .. }
            | RegistryError::Busy { .. }
            | RegistryError::Missing { .. }
            | RegistryError::Refused { .. }
            | RegistryError::Denied { .. }
            | RegistryError::Unproven { .. }
            | RegistryError::BadName { .. } => VfsError::Unavailable { reason },
        },
        FetchError::Corrupt { .. } => VfsError::Corrupt { reason },
        FetchError::TimedOut { .. } => VfsError::TimedOut { reason },
        FetchError::Store(e) => of_store(e),
        FetchError::NotKnown { .. } | FetchError::TooLargeToVerify { .. } | FetchError::Stopped => {
            VfsError::Unavailable { reason }
        }
    }
}

fn one_line(error: &dyn std::fmt::Display) -> String {
    error.to_string().replace(['\n', '\r'], " ")
}

/// The last failure of each file or version.
pub(super) struct RecentFailures<K> {
    last: Mutex<LruCache<K, (String, FileRange)>>,
}

impl<K: Hash + Eq> RecentFailures<K> {
    /// No failures.
    pub(super) fn new() -> Self {
        Self { last: Mutex::new(LruCache::new(MAX_FAILURES)) }
    }

    /// Records a failure to read this range. Returns whether the reason is new: a reader that retries for
    /// the same reason fills no log.
    pub(super) fn failed(&self, key: K, range: FileRange, error: &VfsError) -> bool {
        let reason = error.to_string();
        let mut last = lock(&self.last);
        last.put(key, (reason.clone(), range)).is_none_or(|(before, _)| before != reason)
    }

    /// Records that a fetch succeeded.
    pub(super) fn fetched(&self, key: &K) {
        lock(&self.last).pop(key);
    }

    /// Records that this range was read from the cache. That says nothing about the registry, unless the
    /// range is the one that failed: then it arrived after the readers gave up.
    pub(super) fn found(&self, key: &K, range: FileRange) {
        let mut last = lock(&self.last);
        let Some((_, failed)) = last.peek_mut(key) else { return };
        // The failed range shrinks by what is present at its start or end; the rest is still missing.
        if range.start() <= failed.start() {
            *failed =
                FileRange::new(failed.start().max(range.end()).min(failed.end()), failed.end());
        } else if range.end() >= failed.end() {
            *failed = FileRange::new(failed.start(), failed.end().min(range.start()));
        }
        if failed.is_empty() {
            last.pop(key);
        }
    }

    /// The last failure, if no fetch succeeded since.
    pub(super) fn of(&self, key: &K) -> Option<String> {
        lock(&self.last).peek(key).map(|(reason, _)| reason.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{ContentKey, Digest};

    #[test]
    fn an_outage_is_an_io_error_and_never_a_missing_file() {
        let what = || "chunk 7".to_owned();
        let why = || "because\nof this".to_owned();
        let registry: [(RegistryError, bool); 8] = [
            (RegistryError::Unreachable { what: what(), why: why() }, false),
            (RegistryError::Busy { what: what(), status: 503, retry_after: None }, false),
            (RegistryError::Missing { what: what() }, false),
            (RegistryError::Refused { what: what(), status: 403 }, false),
            (RegistryError::Denied { what: what(), why: why() }, false),
            (RegistryError::BadName { name: what(), why: why() }, false),
            (RegistryError::WrongBytes { what: what(), why: why() }, true),
            (RegistryError::Invalid { what: what(), why: why() }, true),
        ];
        for (error, corrupt) in registry {
            match (of_fetch(&FetchError::Registry(error)), corrupt) {
                (VfsError::Corrupt { reason }, true)
                | (VfsError::Unavailable { reason }, false) => {
                    assert!(reason.contains("chunk 7") && !reason.contains('\n'), "{reason}");
                }
                (other, _) => panic!("{other:?}"),
            }
        }
        let late = FetchError::TimedOut { after: Duration::from_secs(60), last: why() };
        assert!(matches!(of_fetch(&late), VfsError::TimedOut { .. }));
        let lost = FetchError::NotKnown { what: what() };
        assert!(matches!(of_fetch(&lost), VfsError::Unavailable { .. }));
    }

    #[test]
    fn the_last_failure_is_kept_until_a_fetch_succeeds_or_what_failed_is_there() {
        let key = ContentKey::new(Digest::from_bytes([1; 32]));
        let failures = RecentFailures::new();
        let error = |s: &str| VfsError::Unavailable { reason: s.into() };
        let range = FileRange::new(100, 200);
        assert!(failures.failed(key, range, &error("no route")));
        assert!(!failures.failed(key, range, &error("no route")));
        assert!(failures.failed(key, range, &error("busy")));
        failures.found(&key, FileRange::new(0, 100));
        assert_eq!(failures.of(&key).as_deref(), Some("busy"));
        failures.fetched(&key);
        assert_eq!(failures.of(&key), None);
        failures.failed(key, range, &error("no route"));
        for (start, end) in [(120, 130), (50, 120), (180, 300), (300, 400), (110, 179)] {
            failures.found(&key, FileRange::new(start, end));
            assert!(failures.of(&key).is_some(), "something of it never came");
        }
        failures.found(&key, FileRange::new(179, 180));
        assert_eq!(failures.of(&key), None);
    }
}
