//! "Did you mean": the names nearest to one that is not there.
//!
//! Invariant: only names that exist are offered. Pure functions.

use crate::model::{Catalog, VersionRef};

/// More than these would be a list, and `list --remote` is a better one.
const MOST: usize = 3;

/// How like a name must be to be offered (0 to 1); below it, strangers begin to match.
const LIKENESS: f64 = 0.6;

/// References that are likely meant by `wanted`, best first, as `group/model@version`.
pub fn nearest(catalog: &Catalog, wanted: &VersionRef) -> Vec<String> {
    let (group, model) = (wanted.model.group.as_str(), wanted.model.model.as_str());
    if let Some(versions) = catalog.versions(group, model) {
        // The model is right, so any of its versions is a better guess than other models.
        let all =
            versions.iter().map(|v| (v.name.as_str(), format!("{}@{}", wanted.model, v.name)));
        return ranked(wanted.version.as_str(), all, 0.0);
    }
    let text = wanted.to_string();
    let all = catalog.iter().map(|(g, m, v)| format!("{g}/{m}@{}", v.name));
    ranked(&text, all.map(|name| (name.clone(), name)), LIKENESS)
}

fn ranked<N: AsRef<str>>(
    wanted: &str,
    names: impl Iterator<Item = (N, String)>,
    least: f64,
) -> Vec<String> {
    let wanted = wanted.to_lowercase();
    let mut best: Vec<(f64, String)> = Vec::with_capacity(MOST + 1);
    for (name, shown) in names {
        let likeness =
            strsim::normalized_damerau_levenshtein(&wanted, &name.as_ref().to_lowercase());
        if likeness < least {
            continue;
        }
        let at = best.partition_point(|(b, _)| *b >= likeness);
        best.insert(at, (likeness, shown));
        best.truncate(MOST);
    }
    best.into_iter().map(|(_, shown)| shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::hash;
    use crate::model::{CatalogBuilder, Name, VersionEntry, VersionTarget};

    fn catalog() -> Catalog {
        let name = |n: &str| Name::new(n).unwrap();
        let mut b = CatalogBuilder::default();
        b.group(name("org"));
        for (model, versions) in [("llama-8b", ["v1", "v2", "main", "old"]), ("whisper", ["a"; 4])]
        {
            b.model(name(model));
            let mut seen: Vec<&str> = versions.into();
            seen.dedup();
            for version in seen {
                let hash = hash::sha256(version.as_bytes());
                let (name, alias_of) = (name(version), None);
                b.version(VersionEntry {
                    name,
                    target: VersionTarget::Manifest(hash),
                    alias_of,
                    published: None,
                    metadata: None,
                });
            }
        }
        b.build().unwrap()
    }

    fn near(text: &str) -> Vec<String> {
        nearest(&catalog(), &text.parse().unwrap())
    }

    #[test]
    fn a_misspelled_name_suggests_the_nearest() {
        assert_eq!(near("org/lama-8b@v1")[0], "org/llama-8b@v1");
        assert_eq!(near("Org/Whisper@a"), ["org/whisper@a"]);
    }

    #[test]
    fn a_known_model_suggests_its_versions() {
        assert_eq!(near("org/llama-8b@v3").len(), MOST);
        assert!(near("org/llama-8b@mian")[0].ends_with("@main"));
        assert_eq!(near("org/whisper@nothing-like-it"), ["org/whisper@a"]);
    }

    #[test]
    fn unrelated_names_are_not_suggested() {
        assert!(near("zzzzzz/qqqqqqqqq@x").is_empty());
    }
}
