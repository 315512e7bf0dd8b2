//! The table of flights under way: at most one flight fetches each leaf.
//!
//! Invariant: while a flight is in the table, a reader of a leaf that it has yet to fetch joins it; when
//! it is removed, each of its leaves has an outcome.
//! Concurrency: shared; the lock is held for look-ups only, never across an await.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use super::dynamic_priority::Priority;
use super::flight::{Flight, FlightKey};

/// The flights under way.
#[derive(Debug, Default)]
pub struct FlightTable {
    flights: Mutex<HashMap<FlightKey, Vec<Arc<Flight>>>>,
}

/// Leaves and the flight that fetches them.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The flight.
    pub flight: Arc<Flight>,
    /// The wanted leaves of the flight.
    pub leaves: Range<u64>,
    /// Whether the flight is new: the caller must then run it to its end and `remove` it. Otherwise it
    /// was already under way.
    pub new: bool,
}

impl FlightTable {
    /// Assigns these leaves of an object to flights, each leaf to one. Flights under way that fetch some
    /// of them rise to `priority`; new flights fetch the rest.
    pub fn claim(&self, key: FlightKey, wanted: Range<u64>, priority: Priority) -> Vec<Claim> {
        let mut table = self.flights.lock().expect("holders do not panic");
        let under_way = table.entry(key.clone()).or_default();
        let mut claims = Vec::new();
        for flight in under_way.iter() {
            let coming = flight.coming(&wanted);
            if !coming.is_empty() {
                flight.urgency().raise(priority);
            }
            let claim = |leaves| Claim { flight: flight.clone(), leaves, new: false };
            claims.extend(coming.into_iter().map(claim));
        }
        claims.sort_by_key(|r| r.leaves.start);
        let mut gaps = Vec::new();
        let mut at = wanted.start;
        for claim in &claims {
            gaps.push(at..claim.leaves.start);
            at = claim.leaves.end;
        }
        gaps.push(at..wanted.end);
        for gap in gaps.into_iter().filter(|gap| !gap.is_empty()) {
            let flight = Arc::new(Flight::new(key.clone(), gap.clone(), priority));
            under_way.push(flight.clone());
            claims.push(Claim { flight, leaves: gap, new: true });
        }
        claims
    }

    /// Number of flights.
    pub fn len(&self) -> usize {
        self.flights.lock().expect("holders do not panic").values().map(Vec::len).sum()
    }

    /// Removes a flight that has ended.
    pub fn remove(&self, flight: &Arc<Flight>) {
        let mut table = self.flights.lock().expect("holders do not panic");
        if let Some(under_way) = table.get_mut(flight.key()) {
            under_way.retain(|f| !Arc::ptr_eq(f, flight));
            if under_way.is_empty() {
                table.remove(flight.key());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::flight::{LeafBytes, Outcome};
    use super::*;
    use crate::fetch::error::FetchError;
    use crate::fetch::plan::ObjectKey;
    use crate::model::{Check, Digest, Object, SourceName};

    fn key() -> FlightKey {
        let digest = Digest::from_bytes([1; 32]);
        let object = ObjectKey::of(&Object::new(digest, 1000, Check::Whole));
        FlightKey { source: SourceName::of_address("a"), object }
    }

    fn flight(table: &FlightTable, leaves: Range<u64>) -> Arc<Flight> {
        table.claim(key(), leaves, Priority::Prefetch).remove(0).flight
    }

    #[test]
    fn leaves_that_have_their_outcome_get_a_new_flight() {
        let table = FlightTable::default();
        let first = flight(&table, 0..4);
        first.settle(0, Outcome::Stored);
        first.settle(1, Outcome::Failed(FetchError::Stopped));
        let room = Arc::new(tokio::sync::Semaphore::new(1)).try_acquire_owned().unwrap();
        let (bytes, permit) = (bytes::Bytes::from_static(b"x"), Arc::new(room));
        first.settle(2, Outcome::Ready(LeafBytes::new(bytes, 0, permit)));
        let claims = table.claim(key(), 0..4, Priority::Demand);
        let claimed: Vec<_> = claims.iter().map(|r| (r.leaves.clone(), r.new)).collect();
        assert_eq!(claimed, [(2..4, false), (0..2, true)]);
        assert_eq!((first.urgency().get(), table.len()), (Priority::Demand, 2));
    }

    #[test]
    fn the_same_object_of_another_source_has_its_own_flight() {
        let table = FlightTable::default();
        let first = flight(&table, 0..4);
        let other = FlightKey { source: SourceName::of_address("b"), ..key() };
        let claims = table.claim(other, 0..4, Priority::Demand);
        assert!(claims.len() == 1 && claims[0].new);
        assert_eq!(first.urgency().get(), Priority::Prefetch, "its priority stays as it was");
        table.remove(&first);
        assert_eq!(table.len(), 1);
    }

    proptest! {
        #[test]
        fn each_wanted_leaf_is_in_exactly_one_flight(wants in proptest::collection::vec((0u64..40, 1u64..20, any::<bool>()), 1..20)) {
            let table = FlightTable::default();
            let mut under_way: Vec<Arc<Flight>> = Vec::new();
            for (start, len, ends) in wants {
                let claims = table.claim(key(), start..start + len, Priority::Demand);
                for new in claims.iter().filter(|r| r.new) {
                    let new = &new.flight;
                    for old in &under_way {
                        prop_assert!(new.leaves().end <= old.leaves().start || old.leaves().end <= new.leaves().start);
                    }
                    under_way.push(new.clone());
                }
                let flights_of = |leaf: u64| claims.iter().filter(|r| r.leaves.contains(&leaf)).count();
                prop_assert!((start..start + len).all(|leaf| flights_of(leaf) == 1));
                if ends {
                    let first = under_way.remove(0);
                    table.remove(&first);
                }
            }
        }
    }
}
