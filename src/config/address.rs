//! The address of a registry as a user gave it: a URL or a folder.
//!
//! Invariant: it may hold credentials, so it is shown only without them: `Debug` and
//! [`Address::shown`] never contain what stands before an `@` of a server's name, in a query or in a
//! fragment. Plain values.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::base::text::{MESSAGE, brief};

/// A URL or a folder, as given. Serialized as it is, for the process that uses it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Address(pub String);

impl Address {
    /// The address without credentials; only its scheme where it is unclear which part is which.
    pub fn shown(&self) -> String {
        brief(&without_secrets(self.0.trim()), MESSAGE)
    }
}

/// What a URL may show. A text without a scheme is a folder.
fn without_secrets(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once(':') else { return text.to_owned() };
    if scheme.contains('/') {
        return text.to_owned();
    }
    let is_scheme = !scheme.is_empty()
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    if !is_scheme {
        return "…".to_owned();
    }
    let unclear = || format!("{scheme}:…");
    let Some(rest) = rest.strip_prefix("//") else { return unclear() };
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (server, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let server = server.rsplit('@').next().unwrap_or_default();
    // A password may contain a slash, so an `@` of the path may end one.
    let web = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    match web && (path.contains('@') || server.is_empty()) {
        true => unclear(),
        false => format!("{scheme}://{server}{path}"),
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({:?})", self.shown())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_secrets() {
        for (given, shown) in [
            ("/srv/models", "/srv/models"),
            ("models", "models"),
            ("some/odd:folder", "some/odd:folder"),
            ("https://h/x", "https://h/x"),
            ("https://u:s3cret@h:1/x?s3cret#s3cret", "https://h:1/x"),
            ("https://u:s3/cret@h/x", "https:…"),
            ("https:u:s3cret@h", "https:…"),
            ("http:/u:s3cret@h", "http:…"),
            ("http:///u:s3cret@h", "http:…"),
            (" http://u:s3cret@h", "http://h"),
            ("u:s3cret@h://x", "u:…"),
            ("s3cret@h://x", "…"),
            ("hf://org/name@v1", "hf://org/name@v1"),
        ] {
            assert_eq!(Address(given.into()).shown(), shown);
            assert!(!format!("{:?}", Address(given.into())).contains("s3cret"));
        }
    }
}
