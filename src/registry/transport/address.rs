//! What the name of a registry means: a URL or a folder. Pure; opens nothing.
//!
//! Invariant: a name that may hold a password is not shown, however wrong it is.

use std::path::PathBuf;

use crate::registry::error::RegistryError;

/// Where a registry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// Behind an HTTP server, at this URL. It may hold credentials.
    Http(String),
    /// In a folder of this machine.
    Folder(PathBuf),
}

impl Address {
    /// Reads an `http://`, `https://` or `file://` URL, or the path of a folder.
    pub fn parse(name: &str) -> Result<Self, RegistryError> {
        let bad = |why: &str| RegistryError::BadName {
            name: scheme_shown(name).to_owned(),
            why: why.to_owned(),
        };
        if !is_url(name) {
            return match name {
                "" => Err(bad("it is empty")),
                path => Ok(Self::Folder(path.into())),
            };
        }
        let scheme = name.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
        match scheme.as_deref() {
            Some("http" | "https") => Ok(Self::Http(name.to_owned())),
            Some("file") => {
                let path = reqwest::Url::parse(name).ok().and_then(|url| url.to_file_path().ok());
                path.map(Self::Folder)
                    .ok_or_else(|| bad("a file URL names a folder of this machine"))
            }
            _ => Err(bad("write an http, https, file, hf or oci URL, or a folder")),
        }
    }
}

/// Whether a name is meant to be a URL, even one with a mistake in it: it is not looked for as a
/// folder and not shown, since it may hold a password.
pub fn is_url(name: &str) -> bool {
    let start = name.trim_start().split(':').next().unwrap_or_default().to_ascii_lowercase();
    let known = name.contains(':') && matches!(&*start, "http" | "https" | "file");
    known || name.contains("://")
}

/// What can be shown of a URL that cannot be read: its scheme, if it looks like one.
pub(super) fn scheme_shown(name: &str) -> &str {
    let scheme = name.split(':').next().unwrap_or_default();
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    if name.contains("://") && scheme.chars().all(allowed) { scheme } else { "…" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_told_from_folders() {
        for (text, url) in [("http", false), ("x/http:y", false), ("File:/x", true), ("a://", true)]
        {
            assert_eq!(is_url(text), url, "{text}");
        }
        assert_eq!(Address::parse("x/y").unwrap(), Address::Folder("x/y".into()));
        assert_eq!(Address::parse("HTTP://h").unwrap(), Address::Http("HTTP://h".into()));
    }
}
