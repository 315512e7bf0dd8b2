//! What is under way, what waits, and who goes first.
//!
//! `flight`: a run of leaves being fetched, and the outcome of each. `table`: which flight fetches a leaf.
//! `dynamic_priority`: urgency that may rise. `slots`: how many requests at once. `memory`: how many bytes.
//!
//! Invariant: at most one flight fetches each leaf; demand precedes readahead, readahead precedes prefetch;
//! what is less urgent never takes the share of what is more urgent. Concurrency: each component has its
//! own lock, held for look-ups only; nothing here does I/O.

mod dynamic_priority;
mod flight;
mod memory;
mod slots;
mod table;

pub use dynamic_priority::{DynamicPriority, Priority};
pub use flight::{Flight, FlightKey, LeafBytes, Outcome, Reader};
pub use memory::Memory;
pub use slots::{Slot, Slots};
pub use table::{Claim, FlightTable};
