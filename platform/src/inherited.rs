//! Descriptors that a service manager passed to this process, by name.
//!
//! Invariant: each is owned once: the second asking finds none. To be asked for before anything is
//! opened. Concurrency: any thread, once.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

static TAKEN: AtomicBool = AtomicBool::new(false);

/// All of them; none if there is no manager or it passed none. Programs that we start do not get them.
pub fn take() -> io::Result<Vec<(String, OwnedFd)>> {
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    let passed = sd_notify::listen_fds_with_names()?;
    // SAFETY: the manager says, for this process id, that these numbers are open and ours; marking
    // them close-on-exec has shown that they are open. Nothing else owns them: they are taken once,
    // and were there before anything that we opened.
    Ok(passed.map(|(number, name)| (name, unsafe { OwnedFd::from_raw_fd(number) })).collect())
}
