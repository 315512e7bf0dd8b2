//! Configuration: every setting, its layers, and where each value came from.
//!
//! Invariant: a setting is declared once, in [`settings`]; its variable, its flag and its key in a file
//! follow from its name. Resolution is a pure function of layers. Plain values, any thread.

mod address;
mod error;
mod origin;
mod settings;
mod value;

pub use address::Address;
pub use error::ConfigError;
pub use origin::{Origin, Setting};
pub use settings::{Config, Entry, KEYS, Key, Layer, defaults};
pub use value::{ConfigValue, positive_duration, threads};
