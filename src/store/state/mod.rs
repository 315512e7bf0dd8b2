//! What the store knows in memory: blobs, their parts, their order of use, what everything takes.
//!
//! No I/O: it imports neither `engine` nor `index` nor `disk`. Invariants and locks: see each file.

pub mod accounting;
pub mod entry;
pub mod lru;
pub mod part_set;
pub mod plan;
