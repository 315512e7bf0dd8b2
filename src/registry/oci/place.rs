//! What `oci://host/path` means, and which repository is which model. Pure.
//!
//! Invariant: two repositories never have the same name in the tree. A slash is written `--` there, so
//! a repository whose own name has `--` has none.

use std::fmt;

use percent_encoding::percent_decode_str;
use reqwest::Url;

use crate::base::text::brief;
use crate::model::{ModelRef, Name};
use crate::registry::error::RegistryError;
use crate::registry::transport::http_client::is_local;

/// How the name of an OCI registry begins.
const SCHEME: &str = "oci://";
/// How the tree writes a slash of a repository's name.
const SLASH: &str = "--";
/// The group of repositories whose name has one part only. No part of a repository can be called so.
const NO_GROUP: &str = "_";
/// Maximum length of a repository's name, as registries have it.
const MAX_REPOSITORY: usize = 255;
/// Maximum length of a tag, by the specification.
const MAX_TAG: usize = 128;

/// A user and password out of a registry's name.
#[derive(Clone)]
pub struct Login {
    /// The user.
    pub user: String,
    /// The password. Never shown.
    pub password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login")
    }
}

/// The name of a repository of a registry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repository(Box<str>);

/// A registry and the part of it that is a source.
#[derive(Debug, Clone)]
pub struct Place {
    /// `host` or `host:port`, as it was written: what credentials are kept under.
    host: String,
    /// The repositories below this path are the models; empty for all of them.
    prefix: String,
    /// The root of the registry's interface, without credentials.
    base: Url,
    login: Option<Login>,
}

/// Whether a registry's name means an OCI registry.
pub fn is_oci(name: &str) -> bool {
    name.get(..SCHEME.len()).is_some_and(|start| start.eq_ignore_ascii_case(SCHEME))
}

