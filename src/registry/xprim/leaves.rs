//! The leaf list: 32 bytes for each leaf of a chunk, and nothing else.
//!
//! Pure functions.

use std::sync::Arc;

use super::DIGEST_LEN;
use crate::model::Digest;
use crate::registry::error::RegistryError;

/// Reads the list whose SHA-256 is `list`, of an object that has so many leaves.
pub fn parse(list: &Digest, body: &[u8], leaves: u64) -> Result<Arc<[Digest]>, RegistryError> {
    let (digests, rest) = body.as_chunks::<{ DIGEST_LEN as usize }>();
    if digests.len() as u64 != leaves || !rest.is_empty() {
        return Err(RegistryError::Invalid {
            what: format!("leaf list {list}"),
            why: format!("{} bytes are not {leaves} digests", body.len()),
        });
    }
    Ok(digests.iter().copied().map(Digest::from_bytes).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::hash::sha256;

    #[test]
    fn a_list_has_one_digest_for_each_leaf() {
        let body = [sha256(b"a"), sha256(b"b")].map(|d| *d.as_bytes()).concat();
        let list = sha256(&body);
        assert_eq!(parse(&list, &body, 2).unwrap()[..], [sha256(b"a"), sha256(b"b")]);
        for (body, leaves) in [(&body[..], 3), (&body[1..], 2), (&body[..], u64::MAX), (b"x", 0)] {
            let error = parse(&list, body, leaves).unwrap_err().to_string();
            assert!(error.contains(&format!("leaf list {list}: ")), "{error}");
        }
        assert!(parse(&list, b"", 0).unwrap().is_empty());
    }
}
