//! Everything that is fetched before a read asks for it: one pipeline.
//!
//! *Who starts it.* Five things decide from what was read so far, or from a request, what comes next:
//!
//! | starts it | when | range | priority | bound |
//! |---|---|---|---|---|
//! | readahead (`readahead`) | a read continues a stream | a window, growing with the stream | readahead | 64 MiB, an eighth of the cache |
//! | tensors (`tensors`) | a read jumps to the start of a tensor | the tensor and its likely successor | readahead | the same |
//! | traces (`trace_follower`) | a touch agrees with the previous load | the next steps of that load | readahead | 32 MiB, an eighth of the cache |
//! | shards (`shards`) | the first read of a file that is verified as a whole | the next two of its model | readahead | a quarter of the cache |
//! | a version (`version`) | a command asks for it | all that is missing, eight objects at a time | prefetch | the room of the cache |
//!
//! *How it goes on.* The first four go through `ahead`, the last claims object by object. All of them end
//! in `Transfers::claim`, where each leaf has one flight: what is under way is joined, never fetched twice.
//! `schedule` then bounds all of it together: readahead leaves a quarter of the request slots to demand
//! reads, prefetch half of them, and a third of the memory is for demand reads alone. A read that needs a
//! leaf under way joins its flight, and the flight rises to demand.
//!
//! *Who feeds it.* A `FileReader` tells `model_loads` and `file_readahead` about each read, and starts the
//! latter's ranges only after the read's own requests were made. Invariant: no read waits for any of this or fails
//! because of it. Concurrency: each component has its own lock, held for a look-up; fetches are tasks.

mod ahead;
mod file_readahead;
mod model_loads;
mod readahead;
mod shards;
mod tensors;
mod trace_follower;
mod trace_recorder;
mod version;

pub use ahead::Ahead;
pub use file_readahead::{FileReadahead, Next, OnReadahead};
pub use model_loads::ModelLoads;
pub use readahead::{AccessPattern, Readahead};
pub use version::{PrefetchProgress, VersionPrefetch};
