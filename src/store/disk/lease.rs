//! Whether another process has a file open or mapped: the store's one system call that no crate has.
//!
//! The kernel gives a lease for writing only on a file that no other process has open, and what a map or
//! the kernel itself reads counts as open. Invariant: no lease outlives the call. Any thread.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};

use libc::{EAGAIN, F_SETLEASE, F_UNLCK, F_WRLCK, SIGURG, c_int};

/// Tells a lease's owner by which signal that another process wants to open the file; `libc` has no name for
/// it on every system. The usual one would end us; this one is ignored unless asked for.
const F_SETSIG: c_int = 10;

/// Whether anything but `file` has the file open. An error where the file system has no leases, or
/// gives none to us. `file` was opened for reading.
pub fn is_open_elsewhere(file: &File) -> io::Result<bool> {
    let fd = file.as_raw_fd();
    set(fd, F_SETSIG, SIGURG)?;
    match set(fd, F_SETLEASE, F_WRLCK) {
        Ok(()) => set(fd, F_SETLEASE, F_UNLCK).map(|()| false),
        Err(error) if error.raw_os_error() == Some(EAGAIN) => Ok(true),
        Err(error) => Err(error),
    }
}

fn set(fd: RawFd, what: c_int, value: c_int) -> io::Result<()> {
    // SAFETY: both commands take a number and touch no memory of ours; the descriptor is borrowed
    // from a file that is open for the call's time.
    match unsafe { libc::fcntl(fd, what, value) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_seen_and_may_open_it_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "x").unwrap();
        let ours = File::open(&path).unwrap();
        assert!(!is_open_elsewhere(&ours).unwrap());
        let other = File::open(&path).unwrap();
        assert!(is_open_elsewhere(&ours).unwrap());
        drop(other);
        assert!(!is_open_elsewhere(&ours).unwrap());
        let writer = File::options().write(true).open(&path).unwrap();
        assert!(is_open_elsewhere(&ours).unwrap());
        drop(writer);
        // Another process opens it again and again meanwhile: it waits at most for the call.
        std::thread::scope(|scope| {
            scope.spawn(|| (0..2000).for_each(|_| drop(File::open(&path).unwrap())));
            for _ in 0..2000 {
                is_open_elsewhere(&ours).unwrap();
            }
        });
    }
}
