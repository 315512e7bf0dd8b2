//! The extents of the tensors of a weights file, read from the file's header.
//!
//! Invariant: a header only guides readahead: a wrong one costs speed, never correctness. Pure: the
//! caller supplies the first bytes of the file.

mod gguf;
mod header;
mod map;
mod parse;
mod safetensors;

pub use header::{Header, has_header, header};
pub use map::TensorMap;
pub use parse::MAX_HEADER;
