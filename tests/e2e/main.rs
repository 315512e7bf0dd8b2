//! Tests on real mounts, with the real binary and real servers.

mod bounded;
mod changes;
mod cli;
mod control_socket;
mod daemon;
mod faults;
mod harness;
mod laziness;
mod names;
mod passthrough;
mod secrets;
mod tls;
mod trees;
