//! See `config` in `entries.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| modelfs_fuzz::config(data));
