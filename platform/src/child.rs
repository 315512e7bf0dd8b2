//! A child process that ends with its parent.
//!
//! Concurrency: the signal is sent when the *thread* that started the child ends: start it on one that lasts.
#![allow(unsafe_code)]

use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};

/// Has the system send SIGTERM to this command's process when the thread that starts it ends.
pub fn end_with_parent(command: &mut Command) {
    let parent = getpid();
    let ask = move || {
        set_parent_process_death_signal(Some(Signal::TERM))?;
        // It may have ended before the child asked.
        match getppid() == Some(parent) {
            true => Ok(()),
            false => Err(std::io::Error::from(rustix::io::Errno::SRCH)),
        }
    };
    // SAFETY: between fork and exec only system calls are made; nothing is allocated and no lock is taken.
    unsafe { command.pre_exec(ask) };
}
