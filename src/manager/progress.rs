//! How far a long command has come.
//!
//! Plain values; a [`ProgressSink`] may be called from any thread.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// How far a long command has come, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// In all.
    pub total: u64,
    /// Done by now.
    pub done: u64,
    /// Of `done`, what was there before the command began.
    pub at_start: u64,
}

/// Receives progress, from any thread.
pub type ProgressSink = Arc<dyn Fn(Progress) + Send + Sync>;

/// A sink for callers who do not need progress.
pub fn no_progress() -> ProgressSink {
    Arc::new(|_| {})
}
