//! The token that a client of the Hub's interface has to give.
//!
//! Invariant: it is kept in the cache folder, readable by that folder's owner alone, so that it outlives the
//! worker: programs keep it as long as they run. It is never logged.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use modelfs::base::secret::{SECRET_LEN, secret};
use modelfs::model::hash::sha256;

use crate::error::Failure;

/// The file of the token in the cache folder.
const FILE: &str = "hub-token";
/// How a token begins: programs check that a token of the Hub does.
const PREFIX: &str = "hf_modelfs";

/// The token.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// The token of this cache folder, made if there is none.
    pub fn of_cache(root: &Path) -> Result<Self, Failure> {
        let path = root.join(FILE);
        let failed = |error: std::io::Error| {
            Failure::storage(&path, "the token of the Hub's interface", &error)
        };
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(mut file) => {
                let token = format!("{PREFIX}{}", secret());
                file.write_all(token.as_bytes()).map_err(failed)?;
                Ok(Self(token))
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let token = fs::read_to_string(&path).map_err(failed)?;
                match token.len() == PREFIX.len() + SECRET_LEN {
                    true => Ok(Self(token)),
                    // Cut off while it was written.
                    false => {
                        fs::remove_file(&path).map_err(failed)?;
                        Self::of_cache(root)
                    }
                }
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the token. The time that this takes says nothing of it.
    pub fn is(&self, given: &str) -> bool {
        sha256(given.as_bytes()) == sha256(self.0.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_cache_keeps_its_token_and_shows_it_to_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let token = Token::of_cache(dir.path()).unwrap();
        assert_eq!(Token::of_cache(dir.path()).unwrap().as_str(), token.as_str());
        let mode = fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(token.is(token.as_str()) && !token.is("") && !token.is(PREFIX));
        let other = tempfile::tempdir().unwrap();
        assert!(!token.is(Token::of_cache(other.path()).unwrap().as_str()));
        let whole = token.as_str().len();
        for cut in [0, PREFIX.len() + 1, whole - 1] {
            fs::write(dir.path().join(FILE), &token.as_str()[..cut]).unwrap();
            let again = Token::of_cache(dir.path()).unwrap();
            assert!(again.as_str().len() == whole && again.as_str() != token.as_str(), "{cut}");
        }
    }
}
