//! Tests with other people's programs, which a script has to make ready: see each module. They are a program
//! of their own, which `cargo test` does not run unless it is named.

#[path = "../harness.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod harness;
mod views;
