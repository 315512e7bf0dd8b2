//! Mounting and unmounting: by system call, or by `fusermount3` without the privilege.
//!
//! Invariant: we mount ourselves, not through fuser, so that after a lazy unmount nothing unmounts the
//! same path again and hits another mount. No `unsafe`: the helper gets its socket as standard input.
//! Blocking; no state; any thread.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::mountinfo::TYPE;
use crate::error::MountError;

/// The helper programs, newest first.
const HELPERS: [&str; 2] = ["fusermount3", "fusermount"];
const DEVICE: &str = "/dev/fuse";

fn failed(point: &Path, source: impl Into<io::Error>) -> MountError {
    MountError::Failed { path: point.to_owned(), source: source.into() }
}

/// Mounts with this `source`, a name without blanks and commas; returns the connection's descriptor.
pub(super) fn mount(point: &Path, source: &str, allow_other: bool) -> Result<OwnedFd, MountError> {
    if !Path::new(DEVICE).exists() {
        return Err(MountError::NoFuse(format!(
            "{DEVICE} is not there: load the kernel's module (modprobe fuse); in a container, pass the device in (--device {DEVICE})"
        )));
    }
    match mount_directly(point, source, allow_other) {
        Err(error) if may_need_helper(&error) => mount_with_helper(point, source, allow_other),
        other => other.map_err(|error| failed(point, error)),
    }
}

fn may_need_helper(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::PERM | Errno::ACCESS))
}

fn mount_directly(point: &Path, source: &str, allow_other: bool) -> io::Result<OwnedFd> {
    let device = File::options().read(true).write(true).open(DEVICE)?;
    let other = if allow_other { ",allow_other" } else { "" };
    let data = format!(
        "fd={},rootmode=40000,user_id={},group_id={},default_permissions{other}",
        device.as_raw_fd(),
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw(),
    );
    let data = CString::new(data).expect("numbers and names have no NUL");
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount(source, point, TYPE, flags, &*data)?;
    Ok(device.into())
}

fn mount_with_helper(point: &Path, source: &str, allow_other: bool) -> Result<OwnedFd, MountError> {
    let other = if allow_other { ",allow_other" } else { "" };
    let options =
        format!("ro,nosuid,nodev,default_permissions,fsname={source},subtype=modelfs{other}");
    let (ours, theirs) = UnixStream::pair().map_err(|e| failed(point, e))?;
    let mut child = helper(|command| {
        let theirs: OwnedFd = theirs.try_clone()?.into();
        command.args(["-o", &options, "--"]).arg(point).env("_FUSE_COMMFD", "0");
        command.stdin(theirs).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()
    })
    .map_err(|e| failed(point, e))?
    .ok_or_else(|| {
        MountError::NoFuse(
            "mounting without root needs fusermount3: install the package fuse3".to_owned(),
        )
    })?;
    drop(theirs);
    let device = receive(&ours);
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut said).ok();
    }
    let ended = child.wait().map_err(|e| failed(point, e))?;
    match device {
        Ok(Some(device)) if ended.success() => Ok(device),
        Ok(_) => Err(failed(point, io::Error::other(said.trim().to_owned()))),
        Err(error) => Err(failed(point, error)),
    }
}

/// Runs the first helper that is installed.
fn helper<T>(run: impl Fn(&mut Command) -> io::Result<T>) -> io::Result<Option<T>> {
    for name in HELPERS {
        match run(&mut Command::new(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other.map(Some),
        }
    }
    Ok(None)
}

/// The descriptor that the helper sends; none if it closed the socket without one.
fn receive(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut slices = [IoSliceMut::new(&mut byte)];
    rustix::io::retry_on_intr(|| {
        recvmsg(socket, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    let descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    Ok(descriptors.flatten().next())
}

/// Unmounts: normally, else lazily, so that open files do not block the folder. Returns whether it was
/// lazy, that is, whether files may still be open.
pub(super) fn unmount(point: &Path) -> Result<bool, MountError> {
    for (flags, lazy) in [(UnmountFlags::NOFOLLOW, false), (UnmountFlags::DETACH, true)] {
        match rustix::mount::unmount(point, flags) {
            Ok(()) => return Ok(lazy),
            // A user may not unmount this; the helper may.
            Err(Errno::PERM) => return unmount_with_helper(point),
            Err(Errno::BUSY) if !lazy => {}
            Err(error) => return Err(failed(point, error)),
        }
    }
    unreachable!("the second round returns")
}

fn unmount_with_helper(point: &Path) -> Result<bool, MountError> {
    let mut said = String::new();
    for (options, lazy) in [(&["-u"][..], false), (&["-u", "-z"][..], true)] {
        let output = helper(|command| {
            command.args(options).arg("--").arg(point).stdin(Stdio::null()).output()
        });
        match output.map_err(|e| failed(point, e))? {
            None => {
                let why = "unmounting without root needs fusermount3: install the package fuse3";
                return Err(MountError::NoFuse(why.to_owned()));
            }
            Some(output) if output.status.success() => return Ok(lazy),
            Some(output) => said = String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        }
    }
    Err(failed(point, io::Error::other(said)))
}
