//! Fetching: from a read to the leaves wanted, to verified bytes, in the store and in the reader's
//! hands.
//!
//! Invariant: no byte leaves this layer before the digest that covers it has matched. One flight
//! per leaf, whoever asks; demand goes before readahead, readahead before prefetch.
//! Concurrency: `read_cached` never waits for anything but the disk; everything that may wait for
//! a network is `async` and holds no lock while it does.

mod batches;
mod blocking;
mod cached_file;
mod copy;
mod course;
mod deliver;
mod error;
mod fetcher;
mod flight;
mod gather;
mod lists;
mod loads;
mod memory;
mod options;
mod prefetch;
mod rate_limit;
mod read;
mod readahead;
mod slots;
mod source;
mod table;
mod tensors;
mod traces;
mod transfer;
mod urgency;

pub use cached_file::CachedFile;
pub use error::FetchError;
pub use fetcher::Fetcher;
pub use options::{FetchOptions, Load, Traffic};
pub use prefetch::PrefetchProgress;
pub use readahead::{Course, Readahead};
pub use source::{CatalogChange, Source};
pub use tensors::{Look, Tensors};
pub use urgency::Priority;
