//! Leaf lists: fetched when a partial read needs one, kept in memory up to a limit.
//!
//! Invariant: a returned list covers the requested leaves, and the registry client has verified it
//! against the digest of the list.
//! Concurrency: shared; callers that need the same list share one request.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use tokio::sync::OnceCell;

use crate::base::weighted::Weighted;
use crate::fetch::error::FetchError;
use crate::fetch::schedule::FlightKey;
use crate::model::hash;
use crate::model::{Check, Digest, Leaves, Object};
use crate::registry::Registry;

/// Maximum size of the lists in memory: enough for 32 GiB of models at 128 KiB per leaf.
const MEMORY: usize = 8 << 20;

type Fetching = Arc<OnceCell<Leaves>>;

/// Leaf lists in memory, by the digest of the list, and those being fetched.
pub struct LeafLists {
    kept: Mutex<Weighted<Digest, Leaves>>,
    fetching: Mutex<HashMap<FlightKey, Fetching>>,
}

impl LeafLists {
    /// An empty cache.
    pub fn new() -> Self {
        Self { kept: Mutex::new(Weighted::new(MEMORY)), fetching: Mutex::new(HashMap::new()) }
    }

    /// The digests of these leaves of an object, if known without a request to a registry.
    pub fn known(&self, object: &Object, leaves: &Range<u64>) -> Option<Leaves> {
        match &object.check {
            Check::Whole | Check::WholeLarge | Check::GitBlob => Some(Leaves::whole(object)),
            // Nothing but a proof verifies a range.
            Check::Proof { .. } => None,
            Check::Leaves { list, .. } => {
                let kept = self.kept.lock().expect("holders do not panic").get(list);
                kept.filter(|kept| kept.covers(leaves))
            }
        }
    }

    /// The digests of these leaves of an object, from memory or the registry.
    pub async fn get(
        &self,
        registry: &dyn Registry,
        key: &FlightKey,
        object: &Object,
        leaves: &Range<u64>,
    ) -> Result<Leaves, FetchError> {
        if let Some(found) = self.known(object, leaves) {
            return Ok(found);
        }
        let cell = {
            let mut fetching = self.fetching.lock().expect("holders do not panic");
            fetching.entry(key.clone()).or_default().clone()
        };
        let ask = || self.ask(registry, object, leaves);
        let got = cell.get_or_try_init(ask).await.cloned();
        self.fetching.lock().expect("holders do not panic").remove(key);
        match got? {
            found if found.covers(leaves) => Ok(found),
            // Another caller requested other leaves, and the registry returned only those.
            _ => ask().await,
        }
    }

    async fn ask(
        &self,
        registry: &dyn Registry,
        object: &Object,
        leaves: &Range<u64>,
    ) -> Result<Leaves, FetchError> {
        let found = registry.leaves(object, object.leaves_range(leaves)).await?;
        if let Check::Leaves { list, .. } = object.check {
            self.keep(list, found.clone());
        }
        Ok(found)
    }

    /// Computes the list of a whole object from its bytes. Keeps it if it matches the expected digest.
    pub fn rebuild(&self, check: &Check, object: &[u8]) -> Option<Leaves> {
        let Check::Leaves { size, digest, list } = check else { return None };
        let size = usize::try_from(*size).ok()?;
        let found: Vec<Digest> = object.chunks(size).map(|leaf| digest.hash(leaf)).collect();
        let bytes: Vec<u8> = found.iter().flat_map(|d| *d.as_bytes()).collect();
        if hash::sha256(&bytes) != *list {
            return None;
        }
        let found = Leaves::new(*digest, 0, found.into());
        self.keep(*list, found.clone());
        Some(found)
    }

    fn keep(&self, list: Digest, found: Leaves) {
        self.kept.lock().expect("holders do not panic").put(list, found.memory(), found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::HashAlgorithm;

    #[test]
    fn a_list_that_is_rebuilt_is_kept_only_if_its_digest_matches() {
        let object = vec![7u8; 10_000];
        let digests: Vec<u8> =
            object.chunks(4096).flat_map(|l| *HashAlgorithm::Blake3.hash(l).as_bytes()).collect();
        let lists = LeafLists::new();
        let list = hash::sha256(&digests);
        let check = Check::Leaves { size: 4096, digest: HashAlgorithm::Blake3, list };
        let known = Object::new(list, 10_000, check);
        assert!(lists.rebuild(&check, &object[1..]).is_none());
        assert!(lists.known(&known, &(0..3)).is_none());
        let found = lists.rebuild(&check, &object).unwrap();
        assert!(found.covers(&(0..3)) && !found.covers(&(0..4)));
        assert_eq!(lists.known(&known, &(1..3)), Some(found));
    }

    #[test]
    fn the_newest_lists_are_kept_up_to_a_limit() {
        let lists = LeafLists::new();
        let digest = |n| Digest::from_bytes([n; 32]);
        let long = Leaves::new(HashAlgorithm::Blake3, 0, vec![digest(0); 1 << 16].into());
        for n in 0..20 {
            lists.keep(digest(n), long.clone());
        }
        let kept = |n: &u8| {
            let check =
                Check::Leaves { size: 4096, digest: HashAlgorithm::Blake3, list: digest(*n) };
            lists.known(&Object::new(digest(*n), 4096 << 16, check), &(0..1)).is_some()
        };
        let newest = 20 - (MEMORY / (2 << 20)) as u8;
        assert!((0..20).filter(kept).eq(newest..20), "as many as fit, and the newest");
    }
}
