//! Memory budget of fetched data: one pool for demand, one for background fetches, and space outside both
//! for one leaf that is too large for the demand pool.
//!
//! Invariant: background fetches never use memory of the demand pool, so a stalled prefetch cannot block
//! a read. One stalled leaf, however large, cannot block other reads. A waiter that rises to demand moves
//! to the demand pool.
//! Concurrency: shared; waiters hold no lock.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::dynamic_priority::{DynamicPriority, Priority};
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

/// Space for one large leaf.
const LARGE_UNITS: u32 = (MAX_LEAF / UNIT) as u32;

impl Memory {
    /// A third of `total` is for demand, the rest for readahead and prefetch, whose buffers make a stream
    /// fast.
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

    /// Waits for memory for `bytes`. A request larger than its pool is admitted one at a time: in the
    /// background it takes the whole pool, for demand it takes the space for large leaves. A rise to
    /// demand takes effect while waiting.
    pub async fn take(&self, bytes: u64, urgency: &DynamicPriority) -> OwnedSemaphorePermit {
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

    /// Bytes in use now.
    pub fn taken(&self) -> u64 {
        let pools = [
            (&self.demand, self.demand_units),
            (&self.background, self.background_units),
            (&self.large, LARGE_UNITS),
        ];
        let taken =
            |(pool, all): (&Arc<Semaphore>, u32)| u64::from(all) - pool.available_permits() as u64;
        pools.into_iter().map(taken).sum::<u64>() * UNIT
    }
}

async fn room(pool: &Arc<Semaphore>, bytes: u64, all: u32) -> OwnedSemaphorePermit {
    let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).clamp(1, all);
    pool.clone().acquire_many_owned(units).await.expect("the pools are never closed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn background_never_takes_memory_of_demand_and_a_request_larger_than_its_pool_is_admitted()
     {
        let memory = Memory::new(ByteSize::mib(3));
        let [demand, ahead, prefetch] =
            [Priority::Demand, Priority::Readahead, Priority::Prefetch].map(DynamicPriority::new);
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
    async fn a_leaf_larger_than_the_demand_pool_delays_no_small_one() {
        let memory = Memory::new(ByteSize::mib(3));
        let demand = DynamicPriority::new(Priority::Demand);
        let large = memory.take(MAX_LEAF, &demand).await;
        assert_eq!(memory.taken(), MAX_LEAF);
        let small = memory.take(1 << 20, &demand).now_or_never().expect("room of its own");
        assert!(memory.take(2 << 20, &demand).now_or_never().is_none(), "one at a time");
        drop(large);
        let _next = memory.take(2 << 20, &demand).now_or_never().expect("its turn");
        drop(small);
    }

    #[tokio::test]
    async fn a_waiter_that_rises_to_demand_gets_memory_of_the_demand_pool() {
        let memory = Memory::new(ByteSize::mib(3));
        let _all = memory.take(64 << 20, &DynamicPriority::new(Priority::Prefetch)).await;
        let urgency = DynamicPriority::new(Priority::Prefetch);
        let mut waiting = std::pin::pin!(memory.take(4096, &urgency));
        assert!(waiting.as_mut().now_or_never().is_none());
        urgency.raise(Priority::Readahead);
        assert!(waiting.as_mut().now_or_never().is_none(), "the same pool");
        urgency.raise(Priority::Demand);
        assert!(waiting.now_or_never().is_some());
    }
}
