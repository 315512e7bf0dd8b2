//! The Hub's answers: references of a repository, pages of its tree, one revision. Pure.

use bytes::Bytes;
use reqwest::header::{self, HeaderMap};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::base::text::{MESSAGE, brief};
use crate::registry::error::RegistryError;

/// The references of a repository.
#[derive(Debug, Deserialize)]
pub struct Refs {
    /// Branches.
    #[serde(default)]
    pub branches: Vec<Ref>,
    /// Tags.
    #[serde(default)]
    pub tags: Vec<Ref>,
    /// Conversions that the Hub made, for example to Parquet.
    #[serde(default)]
    pub converts: Vec<Ref>,
}

/// A reference.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ref {
    /// Its short name: a branch's or a tag's.
    pub name: String,
    /// Its whole name: `refs/heads/main`.
    pub r#ref: String,
    /// The commit that it leads to.
    pub target_commit: String,
}

/// What is of interest of a revision.
#[derive(Debug, Deserialize)]
pub struct RevisionInfo {
    /// The commit.
    pub sha: String,
}

/// A file or folder of a tree.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TreeEntry {
    /// `file`, `directory`, or something that cannot be read (a submodule).
    pub r#type: String,
    /// Its path in the repository.
    pub path: String,
    /// Its bytes.
    #[serde(default)]
    pub size: u64,
    /// The id of its git blob.
    pub oid: String,
    /// Where its bytes are, if git has but a pointer to them.
    pub lfs: Option<Lfs>,
    /// The Xet hash of its bytes, if the Hub keeps them so.
    pub xet_hash: Option<String>,
}

/// The pointer of a file to its bytes.
#[derive(Debug, Deserialize)]
pub struct Lfs {
    /// The SHA-256 of its bytes.
    pub oid: String,
}

/// Reads an answer.
pub fn parse<T: DeserializeOwned>(what: &str, body: &Bytes) -> Result<T, RegistryError> {
    serde_json::from_slice(body).map_err(|e| RegistryError::Invalid {
        what: what.to_owned(),
        why: brief(&e.to_string(), MESSAGE),
    })
}

/// The query of the next page, if there is one: `Link: <URL?QUERY>; rel="next"`. The rest of the URL is
/// the server's word for where this page came from, and is not needed.
pub fn next_page(what: &str, headers: &HeaderMap) -> Result<Option<String>, RegistryError> {
    let links = headers.get_all(header::LINK).iter().filter_map(|v| v.to_str().ok());
    for link in links.flat_map(|links| links.split(",").map(str::trim)) {
        let Some((url, parameters)) = link.strip_prefix('<').and_then(|l| l.split_once('>')) else {
            continue;
        };
        let next = |p: &str| matches!(p.trim(), "rel=\"next\"" | "rel=next");
        if parameters.split(';').any(next) {
            let query = url.split_once('?').map(|(_, query)| query.to_owned());
            return query.map(Some).ok_or_else(|| RegistryError::Invalid {
                what: what.to_owned(),
                why: "the link to the next page has no query".into(),
            });
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found_among_links() {
        let next = |link: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::LINK, link.parse().unwrap());
            next_page("x", &headers)
        };
        let one = "<https://hub/api/models/o/n/tree/c?recursive=true&cursor=Zm9v%3D>; rel=\"next\"";
        assert_eq!(next(one).unwrap().as_deref(), Some("recursive=true&cursor=Zm9v%3D"));
        assert_eq!(next("<https://h/?a>; rel=\"prev\"").unwrap(), None);
        assert_eq!(next("<h?a>; rel=prev, <h?b>; rel=next").unwrap().as_deref(), Some("b"));
        assert_eq!(next("nonsense").unwrap(), None);
        assert!(next("<https://h/x>; rel=\"next\"").is_err());
        assert_eq!(next_page("x", &HeaderMap::new()).unwrap(), None);
    }

    #[test]
    fn a_tree_is_read_with_what_it_may_lack() {
        let body = Bytes::from_static(
            br#"[{"type":"directory","oid":"ab","size":0,"path":"sub"},
                 {"type":"file","oid":"cd","size":7,"path":"sub/x","lfs":{"oid":"ef","size":7,
                  "pointerSize":3},"xetHash":"12","more":1}]"#,
        );
        let entries: Vec<TreeEntry> = parse("tree", &body).unwrap();
        assert_eq!((entries[0].r#type.as_str(), entries[0].lfs.is_none()), ("directory", true));
        assert_eq!(entries[1].lfs.as_ref().unwrap().oid, "ef");
        assert_eq!(entries[1].xet_hash.as_deref(), Some("12"));
        let error = parse::<Vec<TreeEntry>>("tree", &Bytes::from_static(b"<html>")).unwrap_err();
        assert!(matches!(error, RegistryError::Invalid { .. }), "{error}");
    }
}
