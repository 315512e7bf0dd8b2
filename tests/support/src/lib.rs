//! What the tests of modelfs share: model trees, published registries, a server that fails as told,
//! a Hub, OCI registries, and a slow line before a server.

mod answer;
mod answering;
mod docker_registry;
mod fault;
pub mod fs_assertions;
mod hub;
mod line;
mod loop_fs;
pub mod mapped;
mod model;
mod oci_server;
mod server;
mod shaped;
mod token_signer;

pub use docker_registry::{DOCKER_USER, DockerLogin, DockerRegistry};
pub use fault::{Fault, When};
pub use hub::{
    HUB_TOKEN, HubFile, HubLie, HubRepo, HubRequest, HubServer, XetFile, XetLie, XetPlaces,
};
pub use line::Line;
pub use loop_fs::{FsKind, LoopFs};
pub use model::{ModelDir, TestRegistry, bytes, safetensors, write_bytes};
pub use oci_server::{
    OCI_USER, OciAnswer, OciLogin, OciRequest, OciServer, golden_artifact, oci_bytes, oci_error,
};
pub use server::{Request, Server};
pub use shaped::ShapedProxy;
pub use token_signer::TokenSigner;
