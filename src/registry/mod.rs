//! Registries: where catalogs, manifests and objects come from.
//!
//! Formats (`xprim`, `huggingface`, `oci`) implement [`Registry`] over a `transport` (HTTP, a folder); `layers` wrap any
//! registry (retries, hedging). This file only names what the layers above may use; `connect` puts a
//! registry together from its name.

mod api;
mod connect;
mod credentials;
mod documents;
mod error;
pub mod huggingface;
mod kept;
mod layers;
mod login;
mod netrc;
pub mod oci;
mod private_file;
pub mod transport;
mod unavailable;
pub mod xprim;

pub use api::{
    Capabilities, Listing, ManifestDocument, ObjectBody, ProvenBody, Registry, Validator, Versions,
    read_object,
};
pub use connect::{ConnectOptions, Server, first_file, open, open_with, server_of, usual_logins};
pub use credentials::{Credentials, Secret};
pub use documents::{read_catalog, read_manifest};
pub use error::{RegistryError, Retry};
pub use kept::{has_format, to_bytes};
pub use layers::{Attempts, DEADLINE, Hedged, RetryPolicy, Retrying, Wait, Waiting, Waits};
#[cfg(any(test, feature = "test-util"))]
pub use layers::{Call, Fault, Faulty, When};
pub use login::{Logins, NoLogin};
pub use netrc::Netrc;
pub use private_file::read as read_private_file;
pub use transport::{HostPolicy, HttpOptions, Timeouts, is_url};
pub use unavailable::Unavailable;
#[cfg(any(test, feature = "test-util"))]
pub use xprim::{Counts, Cut, Memory};
