//! Checks that a mount point neither is nor contains a protected folder, and is empty.
//!
//! Invariant: folders are compared by resolved path and by device and inode, which also finds folders
//! that are mounted in two places. A folder that does not answer is compared by path alone. The
//! comparison is pure; looking at a folder uses a thread of its own.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use crate::error::MountError;
use crate::options::{MountOptions, Protected};

/// How long a folder may take to answer `stat`: a local one needs far less, and a hung file system must
/// not block a mount that does not need it.
const ANSWERS: Duration = Duration::from_secs(2);

/// A folder on the path from another one to the root.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    path: PathBuf,
    /// Its device and inode, if it exists.
    id: Option<(u64, u64)>,
}

impl Step {
    fn is(&self, other: &Self) -> bool {
        self.path == other.path || (self.id.is_some() && self.id == other.id)
    }
}

/// The position of a mount point relative to a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    Is,
    Contains,
    LiesIn,
}

/// Checks whether an existing folder may be a mount point.
pub(super) fn check(
    point: &Path,
    found: &Metadata,
    options: &MountOptions,
) -> Result<(), MountError> {
    let wrong = |why: String| MountError::Mountpoint { path: point.to_owned(), why };
    if point.parent().is_none() {
        return Err(wrong("is the root folder: choose another folder".into()));
    }
    if !found.is_dir() {
        return Err(wrong("is not a folder".into()));
    }
    let here = steps(point.to_owned());
    for protected in &options.protected {
        let there = steps_in_time(&protected.path);
        if let Some(why) = why_not(protected, relation(&here, &there)) {
            return Err(wrong(why));
        }
    }
    if std::fs::read_dir(point).is_ok_and(|mut entries| entries.next().is_some()) {
        if !options.allow_non_empty {
            return Err(MountError::NotEmpty { path: point.to_owned() });
        }
        tracing::warn!(path = %point.display(), "the mount point is not empty: what is in it is hidden until the unmount");
    }
    Ok(())
}

fn why_not(protected: &Protected, relation: Option<Relation>) -> Option<String> {
    let Protected { what, path, inside_too } = protected;
    let path = path.display();
    match relation? {
        Relation::Is => Some(format!("is {what}: choose another folder")),
        Relation::Contains => Some(format!("contains {what}, {path}: choose another folder")),
        Relation::LiesIn if *inside_too => {
            Some(format!("lies in {what}, {path}: choose another folder"))
        }
        Relation::LiesIn => None,
    }
}

/// Both slices go from the folder itself up to the root.
fn relation(point: &[Step], folder: &[Step]) -> Option<Relation> {
    let (here, there) = (point.first()?, folder.first()?);
    if here.is(there) {
        Some(Relation::Is)
    } else if folder.iter().any(|step| step.is(here)) {
        Some(Relation::Contains)
    } else if point.iter().any(|step| step.is(there)) {
        Some(Relation::LiesIn)
    } else {
        None
    }
}

/// The path from a folder up to the root.
fn steps(folder: PathBuf) -> Vec<Step> {
    let step = |path: &Path| {
        let id = std::fs::metadata(path).ok().map(|m| (m.dev(), m.ino()));
        Step { path: path.to_owned(), id }
    };
    folder.ancestors().map(step).collect()
}

/// The same with all links resolved, unless that takes too long.
fn steps_in_time(folder: &Path) -> Vec<Step> {
    let (answer, answered) = mpsc::channel();
    let path = folder.to_owned();
    let look = move || answer.send(steps(resolved(&path)));
    let looking = std::thread::Builder::new().name("mount-point".into()).spawn(look);
    let found = looking.ok().and_then(|_| answered.recv_timeout(ANSWERS).ok());
    found.unwrap_or_else(|| {
        let by_name = |path: &Path| Step { path: path.to_owned(), id: None };
        folder.ancestors().map(by_name).collect()
    })
}

/// Resolves links in the part of the path that exists.
fn resolved(path: &Path) -> PathBuf {
    let real = |above: &Path| Some((above.canonicalize().ok()?, path.strip_prefix(above).ok()?));
    match path.ancestors().find_map(|above| Some((above, real(above)?))) {
        // Joining an empty rest would add a slash.
        Some((above, (real, _))) if above == path => real,
        Some((_, (real, rest))) => real.join(rest),
        None => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(path: &str, ids: &[u64]) -> Vec<Step> {
        let id = |n: usize| ids.get(n).map(|inode| (1, *inode));
        let step = |(n, path): (usize, &Path)| Step { path: path.to_owned(), id: id(n) };
        Path::new(path).ancestors().enumerate().map(step).collect()
    }

    #[test]
    fn folders_are_compared_by_path_and_by_inode() {
        let between = |a: &str, b: &str| relation(&way(a, &[]), &way(b, &[]));
        assert_eq!(between("/a/b", "/a/b"), Some(Relation::Is));
        assert_eq!(between("/a", "/a/b/c"), Some(Relation::Contains));
        assert_eq!(between("/a/b/c", "/a"), Some(Relation::LiesIn));
        assert_eq!(between("/a/b", "/a/c"), None);
        assert_eq!(between("/a/b", "/a/bc"), None, "a name is not the beginning of another");
        // Another path to the same folder: /mnt is a second mount of /a.
        let a = way("/a/b", &[3, 2, 1]);
        assert_eq!(relation(&way("/mnt/b", &[3, 2, 1]), &a), Some(Relation::Is));
        assert_eq!(relation(&way("/mnt", &[2, 1]), &a), Some(Relation::Contains));
        assert_eq!(relation(&way("/mnt/b/c", &[4, 3, 2, 1]), &a), Some(Relation::LiesIn));
    }

    #[test]
    fn a_path_that_does_not_exist_yet_is_resolved_up_to_its_last_existing_folder() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        std::os::unix::fs::symlink(&real, real.join("link")).unwrap();
        assert_eq!(resolved(&real.join("link/a/b")), real.join("a/b"));
        assert_eq!(resolved(&real.join("link")), real);
    }

    #[test]
    fn the_home_folder_may_hold_a_mount_point_and_a_cache_may_not() {
        let folder = |inside_too| Protected { what: "it", path: "/x".into(), inside_too };
        assert!(why_not(&folder(false), Some(Relation::LiesIn)).is_none());
        for (inside_too, relation) in
            [(true, Relation::LiesIn), (false, Relation::Is), (false, Relation::Contains)]
        {
            assert!(why_not(&folder(inside_too), Some(relation)).is_some(), "{relation:?}");
        }
        assert!(why_not(&folder(true), None).is_none());
    }
}
