//! Finding bytes of an object in other blobs.
//!
//! Invariant: what is found is held before it is looked at, so it stays. A hint, not a proof: the
//! caller verifies what it reads.

use std::sync::Arc;

use super::blob::{Handles, LocalCopy};
use super::engine::core::Core;
use super::error::StoreError;
use super::index::rows;
use crate::base::{FileRange, ObjectRange};
use crate::model::Digest;

/// More places are not worth the look-up: the layer above takes the longest and asks again.
const MOST: usize = 8;

/// Where blobs have bytes of an object, known by any of these digests, in `range`.
pub fn find(
    core: &Arc<Core>,
    handles: &Arc<Handles>,
    object: &[Digest],
    range: ObjectRange,
) -> Result<Vec<LocalCopy>, StoreError> {
    let mut places = core.index.read(|conn| {
        let mut all = Vec::new();
        for digest in object {
            all.extend(rows::find_object(conn, digest)?);
        }
        Ok(all)
    })?;
    places.sort_unstable();
    places.dedup();
    let mut found: Vec<LocalCopy> = Vec::new();
    for (key, piece) in places {
        let Some(entry) = core.table.get(&key) else { continue };
        let Some(p) = entry.layout.pieces().get(piece).cloned() else { continue };
        let wanted = p.object_range().intersect(&range);
        if wanted.is_empty() {
            continue;
        }
        let start = p.file.start() + (wanted.start() - p.object_offset);
        let file = FileRange::at(start, wanted.len());
        let parts = entry.layout.parts_in(file);
        let (blob, _) = handles.get(core, &entry.layout);
        let hold = blob.hold(parts);
        for run in blob.present(parts) {
            let file = entry.layout.file_range(run).intersect(&file);
            let object =
                ObjectRange::at(p.object_offset + (file.start() - p.file.start()), file.len());
            let parts = entry.layout.parts_in(file);
            found.push(LocalCopy { blob: blob.clone(), object, file, hold: blob.hold(parts) });
        }
        drop(hold);
    }
    found.sort_by_key(|s| std::cmp::Reverse(s.object.len()));
    found.truncate(MOST);
    Ok(found)
}
