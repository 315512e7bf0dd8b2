//! Nodes that a kernel knows by their numbers.
//!
//! Invariant: a node is held from when a kernel is told of one of its inodes until it has forgotten
//! all of them. What a kernel learned from a former process is not known: every older node counts as
//! held for a day, which is as long as nothing asks for it and nothing is missed.
//! Concurrency: one short lock.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::ino::Place;
use super::sync::lock;
use super::types::Ino;
use crate::store::{NodeId, NodesInUse};

/// How long what a former process may have told is believed to be known.
const INHERITED: Duration = Duration::from_secs(24 * 3600);

/// What a kernel knows.
#[derive(Default)]
pub(super) struct Held(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// How often it was told of inodes of a node, less how often it forgot them.
    told: HashMap<NodeId, u64>,
    /// The last node that a former process may have told of, and until when that counts.
    inherited: Option<(NodeId, Instant)>,
}

fn node_of(ino: Ino) -> Option<NodeId> {
    match Place::decode(ino)? {
        Place::Root => None,
        Place::Node(id) | Place::Inside(id, _) | Place::Own(id) | Place::Document(id) => Some(id),
    }
}

impl Held {
    /// A kernel is told of an inode.
    pub(super) fn told(&self, ino: Ino) {
        if let Some(node) = node_of(ino) {
            *lock(&self.0).told.entry(node).or_default() += 1;
        }
    }

    /// It forgets an inode that it was told of so many times.
    pub(super) fn forgot(&self, ino: Ino, times: u64) {
        let Some(node) = node_of(ino) else { return };
        if let Entry::Occupied(mut told) = lock(&self.0).told.entry(node) {
            *told.get_mut() = told.get().saturating_sub(times);
            if *told.get() == 0 {
                told.remove();
            }
        }
    }

    /// A former process served this kernel, and may have told of every node up to this one.
    pub(super) fn inherit(&self, last: NodeId) {
        lock(&self.0).inherited = Some((last, Instant::now() + INHERITED));
    }
}

impl NodesInUse for Held {
    fn holds(&self, node: NodeId) -> bool {
        let inner = lock(&self.0);
        inner.told.contains_key(&node)
            || inner.inherited.is_some_and(|(last, until)| node <= last && Instant::now() < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::tree::Position;

    #[test]
    fn a_node_is_held_until_all_of_its_inodes_are_forgotten() {
        let held = Held::default();
        let (a, b) = (NodeId(7), NodeId(8));
        let (top, file) = (Place::Node(a).encode(), Place::Inside(a, Position(3)).encode());
        held.told(top);
        held.told(file);
        held.told(file);
        held.told(Ino::ROOT);
        held.forgot(file, 1);
        held.forgot(top, 1);
        assert!(held.holds(a) && !held.holds(b));
        held.forgot(file, 1);
        assert!(!held.holds(a));
        held.forgot(file, 5);
        held.told(file);
        assert!(held.holds(a), "what a former process told is not owed");
    }

    #[test]
    fn what_a_former_process_may_have_told_is_held() {
        let held = Held::default();
        held.inherit(NodeId(7));
        assert!(held.holds(NodeId(1)) && held.holds(NodeId(7)) && !held.holds(NodeId(8)));
        held.forgot(Place::Node(NodeId(7)).encode(), 1);
        assert!(held.holds(NodeId(7)), "how often it was told is not known");
    }
}
