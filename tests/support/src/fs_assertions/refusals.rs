//! Nothing can be written, and the answer is always EROFS.

use std::path::{Path, PathBuf};

use rustix::fs::{
    Access, AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::{Errno, Result};

use super::walk::{files, folders};

fn a_file(mounted: &Path) -> PathBuf {
    mounted.join(&files(mounted).first().expect("a file").0)
}

#[track_caller]
fn refused<T>(what: &str, outcome: Result<T>) {
    assert_eq!(outcome.map(drop), Err(Errno::ROFS), "{what}");
}

/// O_WRONLY, O_RDWR, O_TRUNC, O_CREAT, O_TMPFILE.
pub fn nothing_can_be_opened_for_writing(_: &Path, mounted: &Path) {
    let (file, mode) = (a_file(mounted), Mode::from_raw_mode(0o644));
    let open = |path: &Path, flags| rustix::fs::open(path, flags | OFlags::CLOEXEC, mode);
    refused("O_WRONLY", open(&file, OFlags::WRONLY));
    refused("O_RDWR", open(&file, OFlags::RDWR));
    refused("O_APPEND", open(&file, OFlags::WRONLY | OFlags::APPEND));
    refused("O_TRUNC", open(&file, OFlags::WRONLY | OFlags::TRUNC));
    let new = mounted.join("new");
    refused("O_CREAT", open(&new, OFlags::WRONLY | OFlags::CREATE));
    refused("O_CREAT|O_EXCL", open(&new, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL));
    assert!(!new.exists());
    open(&file, OFlags::RDONLY | OFlags::CREATE).expect("O_CREAT of what is there only opens it");
    for path in [file.as_path(), mounted] {
        let access = rustix::fs::accessat(CWD, path, Access::WRITE_OK, AtFlags::empty());
        refused("access(W_OK)", access);
    }
}

/// Files, folders, links, pipes.
pub fn nothing_can_be_made(_: &Path, mounted: &Path) {
    let file = a_file(mounted);
    for folder in folders(mounted) {
        let new = mounted.join(folder).join("new");
        let mode = Mode::from_raw_mode(0o755);
        refused("mkdir", rustix::fs::mkdirat(CWD, &new, mode));
        refused("mknod", rustix::fs::mknodat(CWD, &new, FileType::Fifo, mode, 0));
        refused("symlink", rustix::fs::symlinkat("target", CWD, &new));
        refused("link", rustix::fs::linkat(CWD, &file, CWD, &new, AtFlags::empty()));
    }
}

/// Also from one folder to another.
pub fn nothing_can_be_moved_or_removed(_: &Path, mounted: &Path) {
    let file = a_file(mounted);
    refused("unlink", rustix::fs::unlinkat(CWD, &file, AtFlags::empty()));
    refused("rename", rustix::fs::renameat(CWD, &file, CWD, mounted.join("new")));
    for folder in folders(mounted).into_iter().skip(1) {
        let folder = mounted.join(folder);
        refused("rmdir", rustix::fs::unlinkat(CWD, &folder, AtFlags::REMOVEDIR));
        refused("rename of a folder", rustix::fs::renameat(CWD, &folder, CWD, mounted.join("new")));
    }
    assert!(file.exists());
}

/// Mode, owner, times, length, attributes.
pub fn nothing_can_be_changed(_: &Path, mounted: &Path) {
    let file = a_file(mounted);
    for path in [file.as_path(), mounted] {
        let none = AtFlags::empty();
        refused("chmod", rustix::fs::chmodat(CWD, path, Mode::from_raw_mode(0o777), none));
        let (user, group) = (Uid::from_raw(1), Gid::from_raw(1));
        refused("chown", rustix::fs::chownat(CWD, path, Some(user), Some(group), none));
        let time = Timespec { tv_sec: 1, tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        refused("utimensat", rustix::fs::utimensat(CWD, path, &times, none));
        let set = rustix::fs::setxattr(path, "user.x", b"1", XattrFlags::empty());
        refused("setxattr", set);
        refused("removexattr", rustix::fs::removexattr(path, "user.modelfs.cached"));
    }
    let truncated = std::fs::File::options().write(true).open(&file).map(drop);
    assert_eq!(truncated.err().and_then(|e| Errno::from_io_error(&e)), Some(Errno::ROFS));
    let reader = std::fs::File::open(&file).expect("open");
    assert!(rustix::fs::ftruncate(&reader, 0).is_err());
    assert!(rustix::io::write(&reader, b"x").is_err());
}
