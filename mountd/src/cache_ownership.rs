//! Ownership of the cache. Root works on another user's cache as that user; a cache that belonged to
//! root alone changes its owner once.
//!
//! Invariant: in a folder of another user, root touches nothing as root: that user controls its
//! content. Root's files are given away only if no other user can change the folder or a parent; an
//! empty folder may be anywhere. The folder itself changes its owner last, so that an interrupted
//! change is repeated. Only root's files and folders change their owner, by descriptor: no link is
//! followed, and a file with several hard links stays root's, since another link may be anywhere.
//! Checks that can fail come before any change. Concurrency: one process at a time, which holds the
//! store's lock.

use std::fs::DirBuilder;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use modelfs::store::{Holder, Store, StoreError, StoreLock};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use crate::error::{Failure, Kind};
use crate::identity::{Identity, User};
use crate::ownership::Ownership;
use crate::reach::{reachable, readable};

/// The depth of a cache: `blobs/xx/key`. Deeper entries are not ours.
const DEPTH: u32 = 3;

/// The mode of parent folders that we make: other users must be able to traverse them.
const PASSABLE: u32 = 0o711;

/// Takes the lock of the store at `root`, which is created if missing, for a worker of this identity;
/// the worker must also be able to read the folders of registries. Afterwards the cache is the worker's.
pub fn take(
    root: &Path,
    identity: &Identity,
    registries: &[PathBuf],
) -> Result<StoreLock, Failure> {
    if !rustix::process::geteuid().is_root() {
        return Ok(Store::lock(root)?);
    }
    let found = Ownership::of(root)?;
    let Identity::Other(user) = identity else {
        // Root itself is to work there: only if no other user controls the folder.
        match (found.owner(), found.nearest_user()) {
            (Some((uid, _)), _) if uid != 0 => return Err(cache_of_other_user(root, uid, "root")),
            (_, Some((uid, _))) => return Err(parent_folder_of_other_user(root, uid)),
            (_, None) => {}
        }
        reachable(root, identity)?;
        readable(identity, registries)?;
        return Ok(Store::lock(root)?);
    };
    if let Some((uid, _)) = found.owner().filter(|(uid, _)| *uid != 0 && *uid != user.uid) {
        return Err(cache_of_other_user(root, uid, &user.name));
    }
    let roots = found.owner().map_or(found.nearest_user().is_none(), |(uid, _)| uid == 0);
    if roots {
        make_parents_traversable(root)?;
    }
    reachable(root, identity)?;
    readable(identity, registries)?;
    if roots {
        change_owner(root, user)
    } else {
        lock_as(root, user)?.map_err(|error| cache_not_usable_by(root, user, error))
    }
}

/// Takes the lock again, if `root` is no longer the folder that was locked. A folder that was emptied
/// is used again.
pub fn keep(
    root: &Path,
    lock: &StoreLock,
    identity: &Identity,
) -> Result<Option<StoreLock>, Failure> {
    let ours = || root.exists() && lock.still_ours();
    let ours = match identity {
        Identity::Other(_) => identity.look(ours)?,
        Identity::Kept | Identity::Bare => ours(),
    };
    if ours { Ok(None) } else { take(root, identity, &[]).map(Some) }
}

/// Why [`take_as_owner`] failed.
pub enum TakeError {
    /// An error of the store, perhaps a temporary one.
    Store(StoreError),
    /// Any other error.
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

/// The user as which root works on the cache at `root`; none: the current user.
fn owner(root: &Path) -> Result<Option<User>, Failure> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let Some((uid, gid)) = Ownership::of(root)?.nearest_user() else { return Ok(None) };
    User::of_folder(uid, gid).map(Some)
}

/// Like [`take`], where root works on a cache without a daemon. Root becomes the folder's owner before
/// it touches anything there: it leaves no file of root's behind, and the owner's files cannot mislead
/// root.
pub fn take_as_owner(root: &Path, registries: &[PathBuf]) -> Result<StoreLock, TakeError> {
    let Some(user) = owner(root)? else { return Ok(Store::lock(root)?) };
    let identity = Identity::Other(user.clone());
    reachable(root, &identity)?;
    readable(&identity, registries)?;
    // First on one thread only: if the lock is held, the process stays root and can wait or ask its daemon.
    let lock = lock_as(root, &user)?.map_err(|error| match error {
        StoreError::Locked { .. } => TakeError::Store(error),
        error => cache_not_usable_by(root, &user, error).into(),
    })?;
    user.assume()?;
    Ok(lock)
}

