//! Fetching: maps a read to leaves, fetches and verifies them, and gives the bytes to the store and the
//! reader.
//!
//! Invariant: no byte leaves this layer before the digest that covers it has matched. One flight per
//! leaf, however many requests; demand precedes readahead, readahead precedes prefetch.
//! Concurrency: `read_cached` waits for nothing but the disk; everything that may wait for a network is
//! `async` and holds no lock while it waits.

mod batches;
mod blocking;
mod cached_file;
mod copy;
mod deliver;
mod dynamic_priority;
mod error;
mod fetcher;
mod flight;
mod gather;
mod lists;
mod memory;
mod model_loads;
mod options;
mod prefetch;
mod rate_limit;
mod read;
mod readahead;
mod slots;
mod source;
mod table;
mod tensors;
mod trace_follower;
mod traces;
mod transfer;

pub use cached_file::CachedFile;
pub use dynamic_priority::Priority;
pub use error::FetchError;
pub use fetcher::Fetcher;
pub use options::{FetchOptions, Load, Traffic};
pub use prefetch::PrefetchProgress;
pub use readahead::{AccessPattern, Readahead};
pub use source::{CatalogChange, Source};
pub use tensors::{Look, Tensors};
