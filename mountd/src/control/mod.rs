//! The control API: how commands reach the process that holds the store.
//!
//! What commands do is in the library (`modelfs::manager`); this layer transports their requests and
//! answers over the daemon's socket. `routes` gives each command its path; `server` and `client` are the
//! two ends; `connection_limit` and `write_timeout` guard the server; `peer` signals the process that
//! listens; `backend` picks between the daemon and the store itself. Children never import this file.

pub mod backend;
pub mod client;
mod connection_limit;
pub mod event;
pub mod peer;
pub mod routes;
pub mod server;
mod write_timeout;
