//! What publishing takes, gives and complains about.
//!
//! Plain values.

use std::fmt;
use std::path::PathBuf;

use crate::model::{Digest, HashAlgorithm, ManifestError, Name, NameError, VersionRef};
use crate::registry::RegistryError;
use crate::registry::transport::BeneathError;

/// The usual bytes of a chunk: one request of a tenth of a second on a fast line.
pub const CHUNK_SIZE: u64 = 10 << 20;
/// The usual bytes of a leaf: what the kernel reads ahead at a time.
pub const LEAF_SIZE: u64 = 128 << 10;
/// The most bytes of a chunk: it is hashed in memory, and without leaves it is read so, too.
pub const MAX_CHUNK: u64 = 64 << 20;

/// What to publish, and how.
#[derive(Debug, Clone)]
pub struct PublishRequest {
    /// The folder whose files make up the version.
    pub source: PathBuf,
    /// What it is to be called.
    pub version: VersionRef,
    /// The registry's folder; made if it is not there.
    pub registry: PathBuf,
    /// The most bytes of a chunk.
    pub chunk_size: u64,
    /// The bytes of a leaf and what leaves are hashed with; none: chunks are verified as wholes.
    pub leaf: Option<(u64, HashAlgorithm)>,
    /// Chunks of one size that cross files, as the plain format has them.
    pub fixed_chunks: bool,
    /// What the catalog says beside the hash. `published_at` is added if it is not here.
    pub metadata: Vec<(String, String)>,
    /// The version that this one is another name for. It must have the same content.
    pub alias_of: Option<Name>,
    /// Whether a version of the same name and another content is replaced.
    pub replace: bool,
}

impl PublishRequest {
    /// With everything as usual.
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

/// How far publishing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Bytes hashed and, where needed, written.
    pub bytes_done: u64,
    /// The bytes of all files.
    pub bytes_total: u64,
    /// Files that are done.
    pub files_done: u64,
    /// All files.
    pub files_total: u64,
}

/// What was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The SHA-256 of the manifest.
    pub manifest: Digest,
    /// Its files.
    pub files: u64,
    /// The bytes of all files.
    pub bytes: u64,
    /// Its different chunks.
    pub chunks_total: u64,
    /// The chunks that the registry did not have.
    pub chunks_new: u64,
    /// The bytes of those.
    pub bytes_new: u64,
    /// Folders without a file, which the format cannot say.
    pub skipped_empty_folders: Vec<String>,
    /// What housekeeping left there and is never published: see [`super::LEFT_OUT`].
    pub left_out: Vec<String>,
    /// Whether the catalog had this version with this content before, and was left alone.
    pub already_there: bool,
    /// Whether a version of this name with another content was replaced.
    pub replaced: bool,
}

/// One thing in the folder that cannot be published.
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
    /// A name that modelfs or some system cannot have.
    #[error("{0}")]
    Name(#[from] NameError),
    /// Not a name in UTF-8.
    #[error("is not named in UTF-8")]
    NotUtf8,
    /// A link that leaves the folder.
    #[error("is a link that leaves the folder: it leads to {target:?}")]
    Outside {
        /// Where it leads.
        target: PathBuf,
    },
    /// A link to nothing.
    #[error("is a link to nothing: {target:?} does not exist")]
    Dangling {
        /// Where it leads.
        target: PathBuf,
    },
    /// A link that leads back to where it came from.
    #[error("is a link in a circle")]
    Circle,
    /// A fifo, a socket, a device.
    #[error("is neither a file nor a folder")]
    Special,
    /// Another path that is the same where case or Unicode form does not count.
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
    // A screenful; the first ones usually explain the others.
    const MOST: usize = 20;
    let mut out: String = problems.iter().take(MOST).map(|p| format!("\n  {p}")).collect();
    if problems.len() > MOST {
        out += &format!("\n  and {} more", problems.len() - MOST);
    }
    out
}

/// Why nothing was published. The catalog is as it was.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// A request that makes no sense.
    #[error("{0}")]
    Request(String),
    /// Reading or writing failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// Of what.
        path: PathBuf,
        /// How.
        source: std::io::Error,
    },
    /// Something in the registry's folder is not what it must be there.
    #[error("{} {refused}: remove it, then publish again", path.display())]
    Refused {
        /// What.
        path: PathBuf,
        /// Why it is not used.
        refused: BeneathError,
    },
    /// Some things in the folder cannot be published.
    #[error("the folder cannot be published as it is:{}", list(.0))]
    Problems(Vec<Problem>),
    /// The folder has no file.
    #[error("{} has no file to publish", .0.display())]
    Empty(PathBuf),
    /// A file became another while it was read.
    #[error("{} changed while it was being published", .0.display())]
    Changed(PathBuf),
    /// What would be published could not be read.
    #[error("too large to publish: {0}")]
    Limits(#[from] ManifestError),
    /// The registry's catalog is not valid, and is left alone.
    #[error(transparent)]
    Catalog(#[from] RegistryError),
    /// The name is taken.
    #[error(
        "{version} is in the registry with another content ({hash}); replacing it must be asked for"
    )]
    Taken {
        /// Which version.
        version: VersionRef,
        /// The manifest that it has.
        hash: Digest,
    },
    /// The version that another is to be an alias of is not there.
    #[error("{0} is not in the registry, so nothing can be an alias of it")]
    NoTarget(VersionRef),
    /// An alias with a content of its own.
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
