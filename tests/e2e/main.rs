//! Tests on real mounts, with the real binary and real servers.

mod bounded;
mod changes;
mod cli;
mod daemon;
mod harness;
mod passthrough;
mod trees;
