//! What a request to the Hub's interface asks for. Pure.

use axum::http::Method;
use modelfs::model::{FilePath, ModelRef, Name};
use modelfs::vfs::DEFAULT_REF;
use percent_encoding::percent_decode_str;

/// A request that is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// What is known of a model at a revision.
    Model(ModelRef, String),
    /// The files of a revision, below a folder.
    Tree(ModelRef, String, Option<FilePath>),
    /// The branches of a model.
    Refs(ModelRef),
    /// A file.
    File(ModelRef, String, FilePath),
}

/// Why a request is none of those.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAsked {
    /// It would change something.
    Method,
    /// It is about nothing that a mount has.
    Path,
}

impl Asked {
    /// Reads the method and the path, as they came.
    pub fn of(method: &Method, path: &str) -> Result<Self, NotAsked> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return Err(NotAsked::Method);
        }
        let decoded =
            |part| percent_decode_str(part).decode_utf8().ok().map(|text| text.to_string());
        let parts: Option<Vec<String>> = path.split('/').skip(1).map(decoded).collect();
        let parts = parts.ok_or(NotAsked::Path)?;
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        Self::of_parts(&parts).ok_or(NotAsked::Path)
    }

    fn of_parts(parts: &[&str]) -> Option<Self> {
        let (in_api, parts) = match parts {
            ["api", "models", rest @ ..] => (true, rest),
            rest => (false, rest),
        };
        let [group, model, rest @ ..] = parts else { return None };
        let name = |text| Name::new(text).ok();
        let model = ModelRef { group: name(group)?, model: name(model)? };
        let file = |rest: &[&str]| FilePath::new(rest.join("/").trim_end_matches('/')).ok();
        Some(match (in_api, rest) {
            (true, []) => Self::Model(model, DEFAULT_REF.to_owned()),
            (true, ["revision", revision]) => Self::Model(model, (*revision).to_owned()),
            (true, ["refs"]) => Self::Refs(model),
            (true, ["tree", revision] | ["tree", revision, ""]) => {
                Self::Tree(model, (*revision).to_owned(), None)
            }
            (true, ["tree", revision, rest @ ..]) => {
                Self::Tree(model, (*revision).to_owned(), Some(file(rest)?))
            }
            (false, ["resolve", revision, rest @ ..]) => {
                Self::File(model, (*revision).to_owned(), file(rest)?)
            }
            _ => return None,
        })
    }
}

/// The bytes that a `Range` header asks of a file: start and end. `None`: the whole file, since there is no
/// header, or one that may be ignored. An error: none of its bytes exist.
pub fn range(header: Option<&str>, len: u64) -> Result<Option<(u64, u64)>, ()> {
    let Some(bytes) = header.and_then(|header| header.strip_prefix("bytes=")) else {
        return Ok(None);
    };
    let Some((first, last)) = bytes.split_once('-') else { return Ok(None) };
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let (start, end) = match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => (first, last.saturating_add(1).min(len)),
        (Some(first), None) if last.is_empty() => (first, len),
        (None, Some(suffix)) if first.is_empty() => (len.saturating_sub(suffix), len),
        _ => return Ok(None),
    };
    if start < end { Ok(Some((start, end))) } else { Err(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(path: &str) -> Result<Asked, NotAsked> {
        Asked::of(&Method::GET, path)
    }

    #[test]
    fn the_requests_of_the_hubs_clients() {
        let model = || "org/net".parse().unwrap();
        let file = |path: &str| FilePath::new(path).unwrap();
        let main = || "main".to_owned();
        for (path, asked) in [
            ("/api/models/org/net", Asked::Model(model(), main())),
            ("/api/models/org/net/revision/main", Asked::Model(model(), main())),
            (
                "/api/models/org/net/revision/refs%2Fpr%2F1",
                Asked::Model(model(), "refs/pr/1".into()),
            ),
            ("/api/models/org/net/refs", Asked::Refs(model())),
            ("/api/models/org/net/tree/main", Asked::Tree(model(), main(), None)),
            ("/api/models/org/net/tree/main/a/b", Asked::Tree(model(), main(), Some(file("a/b")))),
            ("/org/net/resolve/main/a/b.bin", Asked::File(model(), main(), file("a/b.bin"))),
            ("/org/net/resolve/v1/a%20b", Asked::File(model(), "v1".into(), file("a b"))),
        ] {
            assert_eq!(get(path), Ok(asked), "{path}");
        }
    }

    #[test]
    fn what_a_mount_does_not_have_is_not_answered() {
        for path in [
            "/",
            "/api/models",
            "/api/datasets/o/n",
            "/gpt2/resolve/main/x",
            "/o/n/resolve/main/",
            "/o/n/resolve/main/..%2Fx",
            "/o/n/resolve/main/%ff",
            "/api/models/o/n/commits/main",
        ] {
            assert_eq!(get(path), Err(NotAsked::Path), "{path}");
        }
        assert_eq!(Asked::of(&Method::POST, "/api/models/o/n"), Err(NotAsked::Method));
    }

    #[test]
    fn ranges_of_a_file() {
        for (header, wanted) in [
            ("bytes=0-9", Ok(Some((0, 10)))),
            ("bytes=90-", Ok(Some((90, 100)))),
            ("bytes=-10", Ok(Some((90, 100)))),
            ("bytes=-1000", Ok(Some((0, 100)))),
            ("bytes=50-1000", Ok(Some((50, 100)))),
            ("bytes=100-", Err(())),
            ("bytes=-0", Err(())),
            ("bytes=9-3", Ok(None)),
            ("bytes=0-1,5-6", Ok(None)),
            ("lines=1-2", Ok(None)),
        ] {
            assert_eq!(range(Some(header), 100), wanted, "{header}");
        }
        assert_eq!(range(None, 100), Ok(None));
    }
}
