//! Tests of modelfs that need no mount.
mod store;
