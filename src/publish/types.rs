//! The request, the result and the errors of publishing. Plain values.

use std::fmt;
use std::path::PathBuf;

use crate::model::{Digest, HashAlgorithm, ManifestError, Name, NameError, VersionRef};
use crate::registry::RegistryError;
use crate::registry::transport::BeneathError;

/// Default chunk size: one request takes a tenth of a second on a fast line.
pub const CHUNK_SIZE: u64 = 10 << 20;
/// Default leaf size: what the kernel reads ahead at a time.
pub const LEAF_SIZE: u64 = 128 << 10;
/// Maximum chunk size: a chunk is hashed in memory, and without leaves readers hold it in memory, too.
pub const MAX_CHUNK: u64 = 64 << 20;

/// What to publish, and how.
#[derive(Debug, Clone)]
pub struct PublishRequest {
    /// The folder whose files make up the version.
    pub source: PathBuf,
    /// The name of the version.
    pub version: VersionRef,
    /// The folder of the registry; created if it does not exist.
    pub registry: PathBuf,
    /// Maximum chunk size.
    pub chunk_size: u64,
    /// Leaf size and hash algorithm; `None`: chunks are verified as a whole.
    pub leaf: Option<(u64, HashAlgorithm)>,
    /// Whether to use chunks of one size that cross files, as the plain format does.
    pub fixed_chunks: bool,
    /// Metadata of the catalog entry. `published_at` is added if it is missing.
    pub metadata: Vec<(String, String)>,
    /// The version that this one is an alias of. It must have the same content.
    pub alias_of: Option<Name>,
    /// Whether to replace a version of the same name with other content.
    pub replace: bool,
}

impl PublishRequest {
    /// A request with defaults.
    pub fn new(
        source: impl Into<PathBuf>,
        version: VersionRef,
        registry: impl Into<PathBuf>,
    ) -> Self {
        Self {
            source: source.into(),
            version,
            registry: registry.into(),
            chunk_size: CHUNK_SIZE,
            leaf: Some((LEAF_SIZE, HashAlgorithm::Blake3)),
            fixed_chunks: false,
            metadata: Vec::new(),
            alias_of: None,
            replace: false,
        }
    }
}

/// Progress of publishing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Bytes hashed and, where needed, written.
    pub bytes_done: u64,
    /// The bytes of all files.
    pub bytes_total: u64,
    /// Finished files.
    pub files_done: u64,
    /// All files.
    pub files_total: u64,
}

/// What was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The SHA-256 of the manifest.
    pub manifest: Digest,
    /// Number of files.
    pub files: u64,
    /// The bytes of all files.
    pub bytes: u64,
    /// Number of distinct chunks.
    pub chunks_total: u64,
    /// The chunks that the registry did not have.
    pub chunks_new: u64,
    /// Bytes of the new chunks.
    pub bytes_new: u64,
    /// Empty folders, which the format cannot represent.
    pub skipped_empty_folders: Vec<String>,
    /// Files of version control and desktops, which are never published: see [`super::LEFT_OUT`].
    pub left_out: Vec<String>,
    /// Whether the catalog already had this version with this content, and is unchanged.
    pub already_there: bool,
    /// Whether a version of this name with other content was replaced.
    pub replaced: bool,
}

/// A path in the folder that cannot be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Its path in the folder.
    pub path: String,
    /// What is wrong with it.
    pub why: Why,
}

/// Why something cannot be published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// A name that is illegal in modelfs or on some system.
    #[error("{0}")]
    Name(#[from] NameError),
    /// The name is not UTF-8.
    #[error("is not named in UTF-8")]
    NotUtf8,
    /// A link that leaves the folder.
    #[error("is a link that leaves the folder: it leads to {target:?}")]
    Outside {
        /// Where it leads.
        target: PathBuf,
    },
    /// A dangling link.
    #[error("is a link to nothing: {target:?} does not exist")]
    Dangling {
        /// Where it leads.
        target: PathBuf,
    },
    /// A link cycle.
    #[error("is a link in a circle")]
    Circle,
    /// A fifo, a socket, a device.
    #[error("is neither a file nor a folder")]
    Special,
    /// Another path that is equal where case or Unicode form is ignored.
    #[error("is the same as {other:?} where upper and lower case or Unicode forms are one")]
    Clash {
        /// The other path.
        other: String,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' {}", self.path.escape_debug(), self.why)
    }
}

fn list(problems: &[Problem]) -> String {
    // A screenful; the first problems usually explain the others.
    const MOST: usize = 20;
    let mut out: String = problems.iter().take(MOST).map(|p| format!("\n  {p}")).collect();
    if problems.len() > MOST {
        out += &format!("\n  and {} more", problems.len() - MOST);
    }
    out
}

/// Why nothing was published. The catalog is unchanged.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// An invalid request.
    #[error("{0}")]
    Request(String),
    /// Reading or writing failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// An entry of the registry's folder is not of the required kind.
    #[error("{} {refused}: remove it, then publish again", path.display())]
    Refused {
        /// The entry.
        path: PathBuf,
        /// Why it is not used.
        refused: BeneathError,
    },
    /// Some paths in the folder cannot be published.
    #[error("the folder cannot be published as it is:{}", list(.0))]
    Problems(Vec<Problem>),
    /// The folder contains no file.
    #[error("{} has no file to publish", .0.display())]
    Empty(PathBuf),
    /// A file changed while it was read.
    #[error("{} changed while it was being published", .0.display())]
    Changed(PathBuf),
    /// The manifest would exceed the limits of readers.
    #[error("too large to publish: {0}")]
    Limits(#[from] ManifestError),
    /// The registry's catalog is invalid, and is not changed.
    #[error(transparent)]
    Catalog(#[from] RegistryError),
    /// The name exists with other content.
    #[error(
        "{version} is in the registry with another content ({hash}); replacing it must be asked for"
    )]
    Taken {
        /// The version.
        version: VersionRef,
        /// Its manifest.
        hash: Digest,
    },
    /// The target of the alias does not exist.
    #[error("{0} is not in the registry, so nothing can be an alias of it")]
    NoTarget(VersionRef),
    /// An alias with other content than its target.
    #[error("the folder's content is not that of {0}, so it cannot be an alias of it")]
    NotAlias(VersionRef),
}

impl PublishError {
    pub(super) fn beneath(path: impl Into<PathBuf>) -> impl FnOnce(BeneathError) -> Self {
        let path = path.into();
        move |error| match error {
            BeneathError::Io(source) => Self::Io { path, source },
            refused => Self::Refused { path, refused },
        }
    }

    pub(super) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_listed_one_to_a_line_and_escaped() {
        let one = |n: usize| Problem { path: format!("a\n{n}"), why: Why::NotUtf8 };
        let text = PublishError::Problems((0..25).map(one).collect()).to_string();
        assert_eq!(text.lines().count(), 22);
        assert!(text.contains("\n  'a\\n0' is not named in UTF-8\n"), "{text}");
        assert!(text.ends_with("and 5 more"), "{text}");
    }
}
