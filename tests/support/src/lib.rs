//! What the tests of modelfs share: model trees, published registries, and a server that fails as
//! told.

mod answer;
mod fault;
pub mod fs_assertions;
mod loop_fs;
pub mod mapped;
mod model;
mod server;

pub use fault::{Fault, When};
pub use loop_fs::{FsKind, LoopFs};
pub use model::{ModelDir, TestRegistry, bytes, safetensors, write_bytes};
pub use server::{Request, Server};
