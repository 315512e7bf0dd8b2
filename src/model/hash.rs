//! Hashing: the only module that chooses the libraries for SHA-256, BLAKE3 and SHA-1.
//!
//! SHA-256 comes from aws-lc, which TLS needs anyway: twice as fast as the pure Rust one on machines
//! without SHA instructions. SHA-1 is only used for the blobs of git repositories, by a library that
//! recognises bytes that were made to collide: those match no id. Pure functions and plain values.

use serde::{Deserialize, Serialize};
use sha1_checked::Digest as _;

use super::digest::{Digest, GitId};

/// A hash algorithm for leaves and objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HashAlgorithm {
    /// SHA-256.
    Sha256,
    /// BLAKE3, at least ten times as fast where the processor has no SHA instructions.
    Blake3,
    /// The id of a git blob: SHA-1 over `blob {length}\0` and the bytes. Of whole objects only: no
    /// document of ours names it.
    #[serde(skip)]
    GitBlobSha1,
}

impl HashAlgorithm {
    /// The digest of bytes in memory.
    pub fn hash(self, bytes: &[u8]) -> Digest {
        match self {
            Self::Sha256 => sha256(bytes),
            Self::Blake3 => blake3(bytes),
            Self::GitBlobSha1 => git_blob(bytes).digest(),
        }
    }
}

/// SHA-256 of bytes in memory.
pub fn sha256(bytes: &[u8]) -> Digest {
    let mut h = Hasher::new(HashAlgorithm::Sha256);
    h.update(bytes);
    h.finish()
}

/// BLAKE3 of bytes in memory.
pub fn blake3(bytes: &[u8]) -> Digest {
    Digest::from_bytes(*::blake3::hash(bytes).as_bytes())
}

/// The id that git gives a file with these bytes.
pub fn git_blob(bytes: &[u8]) -> GitId {
    let mut h = sha1_checked::Sha1::new();
    h.update(format!("blob {}\0", bytes.len()).as_bytes());
    h.update(bytes);
    GitId::from_bytes((*h.try_finalize().hash()).into())
}

/// What git keeps in the place of a large file (Git LFS).
pub fn lfs_pointer(digest: &Digest, size: u64) -> String {
    format!("version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {size}\n")
}

/// Incremental hashing.
#[derive(Clone)]
pub struct Hasher(Kind);

#[derive(Clone)]
enum Kind {
    Sha256(aws_lc_rs::digest::Context),
    Blake3(Box<::blake3::Hasher>),
    /// Git hashes the length first, so the bytes are collected: at most `MAX_LEAF` of them.
    GitBlobSha1(Vec<u8>),
}

impl Hasher {
    /// An empty hasher of the given kind.
    pub fn new(kind: HashAlgorithm) -> Self {
        Self(match kind {
            HashAlgorithm::Sha256 => {
                Kind::Sha256(aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256))
            }
            HashAlgorithm::Blake3 => Kind::Blake3(Box::new(::blake3::Hasher::new())),
            HashAlgorithm::GitBlobSha1 => Kind::GitBlobSha1(Vec::new()),
        })
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            Kind::Sha256(h) => h.update(bytes),
            Kind::Blake3(h) => {
                h.update(bytes);
            }
            Kind::GitBlobSha1(all) => all.extend_from_slice(bytes),
        }
    }

    /// The digest of all bytes so far.
    pub fn finish(self) -> Digest {
        let mut out = [0; 32];
        match self.0 {
            Kind::Sha256(h) => out.copy_from_slice(h.finish().as_ref()),
            Kind::Blake3(h) => out.copy_from_slice(h.finalize().as_bytes()),
            Kind::GitBlobSha1(all) => return git_blob(&all).digest(),
        }
        Digest::from_bytes(out)
    }
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hasher")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_digests() {
        assert_eq!(
            sha256(b"abc").to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(
            blake3(b"").to_string(),
            "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
        );
        // `printf abc | git hash-object --stdin`, and of an empty file
        assert_eq!(git_blob(b"abc").to_string(), "f2ba8f84ab5c1bce84a7b441cb1959cfc7093b7f");
        assert_eq!(git_blob(b"").to_string(), "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
        for kind in [HashAlgorithm::Sha256, HashAlgorithm::Blake3, HashAlgorithm::GitBlobSha1] {
            let mut h = Hasher::new(kind);
            h.update(b"a");
            h.update(b"bc");
            assert_eq!(h.finish(), kind.hash(b"abc"));
        }
    }
}
