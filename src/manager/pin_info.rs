//! A pin as answers show it.
//!
//! Plain values.

use serde::{Deserialize, Serialize};

use super::error::ManagerError;
use super::lookup::FoundVersion;
use super::reference::Ref;
use crate::base::clock::rfc3339;
use crate::store::{Pin, Store};

/// A pin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinInfo {
    /// What is pinned.
    #[serde(flatten)]
    pub reference: Ref,
    /// By whom.
    pub owner: String,
    /// Since when.
    pub since: String,
}

impl From<&Pin> for PinInfo {
    fn from(pin: &Pin) -> Self {
        Self {
            reference: (&pin.version).into(),
            owner: pin.owner.clone(),
            since: rfc3339(pin.since),
        }
    }
}

/// The pins of one version of one registry.
pub fn pins_of(store: &Store, found: &FoundVersion) -> Result<Vec<PinInfo>, ManagerError> {
    let pins = store.pins()?.into_iter();
    let ours = pins.filter(|p| p.source == *found.source.name() && p.version == found.version);
    Ok(ours.map(|p| PinInfo::from(&p)).collect())
}
