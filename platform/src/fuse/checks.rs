//! Checks before mounting, so that a refusal says what to do.
//!
//! Invariant: a mount that may be dead is not touched before `/proc/self/mountinfo` was read. Plain
//! functions; they block.

use std::io;
use std::path::{Path, PathBuf};

use super::mountinfo::{self, Mounted, TYPE};
use super::{place, system};
use crate::error::MountError;
use crate::options::MountOptions;
use rustix::io::Errno;

const FUSE_CONF: &str = "/etc/fuse.conf";

/// Checks the mount point without touching a FUSE mount that is already there: it may not answer.
pub(super) fn early(options: &MountOptions) -> Result<(), MountError> {
    let point = absolute(&options.mountpoint)?;
    match mountinfo::at(&point).is_some_and(|mounted| is_fuse(&mounted.kind)) {
        true => Ok(()),
        false => suitable(&point, options),
    }
}

/// Returns the mount point's path in the kernel's form, if mounting there is possible.
pub(super) fn check(options: &MountOptions) -> Result<PathBuf, MountError> {
    let point = absolute(&options.mountpoint)?;
    let wrong = |why: String| MountError::Mountpoint { path: point.clone(), why };
    if let Some(mounted) = mountinfo::at(&point) {
        let alive = alive(&point);
        if mounted.kind == TYPE && !alive {
            system::unmount(&point)?;
            tracing::warn!(path = %point.display(), "a mount was still there whose daemon is gone: cleared");
        } else if let Some(why) = occupied(&mounted, alive) {
            return Err(wrong(why));
        }
    }
    suitable(&point, options)?;
    Ok(point)
}

/// The checks of the folder itself.
fn suitable(point: &Path, options: &MountOptions) -> Result<(), MountError> {
    let wrong = |why: String| MountError::Mountpoint { path: point.to_owned(), why };
    let found = std::fs::metadata(point).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => wrong("there is no such folder: make it first".into()),
        _ => wrong(error.to_string()),
    })?;
    place::check(point, &found, options)?;
    let root = rustix::process::geteuid().is_root();
    let conf = std::fs::read_to_string(FUSE_CONF).unwrap_or_default();
    if options.allow_other && !root && !conf_allows_other(&conf) {
        return Err(wrong(format!(
            "letting other users in needs root, or the line user_allow_other in {FUSE_CONF}"
        )));
    }
    Ok(())
}

/// The path with all symbolic links resolved except in the last component, which may be a dead mount.
pub(super) fn absolute(mountpoint: &Path) -> Result<PathBuf, MountError> {
    let wrong = |error: io::Error| MountError::Mountpoint {
        path: mountpoint.to_owned(),
        why: match error.kind() {
            io::ErrorKind::NotFound => "there is no such folder: make it first".into(),
            _ => error.to_string(),
        },
    };
    let path = std::path::absolute(mountpoint).map_err(wrong)?;
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return path.canonicalize().map_err(wrong);
    };
    let path = parent.canonicalize().map_err(wrong)?.join(name);
    // A link to the mount point is followed; reading the link does not touch what is mounted behind it.
    match std::fs::read_link(&path) {
        Ok(_) => path.canonicalize().map_err(wrong),
        Err(_) => Ok(path),
    }
}

fn is_fuse(kind: &str) -> bool {
    kind == "fuse" || kind.starts_with("fuse.")
}

/// Whether a daemon still serves the mount, even if it returns only errors. `stat` does not tell: the
/// kernel caches attributes of dead mounts.
fn alive(point: &Path) -> bool {
    !matches!(rustix::fs::statfs(point), Err(Errno::NOTCONN | Errno::CONNABORTED))
}

/// Why nothing may be mounted over this mount, if so.
fn occupied(mounted: &Mounted, alive: bool) -> Option<String> {
    let fuse = is_fuse(&mounted.kind);
    match (mounted.kind == TYPE, alive) {
        (true, _) => Some("modelfs is already mounted there".into()),
        (false, true) if fuse => Some(format!("{} is already mounted there", mounted.kind)),
        (false, false) => Some(format!(
            "a {} mount is there that does not answer: unmount it first",
            mounted.kind
        )),
        (false, true) => None,
    }
}

/// Whether `fuse.conf` allows users to set allow_other.
fn conf_allows_other(conf: &str) -> bool {
    conf.lines().any(|line| line.trim() == "user_allow_other")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounted(kind: &str) -> Mounted {
        let (device, point, source) = ("0:1".into(), "/mnt".into(), "modelfs".into());
        Mounted { id: 1, device, point, kind: kind.into(), source, user: None }
    }

    #[test]
    fn mount_point_checks_accept_empty_folders_and_refuse_protected_ones() {
        assert!(occupied(&mounted(TYPE), true).is_some_and(|w| w.contains("already")));
        assert!(occupied(&mounted("fuse.sshfs"), true).is_some());
        assert!(occupied(&mounted("nfs4"), false).is_some());
        assert_eq!(occupied(&mounted("tmpfs"), true), None);
    }

    #[test]
    fn a_partial_line_is_not_parsed() {
        assert!(conf_allows_other("# x\n user_allow_other \n"));
        assert!(!conf_allows_other("#user_allow_other\n# user_allow_other - Using\n"));
    }

    #[test]
    fn unusable_mount_points_are_refused() {
        let folder = std::env::temp_dir();
        let options = |mountpoint: PathBuf| MountOptions {
            mountpoint,
            allow_other: false,
            allow_non_empty: true,
            protected: Vec::new(),
            threads: 1,
            passthrough: false,
        };
        let text = |point: PathBuf| check(&options(point)).unwrap_err().to_string();
        assert!(text(folder.join("modelfs no such folder")).contains("make it first"));
        assert!(text("/proc/self/status".into()).contains("not a folder"));
        // Only checked: nothing here mounts.
        assert!(text("/".into()).contains("the root folder"));
        assert!(early(&options("/".into())).is_err());
    }
}
