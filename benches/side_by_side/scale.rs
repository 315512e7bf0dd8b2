//! How much is measured: the full run, the quick one of under three minutes, and one that only tries.
//!
//! Plain values. Sizes are powers of two, so that pieces divide evenly.

const MIB: u64 = 1 << 20;

/// Sizes and rounds.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// Fewer cases and contenders.
    pub quick: bool,
    /// Rounds of what takes a second; of what takes several.
    pub rounds: usize,
    pub slow_rounds: usize,
    /// The large file.
    pub large: u64,
    /// The files that go over a line of 1 Gbit/s or more, and of 100 Mbit/s: some seconds each.
    pub over_fast: u64,
    pub over_slow: u64,
    /// The model of few large shards.
    pub shards: usize,
    pub shard: u64,
    /// The model of many shards, of which only headers are read.
    pub headers: usize,
    pub header_shard: u64,
    /// What is streamed at a time, how often, and the cache that it goes through.
    pub stream: u64,
    pub passes: u64,
    pub stream_cache: &'static str,
    pub catalog_models: usize,
    /// Objects in the large index.
    pub objects: usize,
}

impl Scale {
    /// What the page of figures is made of: some forty minutes.
    pub const FULL: Self = Self {
        quick: false,
        rounds: 5,
        slow_rounds: 3,
        large: 1024 * MIB,
        over_fast: 512 * MIB,
        over_slow: 64 * MIB,
        shards: 8,
        shard: 64 * MIB,
        headers: 100,
        header_shard: 64 * MIB,
        stream: 4096 * MIB,
        passes: 5,
        stream_cache: "2GiB",
        catalog_models: 10_000,
        objects: 1_000_000,
    };
    /// Under three minutes, for a look while working on something.
    pub const QUICK: Self = Self {
        quick: true,
        rounds: 2,
        slow_rounds: 1,
        large: 256 * MIB,
        over_fast: 256 * MIB,
        over_slow: 16 * MIB,
        shards: 4,
        shard: 32 * MIB,
        headers: 10,
        header_shard: 64 * MIB,
        stream: 512 * MIB,
        passes: 4,
        stream_cache: "256MiB",
        catalog_models: 1000,
        objects: 200_000,
    };
    /// Whether each case works at all; its figures mean nothing.
    pub const TINY: Self = Self {
        large: 16 * MIB,
        over_fast: 8 * MIB,
        over_slow: 2 * MIB,
        rounds: 1,
        shards: 2,
        shard: 8 * MIB,
        headers: 4,
        stream: 48 * MIB,
        passes: 2,
        stream_cache: "24MiB",
        catalog_models: 50,
        objects: 10_000,
        ..Self::QUICK
    };
}
