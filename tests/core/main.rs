//! Tests of modelfs that need no mount.

// All of this is tests; helpers in them may unwrap, too.
#![allow(clippy::unwrap_used)]

mod registry_http;
