//! Tests on real mounts, with the real binary and real servers.

mod bounded;
mod changes;
mod cli;
mod daemon;
mod disk;
mod disk_power;
mod disk_power_rig;
mod disk_shared;
mod faults;
mod harness;
mod laziness;
mod passthrough;
mod tls;
mod trees;
