//! The flights under way, at most one that brings each leaf.
//!
//! Invariant: while a flight is in the table, a reader of a leaf that it has yet to bring joins it;
//! when it is removed, every leaf of it has an outcome.
//! Concurrency: shared; the lock is held for look-ups only, never across an await.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use super::flight::{Flight, FlightKey};
use super::urgency::Priority;

/// The flights under way.
#[derive(Debug, Default)]
pub struct FlightTable {
    flights: Mutex<HashMap<FlightKey, Vec<Arc<Flight>>>>,
}

/// Leaves and the flight that brings them.
#[derive(Debug, Clone)]
pub struct Ride {
    /// The flight.
    pub flight: Arc<Flight>,
    /// Which of its leaves are wanted.
    pub leaves: Range<u64>,
    /// Entered in the table now: the caller must run it to its end and then `remove` it. Else it
    /// was under way already.
    pub new: bool,
}

impl FlightTable {
    /// Rides for these leaves of an object, each leaf in one. Flights under way that bring some of
    /// them become at least that urgent.
    pub fn claim(&self, key: FlightKey, wanted: Range<u64>, priority: Priority) -> Vec<Ride> {
        let mut table = self.flights.lock().expect("holders do not panic");
        let flying = table.entry(key.clone()).or_default();
        let mut rides = Vec::new();
        for flight in flying.iter() {
            let coming = flight.coming(&wanted);
            if !coming.is_empty() {
                flight.urgency.raise(priority);
            }
            let ride = |leaves| Ride { flight: flight.clone(), leaves, new: false };
            rides.extend(coming.into_iter().map(ride));
        }
        rides.sort_by_key(|r| r.leaves.start);
        let mut gaps = Vec::new();
        let mut at = wanted.start;
        for ride in &rides {
            gaps.push(at..ride.leaves.start);
            at = ride.leaves.end;
        }
        gaps.push(at..wanted.end);
        for gap in gaps.into_iter().filter(|gap| !gap.is_empty()) {
            let flight = Arc::new(Flight::new(key.clone(), gap.clone(), priority));
            flying.push(flight.clone());
            rides.push(Ride { flight, leaves: gap, new: true });
        }
        rides
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.flights.lock().expect("holders do not panic").values().map(Vec::len).sum()
    }

    /// Takes a flight that has landed out of the table.
    pub fn remove(&self, flight: &Arc<Flight>) {
        let mut table = self.flights.lock().expect("holders do not panic");
        if let Some(flying) = table.get_mut(&flight.key) {
            flying.retain(|f| !Arc::ptr_eq(f, flight));
            if flying.is_empty() {
                table.remove(&flight.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fetch::FetchError;
    use crate::fetch::flight::{LeafBytes, ObjectKey, Outcome};
    use crate::model::{Check, Digest, Object};

    fn key() -> FlightKey {
        let digest = Digest::from_bytes([1; 32]);
        let object = ObjectKey::of(&Object::new(digest, 1000, Check::Whole));
        FlightKey { source: "a".into(), object }
    }

    fn flight(table: &FlightTable, leaves: Range<u64>) -> Arc<Flight> {
        table.claim(key(), leaves, Priority::Prefetch).remove(0).flight
    }

    #[test]
    fn what_has_passed_flies_again() {
        let table = FlightTable::default();
        let first = flight(&table, 0..4);
        first.settle(0, Outcome::Stored);
        first.settle(1, Outcome::Failed(FetchError::Stopped));
        let room = Arc::new(tokio::sync::Semaphore::new(1)).try_acquire_owned().unwrap();
        let (bytes, permit) = (bytes::Bytes::from_static(b"x"), Arc::new(room));
        first.settle(2, Outcome::Ready(LeafBytes { bytes, _permit: permit }));
        let rides = table.claim(key(), 0..4, Priority::Demand);
        let told: Vec<_> = rides.iter().map(|r| (r.leaves.clone(), r.new)).collect();
        assert_eq!(told, [(2..4, false), (0..2, true)]);
        assert_eq!((first.urgency.get(), table.len()), (Priority::Demand, 2));
    }

    #[test]
    fn the_same_object_of_another_source_has_its_own_flight() {
        let table = FlightTable::default();
        let first = flight(&table, 0..4);
        let other = FlightKey { source: "b".into(), ..key() };
        let rides = table.claim(other, 0..4, Priority::Demand);
        assert!(rides.len() == 1 && rides[0].new);
        assert_eq!(first.urgency.get(), Priority::Prefetch, "not even hurried by it");
        table.remove(&first);
        assert_eq!(table.len(), 1);
    }

    proptest! {
        #[test]
        fn every_leaf_flies_once(wants in proptest::collection::vec((0u64..40, 1u64..20, any::<bool>()), 1..20)) {
            let table = FlightTable::default();
            let mut flying: Vec<Arc<Flight>> = Vec::new();
            for (start, len, land) in wants {
                let rides = table.claim(key(), start..start + len, Priority::Demand);
                for new in rides.iter().filter(|r| r.new) {
                    let new = &new.flight;
                    for old in &flying {
                        prop_assert!(new.leaves.end <= old.leaves.start || old.leaves.end <= new.leaves.start);
                    }
                    flying.push(new.clone());
                }
                let rides_of = |leaf: u64| rides.iter().filter(|r| r.leaves.contains(&leaf)).count();
                prop_assert!((start..start + len).all(|leaf| rides_of(leaf) == 1));
                if land {
                    let first = flying.remove(0);
                    table.remove(&first);
                }
            }
        }
    }
}
