//! Fetching: maps a read to leaves, fetches and verifies them, and gives the bytes to the store and the
//! reader.
//!
//! One `FileReader` per open file reads from the store, else claims flights and waits for them. Parts, each
//! importing only those before it: `plan` (what is needed, pure), `schedule` (what is under way and who goes
//! first), `transfer` (one flight's way), `prefetch` (what is fetched before a read asks), `file_reader`,
//! `fetcher` (wires them).
//!
//! Invariant: no byte leaves this layer before the digest that covers it has matched. One flight per
//! leaf, however many requests; demand precedes readahead, readahead precedes prefetch.
//! Concurrency: `FileReader::try_read` waits for nothing but the disk; everything that may wait for a
//! network is `async` and holds no lock while it waits.

mod cached_file;
mod error;
mod fetcher;
mod file_reader;
mod options;
mod plan;
mod prefetch;
mod schedule;
mod source;
mod sources;
mod transfer;

pub use cached_file::CachedFile;
pub use error::FetchError;
pub use fetcher::{Fetcher, Readers};
pub use file_reader::FileReader;
pub use options::{FetchOptions, InFlight, Traffic};
pub use prefetch::{AccessPattern, OnReadahead, PrefetchProgress, Readahead};
pub use source::{CatalogChange, Knowledge, LookUps, Source, VersionKnowledge};
pub use sources::{Provider, SourceAndGroups, Sources};
