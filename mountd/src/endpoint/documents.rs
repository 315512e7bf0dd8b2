//! The Hub's JSON answers, made of a view's tree document. Pure.

use std::collections::{BTreeMap, BTreeSet};

use modelfs::model::{FilePath, ModelRef};
use serde::Deserialize;
use serde_json::{Value, json};

/// Entries on a page of a tree: as many as the Hub sends.
pub const PAGE: usize = 1000;
/// The largest number of entries that a client may ask for.
const MAX_PAGE: usize = 10_000;
/// What the Hub gives as the id of a folder; programs do not use it.
const FOLDER_ID: &str = "0000000000000000000000000000000000000000";
/// Bytes of what git keeps in the place of a large file; programs do not use it.
const POINTER_SIZE: u64 = 134;

/// `trees/<commit>.json` of the view.
#[derive(Debug, Deserialize)]
pub struct Tree {
    /// By path.
    pub files: BTreeMap<String, TreeFile>,
}

/// A file of it.
#[derive(Debug, Deserialize)]
pub struct TreeFile {
    size: u64,
    blob_id: String,
    lfs_sha256: Option<String>,
}

impl TreeFile {
    /// What identifies its bytes for a client: the SHA-256 of a large file, the git id of another.
    pub fn tag(&self) -> &str {
        self.lfs_sha256.as_deref().unwrap_or(&self.blob_id)
    }

    /// Whether the Hub has only a pointer to it in git.
    pub fn is_large(&self) -> bool {
        self.lfs_sha256.is_some()
    }

    fn lfs(&self, sha256: &str) -> Option<Value> {
        let digest = self.lfs_sha256.as_ref()?;
        Some(json!({(sha256): digest, "size": self.size, "pointerSize": POINTER_SIZE}))
    }
}

/// What is known of a model at a commit.
pub fn model(model: &ModelRef, commit: &str, tree: &Tree, blobs: bool) -> Value {
    let sibling = |(path, file): (&String, &TreeFile)| {
        let mut out = json!({"rfilename": path});
        if blobs {
            out["size"] = file.size.into();
            out["blobId"] = file.blob_id.as_str().into();
            if let Some(lfs) = file.lfs("sha256") {
                out["lfs"] = lfs;
            }
        }
        out
    };
    let siblings: Vec<Value> = tree.files.iter().map(sibling).collect();
    let id = model.to_string();
    json!({
        "_id": commit, "id": id, "modelId": id, "sha": commit, "private": false, "gated": false,
        "disabled": false, "tags": [], "downloads": 0, "likes": 0, "siblings": siblings,
    })
}

/// The branches of a model: names and commits.
pub fn refs(branches: &[(String, String)]) -> Value {
    let branch = |(name, commit): &(String, String)| json!({"name": name, "ref": format!("refs/heads/{name}"), "targetCommit": commit});
    json!({"branches": branches.iter().map(branch).collect::<Vec<_>>(), "tags": [], "converts": []})
}

/// What a client asks of a tree.
#[derive(Debug, Default, Deserialize)]
pub struct TreeQuery {
    /// Whether with all folders below.
    #[serde(default)]
    pub recursive: Option<String>,
    /// Where to go on.
    pub cursor: Option<usize>,
    /// How many entries.
    pub limit: Option<usize>,
}

impl TreeQuery {
    /// Whether with all folders below.
    pub fn is_recursive(&self) -> bool {
        matches!(self.recursive.as_deref(), Some("true" | "True" | "1"))
    }

    /// How many entries a page has.
    pub fn page(&self) -> usize {
        self.limit.unwrap_or(PAGE).clamp(1, MAX_PAGE)
    }
}

