//! What to evict: a value, made before anything is destroyed.
//!
//! Invariant: unverified bytes without a writer first, from their end on, so that what is left of them can
//! be gone on with; then the oldest segments; nothing that is in use, pinned or not yet committed. Pure
//! values.

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

/// A segment that might be evicted, or the unverified bytes in it.
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
    /// The unverified bytes in these.
    pub unverified: Vec<SegmentId>,
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
    /// From unverified bytes, in the order in which they go, and segments, oldest first: as many as free
    /// `goal` bytes.
    pub fn choose(
        goal: u64,
        unverified: impl IntoIterator<Item = Candidate>,
        segments: impl IntoIterator<Item = Candidate>,
    ) -> Self {
        let mut plan = Self::default();
        let unverified = unverified.into_iter().map(|c| (c, true));
        for (c, is_unverified) in unverified.chain(segments.into_iter().map(|c| (c, false))) {
            match c.evictability {
                Evictability::Evictable => {
                    let list = if is_unverified { &mut plan.unverified } else { &mut plan.victims };
                    list.push(c.segment);
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
        let plan = EvictionPlan::choose(15, [], list);
        assert_eq!(plan.victims.iter().map(|s| s.segment).collect::<Vec<_>>(), [2, 5]);
        assert_eq!((plan.frees, plan.uncommitted, plan.in_use), (20, true, true));
        let plan = EvictionPlan::choose(10, [], list);
        assert_eq!((plan.victims.len(), plan.uncommitted), (1, false));
        assert_eq!(EvictionPlan::choose(1000, [], list).frees, 30);
    }

    #[test]
    fn unverified_bytes_go_before_anything_that_is_verified() {
        let candidate = |segment, evictability| Candidate {
            segment: SegmentId { blob: 1, segment },
            frees: 10,
            evictability,
        };
        let unverified = [9, 8].map(|n| candidate(n, Evictability::Evictable));
        let held = [candidate(7, Evictability::Held)];
        let old = [1, 2].map(|n| candidate(n, Evictability::Evictable));
        let numbers = |ids: &[SegmentId]| ids.iter().map(|id| id.segment).collect::<Vec<_>>();
        for (goal, first, then) in
            [(5, vec![9], vec![]), (20, vec![9, 8], vec![]), (25, vec![9, 8], vec![1])]
        {
            let plan = EvictionPlan::choose(goal, held.into_iter().chain(unverified), old);
            assert_eq!((numbers(&plan.unverified), numbers(&plan.victims)), (first, then));
        }
    }
}
