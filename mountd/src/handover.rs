//! Whose the cache is: root gives it to the user who is to work on it, and takes nothing else along.
//!
//! Invariant: once the folder and its lock are somebody's, so is all that root had left there; both
//! change hands last, so a hand-over that was cut short is done again. Only files and folders of
//! root's change hands, by their descriptors: no link is followed, and a file that has another name
//! stays, since that name may lie anywhere. What would fail is found before anything is changed. One
//! process at a time, which holds the store's lock.

use std::fs::DirBuilder;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use modelfs::store::{Store, StoreError, StoreLock};
use rustix::fs::{Access, AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use crate::error::{Failure, Kind};
use crate::identity::{Identity, User};

/// How deep a cache goes: `blobs/xx/key`. What lies deeper is not ours.
const DEPTH: u32 = 3;

/// What is read first of a registry's folder.
const CATALOG: &str = "models.json";

/// Certificates that the user brought.
pub const CERTIFICATES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// Folders that others must be able to pass who are to come to one that we make below.
const PASSABLE: u32 = 0o711;

/// Takes the lock of the store at `root`, which is made, for a worker of this identity, which is also
/// to read the registry's folder. Everything is theirs then.
pub fn take(
    root: &Path,
    identity: &Identity,
    registry: Option<&Path>,
) -> Result<StoreLock, Failure> {
    if rustix::process::geteuid().is_root() {
        if let Identity::Other(user) = identity {
            if let Ok(meta) = std::fs::metadata(root)
                && meta.uid() != 0
                && meta.uid() != user.uid
            {
                return Err(belongs(root, meta.uid(), user));
            }
            make_way(root)?;
        }
        reachable(root, identity)?;
        readable(identity, registry)?;
    }
    let lock = Store::lock(root)?;
    settle(root, &lock, identity)?;
    Ok(lock)
}

/// Why [`take_as_owner`] failed.
pub enum TakeError {
    /// The store; perhaps only for the moment.
    Store(StoreError),
    /// Anything else.
    Failed(Failure),
}

impl From<StoreError> for TakeError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Failure> for TakeError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// As [`take`], where root works on a cache without a daemon: it becomes the folder's owner, so that
/// nothing of root's is left there, and nothing that the owner put there misleads root.
pub fn take_as_owner(root: &Path, registry: Option<&Path>) -> Result<StoreLock, TakeError> {
    let owner = std::fs::metadata(root).ok().filter(|m| m.uid() != 0);
    let (true, Some(owner)) = (rustix::process::geteuid().is_root(), owner) else {
        return Ok(Store::lock(root)?);
    };
    let user = User::of_folder(owner.uid(), owner.gid())?;
    let identity = Identity::Other(user.clone());
    reachable(root, &identity)?;
    readable(&identity, registry)?;
    // As root, so that one that is held can be waited for, and its daemon be asked.
    let lock = Store::lock(root)?;
    settle(root, &lock, &identity)?;
    user.assume()?;
    Ok(lock)
}

/// Sees to it that all is theirs, at the cost of two looks if it is.
pub fn settle(root: &Path, lock: &StoreLock, identity: &Identity) -> Result<(), Failure> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let failed = |e: Errno| Failure::storage(root, "giving the cache to its user", &e.into());
    let lock = lock.share()?;
    let lock_owner = rustix::fs::fstat(&lock).map_err(failed)?.st_uid;
    let user = match identity {
        Identity::Other(user) => user,
        // Root's files are about to come: who is next to have it looks through all of it.
        Identity::Kept if lock_owner != 0 => {
            return rustix::fs::fchown(&lock, Some(Uid::ROOT), Some(Gid::ROOT)).map_err(failed);
        }
        Identity::Kept | Identity::Bare => return Ok(()),
    };
    let folder = open_folder(CWD, root).map_err(failed)?;
    let stat = rustix::fs::fstat(&folder).map_err(failed)?;
    if stat.st_uid == user.uid && lock_owner == user.uid {
        return Ok(());
    }
    // Neither root's nor theirs by now: what lies there is none of ours to give.
    if stat.st_uid != 0 && stat.st_uid != user.uid {
        return Err(belongs(root, stat.st_uid, user));
    }
    let mut hand = Hand { user, device: stat.st_dev, kept: 0 };
    hand.content(&folder, DEPTH).map_err(failed)?;
    // Before those two: else a power cut could keep the last step and lose one before it.
    rustix::fs::syncfs(&folder).map_err(failed)?;
    let (uid, gid) = hand.owner();
    rustix::fs::fchown(&folder, uid, gid).map_err(failed)?;
    rustix::fs::fchown(&lock, uid, gid).map_err(failed)?;
    if hand.kept > 0 {
        let (kept, at) = (hand.kept, root.display());
        tracing::warn!("{at}: {kept} files of root's have other names too and stay root's");
    }
    tracing::info!(user = user.name, cache = %root.display(), "the cache is this user's now");
    Ok(())
}

