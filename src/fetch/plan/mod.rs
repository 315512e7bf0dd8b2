//! Plans: which leaves of which objects a range of a file needs, and in what portions they are fetched.
//!
//! Pure: functions of manifests and layouts; no I/O, no locks.

mod batches;
mod leaf_runs;
mod object_key;

pub use batches::{BATCH, Batches};
pub use leaf_runs::{leaf_runs, parts_of_leaves, runs};
pub use object_key::ObjectKey;
