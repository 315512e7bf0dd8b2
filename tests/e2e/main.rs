//! Tests on real mounts, with the real binary and real servers.

mod bounded;
mod changes;
mod cli;
mod control_socket;
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
mod names;
mod outage;
mod passthrough;
mod restarts;
mod secrets;
mod service;
mod takeover;
mod tls;
mod torture;
mod trees;
