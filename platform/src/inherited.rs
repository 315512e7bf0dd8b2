//! Descriptors that a service manager passed to this process, by name.
//!
//! Invariant: each descriptor has one owner: a second call returns none. Call it before anything is
//! opened. Concurrency: any thread may call it.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

static TAKEN: AtomicBool = AtomicBool::new(false);

/// Takes all of them; none without a manager or if it passed none. Child processes do not inherit them.
pub fn take() -> io::Result<Vec<(String, OwnedFd)>> {
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    let passed = sd_notify::listen_fds_with_names()?;
    // SAFETY: the manager states, for this process id, that these numbers are open and ours; setting
    // close-on-exec has shown that they are open. Nothing else owns them: they are taken once and were
    // open before we opened anything.
    Ok(passed.map(|(number, name)| (name, unsafe { OwnedFd::from_raw_fd(number) })).collect())
}
