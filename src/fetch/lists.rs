//! Leaf lists: fetched when a partial read needs one, kept in memory within a bound.
//!
//! Invariant: a list handed out hashed to its promised SHA-256 and has one digest per leaf.
//! Concurrency: shared; two askers for one list make one request.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::OnceCell;

use super::error::FetchError;
use crate::base::weighted::Weighted;
use crate::model::hash;
use crate::model::{Check, Digest};
use crate::registry::{Registry, xprim};

/// The most bytes of lists in memory: those of 32 GiB of models at 128 KiB a leaf.
const MEMORY: usize = 8 << 20;
const DIGEST: usize = 32;

/// The digests of an object's leaves.
pub type LeafList = Arc<[Digest]>;

type Fetching = Arc<OnceCell<LeafList>>;

/// Leaf lists in memory and on their way.
pub struct LeafLists {
    kept: Mutex<Weighted<Digest, LeafList>>,
    fetching: Mutex<HashMap<Digest, Fetching>>,
}

impl LeafLists {
    /// None yet.
    pub fn new() -> Self {
        Self { kept: Mutex::new(Weighted::new(MEMORY)), fetching: Mutex::new(HashMap::new()) }
    }

    /// The list, if it is in memory.
    pub fn kept(&self, list: &Digest) -> Option<LeafList> {
        self.kept.lock().expect("holders do not panic").get(list)
    }

    /// The list of an object of that length, from memory or the registry.
    pub async fn get(
        &self,
        registry: &dyn Registry,
        list: &Digest,
        leaves: u64,
    ) -> Result<LeafList, FetchError> {
        if let Some(found) = self.kept(list) {
            return Ok(found);
        }
        let cell = {
            let mut fetching = self.fetching.lock().expect("holders do not panic");
            fetching.entry(*list).or_default().clone()
        };
        let got = cell
            .get_or_try_init(|| async {
                let bytes = registry.document(list, leaves * DIGEST as u64).await?;
                let found = xprim::parse_leaves(list, &bytes, leaves)?;
                self.keep(*list, found.clone());
                Ok::<_, FetchError>(found)
            })
            .await
            .cloned();
        self.fetching.lock().expect("holders do not panic").remove(list);
        got
    }

    /// Makes the list of a whole object from its bytes and keeps it if it is the promised one.
    pub fn rebuild(&self, check: &Check, object: &[u8]) -> Option<LeafList> {
        let Check::Leaves { size, digest, list } = check else { return None };
        let size = usize::try_from(*size).ok()?;
        let found: Vec<Digest> = object.chunks(size).map(|leaf| digest.hash(leaf)).collect();
        let bytes: Vec<u8> = found.iter().flat_map(|d| *d.as_bytes()).collect();
        if hash::sha256(&bytes) != *list {
            return None;
        }
        let found: LeafList = found.into();
        self.keep(*list, found.clone());
        Some(found)
    }

    fn keep(&self, list: Digest, found: LeafList) {
        let bytes = found.len() * DIGEST;
        self.kept.lock().expect("holders do not panic").put(list, bytes, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::HashAlgorithm;

    #[test]
    fn a_list_is_rebuilt_only_if_it_is_the_promised_one() {
        let object = vec![7u8; 10_000];
        let digests: Vec<u8> =
            object.chunks(4096).flat_map(|l| *HashAlgorithm::Blake3.hash(l).as_bytes()).collect();
        let check = |list| Check::Leaves { size: 4096, digest: HashAlgorithm::Blake3, list };
        let lists = LeafLists::new();
        let list = hash::sha256(&digests);
        assert!(lists.rebuild(&check(list), &object[1..]).is_none());
        assert!(lists.kept(&list).is_none());
        assert_eq!(lists.rebuild(&check(list), &object).unwrap().len(), 3);
        assert!(lists.kept(&list).is_some());
    }

    #[test]
    fn memory_is_bounded() {
        let lists = LeafLists::new();
        let long: LeafList = vec![Digest::from_bytes([0; 32]); 1 << 16].into();
        for n in 0..20 {
            lists.keep(Digest::from_bytes([n; 32]), long.clone());
        }
        let kept = |n: &u8| lists.kept(&Digest::from_bytes([*n; 32])).is_some();
        let newest = 20 - (MEMORY / (2 << 20)) as u8;
        assert!((0..20).filter(kept).eq(newest..20), "as many as fit, and the newest");
    }
}
