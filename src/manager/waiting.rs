//! A request to a registry that has no answer yet, as answers describe it.
//!
//! Plain values.

use serde::{Deserialize, Serialize};

use crate::registry::Wait;

/// Requests that have no answer yet and are being retried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Why there is no answer.
    pub why: String,
    /// Seconds from now until the last of them gives up.
    pub seconds_left: u64,
}

impl From<Wait> for Waiting {
    fn from(wait: Wait) -> Self {
        Self { why: wait.why, seconds_left: wait.left.as_secs() }
    }
}