impl Repository {
    /// The repository of that name; `None` if no registry can have it.
    pub fn new(name: &str) -> Option<Self> {
        let legal = name.len() <= MAX_REPOSITORY && name.split('/').all(is_component);
        legal.then(|| Self(name.into()))
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Letters and digits, with single separators between them: `.`, `_`, `__`, or any number of `-`.
fn is_component(text: &str) -> bool {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !text.starts_with(word) || !text.ends_with(word) {
        return false;
    }
    let separators = text.split(word).filter(|s| !s.is_empty());
    let legal = |s: &str| matches!(s, "." | "_" | "__") || s.bytes().all(|b| b == b'-');
    separators.into_iter().all(legal)
}

/// Whether a text can be a tag.
pub fn is_tag(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.starts_with(word)
        && text.len() <= MAX_TAG
        && text.chars().all(|c| word(c) || matches!(c, '.' | '-'))
}

impl Place {
    /// Reads `oci://[user:password@]host[:port][/path]`. Registries on this machine speak plain HTTP
    /// unless `plain_http` says otherwise, all others HTTPS unless it says otherwise.
    pub fn parse(name: &str, plain_http: Option<bool>) -> Result<Self, RegistryError> {
        // The name may hold a password: what cannot be read is not shown.
        let bad =
            |why: &str| RegistryError::BadName { name: format!("{SCHEME}…"), why: why.into() };
        let form = || bad("write oci://HOST[:PORT][/PATH]");
        let rest = name.get(SCHEME.len()..).filter(|_| is_oci(name)).ok_or_else(form)?;
        // A URL of https would take the next part of the path for the host.
        if rest.starts_with(['/', '\\']) {
            return Err(form());
        }
        let mut url = Url::parse(&format!("https://{rest}")).map_err(|_| form())?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(form());
        }
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let login = (!url.username().is_empty()).then(|| Login {
            user: decoded(url.username()),
            password: decoded(url.password().unwrap_or_default()),
        });
        let prefix = url.path().trim_matches('/').to_owned();
        if !prefix.is_empty() && Repository::new(&prefix).is_none() {
            return Err(bad("the path after the host is not one that repositories can have"));
        }
        url.set_username("").and_then(|()| url.set_password(None)).map_err(|()| form())?;
        let host = match (url.host_str(), url.port()) {
            (None, _) => return Err(form()),
            // The port of https was written out: it may belong to another scheme than the URL's.
            (Some(host), None) if rest.split('/').next().is_some_and(|a| a.ends_with(":443")) => {
                format!("{host}:443")
            }
            (Some(host), None) => host.to_owned(),
            (Some(host), Some(port)) => format!("{host}:{port}"),
        };
        let plain = plain_http.unwrap_or_else(|| is_local(&url));
        // Docker's own registry is at another address than its name.
        let served_by = if host == "docker.io" { "registry-1.docker.io" } else { &host };
        let scheme = if plain { "http" } else { "https" };
        let base = Url::parse(&format!("{scheme}://{served_by}/")).map_err(|_| form())?;
        Ok(Self { host, prefix, base, login })
    }

    /// `host` or `host:port`: what logins are kept under.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The URL of the registry's root.
    pub fn base(&self) -> &Url {
        &self.base
    }

    /// The user and password in the name.
    pub fn login(&self) -> Option<&Login> {
        self.login.as_ref()
    }

    /// The repository that is a model; `None` if no repository of this source can be it.
    pub fn repository(&self, model: &ModelRef) -> Option<Repository> {
        let (group, name) = (model.group.as_str(), model.model.as_str());
        let below = name.replace(SLASH, "/");
        if !self.prefix.is_empty() {
            let ours = group == self.group();
            return ours.then(|| Repository::new(&format!("{}/{below}", self.prefix))).flatten();
        }
        match group {
            NO_GROUP if name.contains(SLASH) => None,
            NO_GROUP => Repository::new(name),
            _ if group.contains(SLASH) => None,
            _ => Repository::new(&format!("{group}/{below}")),
        }
    }

    /// The model that a repository is: `None` if it is not below the path of this source, or why it
    /// can have no name in the tree, on one short line.
    pub fn model(&self, repository: &str) -> Option<Result<ModelRef, String>> {
        let below = match self.prefix.as_str() {
            "" => repository,
            prefix => repository.strip_prefix(prefix)?.strip_prefix('/')?,
        };
        let why = |why: &str| Some(Err(format!("repository '{}' {why}", brief(repository, 80))));
        if Repository::new(repository).is_none() {
            return why("has no name that a repository can have");
        }
        if below.contains(SLASH) {
            return why("has '--' in its name, which the tree writes for '/'");
        }
        let (group, name) = match (self.prefix.as_str(), below.split_once('/')) {
            ("", Some((group, name))) => (group.to_owned(), name),
            ("", None) => (NO_GROUP.to_owned(), below),
            _ => (self.group(), below),
        };
        match (Name::new(&group), Name::new(&name.replace('/', SLASH))) {
            (Ok(group), Ok(model)) => Some(Ok(ModelRef { group, model })),
            _ => why("has no name that a path can hold"),
        }
    }

    fn group(&self) -> String {
        self.prefix.replace('/', SLASH)
    }
}

impl fmt::Display for Place {
    /// The name of the registry, without credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.host)?;
        if self.prefix.is_empty() { Ok(()) } else { write!(f, "/{}", self.prefix) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(name: &str) -> Place {
        Place::parse(name, None).unwrap()
    }

    #[test]
    fn a_registry_on_this_machine_speaks_plain_http_unless_told_otherwise() {
        for (name, plain, base) in [
            ("oci://ghcr.io/acme", None, "https://ghcr.io/"),
            ("oci://ghcr.io/acme", Some(true), "http://ghcr.io/"),
            ("oci://localhost:5000", None, "http://localhost:5000/"),
            ("oci://127.0.0.1:5000/a/b/", None, "http://127.0.0.1:5000/"),
            ("oci://[::1]:5000/a", None, "http://[::1]:5000/"),
            ("oci://127.0.0.1:5000", Some(false), "https://127.0.0.1:5000/"),
            ("oci://127.0.0.1:443", None, "http://127.0.0.1:443/"),
            ("OCI://docker.io/ai", None, "https://registry-1.docker.io/"),
        ] {
            assert_eq!(Place::parse(name, plain).unwrap().base().as_str(), base, "{name}");
        }
    }

    #[test]
    fn a_registry_is_named_without_its_login() {
        let place = place("oci://me:s3cret%40@ghcr.io:8443/acme/models/");
        assert_eq!(place.to_string(), "oci://ghcr.io:8443/acme/models");
        assert_eq!(place.base().as_str(), "https://ghcr.io:8443/");
        let login = place.login().unwrap();
        assert_eq!((login.user.as_str(), login.password.as_str()), ("me", "s3cret@"));
        assert!(!format!("{place:?}").contains("s3cret"));
    }

    #[test]
    fn an_invalid_registry_name_is_refused_without_printing_it() {
        for bad in [
            "oci://",
            "oci:///secret",
            "oci://h/SECRET",
            "oci://h/a?secret",
            "oci://h/a#secret",
            "oci://h:secret/",
            "oci://u:secret@",
            "oci://h/a/../../secret:x",
        ] {
            let error = Place::parse(bad, None).unwrap_err();
            assert!(matches!(error, RegistryError::BadName { .. }), "{bad}");
            assert!(!error.to_string().to_lowercase().contains("secret"), "{error}");
        }
    }

    #[test]
    fn repositories_and_models_are_mapped_one_to_one() {
        for (source, repository, model) in [
            ("oci://h", "org/net", "org/net"),
            ("oci://h", "org/a/b", "org/a--b"),
            ("oci://h", "net", "_/net"),
            ("oci://h", "o-r_g/n__e.t", "o-r_g/n__e.t"),
            ("oci://h/org", "org/net", "org/net"),
            ("oci://h/org", "org/a/b", "org/a--b"),
            ("oci://h/x/y", "x/y/net", "x--y/net"),
            ("oci://h/x--y", "x--y/net", "x--y/net"),
        ] {
            let found = place(source).model(repository).unwrap().unwrap();
            assert_eq!(found.to_string(), model, "{source} {repository}");
            let back = place(source).repository(&found).unwrap();
            assert_eq!(back.as_str(), repository, "{source} {model}");
        }
        assert!(place("oci://h/org").model("other/net").is_none());
        assert!(place("oci://h/org").model("organ/net").is_none());
        assert!(place("oci://h/org").model("org").is_none());
        for (source, repository) in [("oci://h", "o/a--b"), ("oci://h", "a--b"), ("oci://h", "o/A")]
        {
            assert!(place(source).model(repository).unwrap().is_err(), "{repository}");
        }
        for (source, model) in [
            ("oci://h", "_/a--b"),
            ("oci://h", "a--b/c"),
            ("oci://h", "org/Net"),
            ("oci://h", "org/--a"),
            ("oci://h", "org/.git"),
            ("oci://h/org", "other/net"),
        ] {
            assert_eq!(place(source).repository(&model.parse().unwrap()), None, "{source} {model}");
        }
    }

    #[test]
    fn names_of_repositories_and_tags() {
        for good in ["a", "a/b", "a.b_c__d-e---f/0", &"a".repeat(255)] {
            assert!(Repository::new(good).is_some(), "{good}");
        }
        for bad in
            ["", "/", "a/", "A", "a//b", "a..b", "a___b", "-a", "a-", "a b", &"a".repeat(256)]
        {
            assert!(Repository::new(bad).is_none(), "{bad}");
        }
        assert!(is_tag("v1.0-rc_1") && is_tag("_x") && is_tag(&"a".repeat(128)));
        for bad in ["", ".a", "-a", "a/b", "a:b", "ü", &"a".repeat(129)] {
            assert!(!is_tag(bad), "{bad}");
        }
    }
}
