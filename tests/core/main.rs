//! Tests of modelfs that need no mount.
#![allow(clippy::unwrap_used)] // helpers of tests are tests
mod store;
