//! Names: of registries (`hf://…`), repositories and revisions. Pure.
//!
//! Invariant: a repository's name is two parts that a URL path can hold as they are.

use std::fmt;

use crate::base::text::brief;
use crate::model::{ModelRef, Name};
use crate::registry::error::RegistryError;

/// How the name of a registry on the Hub begins.
const SCHEME: &str = "hf://";
/// How versions write a slash of a revision's name.
const SLASH: &str = "--";

/// What a repository holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepoType {
    /// A model.
    Model,
    /// A dataset.
    Dataset,
}

impl RepoType {
    /// As documents of ours write it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Dataset => "dataset",
        }
    }

    /// The type that documents of ours write so.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Model, Self::Dataset].into_iter().find(|t| t.word() == word)
    }
}

/// A repository of the Hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repo {
    kind: RepoType,
    id: ModelRef,
}

impl Repo {
    /// The repository of that type and name; `None` if the Hub can have none of that name.
    pub fn new(kind: RepoType, id: ModelRef) -> Option<Self> {
        let legal = |name: &Name| {
            let text = name.as_str();
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            text.chars().all(allowed) && !text.contains("..") && !text.ends_with(".git")
        };
        (legal(&id.group) && legal(&id.model)).then_some(Self { kind, id })
    }

    /// What it holds.
    pub fn kind(&self) -> RepoType {
        self.kind
    }

    /// Its name, as the tree of models has it.
    pub fn id(&self) -> &ModelRef {
        &self.id
    }

    /// Its pages below the endpoint.
    pub fn page(&self) -> String {
        match self.kind {
            RepoType::Model => self.id.to_string(),
            RepoType::Dataset => format!("datasets/{}", self.id),
        }
    }

    /// Its interface for programs, below the endpoint.
    pub fn api(&self) -> String {
        format!("api/{}s/{}", self.kind.word(), self.id)
    }
}

impl fmt::Display for Repo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.word(), self.id)
    }
}

/// Which part of the Hub a registry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All models, looked up one by one.
    Models,
    /// One repository.
    One(Repo),
}

/// Whether a registry's name means the Hub.
pub fn is_hub(name: &str) -> bool {
    name.get(..SCHEME.len()).is_some_and(|start| start.eq_ignore_ascii_case(SCHEME))
}

impl Scope {
    /// Reads `hf://`, `hf://ORG/NAME` or `hf://datasets/ORG/NAME`.
    pub fn parse(name: &str) -> Result<Self, RegistryError> {
        let bad = || RegistryError::BadName {
            // The name holds no credentials, but a mistyped one may: only the expected form is named.
            name: SCHEME.to_owned() + "…",
            why: "write hf:// for the whole Hub, hf://ORG/NAME or hf://datasets/ORG/NAME".into(),
        };
        let rest = name.get(SCHEME.len()..).filter(|_| is_hub(name)).ok_or_else(bad)?;
        let (kind, id) = match rest.trim_end_matches('/').split('/').collect::<Vec<_>>()[..] {
            [""] => return Ok(Self::Models),
            ["datasets", org, name] => (RepoType::Dataset, [org, name]),
            [org, name] => (RepoType::Model, [org, name]),
            _ => return Err(bad()),
        };
        let name = |text| Name::new(text).map_err(|_| bad());
        let id = ModelRef { group: name(id[0])?, model: name(id[1])? };
        Repo::new(kind, id).map(Self::One).ok_or_else(bad)
    }
}

impl fmt::Display for Scope {
    /// The name of the registry.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Models => f.write_str(SCHEME),
            Self::One(repo) => write!(f, "{SCHEME}{}", repo.page()),
        }
    }
}

/// A text from the Hub as errors show it.
pub fn shown(text: &str) -> String {
    // Longer than any sane name, short enough for one line of a log.
    const MOST: usize = 80;
    format!("'{}'", brief(text, MOST))
}

/// The name of the version that is this revision.
pub fn version_name(revision: &str) -> String {
    revision.replace('/', SLASH)
}

/// The revisions that a version's name may mean, the likelier first.
pub fn revisions_of(version: &str) -> Vec<String> {
    let with_slashes = version.replace(SLASH, "/");
    // Branches whose names begin so are the Hub's own: pull requests and conversions.
    match with_slashes == version {
        true => vec![with_slashes],
        false if with_slashes.starts_with("refs/") => vec![with_slashes],
        false => vec![version.to_owned(), with_slashes],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_a_registrys_name() {
        for (given, shown) in [
            ("hf://", "hf://"),
            ("HF://", "hf://"),
            ("hf://org/name", "hf://org/name"),
            ("hf://org/na.me_1-x/", "hf://org/na.me_1-x"),
            ("hf://datasets/org/name", "hf://datasets/org/name"),
        ] {
            assert_eq!(Scope::parse(given).unwrap().to_string(), shown, "{given}");
        }
        let Scope::One(data) = Scope::parse("hf://datasets/o/n").unwrap() else { panic!("one") };
        assert_eq!((data.api(), data.page()), ("api/datasets/o/n".into(), "datasets/o/n".into()));
        assert_eq!(data.to_string(), "dataset o/n");
    }

    #[test]
    fn what_no_repository_can_be_called_is_refused_without_showing_it() {
        for bad in [
            "hf://secret",
            "hf://o/n/x",
            "hf://o/..",
            "hf://o/secret@main",
            "hf://u:secret@h/x",
            "hf://o/n?secret",
            "hf://o/a..b",
            "hf://o/n.git",
            "hf://o//n",
            "hf:/o/n",
            "hf://datasets/o/secret/x",
        ] {
            let error = Scope::parse(bad).unwrap_err();
            assert!(matches!(error, RegistryError::BadName { .. }), "{bad}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn slashes_of_revisions_are_two_dashes() {
        assert_eq!(version_name("refs/pr/1"), "refs--pr--1");
        assert_eq!(revisions_of("refs--pr--1"), ["refs/pr/1"]);
        assert_eq!(revisions_of("feature--x"), ["feature--x", "feature/x"]);
        assert_eq!(revisions_of("main"), ["main"]);
    }
}
