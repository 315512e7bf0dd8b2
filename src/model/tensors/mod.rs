//! Where the tensors of a weights file lie, read from the file's own header.
//!
//! A header only says where to read ahead: a wrong one costs speed, never correctness. Pure: the
//! caller brings the first bytes of the file.

mod gguf;
mod header;
mod map;
mod parse;
mod safetensors;

pub use header::{Header, has_header, header};
pub use map::TensorMap;
pub use parse::MAX_HEADER;