/// Whether [`take_as_owner`] makes this process another user.
pub fn makes_another(root: &Path) -> Result<bool, Failure> {
    Ok(owner(root)?.is_some())
}

/// The holder of the store at `root`, read as the folder's owner.
pub fn holder(root: &Path) -> Result<Option<Holder>, Failure> {
    match owner(root)? {
        Some(user) => Identity::Other(user).look(|| Holder::of(root)),
        None => Ok(Holder::of(root)),
    }
}

/// Takes the lock with this user's permissions: the user controls the file of that name.
fn lock_as(root: &Path, user: &User) -> Result<Result<StoreLock, StoreError>, Failure> {
    Identity::Other(user.clone()).look(|| Store::lock(root))
}

fn cache_not_usable_by(root: &Path, user: &User, error: StoreError) -> Failure {
    let denied = matches!(&error, StoreError::Disk { source, .. }
        if source.kind() == std::io::ErrorKind::PermissionDenied);
    let failure = Failure::from(error);
    let (root, name) = (root.display(), &user.name);
    match denied {
        true => failure.hint(format!(
            "root works there as {name} and gives nothing away; if all of it is to be {name}'s: chown -R {name} {root}"
        )),
        false => failure,
    }
}

/// Gives a folder of root's, created if missing, to this user, and takes the store's lock.
fn change_owner(root: &Path, user: &User) -> Result<StoreLock, Failure> {
    let failed = |e: Errno| Failure::storage(root, "giving the cache to its user", &e.into());
    match DirBuilder::new().mode(0o700).create(root) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(Failure::storage(root, "making the cache folder", &e));
        }
        _ => {}
    }
    let folder = open_folder(CWD, root).map_err(failed)?;
    let stat = rustix::fs::fstat(&folder).map_err(failed)?;
    let (uid, gid) = numbers(user);
    if stat.st_uid == 0 && is_empty(&folder).map_err(failed)? {
        rustix::fs::fchown(&folder, uid, gid).map_err(failed)?;
        return lock_as(root, user)?.map_err(|error| cache_not_usable_by(root, user, error));
    }
    if let Some(changeable) = Ownership::of(root)?.changeable() {
        return Err(ownership_not_changed(root, changeable, user));
    }
    let lock = Store::lock(root)?;
    let shared = lock.share()?;
    let mut change = OwnershipChange { user, device: stat.st_dev, kept: 0 };
    change.change_content(&folder, DEPTH).map_err(failed)?;
    rustix::fs::fchown(&shared, uid, gid).map_err(failed)?;
    // Before the folder's chown: otherwise a power cut could keep that last step and lose an earlier
    // one.
    rustix::fs::syncfs(&folder).map_err(failed)?;
    rustix::fs::fchown(&folder, uid, gid).map_err(failed)?;
    if change.kept > 0 {
        let (kept, at) = (change.kept, root.display());
        tracing::warn!("{at}: {kept} files of root's have other names too and stay root's");
    }
    tracing::info!(user = user.name, cache = %root.display(), "the cache is this user's now");
    Ok(lock)
}

fn is_empty(folder: &OwnedFd) -> Result<bool, Errno> {
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

fn ownership_not_changed(root: &Path, changeable: &Path, user: &User) -> Failure {
    let (at, name) = (root.display(), &user.name);
    let why = match changeable == root {
        true => "others may have put files there".to_owned(),
        false => format!("others can change {}", changeable.display()),
    };
    Failure::new(Kind::Storage, format!("{at}: root's files there are not given to {name}: {why}"))
        .hint(format!(
            "if all of it is to be {name}'s: chown -R {name} {at}; else give another --cache-dir"
        ))
}

fn name_of(uid: u32) -> String {
    let user = User::find(&uid.to_string()).ok().flatten();
    user.map_or_else(|| uid.to_string(), |user| user.name)
}

fn parent_folder_of_other_user(root: &Path, owner: u32) -> Failure {
    let (root, name) = (root.display(), name_of(owner));
    Failure::new(
        Kind::Storage,
        format!("{root}: the cache lies in a folder of {name}'s, who could replace it: root does not work there"),
    )
    .hint(format!("give another with --cache-dir, or --worker-user {name}"))
}

fn cache_of_other_user(root: &Path, owner: u32, but: &str) -> Failure {
    let (root, name) = (root.display(), name_of(owner));
    Failure::new(Kind::Storage, format!("{root}: the cache belongs to {name}, not to {but}"))
        .hint(format!("give another with --cache-dir, or --worker-user {name}"))
}

/// Makes the parent folders traversable for other users: a store would make them private.
fn make_parents_traversable(root: &Path) -> Result<(), Failure> {
    let missing: Vec<_> = root.ancestors().skip(1).take_while(|path| !path.exists()).collect();
    for path in missing.into_iter().rev() {
        let open = std::fs::Permissions::from_mode(PASSABLE);
        let made = DirBuilder::new().mode(PASSABLE).create(path);
        // Independent of the umask.
        made.and_then(|()| std::fs::set_permissions(path, open))
            .map_err(|e| Failure::storage(path, "making the folder", &e))?;
    }
    Ok(())
}

fn open_folder<Fd: AsFd>(at: Fd, name: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, name, flags, Mode::empty())
}