fn belongs(root: &Path, owner: u32, but: &User) -> Failure {
    let name = User::find(&owner.to_string()).ok().flatten();
    let name = name.map_or_else(|| owner.to_string(), |user| user.name);
    let (root, but) = (root.display(), &but.name);
    Failure::new(Kind::Storage, format!("{root}: the cache belongs to {name}, not to {but}"))
        .hint(format!("give another with --cache-dir, or --worker-user {name}"))
}

/// Makes the folders above, so that another user can come through: a store closes those it makes.
fn make_way(root: &Path) -> Result<(), Failure> {
    let missing: Vec<_> = root.ancestors().skip(1).take_while(|path| !path.exists()).collect();
    for path in missing.into_iter().rev() {
        let open = std::fs::Permissions::from_mode(PASSABLE);
        let made = DirBuilder::new().mode(PASSABLE).create(path);
        // Whatever the umask says.
        made.and_then(|()| std::fs::set_permissions(path, open))
            .map_err(|e| Failure::storage(path, "making the folder", &e))?;
    }
    Ok(())
}

/// Makes sure that they can come to the cache at `root`. A folder of root's is theirs soon.
pub fn reachable(root: &Path, identity: &Identity) -> Result<(), Failure> {
    let all = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
    let own = matches!(identity, Identity::Bare).then_some((root, all));
    let Some(closed) = first_closed(root.parent().unwrap_or(root), own, identity)? else {
        return Ok(());
    };
    Err(closed_to(Kind::Storage, &closed, identity, "the cache", root).hint(
        "give a cache that it may enter (--cache-dir), open this one (chmod o+x), or mount with --keep-privileges",
    ))
}

/// Makes sure that they can read what they need beside the cache.
fn readable(identity: &Identity, registry: Option<&Path>) -> Result<(), Failure> {
    let brought = CERTIFICATES.iter().filter_map(|name| Some((*name, std::env::var_os(name)?)));
    let brought = brought.map(|(name, path)| (name, PathBuf::from(path), Kind::Storage));
    let registry = registry.map(|folder| ("the registry", folder.join(CATALOG), Kind::Network));
    for (what, path, kind) in brought.chain(registry) {
        let above = path.parent().unwrap_or(&path);
        let closed = first_closed(above, Some((&path, Access::READ_OK)), identity)?;
        if let Some(closed) = closed {
            return Err(closed_to(kind, &closed, identity, what, &path).hint(
                "open it to that user (chmod o+x, for a file o+r), or mount with --keep-privileges",
            ));
        }
    }
    Ok(())
}

/// The first folder from the top that they may not pass, or the last thing if they may not use it.
fn first_closed(
    folder: &Path,
    last: Option<(&Path, Access)>,
    identity: &Identity,
) -> Result<Option<PathBuf>, Failure> {
    let mut way: Vec<_> = folder.ancestors().map(|path| (path, Access::EXEC_OK)).collect();
    way.reverse();
    way.extend(last);
    // What is not there, or not to be had for other reasons, is for the worker to tell.
    let closed = |(path, how): &(&Path, Access)| {
        matches!(rustix::fs::access(*path, *how), Err(Errno::ACCESS | Errno::PERM))
    };
    let found = identity.look(|| way.iter().copied().find(closed))?;
    Ok(found.map(|(path, _)| path.to_owned()))
}

