//! What daemon and command line are made of, apart from the two themselves: the control API, the
//! ways to fail, where things lie, how the parts are put together.
//!
//! A library, so that tests and fuzz targets reach the types that requests are read into. `main.rs`
//! uses it; nothing here knows of command lines or mounts.

pub mod confine;
pub mod control;
pub mod error;
pub mod handover;
pub mod identity;
pub mod ownership;
pub mod paths;
pub mod reach;
pub mod service;
