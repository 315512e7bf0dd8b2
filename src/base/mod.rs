//! Utilities of all layers: ranges, buffers, work that blocks, and sizes and times in text form.
//!
//! Invariant: nothing here does I/O or knows its users. Concurrency: see each module.

pub mod blocking;
pub(crate) mod buffers;
pub mod clock;
pub mod extent;
pub mod secret;
pub mod text;
pub mod units;
pub(crate) mod weighted;

pub use clock::{Clock, SystemClock};
pub use extent::{Extent, FileRange, ObjectRange};
