//! Names in the Hugging Face cache: folders of repositories, references, commits. Pure.

use crate::model::{Digest, Manifest, VersionEntry};

/// How the folder of a model's repository begins.
const MODELS: &str = "models--";
/// What stands for a slash, in names of folders and of versions.
pub const SLASH: &str = "--";
/// Digits of a commit.
const COMMIT: usize = 40;
/// The reference that programs take unless they are told another one.
pub const DEFAULT_REF: &str = "main";
/// The version that a registry calls its current one.
pub const LATEST: &str = "latest";
/// Folders of references that the Hub does not list.
const UNLISTED: [&str; 3] = ["refs", "refs--pr", "refs--convert"];

/// The folder of a model's repository.
pub fn repository_folder(group: &str, model: &str) -> String {
    format!("{MODELS}{group}{SLASH}{model}")
}

/// The models whose repository may have this folder: a name may itself contain what stands for the slash.
pub fn models_of(folder: &str) -> impl Iterator<Item = (&str, &str)> {
    let rest = folder.strip_prefix(MODELS).unwrap_or_default();
    let split = |(at, _): (usize, &str)| (&rest[..at], &rest[at + SLASH.len()..]);
    let both = |(group, model): &(&str, &str)| !group.is_empty() && !model.is_empty();
    rest.match_indices(SLASH).map(split).filter(both)
}

/// Whether a text is a commit as the cache writes it: 40 lower-case hex digits.
pub fn is_commit(text: &str) -> bool {
    text.len() == COMMIT && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The commit of a version: the registry's own, else one made of the manifest's hash.
pub fn commit_of(manifest: &Manifest) -> String {
    let own = manifest.revision().map(|revision| revision.as_str());
    own.filter(|own| is_commit(own)).map_or_else(|| made_commit(&manifest.hash()), str::to_owned)
}

/// The commit that stands for a manifest whose registry knows no commits.
fn made_commit(hash: &Digest) -> String {
    let mut text = hash.to_string();
    text.truncate(COMMIT);
    text
}

/// Whether a hash may belong to a made commit.
pub fn is_made_of(commit: &str, hash: &Digest) -> bool {
    made_commit(hash) == commit
}

/// The name of the version that is a reference in a folder of references; the top one has no name.
pub fn reference(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}{SLASH}{name}") }
}

/// Whether references may lie in a folder of this name: one that the Hub does not list, or that begins the
/// name of a listed version.
pub fn is_reference_folder(name: &str, versions: &[VersionEntry], unlisted: bool) -> bool {
    let below = |version: &str| version.strip_prefix(name).is_some_and(|v| v.starts_with(SLASH));
    let listed = |version: &VersionEntry| version.name.as_str() == name;
    (unlisted && UNLISTED.contains(&name))
        || !versions.iter().any(listed) && versions.iter().any(|v| below(v.name.as_str()))
}

/// The version that `main` leads to where the registry has none of that name: its latest one.
pub fn default_version(versions: &[VersionEntry]) -> Option<&VersionEntry> {
    let latest = versions.iter().find(|version| version.name.as_str() == LATEST);
    let only = || versions.first().filter(|_| versions.len() == 1);
    let newest = || {
        let dated = versions.iter().all(|version| version.published.is_some());
        versions.iter().max_by_key(|version| version.published).filter(|_| dated)
    };
    latest.or_else(only).or_else(newest)
}

/// Whether a name in `.no_exist` is a file's: it has a dot.
pub fn is_file_name(name: &str) -> bool {
    name.contains('.')
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::model::{Name, VersionTarget};

    fn version(name: &str, days: Option<u64>) -> VersionEntry {
        let published = days.map(|d| SystemTime::UNIX_EPOCH + Duration::from_secs(d * 86_400));
        let (name, target) = (Name::new(name).unwrap(), VersionTarget::Unknown);
        VersionEntry { name, target, alias_of: None, published, metadata: None }
    }

    #[test]
    fn a_folder_names_each_model_that_it_may_be() {
        let all = |folder| models_of(folder).collect::<Vec<_>>();
        assert_eq!(all("models--org--name"), [("org", "name")]);
        assert_eq!(all("models--a--b--c"), [("a", "b--c"), ("a--b", "c")]);
        for none in ["models--gpt2", "datasets--o--n", "models----n", "models--o--", "version.txt"]
        {
            assert_eq!(all(none), [], "{none}");
        }
        assert_eq!(repository_folder("org", "name"), "models--org--name");
    }

    #[test]
    fn only_forty_lower_case_digits_are_a_commit() {
        assert!(is_commit(&"0a".repeat(20)));
        for not in ["main".to_owned(), "0A".repeat(20), "0a".repeat(32), "0g".repeat(20)] {
            assert!(!is_commit(&not), "{not}");
        }
    }

    #[test]
    fn references_with_slashes_lie_in_folders() {
        let versions = [version("main", None), version("fix--it", None)];
        assert!(is_reference_folder("fix", &versions, false));
        assert!(!is_reference_folder("fi", &versions, false));
        assert!(!is_reference_folder("main", &versions, true));
        assert!(is_reference_folder("refs", &[], true) && !is_reference_folder("refs", &[], false));
        let both = [version("fix", None), version("fix--it", None)];
        assert!(!is_reference_folder("fix", &both, false), "a reference of that name is one");
        assert_eq!(reference("", "main"), "main");
        assert_eq!(reference("refs--pr", "1"), "refs--pr--1");
    }

    #[test]
    fn main_is_the_latest_version_where_there_is_no_main() {
        let name = |versions: &[VersionEntry]| {
            default_version(versions).map(|v| v.name.as_str().to_owned())
        };
        let dated = [version("1.0", Some(9)), version("2.0", Some(3))];
        assert_eq!(name(&dated).as_deref(), Some("1.0"), "by date");
        let latest = [version("1.0", Some(9)), version("latest", Some(3))];
        assert_eq!(name(&latest).as_deref(), Some("latest"));
        assert_eq!(name(&[version("x", None)]).as_deref(), Some("x"));
        assert_eq!(name(&[version("x", None), version("y", Some(1))]), None, "not known");
        assert_eq!(name(&[]), None);
    }
}
