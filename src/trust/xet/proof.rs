//! A proof as the storage service sends it (`file-chunk-hashes`). Plain values; nothing is checked
//! here but their form.

use serde::Deserialize;

use super::tree::Node;

/// What the service says of a file and some windows of it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Proof {
    /// The length of the file in bytes.
    pub file_size: u64,
    /// The windows, in file order; each has whole chunks.
    pub windows: Vec<Window>,
    /// What lies before the first window, between two, and after the last: one more than windows.
    /// `None` where nothing does.
    pub hash_ranges: Vec<Option<Gap>>,
}

/// A part of the file whose bytes the verifier has.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Window {
    /// Its first byte, and one past its last.
    pub dirty_byte_range: [u64; 2],
}

/// A part of the file of which nodes stand in.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Gap {
    /// The nodes in file order: those to the left going up the levels, then those to the right coming
    /// down.
    pub nodes: Vec<Node>,
    /// For each level from the chunks up: how many nodes it has to the left and to the right.
    pub levels: Vec<[u64; 2]>,
    /// Whether it begins the file.
    pub at_start: bool,
    /// Whether it ends the file.
    pub at_end: bool,
}
