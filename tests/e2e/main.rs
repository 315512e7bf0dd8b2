//! Tests on real mounts, with the real binary and real servers.

mod bounded;
mod changes;
mod cli;
mod daemon;
mod faults;
mod harness;
mod laziness;
mod passthrough;
mod restarts;
mod service;
mod takeover;
mod tls;
mod torture;
mod trees;
