//! Nothing of its own: this package exists for its test target, `main.rs`.