/// A change of ownership in progress.
struct OwnershipChange<'a> {
    user: &'a User,
    /// The cache's device: other mounts below are not the cache's.
    device: u64,
    /// Number of files that stay root's because of other hard links.
    kept: u64,
}

fn numbers(user: &User) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(user.uid)), Some(Gid::from_raw(user.gid)))
}

impl OwnershipChange<'_> {
    fn change_content(&mut self, folder: &OwnedFd, depth: u32) -> Result<(), Errno> {
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
                // A folder that is already the user's may contain root's files.
                FileType::Directory
                    if depth > 1 && (stat.st_uid == 0 || stat.st_uid == self.user.uid) =>
                {
                    self.change_content(&open_folder(&file, c".")?, depth - 1)?;
                }
                FileType::RegularFile if stat.st_uid == 0 && stat.st_nlink > 1 => {
                    self.kept += 1;
                    continue;
                }
                FileType::RegularFile | FileType::Directory => {}
                _ => continue,
            }
            if stat.st_uid == 0 {
                let (uid, gid) = numbers(self.user);
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
    use std::os::unix::fs::{MetadataExt, chown};
    use std::path::PathBuf;

    const THEIRS: u32 = 12_345;

    fn owner(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().uid()
    }

    /// A cache of root's with files, in a folder that others may traverse.
    fn cache(dir: &Path) -> (PathBuf, PathBuf) {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
        let root = dir.canonicalize().unwrap().join("cache");
        let shelf = root.join("blobs/aa");
        fs::create_dir_all(&shelf).unwrap();
        fs::set_permissions(&root, fs::Permissions::from_mode(0o700)).unwrap();
        for file in [root.join("lock"), shelf.join("done"), shelf.join("left")] {
            fs::write(file, "x").unwrap();
        }
        (root, shelf)
    }

    fn theirs() -> Identity {
        Identity::Other(User::of_folder(THEIRS, THEIRS).unwrap())
    }

    #[test]
    fn an_interrupted_ownership_change_is_completed_and_a_complete_one_is_left_alone() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (root, shelf) = cache(dir.path());
        let deep = shelf.join("b/c");
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("not ours"), "x").unwrap();
        // The first entries are already the user's.
        for done in [&root.join("blobs"), &shelf, &shelf.join("done"), &root.join("lock")] {
            chown(done, Some(THEIRS), Some(THEIRS)).unwrap();
        }
        drop(take(&root, &theirs(), &[]).unwrap());
        for path in [&root, &root.join("lock"), &shelf, &shelf.join("done"), &shelf.join("left")] {
            assert_eq!(owner(path), THEIRS, "{}", path.display());
        }
        assert_eq!(owner(&deep.join("not ours")), 0, "a store does not go so deep");

        fs::write(shelf.join("later"), "x").unwrap();
        drop(take(&root, &theirs(), &[]).unwrap());
        assert_eq!(owner(&shelf.join("later")), 0, "theirs by now: nothing more is given");
    }

    #[test]
    fn below_a_folder_that_others_can_change_only_an_empty_cache_is_handed_over() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (root, shelf) = cache(dir.path());
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let refused = take(&root, &theirs(), &[]).unwrap_err();
        assert_eq!(refused.exit_code, 7);
        assert!(refused.message.contains(root.parent().unwrap().to_str().unwrap()), "{refused}");
        assert_eq!((owner(&root), owner(&shelf.join("left"))), (0, 0));
        let fresh = root.with_file_name("fresh");
        drop(take(&fresh, &theirs(), &[]).unwrap());
        assert_eq!((owner(&fresh), owner(&fresh.join("lock"))), (THEIRS, THEIRS));
    }
}
