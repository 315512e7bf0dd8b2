//! Xet: proofs that a range of a file belongs to the file's Xet hash, without the rest of the file.
//!
//! A Xet hash is the sealed root of a tree over the file's chunks. A proof ([`Proof`]) has the nodes
//! beside one or more windows of the file; a verifier that has the windows' bytes computes the missing
//! nodes and, level by level, the root. Invariant: what [`verify`] accepts binds each chunk to its
//! offset, and the length of the file. Pure.

mod hash;
mod proof;
mod tree;
mod verify;

pub use hash::{XetHash, XetHashError};
pub use proof::{Gap, Proof, Window};
pub use tree::{MAX_CHUNK, Node};
pub use verify::{ProofError, verify};
