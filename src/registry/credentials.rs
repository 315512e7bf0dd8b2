//! What a registry is logged in to with. Plain values.
//!
//! Invariant: a secret is in no text that this program writes: nothing here has a `Display`, and `Debug` shows
//! nothing of it.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::header::HeaderValue;
use serde::Deserialize;

/// A secret text. Never shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The secret with this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// What a registry is logged in to with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A user and password.
    Password {
        /// The user.
        user: String,
        /// The password.
        password: Secret,
    },
    /// A token for an OCI registry's token service, which gives tokens for the registry.
    Identity(Secret),
    /// A token that the registry itself takes.
    Bearer(Secret),
}

impl Credentials {
    /// The `Authorization` that says it; `None` if no header can hold it, or if it is for a token service.
    pub fn header(&self) -> Option<HeaderValue> {
        match self {
            Self::Password { user, password } => {
                let pair = BASE64_STANDARD.encode(format!("{user}:{}", password.reveal()));
                secret_header(&format!("Basic {pair}"))
            }
            Self::Bearer(token) => secret_header(&format!("Bearer {}", token.reveal())),
            Self::Identity(_) => None,
        }
    }
}

/// A header that is marked as secret; `None` if the text can be in no header.
pub(in crate::registry) fn secret_header(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_sent_and_never_shown() {
        let secret = || Secret::new("s3cret");
        let password = Credentials::Password { user: "me".into(), password: secret() };
        // base64 of "me:s3cret"
        assert_eq!(password.header().unwrap(), "Basic bWU6czNjcmV0");
        assert_eq!(Credentials::Bearer(secret()).header().unwrap(), "Bearer s3cret");
        assert_eq!(Credentials::Identity(secret()).header(), None);
        assert_eq!(Credentials::Bearer(Secret::new("a\nb")).header(), None);
        let header = password.header().unwrap();
        assert!(header.is_sensitive() && !format!("{password:?}{header:?}").contains("s3cret"));
    }
}
