//! Options and statistics of fetching. Plain values.

use std::time::Duration;

use crate::base::units::ByteSize;
use crate::config::defaults;

/// Options of fetching.
#[derive(Debug, Clone)]
pub struct FetchOptions {
    /// How long a read may wait before it fails.
    pub read_deadline: Duration,
    /// Maximum age of the catalog before the registry is asked again.
    pub catalog_ttl: Duration,
    /// Maximum size of the fetched data held in memory.
    pub memory: ByteSize,
    /// Maximum number of requests under way at once.
    pub connections: usize,
}

impl Default for FetchOptions {
    fn default() -> Self {
        Self {
            read_deadline: defaults::READ_DEADLINE,
            catalog_ttl: defaults::CATALOG_TTL,
            // A few batches for each concurrent request; a readahead window is filled step by step.
            memory: ByteSize::mib(48),
            connections: 16,
        }
    }
}

/// Traffic from the registry since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Traffic {
    /// Object bytes received.
    pub bytes: u64,
    /// Object and leaf list requests made.
    pub requests: u64,
}

/// What is being fetched at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct InFlight {
    /// Flights: runs of leaves being fetched.
    pub flights: u64,
    /// Bytes in use of the memory for fetched data.
    pub memory: u64,
    /// Requests under way.
    pub requests: u64,
}
