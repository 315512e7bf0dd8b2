//! Tests without a mount: each layer against its promises, and all of them against a model.

// All of this is tests; helpers in them may unwrap, too.
#![allow(clippy::unwrap_used)]

mod configuration;
mod corpus;
mod docs;
mod fetch;
mod fetch_hold_ups;
mod fetch_rig;
mod fetch_sequences;
mod imports;
mod packaging;
mod reference;
mod registry_access;
mod registry_http;
mod registry_huggingface;
mod registry_oci;
mod registry_oci_hostile;
mod registry_xet;
mod stack;
mod store;
mod whole;
mod xet_fetch;
