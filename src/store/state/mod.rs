//! What the store knows in memory: blobs, their parts, their order of use, what everything takes.
//!
//! No I/O: nothing here imports `engine`, `index` or `disk`. Each file names its invariant and its locks.

pub mod accounting;
pub mod blob_state;
pub mod collector;
pub mod dirty;
pub mod entry;
pub mod lru;
pub mod part_set;
pub mod plan;
pub mod prefixes;
pub mod recency;
pub mod table;
