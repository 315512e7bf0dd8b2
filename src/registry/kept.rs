//! The documents that are made here of a registry's answers and kept in the index.
//!
//! Invariant: such a document begins with its format, to the byte, so that it is recognised without
//! parsing it. Pure functions.

use serde::Serialize;

/// Whether a document is of this format.
pub fn has_format(document: &[u8], format: &str) -> bool {
    document.starts_with(format!("{{\"format\":\"{format}\",").as_bytes())
}

/// A document as it is kept. Its first field is `format`.
pub fn to_bytes(document: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(document).expect("numbers, strings and lists can always be written")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_recognised_by_its_whole_name() {
        #[derive(Serialize)]
        struct Document {
            format: &'static str,
            files: Vec<u32>,
        }
        let bytes = to_bytes(&Document { format: "modelfs.x/1", files: vec![] });
        assert!(has_format(&bytes, "modelfs.x/1"));
        assert!(!has_format(&bytes, "modelfs.x/") && !has_format(b"{}", "modelfs.x/1"));
    }
}
