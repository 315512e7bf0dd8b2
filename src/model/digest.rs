//! Digests, written as lower-case hex digits, and the identities made of them.
//!
//! Plain values.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// 32 bytes of SHA-256 or BLAKE3, or [`GitId::digest`]; the field that holds it determines which.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// The text is not 64 lower-case hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a digest: 64 lower-case hex digits are expected")]
pub struct DigestError;

impl Digest {
    /// The digest with these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// From a slice; `None` unless it has 32 bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Its 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..6].iter().try_for_each(|b| write!(f, "{b:02x}"))?;
        f.write_str("…")
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        unhex(text).map(Self).ok_or(DigestError)
    }
}

/// Reads exactly `N` bytes of lower-case hex digits.
fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let text = text.as_bytes();
    if text.len() != 2 * N {
        return None;
    }
    let nibble = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(out)
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Hex;
        impl serde::de::Visitor<'_> for Hex {
            type Value = Digest;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("64 lower-case hex digits")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Digest, E> {
                text.parse().map_err(E::custom)
            }
        }
        d.deserialize_str(Hex)
    }
}

/// The id of an object of a git repository, a commit or a blob: 20 bytes of SHA-1, written as 40
/// lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GitId([u8; 20]);

/// The text is not 40 lower-case hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a git id: 40 lower-case hex digits are expected")]
pub struct GitIdError;

impl GitId {
    /// The id with these bytes.
    pub const fn from_bytes(bytes: [u8; 20]) -> Self {
        Self(bytes)
    }

    /// The id as a digest: its bytes, then twelve zero bytes.
    pub fn digest(&self) -> Digest {
        let mut out = [0; 32];
        out[..20].copy_from_slice(&self.0);
        Digest(out)
    }
}

impl FromStr for GitId {
    type Err = GitIdError;

    fn from_str(text: &str) -> Result<Self, GitIdError> {
        unhex(text).map(Self).ok_or(GitIdError)
    }
}

impl TryFrom<String> for GitId {
    type Error = GitIdError;

    fn try_from(text: String) -> Result<Self, GitIdError> {
        text.parse()
    }
}

impl From<GitId> for String {
    fn from(id: GitId) -> Self {
        id.to_string()
    }
}

impl fmt::Display for GitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for GitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The identity of a version: the SHA-256 of its manifest document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VersionId(Digest);

impl VersionId {
    /// The version whose manifest document has this SHA-256.
    pub const fn new(manifest: Digest) -> Self {
        Self(manifest)
    }

    /// The SHA-256 of the manifest document.
    pub const fn digest(&self) -> Digest {
        self.0
    }
}

impl fmt::Display for VersionId {
    /// The form used in errors.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "manifest {:?}", self.0)
    }
}

/// The name of a blob: SHA-256 over exactly what verification of its file checks
/// (see [`super::BlobLayout`]).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentKey(Digest);

impl ContentKey {
    /// The key with this digest.
    pub const fn new(digest: Digest) -> Self {
        Self(digest)
    }

    /// The digest.
    pub const fn digest(&self) -> &Digest {
        &self.0
    }
}

impl fmt::Display for ContentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for ContentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key {:?}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::hash;

    #[test]
    fn text_round_trip_and_refusals() {
        let d = hash::sha256(b"x");
        assert_eq!(d.to_string().parse(), Ok(d));
        for bad in ["", "00", &"A".repeat(64), &"g".repeat(64), &"0".repeat(63), &"é".repeat(32)] {
            assert_eq!(bad.parse::<Digest>(), Err(DigestError), "{bad}");
        }
    }

    #[test]
    fn a_git_id_is_forty_digits_and_begins_its_digest() {
        let text = "0123456789abcdef0123456789abcdef01234567";
        let id: GitId = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!(id.digest().to_string(), format!("{text}{}", "0".repeat(24)));
        for bad in ["", &text[1..], &text.to_uppercase(), &"0".repeat(64)] {
            assert_eq!(bad.parse::<GitId>(), Err(GitIdError), "{bad}");
        }
        assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{text}\""));
        assert!(serde_json::from_str::<GitId>("\"main\"").is_err());
    }

    #[test]
    fn every_byte_counts_in_text_and_slices() {
        let bytes: [u8; 32] = std::array::from_fn(|i| (i * 8 + 7) as u8);
        let d = Digest::from_bytes(bytes);
        let text: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!((d.to_string(), ContentKey::new(d).to_string()), (text.clone(), text.clone()));
        assert_eq!((Digest::from_slice(&bytes), text.parse()), (Some(d), Ok(d)));
        assert_eq!((Digest::from_slice(&bytes[1..]), Digest::from_slice(&[0; 33])), (None, None));
        assert_eq!(format!("{d:?}"), format!("{}…", &text[..12]));
        assert_eq!(format!("{:?}", ContentKey::new(d)), format!("key {d:?}"));
        let error = serde_json::from_str::<Digest>("7").unwrap_err().to_string();
        assert!(error.contains("expected 64 lower-case hex digits"), "{error}");
    }
}
