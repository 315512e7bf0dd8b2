//! Lookup counts: which nodes the kernel refers to by inode number.
//!
//! Invariant: a node is in use from the first lookup of one of its inodes until the kernel has forgotten
//! all of them. Lookups that a previous process answered are unknown: every older node counts as in use
//! for a day.
//! Concurrency: one short lock.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::ino::row_of;
use super::sync::lock;
use super::types::Ino;
use crate::store::{NodeId, NodesInUse};

/// How long nodes of a previous process count as in use: collecting them later costs only space.
const INHERITED: Duration = Duration::from_secs(24 * 3600);

/// The lookup counts of one kernel.
#[derive(Default)]
pub(super) struct LookupCounts(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// Lookups of inodes of a node, minus those forgotten.
    counts: HashMap<NodeId, u64>,
    /// The last node that a previous process may have answered with, and until when it counts as in use.
    inherited: Option<(NodeId, Instant)>,
}

impl LookupCounts {
    /// Counts a lookup that is answered with an inode.
    pub(super) fn looked_up(&self, ino: Ino) {
        if let Some(node) = row_of(ino) {
            *lock(&self.0).counts.entry(node).or_default() += 1;
        }
    }

    /// Subtracts the lookups of an inode that the kernel forgets.
    pub(super) fn forget(&self, ino: Ino, times: u64) {
        let Some(node) = row_of(ino) else { return };
        if let Entry::Occupied(mut count) = lock(&self.0).counts.entry(node) {
            *count.get_mut() = count.get().saturating_sub(times);
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    /// Counts every node up to this one as in use: a previous process served this kernel and may have
    /// answered with it.
    pub(super) fn inherit(&self, last: NodeId) {
        lock(&self.0).inherited = Some((last, Instant::now() + INHERITED));
    }
}

impl NodesInUse for LookupCounts {
    fn holds(&self, node: NodeId) -> bool {
        let inner = lock(&self.0);
        inner.counts.contains_key(&node)
            || inner.inherited.is_some_and(|(last, until)| node <= last && Instant::now() < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::ino::Place;
    use crate::vfs::tree::Position;

    #[test]
    fn a_node_is_in_use_until_all_lookups_of_its_inodes_are_forgotten() {
        let counts = LookupCounts::default();
        let (a, b) = (NodeId(7), NodeId(8));
        let (top, file) = (Place::Node(a).encode(), Place::Inside(a, Position(3)).encode());
        counts.looked_up(top);
        counts.looked_up(file);
        counts.looked_up(file);
        counts.looked_up(Ino::ROOT);
        counts.forget(file, 1);
        counts.forget(top, 1);
        assert!(counts.holds(a) && !counts.holds(b));
        counts.forget(file, 1);
        assert!(!counts.holds(a));
        counts.forget(file, 5);
        counts.looked_up(file);
        assert!(counts.holds(a), "lookups of a former process are not counted");
    }

    #[test]
    fn nodes_that_a_former_process_may_have_answered_with_are_in_use() {
        let counts = LookupCounts::default();
        counts.inherit(NodeId(7));
        assert!(counts.holds(NodeId(1)) && counts.holds(NodeId(7)) && !counts.holds(NodeId(8)));
        counts.forget(Place::Node(NodeId(7)).encode(), 1);
        assert!(counts.holds(NodeId(7)), "the number of lookups is not known");
    }
}
