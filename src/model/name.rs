//! Names and paths from a registry: which are rejected, and why.
//!
//! Two rules: what is *read* must be safe on this system; what is *published* must also be storable on
//! every system ([`FilePath::portable`]). Pure values.

use std::fmt;

/// Maximum length of the name of a file or folder in bytes: the limit of ext4, XFS, APFS and NTFS.
pub const MAX_NAME: usize = 255;
/// Maximum length of a file's path within its version: leaves room in Linux's PATH_MAX for the mount
/// point.
pub const MAX_PATH: usize = 3072;
/// Maximum folder depth within a version; real models have two or three.
pub const MAX_DEPTH: usize = 64;
/// The folder of each version that is reserved for modelfs.
pub const RESERVED: &str = ".modelfs";

/// What is wrong with a name or path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty, or empty between two slashes.
    #[error("is empty or has an empty part")]
    Empty,
    /// `.` or `..`.
    #[error("has a part '.' or '..'")]
    Dots,
    /// Starts with a slash.
    #[error("is absolute")]
    Absolute,
    /// A backslash, or a slash where one name is expected.
    #[error("has a backslash or a slash where none may be")]
    Separator,
    /// A control character such as NUL or line feed.
    #[error("has a control character")]
    Control,
    /// Over [`MAX_NAME`], [`MAX_PATH`] or [`MAX_DEPTH`].
    #[error("is too long or too deep (255 bytes a name, 3072 a path, 64 levels)")]
    TooLong,
    /// Lies in the reserved folder `.modelfs`.
    #[error("lies in '.modelfs', which modelfs keeps for itself")]
    Reserved,
    /// Some system cannot store it.
    #[error(
        "cannot be stored on Windows (one of <>:\"|?*, a trailing dot or space, or a device name)"
    )]
    NotPortable,
}

/// One name: of a group, a model or a version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<str>);

/// The path of a file within its version: relative, normal, parts joined by `/`.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(try_from = "Box<str>", into = "Box<str>")]
pub struct FilePath(Box<str>);

impl TryFrom<Box<str>> for FilePath {
    type Error = NameError;

    fn try_from(text: Box<str>) -> Result<Self, NameError> {
        Self::new(&text)
    }
}

impl From<FilePath> for Box<str> {
    fn from(path: FilePath) -> Self {
        path.0
    }
}

fn check_part(part: &str) -> Result<(), NameError> {
    if part.is_empty() {
        return Err(NameError::Empty);
    }
    if part == "." || part == ".." {
        return Err(NameError::Dots);
    }
    if part.len() > MAX_NAME {
        return Err(NameError::TooLong);
    }
    if part.contains('\\') {
        return Err(NameError::Separator);
    }
    if part.chars().any(char::is_control) {
        return Err(NameError::Control);
    }
    Ok(())
}

impl Name {
    /// Checks a name.
    pub fn new(text: &str) -> Result<Self, NameError> {
        if text.contains('/') {
            return Err(NameError::Separator);
        }
        check_part(text)?;
        Ok(Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether every system could store a folder of this name.
    pub fn portable(&self) -> Result<(), NameError> {
        portable_part(&self.0)
    }
}

impl FilePath {
    /// Checks a path.
    pub fn new(text: &str) -> Result<Self, NameError> {
        if text.starts_with('/') {
            return Err(NameError::Absolute);
        }
        if text.len() > MAX_PATH || text.split('/').count() > MAX_DEPTH {
            return Err(NameError::TooLong);
        }
        text.split('/').try_for_each(check_part)?;
        if text.split('/').next() == Some(RESERVED) {
            return Err(NameError::Reserved);
        }
        Ok(Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether every system could store a file at this path.
    pub fn portable(&self) -> Result<(), NameError> {
        self.0.split('/').try_for_each(portable_part)
    }
}

fn portable_part(part: &str) -> Result<(), NameError> {
    let stem = part.split('.').next().unwrap_or(part).trim_end().to_ascii_uppercase();
    let numbered = |prefix: &str| {
        stem.strip_prefix(prefix).is_some_and(|n| n.len() == 1 && n.as_bytes()[0].is_ascii_digit())
    };
    let device = matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL")
        || numbered("COM")
        || numbered("LPT");
    if device || part.contains(['<', '>', ':', '"', '|', '?', '*']) || part.ends_with(['.', ' ']) {
        return Err(NameError::NotPortable);
    }
    Ok(())
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_a_registry_may_not_give() {
        use NameError::*;
        let long = "x".repeat(256);
        let deep = ["d"; MAX_DEPTH + 1].join("/");
        for (path, why) in [
            ("", Empty),
            ("a//b", Empty),
            ("a/", Empty),
            ("/etc/passwd", Absolute),
            ("../x", Dots),
            ("a/../b", Dots),
            ("a/./b", Dots),
            ("a\\b", Separator),
            ("a\0b", Control),
            ("a\nb", Control),
            ("a\u{9b}b", Control),
            (long.as_str(), TooLong),
            (deep.as_str(), TooLong),
            (".modelfs/manifest.json", Reserved),
            (".modelfs", Reserved),
        ] {
            assert_eq!(FilePath::new(path), Err(why), "{path:?}");
        }
        for path in ["config.json", "1_Pooling/config.json", ".gitattributes", "a/.modelfs", "ünï"]
        {
            assert_eq!(FilePath::new(path).unwrap().as_str(), path);
        }
        assert_eq!(Name::new("a/b"), Err(Separator));
        assert_eq!(Name::new(".."), Err(Dots));
    }

    #[test]
    fn paths_that_not_every_system_can_store() {
        for path in ["a:b", "con", "x/NUL.txt", "com1.bin", "a.", "a ", "what?", "LPT9"] {
            let path = FilePath::new(path).unwrap();
            assert_eq!(path.portable(), Err(NameError::NotPortable), "{path}");
        }
        for path in ["console", "com10", "a.b.c", "model-00001-of-00002.safetensors"] {
            assert_eq!(FilePath::new(path).unwrap().portable(), Ok(()));
        }
    }
}
