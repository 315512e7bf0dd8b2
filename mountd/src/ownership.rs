//! The owners of a folder and of its parents: the owner of any of them can replace the folder.
//!
//! Invariant: read from the resolved path, at one moment; only what root alone can change is sure to
//! stay as it was found. The judgements are pure; any thread.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::Failure;

/// Write permission for the group and for others.
const WRITABLE: u32 = 0o022;
/// Sticky bit: only the owner of an entry may rename it.
const STICKY: u32 = 0o1000;

/// A folder on the path to the root.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    path: PathBuf,
    uid: u32,
    gid: u32,
    mode: u32,
}

/// A folder, or its nearest existing parent, and all parents of that.
#[derive(Debug)]
pub struct Ownership {
    /// From the folder up to the root.
    steps: Vec<Step>,
    there: bool,
}

impl Ownership {
    /// Reads the owners for the folder at `path`.
    pub fn of(path: &Path) -> Result<Self, Failure> {
        let failed = |at: &Path, e| Failure::storage(at, "looking at the folder", &e);
        let found = path.ancestors().find_map(|above| Some((above, above.canonicalize().ok()?)));
        let (above, real) = found
            .ok_or_else(|| failed(path, std::io::Error::from(std::io::ErrorKind::NotFound)))?;
        let step = |at: &Path| {
            let meta = fs::symlink_metadata(at).map_err(|e| failed(at, e))?;
            let path = at.to_owned();
            Ok(Step { path, uid: meta.uid(), gid: meta.gid(), mode: meta.mode() })
        };
        let steps = real.ancestors().map(step).collect::<Result<_, Failure>>()?;
        Ok(Self { steps, there: above == path })
    }

    /// The folder's own user and group, if it exists.
    pub fn owner(&self) -> Option<(u32, u32)> {
        self.steps.first().filter(|_| self.there).map(|step| (step.uid, step.gid))
    }

    /// The user and group of the nearest folder that is not root's, starting with the folder itself.
    pub fn nearest_user(&self) -> Option<(u32, u32)> {
        self.steps.iter().find(|step| step.uid != 0).map(|step| (step.uid, step.gid))
    }

    /// The topmost folder that users other than root can change or replace.
    pub fn changeable(&self) -> Option<&Path> {
        let is = |(n, step): &(usize, &Step)| {
            // The sticky bit does not protect the folder itself: others can still add entries.
            let sticky = step.mode & STICKY != 0 && !(self.there && *n == 0);
            step.uid != 0 || (step.mode & WRITABLE != 0 && !sticky)
        };
        self.steps.iter().enumerate().rev().find(is).map(|(_, step)| &*step.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(there: bool, steps: &[(&str, u32, u32)]) -> Ownership {
        let step = |(path, uid, mode): &(&str, u32, u32)| Step {
            path: path.into(),
            uid: *uid,
            gid: *uid,
            mode: *mode,
        };
        Ownership { steps: steps.iter().map(step).collect(), there }
    }

    #[test]
    fn only_files_that_root_alone_can_change_count_as_roots() {
        let above = [("/srv", 0, 0o755), ("/", 0, 0o755)];
        let with = |uid, mode| of(true, &[&[("/srv/c", uid, mode)][..], &above].concat());
        let changeable = |o: &Ownership| o.changeable().map(Path::to_owned);
        assert_eq!(changeable(&with(0, 0o700)), None);
        for mode in [0o777, 0o770, 0o1777] {
            assert_eq!(changeable(&with(0, mode)), Some("/srv/c".into()), "{mode:o}");
        }
        assert_eq!(changeable(&with(7, 0o700)), Some("/srv/c".into()));
        let in_home = of(true, &[("/h/a/c", 0, 0o700), ("/h/a", 7, 0o755), ("/h", 0, 0o755)]);
        assert_eq!(changeable(&in_home), Some("/h/a".into()));
        // In /tmp other users cannot rename root's folders.
        let temporary = of(true, &[("/tmp/c", 0, 0o700), ("/tmp", 0, 0o1777), ("/", 0, 0o755)]);
        assert_eq!(changeable(&temporary), None);
        let to_be_made = of(false, &[("/tmp", 0, 0o1777), ("/", 0, 0o755)]);
        assert_eq!(changeable(&to_be_made), None);
        let anybodys = of(false, &[("/data", 0, 0o777), ("/", 0, 0o755)]);
        assert_eq!(changeable(&anybodys), Some("/data".into()));
    }

    #[test]
    fn the_owner_of_the_nearest_existing_folder_counts() {
        let theirs = of(true, &[("/h/a/c", 8, 0o700), ("/h/a", 7, 0o755), ("/h", 0, 0o755)]);
        assert_eq!((theirs.owner(), theirs.nearest_user()), (Some((8, 8)), Some((8, 8))));
        let roots = of(true, &[("/h/a/c", 0, 0o700), ("/h/a", 7, 0o755), ("/h", 0, 0o755)]);
        assert_eq!((roots.owner(), roots.nearest_user()), (Some((0, 0)), Some((7, 7))));
        let missing = of(false, &[("/h/a", 7, 0o755), ("/h", 0, 0o755)]);
        assert_eq!((missing.owner(), missing.nearest_user()), (None, Some((7, 7))));
        assert_eq!(of(false, &[("/", 0, 0o755)]).nearest_user(), None);
    }

    #[test]
    fn links_are_resolved_before_paths_are_checked() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        fs::create_dir(real.join("c")).unwrap();
        std::os::unix::fs::symlink(real.join("c"), real.join("link")).unwrap();
        let through = Ownership::of(&real.join("link")).unwrap();
        assert_eq!(through.steps[0].path, real.join("c"));
        assert!(through.owner().is_some());
        let later = Ownership::of(&real.join("link/a/b")).unwrap();
        assert_eq!((later.steps[0].path.clone(), later.owner()), (real.join("c"), None));
    }
}
