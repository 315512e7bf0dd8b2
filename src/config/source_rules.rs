//! What a source's name, address, groups and models may be.
//!
//! Invariant: an error is one short line and shows nothing that may be a secret. Pure.

use super::address::Address;
use crate::base::text::brief;
use crate::model::{Name, SourceName};

/// Characters of a wrong text that a message shows.
const SHOWN: usize = 60;

/// The kind of registry, by the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceKind {
    /// A static tree behind HTTP.
    Http,
    /// A static tree in a folder.
    Folder,
    /// Hugging Face.
    HuggingFace,
    /// An OCI registry.
    Oci,
    /// A bucket.
    Bucket,
    /// An Ollama registry.
    Ollama,
}

const SCHEMES: [(&str, SourceKind); 9] = [
    ("https", SourceKind::Http),
    ("http", SourceKind::Http),
    ("file", SourceKind::Folder),
    ("hf", SourceKind::HuggingFace),
    ("oci", SourceKind::Oci),
    ("s3", SourceKind::Bucket),
    ("gs", SourceKind::Bucket),
    ("az", SourceKind::Bucket),
    ("ollama", SourceKind::Ollama),
];

/// The host and port that an address names; none for folders and for kinds that have usual hosts.
pub fn host(address: &Address) -> Option<(String, Option<u16>)> {
    if !matches!(kind(&address.0), SourceKind::Http | SourceKind::Oci) {
        return None;
    }
    let url = reqwest::Url::parse(address.0.trim()).ok()?;
    Some((url.host_str()?.to_owned(), url.port_or_known_default()))
}

/// The kind by the scheme; without one it is a folder.
pub fn kind(url: &str) -> SourceKind {
    let scheme = url.split_once("://").map(|(scheme, _)| scheme.trim().to_ascii_lowercase());
    let known = SCHEMES.iter().find(|(name, _)| Some(*name) == scheme.as_deref());
    known.map_or(SourceKind::Folder, |(_, kind)| *kind)
}

/// Checks a source's name.
pub fn check_name(name: &str) -> Result<(), String> {
    match SourceName::configured(name) {
        Ok(_) => Ok(()),
        Err(_) => Err(format!(
            "'{}' is no name of a source: at most 64 of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit",
            brief(name, SHOWN)
        )),
    }
}

/// Checks a source's address. The text of the error shows nothing that may be a secret.
pub fn check_url(address: &Address) -> Result<(), String> {
    let (text, shown) = (&address.0, address.shown());
    if text.chars().any(char::is_control) || text.trim() != text || text.is_empty() {
        return Err("an address has no control characters and no blanks around it".to_owned());
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return match text.starts_with('/') {
            true => Ok(()),
            false => Err(format!("{shown} is neither a URL nor an absolute folder")),
        };
    };
    let scheme = scheme.to_ascii_lowercase();
    if !SCHEMES.iter().any(|(name, _)| *name == scheme) {
        let all: Vec<_> = SCHEMES.iter().map(|(name, _)| format!("{name}://")).collect();
        return Err(format!("{shown} has no known scheme: write {}, or a folder", all.join(", ")));
    }
    if rest.contains(['?', '#']) {
        return Err(format!("{shown} has a query or a fragment: a source has none"));
    }
    let server = rest.split('/').next().unwrap_or_default();
    // hf://org/name@rev has an `@`, but in no server's name.
    if server.contains('@') || (matches!(&*scheme, "http" | "https") && rest.contains('@')) {
        return Err(format!(
            "{shown} has credentials in it: give them by token_file, token_command or token_variable"
        ));
    }
    match kind(text) {
        SourceKind::Http | SourceKind::Oci => {
            let parsed = reqwest::Url::parse(text).ok();
            match parsed.and_then(|url| url.host_str().map(|host| !host.is_empty())) {
                Some(true) => Ok(()),
                _ => Err(format!("{shown} names no host")),
            }
        }
        SourceKind::Folder if !rest.starts_with('/') => {
            Err(format!("{shown} is no folder of this machine: write file:///folder"))
        }
        SourceKind::Bucket if server.is_empty() => Err(format!("{shown} names no bucket")),
        _ => Ok(()),
    }
}