fn closed_to(kind: Kind, closed: &Path, who: &Identity, what: &str, path: &Path) -> Failure {
    let (at, who) = (closed.display(), who.shown());
    let message = match closed == path {
        true => format!("{at}: {what} is closed to {who}"),
        false => format!("{at}: closed to {who}, on the way to {what} ({})", path.display()),
    };
    Failure::new(kind, message)
}

fn open_folder<Fd: AsFd>(at: Fd, name: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, name, flags, Mode::empty())
}

/// A hand-over under way.
struct Hand<'a> {
    user: &'a User,
    /// What is mounted below is not the cache's.
    device: u64,
    /// Files that have other names.
    kept: u64,
}

impl Hand<'_> {
    fn owner(&self) -> (Option<Uid>, Option<Gid>) {
        (Some(Uid::from_raw(self.user.uid)), Some(Gid::from_raw(self.user.gid)))
    }

    fn content(&mut self, folder: &OwnedFd, depth: u32) -> Result<(), Errno> {
        for entry in Dir::read_from(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." || name == c"lock" {
                continue;
            }
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = match rustix::fs::openat(folder, name, flags, Mode::empty()) {
                Ok(file) => file,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error),
            };
            let stat = rustix::fs::fstat(&file)?;
            if stat.st_dev != self.device {
                continue;
            }
            match FileType::from_raw_mode(stat.st_mode) {
                // One that is theirs already may hold what is root's.
                FileType::Directory
                    if depth > 1 && (stat.st_uid == 0 || stat.st_uid == self.user.uid) =>
                {
                    self.content(&open_folder(&file, c".")?, depth - 1)?;
                }
                FileType::RegularFile if stat.st_uid == 0 && stat.st_nlink > 1 => {
                    self.kept += 1;
                    continue;
                }
                FileType::RegularFile | FileType::Directory => {}
                _ => continue,
            }
            if stat.st_uid == 0 {
                let (uid, gid) = self.owner();
                rustix::fs::chownat(&file, c"", uid, gid, AtFlags::EMPTY_PATH)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::chown;

    const THEIRS: u32 = 12_345;

    fn owner(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().uid()
    }

    #[test]
    fn one_that_was_cut_short_is_finished_and_a_finished_one_is_left_alone() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("cache");
        let (shelf, deep) = (root.join("blobs/aa"), root.join("blobs/aa/b/c"));
        fs::create_dir_all(&deep).unwrap();
        for file in [&shelf.join("done"), &shelf.join("left"), &deep.join("not ours")] {
            fs::write(file, "x").unwrap();
        }
        // What comes first was theirs already.
        for done in [&root.join("blobs"), &shelf, &shelf.join("done")] {
            chown(done, Some(THEIRS), Some(THEIRS)).unwrap();
        }
        let lock = Store::lock(&root).unwrap();
        let user = User::of_folder(THEIRS, THEIRS).unwrap();
        let theirs = Identity::Other(user);
        settle(&root, &lock, &theirs).unwrap();
        for path in [&root, &root.join("lock"), &shelf, &shelf.join("done"), &shelf.join("left")] {
            assert_eq!(owner(path), THEIRS, "{}", path.display());
        }
        assert_eq!(owner(&deep.join("not ours")), 0, "a store does not go so deep");

        fs::write(shelf.join("later"), "x").unwrap();
        settle(&root, &lock, &theirs).unwrap();
        assert_eq!(owner(&shelf.join("later")), 0, "nothing is looked through twice");
        settle(&root, &lock, &Identity::Kept).unwrap();
        assert_eq!((owner(&root), owner(&root.join("lock"))), (THEIRS, 0));
        settle(&root, &lock, &theirs).unwrap();
        assert_eq!(owner(&shelf.join("later")), THEIRS, "root's files may have come meanwhile");
    }
}
