//! Views: layouts of other programs over the files of the tree, below `.views`.
//!
//! Invariant: a view is a mapping from paths to inodes of the tree. It has no state but caches of what it
//! computes, and its files have the inodes of the tree, so that both share the kernel's pages. Folders and
//! documents that only a view has have numbers of their own (`place`).
//! Concurrency: shared; no lock is held while something is computed.

mod huggingface;
mod place;

use std::sync::Arc;

pub use huggingface::{DEFAULT_REF, is_commit, repository_folder};
pub(super) use place::View;

use super::content::Content;
use super::metadata_cache::Ready;
use super::types::{Attr, Entry, Found, Ino, VfsError, stable_folder};
use super::versions::Versions;
use huggingface::HuggingFaceCache;
use place::HfPlace;

/// The folder of all views in the root of the mount. It is opened by name and not listed there.
pub(super) const FOLDER: &str = ".views";
/// The Hugging Face cache in it.
const HUGGING_FACE: &str = "hf";

/// The path of that cache below the mount point: [`FOLDER`] and [`HUGGING_FACE`].
pub const HUB_CACHE: &str = ".views/hf";

/// All views.
pub(super) struct Views {
    huggingface: HuggingFaceCache,
}

impl Views {
    /// The views of these versions.
    pub(super) fn new(versions: Arc<Versions>) -> Self {
        Self { huggingface: HuggingFaceCache::new(versions) }
    }

    /// The entry of a folder with that name.
    pub(super) fn lookup(&self, at: View, name: &str) -> Ready<Found> {
        match at {
            View::Top if name == HUGGING_FACE => {
                let cache = View::HuggingFace(HfPlace::Cache);
                Ok(Found { attr: self.attr(cache)?, keeps: true })
            }
            View::Top => Err(VfsError::NotFound.into()),
            View::HuggingFace(place) => self.huggingface.lookup(place, name),
        }
    }

    /// The attributes for `stat`.
    pub(super) fn attr(&self, at: View) -> Ready<Attr> {
        match at {
            View::Top => Ok(stable_folder(at.encode())),
            View::HuggingFace(place) => self.huggingface.attr(place),
        }
    }

    /// A folder's entries, sorted.
    pub(super) fn list(&self, at: View) -> Ready<Arc<[Entry]>> {
        match at {
            View::Top => {
                let attr = self.attr(View::HuggingFace(HfPlace::Cache))?;
                Ok([Entry { name: HUGGING_FACE.into(), attr, keeps: true }].into())
            }
            View::HuggingFace(place) => self.huggingface.list(place),
        }
    }

    /// What a file consists of.
    pub(super) fn content(&self, at: View) -> Ready<Content> {
        match at {
            View::Top => Err(VfsError::IsFolder.into()),
            View::HuggingFace(place) => self.huggingface.content(place),
        }
    }

    /// The parent folder.
    pub(super) fn parent(&self, at: View) -> Ino {
        match at {
            View::Top => Ino::ROOT,
            View::HuggingFace(HfPlace::Cache) => View::Top.encode(),
            View::HuggingFace(place) => self.huggingface.parent(place),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_the_cache_is_that_of_its_folders() {
        assert_eq!(HUB_CACHE, format!("{FOLDER}/{HUGGING_FACE}"));
    }
}
