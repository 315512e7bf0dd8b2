//! Tests on real mounts, with the real binary and real servers.

mod bounded;
mod changes;
mod cli;
mod daemon;
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
