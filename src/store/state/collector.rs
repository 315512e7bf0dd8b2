//! Who is asked before names and documents are deleted from the index, and how the last try went.
//!
//! Plain state behind one lock of the engine, held for a whole collection.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::model::{ContentKey, Digest, SourceName};
use crate::store::types::{NodeId, NodeKey};

/// How soon it is tried again after nothing more could be deleted, unless names grew much since.
const RETRY_AFTER: Duration = Duration::from_secs(600);

/// How documents are read. The store keeps them and knows no format.
#[derive(Debug, Clone, Copy)]
pub struct Formats {
    /// Tells everything that a catalog lists: groups, models, versions. `false`: it cannot be read.
    pub listed: fn(&[u8], &mut dyn FnMut(NodeKey)) -> bool,
    /// The blobs of the files of a manifest with this SHA-256; none if it cannot be read.
    pub blobs: fn(&Digest, &[u8]) -> Option<Vec<ContentKey>>,
}

/// Knows which nodes a process may still ask for by number.
pub trait NodesInUse: Send + Sync {
    /// Whether it must stay.
    fn holds(&self, node: NodeId) -> bool;
}

/// Who is asked, and how the last collection went.
#[derive(Default)]
pub struct Collector {
    /// By the name of each source that is in use.
    sources: HashMap<SourceName, Formats>,
    holders: Vec<Weak<dyn NodesInUse>>,
    /// What names took when nothing more could be deleted, and when that was.
    futile: Option<(u64, Instant)>,
}

impl std::fmt::Debug for Collector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Collector").field("sources", &self.sources.keys()).finish_non_exhaustive()
    }
}

impl Collector {
    /// A source is in use; its documents are read so.
    pub fn add_source(&mut self, source: &SourceName, formats: Formats) {
        self.sources.insert(source.clone(), formats);
    }

    /// A process knows nodes by their numbers.
    pub fn add_holder(&mut self, holder: Weak<dyn NodesInUse>) {
        self.holders.retain(|h| h.strong_count() > 0);
        self.holders.push(holder);
    }

    /// Those who know nodes and still live.
    pub fn holders(&self) -> Vec<Arc<dyn NodesInUse>> {
        self.holders.iter().filter_map(Weak::upgrade).collect()
    }

    /// Whether this source is in use.
    pub fn has_source(&self, source: &SourceName) -> bool {
        self.sources.contains_key(source)
    }

    /// All formats that may read a document of `source`, its own first.
    pub fn formats_for(&self, source: &SourceName) -> impl Iterator<Item = &Formats> {
        self.sources.get(source).into_iter().chain(self.sources.values())
    }

    /// The formats of all sources in use.
    pub fn formats(&self) -> impl Iterator<Item = &Formats> {
        self.sources.values()
    }

    /// Whether a collection may help, with names that take `taken` of a `headroom`. Nothing is deleted
    /// while no source is in use: it is unknown what its catalog lists.
    pub fn may_help(&self, taken: u64, headroom: u64) -> bool {
        let futile = self.futile.is_some_and(|(before, at)| {
            taken <= before + headroom / 8 && at.elapsed() < RETRY_AFTER
        });
        taken > headroom && !futile && !self.sources.is_empty()
    }

    /// Notes what names still take after a collection that should have reached `goal`.
    pub fn ended(&mut self, left: u64, goal: u64) {
        self.futile = (left > goal).then(|| (left, Instant::now()));
    }
}
