//! The Hugging Face Hub as a registry: a version is a commit of a repository.
//!
//! [`HuggingFace`] asks the Hub; the other files are what it needs: names (`name`), the login (`token`),
//! requests and redirects (`client`), what refusals mean (`refusal`), the Hub's answers (`answers`), and
//! the documents that are made of them (`document`). Ranges of large files come verified from `xet`. Invariant: the token goes to the endpoint's host
//! and nowhere else, and stands in no text; what is read of a file is checked against the commit.

mod answers;
mod client;
mod document;
mod name;
mod refusal;
mod registry;
mod token;
mod xet;

pub use client::endpoint;
pub use document::{is_catalog, is_manifest, parse_catalog, parse_manifest};
pub use name::is_hub;
pub use registry::HuggingFace;
pub use token::{Environment, Token};
