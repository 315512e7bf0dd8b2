//! The control layer: what the commands do, here or in the daemon.
//!
//! `types` and `answers` are the requests and answers, shared by server, client and `--json`; `ops` does the
//! work on a store; `server` and `client` carry the same types over the daemon's socket, `guests` says
//! who may stay there; `backend` picks between here and there. Children never import this file.

pub mod answers;
pub mod backend;
pub mod client;
pub mod evict;
mod guests;
pub mod life;
pub mod look;
pub mod ops;
pub mod peer;
pub mod prefetch;
pub mod reference;
pub mod server;
mod suggest;
pub mod trace;
pub mod types;
