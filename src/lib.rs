//! modelfs: model registries as ordinary files, fetched lazily, verified, cached.
//!
//! This crate is the part that knows no mount: it builds on every system. Layers, each importing
//! only those below it (`docs/architecture.md` has the picture):
//!
//! `vfs` → `fetch` → `registry` | `store` → `trust`, `model`, `base`; `publish` writes what `registry`
//! reads; `manager` is what commands do with all of it; `config` is what a user may set.
#![warn(missing_docs)]

pub mod base;
pub mod config;
pub mod fetch;
pub mod manager;
pub mod model;
pub mod publish;
pub mod registry;
pub mod store;
pub mod trust;
pub mod vfs;
