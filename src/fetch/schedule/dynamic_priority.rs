//! The urgency of a fetch, with notification when it rises.
//!
//! Invariant: it only rises. Concurrency: shared by the flight and all readers that join it; atomic.

use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::Notify;

/// Priority of a fetch, most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// A reader waits for the bytes.
    Demand,
    /// A reader will probably ask for them soon.
    Readahead,
    /// A user asked to have them in the cache.
    Prefetch,
}

/// A priority that can rise.
#[derive(Debug)]
pub struct DynamicPriority {
    level: AtomicU8,
    risen: Notify,
}

impl DynamicPriority {
    /// An urgency of this priority.
    pub fn new(priority: Priority) -> Self {
        Self { level: AtomicU8::new(priority as u8), risen: Notify::new() }
    }

    /// The priority now.
    pub fn get(&self) -> Priority {
        match self.level.load(Ordering::Acquire) {
            0 => Priority::Demand,
            1 => Priority::Readahead,
            _ => Priority::Prefetch,
        }
    }

    /// Raises the urgency to at least this priority.
    pub fn raise(&self, to: Priority) {
        if self.level.fetch_min(to as u8, Ordering::AcqRel) > to as u8 {
            self.risen.notify_waiters();
        }
    }

    /// Resolves once it is more urgent than `than`.
    pub async fn rises_above(&self, than: Priority) {
        loop {
            let risen = self.risen.notified();
            tokio::pin!(risen);
            risen.as_mut().enable();
            if self.get() < than {
                return;
            }
            risen.await;
        }
    }
}
