//! Which blobs a command means that names a version or everything.
//!
//! Invariant: only blobs that hold something are selected. No state.

use std::collections::HashSet;

use super::error::ManagerError;
use super::lookup::{Lookup, ResolvedVersion, all_resolved, resolve};
use super::manager::Manager;
use super::reference::Ref;
use crate::model::ContentKey;

/// The blobs that hold something: of a version, those of every manifest of it that was used here, at
/// least one; without a version all of them, perhaps none.
pub async fn blobs(
    manager: &Manager,
    reference: &Option<Ref>,
) -> Result<Vec<ContentKey>, ManagerError> {
    let holds_data = |key: &ContentKey| manager.store().holds(key);
    let Some(reference) = reference else {
        return Ok(manager.store().blobs().into_iter().filter(holds_data).collect());
    };
    let version = reference.parse()?;
    let one = resolve(manager, &version, Lookup::Offline).await?.found;
    let all = all_resolved(manager).await?;
    let same = |v: &&ResolvedVersion| {
        v.found.version == version && v.found.source.name() == one.source.name()
    };
    let keys: HashSet<_> = all.iter().filter(same).flat_map(ResolvedVersion::blobs).collect();
    match keys.into_iter().filter(holds_data).collect::<Vec<_>>() {
        none if none.is_empty() => Err(ManagerError::NothingCached { version }),
        some => Ok(some),
    }
}
