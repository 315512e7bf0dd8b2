//! What the store does: writing, committing, reserving, evicting, removing, recovering, verifying.
//!
//! Imports `state`, `index` and `disk`; knows no handles. Invariant: see `store`. Concurrency: any thread;
//! the order of locks is in `core`.

pub mod background;
pub mod checksums;
pub mod clock;
pub mod collection;
pub mod commit;
pub mod core;
pub mod eviction;
pub mod files;
pub mod index_growth;
pub mod open;
pub mod pins;
pub mod reader;
pub mod recovery;
pub mod removal;
pub mod reserve;
pub mod sources;
pub mod trust;
pub mod unverified;
pub mod verify;
pub mod writer;
