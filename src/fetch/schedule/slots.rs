//! Request slots: limits the number of concurrent requests, by priority.
//!
//! Invariant: never more requests than slots; readahead leaves a quarter of the slots free for demand
//! reads, prefetch leaves half. The priority of a waiter may rise. A stalled request yields its slot to
//! demand reads, so that a registry that does not answer for some objects does not block the others; the
//! number of stalled requests is limited.
//! Concurrency: shared; the lock is held for a queue operation only.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::oneshot;

use super::dynamic_priority::{DynamicPriority, Priority};

/// Maximum number of stalled requests for each slot.
const STALLED_PER_SLOT: usize = 4;

/// The slots.
#[derive(Debug)]
pub struct Slots {
    total: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    free: usize,
    /// Stalled requests, whose slots demand reads may use.
    stalled: usize,
    ticket: u64,
    waiting: BTreeMap<(Priority, u64), oneshot::Sender<Slot>>,
}

/// A slot; dropping it frees it.
#[derive(Debug)]
pub struct Slot {
    slots: Arc<Slots>,
    yielded: bool,
}

impl Slot {
    /// Yields the slot of a stalled request to demand reads. A late answer needs no slot.
    pub fn yield_slot(&mut self) {
        let mut inner = self.slots.lock();
        if self.yielded || inner.stalled >= STALLED_PER_SLOT * self.slots.total {
            return;
        }
        (self.yielded, inner.stalled, inner.free) = (true, inner.stalled + 1, inner.free + 1);
        drop(inner);
        self.slots.grant();
    }
}

impl Slots {
    /// `total` slots, at least 4 so that every priority has one.
    pub fn new(total: usize) -> Arc<Self> {
        let total = total.max(4);
        let inner = Inner { free: total, stalled: 0, ticket: 0, waiting: BTreeMap::new() };
        Arc::new(Self { total, inner: Mutex::new(inner) })
    }

    /// Waits for a slot. A rise of `urgency` moves the waiter up in the queue.
    pub async fn acquire(self: &Arc<Self>, urgency: &DynamicPriority) -> Slot {
        loop {
            let priority = urgency.get();
            let (ticket, mut granted) = {
                let mut inner = self.lock();
                let (send, receive) = oneshot::channel();
                inner.ticket += 1;
                let ticket = (priority, inner.ticket);
                inner.waiting.insert(ticket, send);
                (ticket, receive)
            };
            // A dropped waiter leaves a closed sender in the queue; `grant` skips it.
            self.grant();
            tokio::select! {
                slot = &mut granted => {
                    if let Ok(slot) = slot {
                        return slot;
                    }
                }
                () = urgency.rises_above(priority) => {
                    // A slot granted meanwhile is freed when `granted` is dropped.
                    self.lock().waiting.remove(&ticket);
                }
            }
        }
    }

    /// Requests under way, stalled ones included.
    pub fn taken(&self) -> usize {
        let inner = self.lock();
        self.total - inner.free + inner.stalled
    }

    /// Number of slots that must stay free when a request of this priority takes one.
    fn kept_free(&self, priority: Priority) -> usize {
        match priority {
            Priority::Demand => 0,
            Priority::Readahead => self.total / 4,
            Priority::Prefetch => self.total / 2,
        }
    }

    fn grant(self: &Arc<Self>) {
        loop {
            let next = {
                let mut inner = self.lock();
                let Some(entry) = inner.waiting.first_entry() else { return };
                let priority = entry.key().0;
                if entry.get().is_closed() {
                    entry.remove();
                    continue;
                }
                // Yielded slots are for demand reads only: a registry that is slow for every request is
                // overloaded and gets no further load.
                let yielded = if priority == Priority::Demand { 0 } else { inner.stalled };
                if inner.free <= self.kept_free(priority) + yielded {
                    return;
                }
                let Some((_, send)) = inner.waiting.pop_first() else { return };
                inner.free -= 1;
                send
            };
            // If the waiter is gone, dropping the slot frees it at once.
            let _ = next.send(Slot { slots: self.clone(), yielded: false });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no code panics while it holds the slots")
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut inner = self.slots.lock();
        match self.yielded {
            true => inner.stalled -= 1,
            false => inner.free += 1,
        }
        drop(inner);
        self.slots.grant();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn now_or_never<T>(future: impl Future<Output = T>) -> Option<T> {
        futures_util::FutureExt::now_or_never(future)
    }

    #[tokio::test]
    async fn background_leaves_slots_free_for_demand() {
        let slots = Slots::new(4);
        let (demand, ahead, prefetch) = (
            DynamicPriority::new(Priority::Demand),
            DynamicPriority::new(Priority::Readahead),
            DynamicPriority::new(Priority::Prefetch),
        );
        let p1 = slots.acquire(&prefetch).await;
        let _p2 = slots.acquire(&prefetch).await;
        assert!(now_or_never(slots.acquire(&prefetch)).is_none(), "half stays free");
        let _r = slots.acquire(&ahead).await;
        assert!(now_or_never(slots.acquire(&ahead)).is_none(), "a quarter stays free");
        let d = slots.acquire(&demand).await;
        assert!(now_or_never(slots.acquire(&demand)).is_none(), "all are taken");
        drop((d, p1));
        let _d1 = now_or_never(slots.acquire(&demand)).expect("a freed slot");
        let _d2 = now_or_never(slots.acquire(&demand)).expect("dead waiters are passed over");
    }

    #[tokio::test]
    async fn a_stalled_request_yields_its_slot_to_demand() {
        let slots = Slots::new(4);
        let demand = DynamicPriority::new(Priority::Demand);
        let mut held = Vec::new();
        for _ in 0..4 * STALLED_PER_SLOT {
            let mut slot = now_or_never(slots.acquire(&demand)).expect("there is a slot");
            slot.yield_slot();
            slot.yield_slot();
            held.push(slot);
        }
        for _ in 0..4 {
            let mut slot = now_or_never(slots.acquire(&demand)).expect("the slots themselves");
            slot.yield_slot();
            held.push(slot);
        }
        assert!(now_or_never(slots.acquire(&demand)).is_none(), "only so many may");
        assert_eq!(slots.taken(), 4 * STALLED_PER_SLOT + 4);
        held.truncate(4 * STALLED_PER_SLOT);
        let ahead = DynamicPriority::new(Priority::Readahead);
        assert!(now_or_never(slots.acquire(&ahead)).is_none(), "yielded to demand only");
        held.clear();
        assert_eq!(slots.taken(), 0);
        let inner = slots.lock();
        assert_eq!((inner.free, inner.stalled), (4, 0));
    }

    #[tokio::test]
    async fn a_waiter_that_becomes_urgent_gets_a_slot_kept_for_demand() {
        let slots = Slots::new(4);
        let busy = DynamicPriority::new(Priority::Demand);
        let held =
            [slots.acquire(&busy).await, slots.acquire(&busy).await, slots.acquire(&busy).await];
        let urgency = Arc::new(DynamicPriority::new(Priority::Prefetch));
        let waiter = tokio::spawn({
            let (slots, urgency) = (slots.clone(), urgency.clone());
            async move { slots.acquire(&urgency).await }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!waiter.is_finished(), "one free slot is not for prefetch");
        urgency.raise(Priority::Demand);
        let slot = tokio::time::timeout(Duration::from_secs(10), waiter).await.unwrap().unwrap();
        drop((slot, held));
        assert_eq!(slots.lock().free, 4);
    }
}
