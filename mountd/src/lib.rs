//! What daemon and command line share: the control API, failures and their exit codes, paths, users and
//! their rights, how the parts are wired together.
//!
//! A library, so that tests and fuzz targets reach the code that reads requests. `main.rs` uses it;
//! nothing here knows of command lines or mounts.

pub mod cache_ownership;
pub mod confine;
pub mod control;
pub mod error;
pub mod identity;
pub mod logins;
pub mod ownership;
pub mod paths;
pub mod reach;
pub mod sources;
pub mod wiring;
