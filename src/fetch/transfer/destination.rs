//! Where an object's bytes belong in the store: all files of the version that contain them.
//!
//! Invariant: a blob that cannot be opened only costs that its bytes are not kept. Blocking: reads the index.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use crate::base::ObjectRange;
use crate::fetch::plan::parts_of_leaves;
use crate::model::{Check, Manifest, ObjectIx, PartRange};
use crate::store::{Blob, Store};

/// A piece of a blob that consists of an object's bytes.
#[derive(Debug, Clone)]
pub struct Destination {
    blob: Arc<Blob>,
    piece: usize,
    /// Whether each leaf is a part of the piece.
    learned: bool,
}

/// Whether a piece that is verified as a whole was verified before and lost only some of its parts: each of
/// them is then verified by the checksum that was learned.
pub fn is_learned(blob: &Blob, piece: usize) -> bool {
    let layout = blob.layout();
    // Parts of a file whose ranges are proved come one by one, and say nothing of the others.
    layout.pieces()[piece].check == Check::WholeLarge
        && layout.pieces()[piece].is_whole_large()
        && !blob.present(layout.parts_of_piece(piece)).is_empty()
}

impl Destination {
    /// The pieces of all files of the version that contain some of this range of an object; where its
    /// leaves are `learned`, those that are all of the object. Reads the index.
    pub fn of_leaves(
        store: &Store,
        manifest: &Manifest,
        object: ObjectIx,
        range: ObjectRange,
        learned: bool,
    ) -> Vec<Self> {
        // Files with the same content are one blob.
        let mut found: HashMap<_, Self> = HashMap::new();
        for user in manifest.uses(object) {
            let piece = user.piece as usize;
            if manifest.slices(user.file)[piece].range.intersect(&range).is_empty() {
                continue;
            }
            match store.blob(manifest.layout(user.file)) {
                Ok(blob) => {
                    let to = Self { blob, piece, learned };
                    if !learned || to.is_whole_large() {
                        found.insert((to.blob.key(), piece), to);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a blob cannot be opened; its bytes are not kept");
                }
            }
        }
        found.into_values().collect()
    }

    /// The blob.
    pub fn blob(&self) -> &Arc<Blob> {
        &self.blob
    }

    /// Which piece of the blob.
    pub fn piece(&self) -> usize {
        self.piece
    }

    /// Whether the piece is all of an object that is verified as a whole and too large for memory.
    pub fn is_whole_large(&self) -> bool {
        self.blob.layout().pieces()[self.piece].is_whole_large()
    }

    fn all_parts(&self) -> PartRange {
        self.blob.layout().parts_of_piece(self.piece)
    }

    /// Whether every byte of the piece is present.
    pub fn is_present(&self) -> bool {
        self.blob.missing(self.all_parts()).is_empty()
    }

    /// Whether some byte of the piece is present.
    pub fn has_some(&self) -> bool {
        !self.blob.present(self.all_parts()).is_empty()
    }

    /// The parts of the blob that these leaves fill.
    pub fn parts(&self, leaves: &Range<u64>) -> PartRange {
        if self.learned {
            let part = |leaf: u64| self.all_parts().start + leaf as u32;
            return PartRange { start: part(leaves.start), end: part(leaves.end) };
        }
        parts_of_leaves(self.blob.layout(), self.piece, leaves)
    }

    /// Bytes of disk that storing these leaves takes, without those that are present.
    pub fn cost(&self, leaves: &Range<u64>) -> u64 {
        let runs = self.blob.missing(self.parts(leaves)).into_iter();
        runs.fold(0, |cost, run| cost.saturating_add(self.blob.cost(run)))
    }
}
