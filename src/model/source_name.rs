//! The name of a source: the key of everything that is remembered of it.
//!
//! A source that is configured under a name keeps that name when its URL changes. One that is given by its
//! address alone has no other name than that address. Invariant: the two cannot be confused, since an
//! address is a URL or an absolute path and has characters that no configured name may have.
//! Plain values, cheap to clone.

use std::fmt;
use std::sync::Arc;

/// Maximum length of a configured name in bytes: short enough for a line of output.
const MAX_LEN: usize = 64;

/// Why a text is no name for a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SourceNameError {
    /// Nothing.
    #[error("is empty")]
    Empty,
    /// Over 64 bytes.
    #[error("is longer than {MAX_LEN} characters")]
    TooLong,
    /// Another character at the start.
    #[error("does not start with a lower-case letter or a digit")]
    Start,
    /// Another character after the start.
    #[error("has a character other than lower-case letters, digits, '.', '_' and '-'")]
    Character,
}

/// The name of a source.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceName(Arc<str>);

impl SourceName {
    /// A name from a configuration: `[a-z0-9][a-z0-9._-]*`, at most 64 bytes.
    pub fn configured(text: &str) -> Result<Self, SourceNameError> {
        let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
        match text.as_bytes() {
            [] => Err(SourceNameError::Empty),
            long if long.len() > MAX_LEN => Err(SourceNameError::TooLong),
            [first, ..] if !plain(*first) => Err(SourceNameError::Start),
            [_, rest @ ..] if !rest.iter().all(|c| plain(*c) || b"._-".contains(c)) => {
                Err(SourceNameError::Character)
            }
            _ => Ok(Self(text.into())),
        }
    }

    /// The name of a source that is given by its address only: the URL or absolute path, without
    /// credentials, as its registry shows it to people.
    pub fn of_address(address: &str) -> Self {
        Self(address.into())
    }

    /// A name that was remembered, of either kind.
    pub fn remembered(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configured_names_are_short_and_plain() {
        let long = "x".repeat(65);
        for (text, why) in [
            ("", SourceNameError::Empty),
            (&long, SourceNameError::TooLong),
            (".hub", SourceNameError::Start),
            ("-hub", SourceNameError::Start),
            ("Hub", SourceNameError::Start),
            ("hUb", SourceNameError::Character),
            ("h b", SourceNameError::Character),
            ("hüb", SourceNameError::Character),
            ("hub\n", SourceNameError::Character),
        ] {
            assert_eq!(SourceName::configured(text), Err(why), "{text:?}");
        }
        for text in ["h", "7", "hub", "team-a_2.internal", &long[1..]] {
            assert_eq!(SourceName::configured(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn no_address_is_a_configured_name() {
        for address in ["https://h", "http://h:8080/x", "/srv/models", "C:\\models", "hf://"] {
            assert!(SourceName::configured(address).is_err(), "{address}");
            assert_eq!(SourceName::of_address(address).to_string(), address);
        }
    }
}
