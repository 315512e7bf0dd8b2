//! Sources in use: what the index keeps of each is keyed by its name.
//!
//! Invariant: a source that gets a name loses nothing that was kept under its address, and its nodes keep
//! their numbers. Concurrency: called before anything else of the source is asked for; a rename excludes
//! collections, which look at names twice.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::core::Core;
use super::index_growth::PER_DOCUMENT;
use super::reserve;
use crate::model::SourceName;
use crate::store::error::StoreError;
use crate::store::index::Durability;
use crate::store::index::sources::{self, SourceRow};

/// A use is recorded again after so many seconds: a day, since nothing needs to know it better.
const RECORDED_FOR: u32 = 24 * 60 * 60;

/// Notes that the source `name` is used, which is at `url` now and whose documents have this format. What
/// is known under the URL alone, of the time before the source had a name, becomes known under the name.
pub fn uses(
    core: &Arc<Core>,
    name: &SourceName,
    url: &str,
    format: &str,
) -> Result<(), StoreError> {
    let row = SourceRow { name, url, format, used: core.clock.seconds() };
    let unnamed = SourceName::of_address(url);
    if *name != unnamed
        && let Some(cost) = core.index.read(|c| sources::rename_cost(c, &unnamed, name))?
    {
        return rename(core, &unnamed, &row, cost);
    }
    let last = core.index.read(|c| sources::last_used(c, &row))?;
    if last.is_some_and(|last| row.used.saturating_sub(last) < RECORDED_FOR) {
        return Ok(());
    }
    let saved = reserve::promise_growth(core, PER_DOCUMENT).and_then(|promise| {
        core.write_index(Durability::Normal, |tx| sources::set_source(tx, &row))?;
        promise.keep();
        Ok(())
    });
    if let Err(error) = saved {
        // nothing that is keyed by the name depends on it
        tracing::warn!(%error, source = %name, "where a source is was not recorded");
    }
    Ok(())
}

/// What was known as `from` is known by the name of `row` from now on.
fn rename(
    core: &Arc<Core>,
    from: &SourceName,
    row: &SourceRow<'_>,
    cost: u64,
) -> Result<(), StoreError> {
    // the old rows go with the same transaction: what they take is only in the log for a while
    let promise = reserve::promise_growth(core, cost + PER_DOCUMENT)?;
    let collector = core.collector.lock();
    core.write_index(Durability::Full, |tx| {
        sources::rename(tx, from, row.name)?;
        sources::set_source(tx, row)
    })?;
    // a key that both names had has one number less
    core.collections.fetch_add(1, Ordering::SeqCst);
    drop((collector, promise));
    tracing::info!(from = %from, to = %row.name, "a source is known by its name from now on");
    Ok(())
}
