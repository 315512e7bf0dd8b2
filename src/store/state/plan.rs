//! What to evict: a value, made before anything is destroyed.
//!
//! Invariant: oldest first; nothing that is in use, pinned or not yet committed. Pure values.

use crate::store::state::lru::SegmentId;

/// What stands against evicting a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evictability {
    /// Nothing.
    Evictable,
    /// A part of it waits for its commit.
    Uncommitted,
    /// It is being read, written or removed this instant.
    InUse,
    /// It is held, for however long.
    Held,
}

/// A segment that might be evicted.
#[derive(Debug, Clone, Copy)]
pub struct Candidate {
    /// Which.
    pub segment: SegmentId,
    /// Bytes that evicting it frees.
    pub frees: u64,
    /// What stands against it.
    pub evictability: Evictability,
}

/// What to evict.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EvictionPlan {
    /// These, oldest first.
    pub victims: Vec<SegmentId>,
    /// Bytes that this frees.
    pub frees: u64,
    /// More can be freed after a commit.
    pub uncommitted: bool,
    /// More can be freed in a moment.
    pub in_use: bool,
}

impl EvictionPlan {
    /// From candidates, oldest first, as many as free `goal` bytes.
    pub fn choose(goal: u64, candidates: impl IntoIterator<Item = Candidate>) -> Self {
        let mut plan = Self::default();
        for c in candidates {
            match c.evictability {
                Evictability::Evictable => {
                    plan.victims.push(c.segment);
                    plan.frees += c.frees;
                    if plan.frees >= goal {
                        break;
                    }
                }
                Evictability::Uncommitted => plan.uncommitted = true,
                Evictability::InUse => plan.in_use = true,
                Evictability::Held => {}
            }
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oldest_first_until_it_is_enough_and_nothing_in_use() {
        use Evictability::*;
        let list = [
            (1, Held),
            (2, Evictable),
            (3, InUse),
            (4, Uncommitted),
            (5, Evictable),
            (6, Evictable),
        ];
        let list = list.map(|(segment, evictability)| Candidate {
            segment: SegmentId { blob: 1, segment },
            frees: 10,
            evictability,
        });
        let plan = EvictionPlan::choose(15, list);
        assert_eq!(plan.victims.iter().map(|s| s.segment).collect::<Vec<_>>(), [2, 5]);
        assert_eq!((plan.frees, plan.uncommitted, plan.in_use), (20, true, true));
        let plan = EvictionPlan::choose(10, list);
        assert_eq!((plan.victims.len(), plan.uncommitted), (1, false));
        assert_eq!(EvictionPlan::choose(1000, list).frees, 30);
    }
}