/// Checks a pattern of groups.
pub fn check_group(pattern: &str) -> Result<(), String> {
    let valid = Name::new(&pattern.replace('*', "x")).is_ok();
    match valid {
        true => Ok(()),
        false => Err(format!(
            "'{}' is no group: write a name, with * for any characters",
            brief(pattern, SHOWN)
        )),
    }
}

/// Checks the name of a model in a source.
pub fn check_model(text: &str) -> Result<(), String> {
    let (model, revision) = match text.split_once('@') {
        Some((model, revision)) => (model, Some(revision)),
        None => (text, None),
    };
    let part = |p: &str| !p.is_empty() && p != "." && p != "..";
    let path = |text: &str| text.split('/').all(part);
    let valid = text.len() <= 512
        && !text.chars().any(|c| c.is_control() || c.is_whitespace())
        && path(model)
        && revision.is_none_or(path);
    match valid {
        true => Ok(()),
        false => {
            Err(format!("'{}' is no model: write org/name or org/name@rev", brief(text, SHOWN)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_of_every_kind_are_known() {
        for (url, expected) in [
            ("https://models.example.org/x", SourceKind::Http),
            ("HTTP://h:80", SourceKind::Http),
            ("hf://", SourceKind::HuggingFace),
            ("hf://org/name", SourceKind::HuggingFace),
            ("oci://host/path", SourceKind::Oci),
            ("s3://bucket/prefix", SourceKind::Bucket),
            ("gs://bucket", SourceKind::Bucket),
            ("az://container/x", SourceKind::Bucket),
            ("ollama://", SourceKind::Ollama),
            ("file:///srv/x", SourceKind::Folder),
            ("/srv/x", SourceKind::Folder),
        ] {
            assert_eq!(check_url(&Address(url.into())), Ok(()), "{url}");
            assert_eq!(kind(url), expected, "{url}");
        }
    }

    #[test]
    fn a_wrong_address_is_refused_without_showing_secrets() {
        for url in [
            "",
            " https://h",
            "models",
            "ftp://u:s3cret@h",
            "https://",
            "https://u:s3cret@h",
            "https://u:s3/cret@h",
            "https://h/?s3cret",
            "oci://u:s3cret@h/x",
            "s3://",
            "file://elsewhere/x",
        ] {
            let why = check_url(&Address(url.into())).expect_err(url);
            assert!(!why.contains("cret"), "{why}");
        }
    }

    #[test]
    fn names_groups_and_models_as_people_write_them() {
        assert!(["a", "0.b_c-d"].iter().all(|name| check_name(name).is_ok()));
        assert!(
            ["", "A", "-a", "a b", &"a".repeat(65)].iter().all(|name| check_name(name).is_err())
        );
        assert!(["acme", "acme-*", "*"].iter().all(|group| check_group(group).is_ok()));
        assert!(["", "a/b", ".."].iter().all(|group| check_group(group).is_err()));
        for good in ["org/name", "org/name@rev", "org/name@refs/pr/1", "gpt2"] {
            assert!(check_model(good).is_ok(), "{good}");
        }
        for bad in ["", "/x", "a//b", "a/..", "a/b@", "a b"] {
            assert!(check_model(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_check_panic_and_errors_are_short(text in "\\PC{0,80}|[a-z:/@*?#.]{0,80}") {
            let address = Address(text.clone());
            let all = [check_name(&text), check_url(&address), check_group(&text), check_model(&text)];
            for why in all.into_iter().filter_map(Result::err) {
                prop_assert!(why.chars().count() < 500, "{}", why);
            }
            let _ = (address.shown(), host(&address));
        }
    }
}
