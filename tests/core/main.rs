//! Tests of modelfs that need no mount.

mod registry_http;
