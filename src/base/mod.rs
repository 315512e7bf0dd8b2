//! What every layer may use and no layer owns: ranges, sizes and times as people write them.
//!
//! Nothing here does I/O or knows what it is used for.

pub(crate) mod buffers;
pub mod clock;
pub mod extent;
pub mod text;
pub mod units;
pub(crate) mod weighted;

pub use clock::{Clock, SystemClock};
pub use extent::{Extent, FileRange, ObjectRange};
