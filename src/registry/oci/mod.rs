//! OCI registries: models as artifacts in a container registry.
//!
//! [`Oci`] is the registry. `place` maps repositories to models; `client` sends requests, with what
//! `auth`, `challenge`, `token` and `docker_config` know of logins; `manifest`, `archive` and `document`
//! are pure: a registry's manifest in, the document that is kept out. Invariant: what is kept is bound
//! to the digest of the manifest that was asked for; credentials go to the registry and the token
//! service that it names, never elsewhere, and stand in no text.

mod archive;
mod auth;
mod challenge;
mod client;
mod docker_config;
mod document;
mod manifest;
mod place;
mod registry;
mod token;

pub use docker_config::{DockerConfig, DockerLogins};
pub use document::{is_catalog, is_manifest, parse_catalog, parse_manifest};
pub use place::{Place, is_oci};
pub use registry::{Oci, OciOptions};
