//! What makes bytes trustworthy beside a plain digest: proofs of ranges.
//!
//! Pure functions of bytes; what fetches the proofs is a registry.

pub mod xet;
