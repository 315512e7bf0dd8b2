//! What the tests of modelfs share: model trees, published registries, a server that fails as told,
//! a Hub, and a slow line before a server.

mod answer;
mod fault;
pub mod fs_assertions;
mod hub;
mod line;
mod loop_fs;
pub mod mapped;
mod model;
mod server;
mod shaped;

pub use fault::{Fault, When};
pub use hub::{HUB_TOKEN, HubFile, HubLie, HubRepo, HubRequest, HubServer};
pub use line::Line;
pub use loop_fs::{FsKind, LoopFs};
pub use model::{ModelDir, TestRegistry, bytes, safetensors, write_bytes};
pub use server::{Request, Server};
pub use shaped::ShapedProxy;
