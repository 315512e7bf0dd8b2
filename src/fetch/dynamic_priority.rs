//! How urgent a fetch is, and the news that it became more so.
//!
//! Invariant: it only rises. Shared between the flight and everybody who joins it.

use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::Notify;

/// Which bytes go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Somebody waits for them.
    Demand,
    /// A reader will probably ask for them soon.
    Readahead,
    /// Somebody asked to have them here.
    Prefetch,
}

/// A priority that can rise.
#[derive(Debug)]
pub struct Urgency {
    level: AtomicU8,
    risen: Notify,
}

impl Urgency {
    /// At that priority.
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

    /// Makes it at least that urgent.
    pub fn raise(&self, to: Priority) {
        if self.level.fetch_min(to as u8, Ordering::AcqRel) > to as u8 {
            self.risen.notify_waiters();
        }
    }

    /// Resolves when it is more urgent than `than`.
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
