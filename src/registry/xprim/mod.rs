//! XPRIM, the native format: a static tree of `models.json` and `data/<sha256>`.
//!
//! [`Xprim`] is a registry in this format over any transport; the other files read and write its
//! documents, as pure functions of bytes. Invariant: whatever bytes come in, what goes out is a
//! checked `Catalog`, `Manifest` or leaf list, or an `invalid registry response` that names the
//! field in one short line.

mod catalog;
mod leaves;
mod manifest;
#[cfg(any(test, feature = "test-util"))]
mod memory;
mod registry;

pub use catalog::{Entry, parse as parse_catalog, with_entry};
pub use leaves::parse as parse_leaves;
pub use manifest::{FileDoc, ManifestDoc, parse as parse_manifest};
#[cfg(any(test, feature = "test-util"))]
pub use memory::{Counts, Cut, Memory};
pub use registry::Xprim;

use crate::model::Digest;

/// Maximum size of a `models.json`: a million versions at the usual 200 bytes each, and what a
/// small machine can still hold while it reads.
pub const MAX_CATALOG: u64 = 256 << 20;
/// Maximum size of a manifest: 450,000 chunks with sizes and leaf lists, 4.5 TiB at the usual
/// 10 MiB.
pub const MAX_MANIFEST: u64 = 64 << 20;
/// The name of the catalog in the registry's root.
pub const CATALOG: &str = "models.json";

/// The name of the folder of objects in the registry's root.
pub const DATA: &str = "data";

/// The bytes of one entry of a leaf list.
const DIGEST_LEN: u64 = 32;

/// Where an object lies, relative to the registry's root.
pub fn object_path(digest: &Digest) -> String {
    format!("{DATA}/{digest}")
}

/// How an object is named in errors: enough of the digest to find it, short enough for one line.
pub fn object_shown(digest: &Digest) -> String {
    format!("data/{digest:?}")
}

/// A text from a registry as errors show it: escaped, and cut, since it may be megabytes long.
fn shown(text: &str) -> String {
    // Longer than any sane name, short enough for one line of a log.
    const MOST: usize = 80;
    match text.char_indices().nth(MOST) {
        Some((cut, _)) => format!("{:?}…", &text[..cut]),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_registry_sent_is_shown_on_one_short_line() {
        assert_eq!(shown("a\nb"), "\"a\\nb\"");
        assert!(shown(&"ü".repeat(1 << 20)).chars().count() < 90);
        let digest = Digest::from_bytes([0xab; 32]);
        assert_eq!(object_path(&digest), format!("data/{}", "ab".repeat(32)));
        assert_eq!(object_shown(&digest), "data/abababababab…");
    }
}
