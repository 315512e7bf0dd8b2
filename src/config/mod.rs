//! Configuration: every setting, its layers, and where each value came from.
//!
//! Invariant: a setting is declared once, in [`settings`]; its variable, its flag and its key in a file
//! follow from its name. Resolution is a pure function of layers; only [`files`] reads anything. Plain
//! values, any thread.

mod address;
mod edit;
mod entry;
mod error;
mod file;
mod files;
mod origin;
mod pair;
mod policy;
mod positions;
mod resolve;
mod settings;
mod source;
mod source_rules;
#[cfg(test)]
mod tests;
mod value;

pub use address::Address;
pub use edit::{EditError, NewSource, add, remove};
pub use entry::Entry;
pub use error::ConfigError;
pub use file::{Level, MAX_FILE, POLICY_KEYS, SOURCE_KEYS, parse};
pub use files::{FILE_NAME, Found, Places, SYSTEM_FILE, project, read_all};
pub use origin::{Origin, Setting};
pub use policy::{HostPattern, Policy};
pub use settings::{Config, KEYS, Key, Layer, defaults};
pub use source::{Credential, PRIORITY, SourceConfig, SourceLayer, Verify};
pub use source_rules::{SourceKind, kind as source_kind};
pub use value::{ConfigValue, LoopbackAddress, positive_duration, threads};
