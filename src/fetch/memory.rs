//! How much fetched data may be in memory: a budget in two purses.
//!
//! Invariant: what nobody waits for can never use up what demand needs, so a stalled prefetch
//! cannot keep a read from its buffer. Shared; waiters wait without holding a lock.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::urgency::Priority;
use crate::base::units::ByteSize;

/// The unit of counting: a semaphore counts to 2^32 at most, and no buffer is smaller than a page.
const UNIT: u64 = 4096;

/// The budget.
#[derive(Debug)]
pub struct Memory {
    demand: Arc<Semaphore>,
    background: Arc<Semaphore>,
    demand_units: u32,
    background_units: u32,
}

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
            demand_units,
            background_units,
        }
    }

    /// Waits for room for `bytes`. More than the whole purse takes the whole purse, so that a leaf
    /// larger than the budget still gets through, alone.
    pub async fn take(&self, bytes: u64, priority: Priority) -> OwnedSemaphorePermit {
        let (purse, all) = match priority {
            Priority::Demand => (&self.demand, self.demand_units),
            Priority::Readahead | Priority::Prefetch => (&self.background, self.background_units),
        };
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).clamp(1, all);
        purse.clone().acquire_many_owned(units).await.expect("the purses are never closed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn background_never_starves_demand_and_large_leaves_get_through() {
        let memory = Memory::new(ByteSize::mib(3));
        let all = memory.take(64 << 20, Priority::Prefetch).await;
        assert!(memory.take(1, Priority::Readahead).now_or_never().is_none());
        let demand = memory.take(1 << 20, Priority::Demand).await;
        assert!(memory.take(1, Priority::Demand).now_or_never().is_none());
        drop(all);
        assert!(memory.take(1, Priority::Readahead).now_or_never().is_some());
        drop(demand);
    }
}
