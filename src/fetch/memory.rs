//! How much fetched data may be in memory: a budget in two purses, and a place beside them for one
//! leaf that is too large for the demand's.
//!
//! Invariant: what nobody waits for can never use up what demand needs, so a stalled prefetch
//! cannot keep a read from its buffer, nor can one stalled leaf, however large, keep the others
//! from theirs; who becomes urgent while it waits goes over to the demand's purse. Shared; waiters
//! wait without holding a lock.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::urgency::{Priority, Urgency};
use crate::base::units::ByteSize;
use crate::model::MAX_LEAF;

/// The unit of counting: a semaphore counts to 2^32 at most, and no buffer is smaller than a page.
const UNIT: u64 = 4096;

/// The budget.
#[derive(Debug)]
pub struct Memory {
    demand: Arc<Semaphore>,
    background: Arc<Semaphore>,
    large: Arc<Semaphore>,
    demand_units: u32,
    background_units: u32,
}

/// The place for one large leaf.
const LARGE_UNITS: u32 = (MAX_LEAF / UNIT) as u32;

impl Memory {
    /// A third of `total` for demand, the rest for readahead and prefetch, whose buffers are the
    /// ones that make a stream fast.
    pub fn new(total: ByteSize) -> Self {
        let units = |bytes: u64| u32::try_from(bytes / UNIT).unwrap_or(u32::MAX).max(1);
        let demand_units = units(total.0 / 3);
        let background_units = units(total.0 - total.0 / 3);
        Self {
            demand: Arc::new(Semaphore::new(demand_units as usize)),
            background: Arc::new(Semaphore::new(background_units as usize)),
            large: Arc::new(Semaphore::new(LARGE_UNITS as usize)),
            demand_units,
            background_units,
        }
    }

    /// Waits for room for `bytes`. What is larger than the purse still gets through, one at a time:
    /// in the background it takes the whole purse, for demand it has a place of its own. A rise to
    /// demand while waiting counts.
    pub async fn take(&self, bytes: u64, urgency: &Urgency) -> OwnedSemaphorePermit {
        if urgency.get() != Priority::Demand {
            tokio::select! {
                biased;
                room = room(&self.background, bytes, self.background_units) => return room,
                () = urgency.rises_above(Priority::Readahead) => {}
            }
        }
        if bytes.div_ceil(UNIT) > u64::from(self.demand_units) {
            return room(&self.large, MAX_LEAF, LARGE_UNITS).await;
        }
        room(&self.demand, bytes, self.demand_units).await
    }

    /// Bytes taken now.
    pub fn taken(&self) -> u64 {
        let purses = [
            (&self.demand, self.demand_units),
            (&self.background, self.background_units),
            (&self.large, LARGE_UNITS),
        ];
        let taken = |(purse, all): (&Arc<Semaphore>, u32)| {
            u64::from(all) - purse.available_permits() as u64
        };
        purses.into_iter().map(taken).sum::<u64>() * UNIT
    }
}

async fn room(purse: &Arc<Semaphore>, bytes: u64, all: u32) -> OwnedSemaphorePermit {
    let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).clamp(1, all);
    purse.clone().acquire_many_owned(units).await.expect("the purses are never closed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn background_never_starves_demand_and_large_leaves_get_through() {
        let memory = Memory::new(ByteSize::mib(3));
        let [demand, ahead, prefetch] =
            [Priority::Demand, Priority::Readahead, Priority::Prefetch].map(Urgency::new);
        let all = memory.take(64 << 20, &prefetch).await;
        assert!(memory.take(1, &ahead).now_or_never().is_none());
        let taken = memory.take(1 << 20, &demand).await;
        assert!(memory.take(1, &demand).now_or_never().is_none());
        drop(all);
        assert!(memory.take(1, &ahead).now_or_never().is_some());
        drop(taken);
        assert_eq!(memory.taken(), 0);
    }

    #[tokio::test]
    async fn one_large_leaf_keeps_no_small_one_waiting() {
        let memory = Memory::new(ByteSize::mib(3));
        let demand = Urgency::new(Priority::Demand);
        let large = memory.take(MAX_LEAF, &demand).await;
        assert_eq!(memory.taken(), MAX_LEAF);
        let small = memory.take(1 << 20, &demand).now_or_never().expect("room of its own");
        assert!(memory.take(2 << 20, &demand).now_or_never().is_none(), "one at a time");
        drop(large);
        let _next = memory.take(2 << 20, &demand).now_or_never().expect("its turn");
        drop(small);
    }

    #[tokio::test]
    async fn who_becomes_urgent_while_waiting_waits_for_the_other_purse() {
        let memory = Memory::new(ByteSize::mib(3));
        let _all = memory.take(64 << 20, &Urgency::new(Priority::Prefetch)).await;
        let urgency = Urgency::new(Priority::Prefetch);
        let mut waiting = std::pin::pin!(memory.take(4096, &urgency));
        assert!(waiting.as_mut().now_or_never().is_none());
        urgency.raise(Priority::Readahead);
        assert!(waiting.as_mut().now_or_never().is_none(), "the same purse");
        urgency.raise(Priority::Demand);
        assert!(waiting.now_or_never().is_some());
    }
}
