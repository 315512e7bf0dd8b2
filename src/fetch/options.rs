//! How fetching behaves, and what it tells of itself. Plain values.

use std::time::Duration;

use crate::base::units::ByteSize;

/// How fetching behaves.
#[derive(Debug, Clone)]
pub struct FetchOptions {
    /// How long a read may wait before it fails.
    pub read_deadline: Duration,
    /// How old the catalog may get before the registry is asked again.
    pub catalog_ttl: Duration,
    /// Maximum size of the fetched data held in memory.
    pub memory: ByteSize,
    /// Maximum number of requests under way at once.
    pub connections: usize,
}

impl Default for FetchOptions {
    fn default() -> Self {
        Self {
            read_deadline: Duration::from_secs(60),
            catalog_ttl: Duration::from_secs(60),
            // A few batches of each request that may be under way; a window fills in its turn.
            memory: ByteSize::mib(48),
            connections: 16,
        }
    }
}

/// What came from the registry since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Traffic {
    /// Object bytes received.
    pub bytes: u64,
    /// Object and leaf list requests made.
    pub requests: u64,
}

/// What is under way at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Load {
    /// Runs of leaves that are being fetched.
    pub flights: u64,
    /// Bytes of the memory for fetched data that are taken.
    pub memory: u64,
    /// Requests under way.
    pub requests: u64,
}