/// A page of the entries below a folder, and where the next one begins. `None`: there is no such folder.
pub fn tree(
    tree: &Tree,
    folder: Option<&FilePath>,
    query: &TreeQuery,
) -> Option<(Value, Option<usize>)> {
    let prefix = folder.map_or_else(String::new, |folder| format!("{folder}/"));
    let (mut entries, mut folders) = (BTreeMap::new(), BTreeSet::new());
    for (path, file) in &tree.files {
        let Some(inside) = path.strip_prefix(&prefix) else { continue };
        let mut above = inside.match_indices('/').map(|(at, _)| &path[..prefix.len() + at]);
        match query.is_recursive() {
            true => folders.extend(above),
            false => folders.extend(above.next()),
        }
        if query.is_recursive() || !inside.contains('/') {
            let mut out =
                json!({"type": "file", "oid": file.blob_id, "size": file.size, "path": path});
            if let Some(lfs) = file.lfs("oid") {
                out["lfs"] = lfs;
            }
            entries.insert(path.as_str(), out);
        }
    }
    for path in folders {
        let out = json!({"type": "directory", "oid": FOLDER_ID, "size": 0, "path": path});
        entries.insert(path, out);
    }
    if entries.is_empty() && folder.is_some() {
        return None;
    }
    let (start, page) = (query.cursor.unwrap_or(0).min(entries.len()), query.page());
    let next = start.saturating_add(page);
    let more = (next < entries.len()).then_some(next);
    Some((entries.into_values().skip(start).take(page).collect(), more))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Tree {
        serde_json::from_value(json!({"format_version": 1, "files": {
            "a/b/c.bin": {"size": 9, "blob_id": "1", "lfs_sha256": "2", "lfs_size": 9},
            "a/d": {"size": 3, "blob_id": "3"},
            "e": {"size": 4, "blob_id": "4"},
        }}))
        .unwrap()
    }

    fn paths(query: &TreeQuery, folder: Option<&str>) -> Option<(Vec<String>, Option<usize>)> {
        let folder = folder.map(|path| FilePath::new(path).unwrap());
        let (page, next) = tree(&three(), folder.as_ref(), query)?;
        let path = |entry: &Value| entry["path"].as_str().unwrap().to_owned();
        Some((page.as_array().unwrap().iter().map(path).collect(), next))
    }

    fn query(recursive: bool, cursor: Option<usize>, limit: Option<usize>) -> TreeQuery {
        TreeQuery { recursive: recursive.then(|| "true".to_owned()), cursor, limit }
    }

    #[test]
    fn a_tree_is_listed_by_folders_and_by_pages() {
        let all = ["a", "a/b", "a/b/c.bin", "a/d", "e"].map(str::to_owned).to_vec();
        assert_eq!(paths(&query(true, None, None), None), Some((all.clone(), None)));
        let top = vec!["a".to_owned(), "e".to_owned()];
        assert_eq!(paths(&query(false, None, None), None), Some((top, None)));
        let inside = vec!["a/b".to_owned(), "a/d".to_owned()];
        assert_eq!(paths(&query(false, None, None), Some("a")), Some((inside, None)));
        assert_eq!(paths(&query(false, None, None), Some("x")), None);
        let first = (all[..2].to_vec(), Some(2));
        assert_eq!(paths(&query(true, None, Some(2)), None), Some(first));
        assert_eq!(paths(&query(true, Some(4), Some(2)), None), Some((all[4..].to_vec(), None)));
    }

    #[test]
    fn a_model_has_its_files_and_their_ids_on_request() {
        let id: ModelRef = "o/n".parse().unwrap();
        let plain = model(&id, "c", &three(), false);
        assert_eq!(
            (&plain["sha"], &plain["siblings"][2]),
            (&json!("c"), &json!({"rfilename": "e"}))
        );
        let with = model(&id, "c", &three(), true);
        assert_eq!(with["siblings"][0]["lfs"]["sha256"], "2");
        assert_eq!(with["siblings"][1]["size"], 3);
        let answer = refs(&[("main".into(), "c".into())]);
        assert_eq!(answer["branches"][0]["targetCommit"], "c");
    }
}
