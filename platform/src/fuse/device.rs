//! System calls on the connection's descriptor that neither fuser nor rustix offers in a safe form.
//!
//! Invariant: every `unsafe` of the adapter but one is here. Plain functions without state; any thread.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use fuser::BackingId;
use rustix::fs::FileType;
use rustix::ioctl::{Setter, opcode};
use zerocopy::IntoBytes;

use super::modes::BackingNumber;
use super::wire::{NOTIFY_RESEND, OutHeader};

/// The device number of `/dev/fuse`.
const DEVICE: (u32, u32) = (10, 229);
/// `FUSE_DEV_IOC_BACKING_CLOSE`, `_IOW(229, 2, uint32_t)`.
const BACKING_CLOSE: rustix::ioctl::Opcode = opcode::write::<u32>(229, 2);

/// Registers a file for passthrough.
pub(super) fn register(device: BorrowedFd<'_>, file: &File) -> io::Result<BackingNumber> {
    BackingId::create_raw(device, file).map(BackingNumber)
}

/// Unregisters a backing file; open handles keep it.
pub(super) fn unregister(device: BorrowedFd<'_>, number: BackingNumber) -> io::Result<()> {
    // SAFETY: the request takes a pointer to a 32-bit number, which `Setter` passes and which lives
    // for the call; it changes no memory of ours.
    let request = unsafe { Setter::<BACKING_CLOSE, u32>::new(number.0) };
    // SAFETY: `device` is an open descriptor for the duration of the call; any other kind of file
    // refuses the request.
    unsafe { rustix::ioctl::ioctl(device, request) }.map_err(io::Error::from)
}

/// Replaces the descriptor that `session` reads from by the connection's: fuser did its handshake with
/// us, not with the kernel.
pub(super) fn swap_in(device: BorrowedFd<'_>, session: RawFd) -> io::Result<()> {
    // SAFETY: both are open: `device` is borrowed, and `session` belongs to a session that the
    // caller holds and that no thread reads from yet. The session still owns the number.
    match unsafe { libc::dup3(device.as_raw_fd(), session, libc::O_CLOEXEC) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Whether this is a descriptor of `/dev/fuse`, of any connection.
pub(super) fn is_one(device: impl AsFd) -> bool {
    rustix::fs::fstat(device).is_ok_and(|found| {
        FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice
            && found.st_rdev == rustix::fs::makedev(DEVICE.0, DEVICE.1)
    })
}

/// Asks the kernel to resend all requests that were read and not answered.
pub(super) fn resend(device: impl AsFd) -> io::Result<()> {
    let len = size_of::<OutHeader>() as u32;
    let notification = OutHeader { len, error: NOTIFY_RESEND, unique: 0 };
    rustix::io::write(device, notification.as_bytes())?;
    Ok(())
}
