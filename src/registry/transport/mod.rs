//! Transports: how the files of a registry are fetched, whatever their format.
//!
//! A transport knows paths and bytes, and neither catalogs nor digests.

mod address;
mod api;
mod beneath;
mod folder;
mod host_policy;
mod http;
pub(in crate::registry) mod http_body;
pub(in crate::registry) mod http_client;
pub(in crate::registry) mod http_response;
#[cfg(any(test, feature = "test-util"))]
mod memory;
mod timeouts;

pub use address::{Address, is_url};
pub use api::{Document, Resource, Transport};
pub use beneath::{Beneath, BeneathError, Looked};
pub use folder::Folder;
pub use host_policy::{HostPolicy, NotAllowed};
pub use http::Http;
pub use http_client::HttpOptions;
#[cfg(any(test, feature = "test-util"))]
pub use memory::{MemoryTransport, Request};
pub use timeouts::Timeouts;
