//! Tests on real mounts, with the real binary and real servers.

mod bounded;
mod changes;
mod cli;
mod daemon;
mod disk;
mod disk_power;
mod disk_power_rig;
mod disk_shared;
mod fault_documents;
mod fault_load;
mod fault_names;
mod fault_scene;
mod faults;
mod harness;
mod laziness;
mod outage;
mod passthrough;
mod restarts;
mod service;
mod takeover;
mod tls;
mod torture;
mod trees;
