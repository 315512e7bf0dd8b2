//! Plans: which leaves of which objects a range of a file needs, and in what portions they are fetched.
//!
//! `leaf_runs`: from missing parts to runs of leaves, and back. `batches`: the portions in which a run is
//! verified and written. `object_key`: which objects are the same bytes. Pure: no I/O, no locks.

mod batches;
mod leaf_runs;
mod object_key;

pub use batches::{BATCH, Batches};
pub use leaf_runs::{leaf_runs, parts_of_leaves, runs};
pub use object_key::{ObjectKey, by_parts};
