//! Xet: proofs that a range of a file belongs to the file's Xet hash, without the rest of the file.
//!
//! A Xet hash is the sealed root of a tree over the file's chunks. A proof ([`Proof`]) has the nodes
//! beside one or more windows of the file; a verifier that has the windows' bytes computes the missing
//! nodes and, level by level, the root. Invariant: what [`verify`] accepts binds each chunk to its
//! offset, and the length of the file. Nodes of an accepted proof are known from then on ([`KnownNodes`]):
//! the bytes below one of them need no other proof. Pure.

mod hash;
mod known_nodes;
mod proof;
mod tree;
mod verify;

pub use hash::{XetHash, XetHashError};
pub use known_nodes::{Cover, KnownNodes};
pub use proof::{Gap, Proof, Window};
#[cfg(any(test, feature = "test-util"))]
pub use tree::parents;
pub use tree::{MAX_CHUNK, Node};
pub use verify::{ProofError, verify};
