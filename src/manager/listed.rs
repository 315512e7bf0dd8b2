//! One version as lists show it.
//!
//! Plain values, made from what was found and what the store has.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::error::ManagerError;
use super::lookup::{FoundVersion, ResolvedVersion};
use super::reference::Ref;
use crate::model::{Digest, SourceName, VersionRef};
use crate::store::Store;

/// One version in a list.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListedVersion {
    /// Which.
    #[serde(flatten)]
    pub reference: Ref,
    /// The registry that it comes from.
    pub registry: String,
    /// The SHA-256 of its manifest.
    pub hash: Digest,
    /// Bytes of all files; none: its manifest was never fetched.
    pub total: Option<u64>,
    /// Of them, cached.
    pub cached: u64,
    /// Whether all is cached.
    pub complete: bool,
    /// Whether the registry still offers this very version.
    pub offered: bool,
    /// The version it is another name for.
    pub alias_of: Option<String>,
    /// Who pinned it.
    pub pinned_by: Vec<String>,
}

/// Who pinned what: owners by registry and version.
pub struct Owners(HashMap<(SourceName, VersionRef), Vec<String>>);

impl Owners {
    /// Of all pins of a store.
    pub fn of(store: &Store) -> Result<Self, ManagerError> {
        let mut owners: HashMap<_, Vec<_>> = HashMap::new();
        for pin in store.pins()? {
            owners.entry((pin.source, pin.version)).or_default().push(pin.owner);
        }
        Ok(Self(owners))
    }
}

impl ListedVersion {
    /// A version whose manifest is not here.
    pub fn unresolved(found: &FoundVersion, owners: &Owners) -> Self {
        Self::new(found, None, owners)
    }

    /// A version with its manifest.
    pub fn resolved(version: &ResolvedVersion, store: &Store, owners: &Owners) -> Self {
        let cached = version.cached(store).iter().sum();
        Self::new(&version.found, Some((version.manifest.total(), cached)), owners)
    }

    fn new(found: &FoundVersion, size: Option<(u64, u64)>, owners: &Owners) -> Self {
        let source = found.source.name();
        let (total, cached) = size.unzip();
        let alias = found.entry.as_ref().and_then(|e| e.alias_of.as_ref());
        let pinned_by = owners.0.get(&(source.clone(), found.version.clone()));
        Self {
            reference: (&found.version).into(),
            hash: found.hash,
            total,
            cached: cached.unwrap_or(0),
            complete: total.is_some() && total == cached,
            offered: found.entry.is_some(),
            alias_of: alias.map(|n| n.as_str().to_owned()),
            pinned_by: pinned_by.cloned().unwrap_or_default(),
            registry: source.to_string(),
        }
    }
}
