//! The process that takes the mount away when its supervisor dies without having done so.
//!
//! Invariant: it waits on a pipe and does nothing else; a supervisor that ends well says so first. Who
//! holds the pipe holds the mount: a supervisor, or between two of them the service manager, whose
//! letting go of it is a death like any other. One thread.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use modelfs_platform::Mounted;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::error::{Failure, Kind};

/// Set for the reaper: which mount it is about.
const VARIABLE: &str = "MODELFS_REAPER";
/// What a supervisor says that leaves no mount behind.
const DONE: u8 = b'.';
/// What one says that wants the mount gone at once.
const NOW: u8 = b'!';
/// How long taking it away may take: two system calls, or a helper.
const MOST: Duration = Duration::from_secs(5);

/// A reaper at work.
pub struct Reaper(OwnedFd);

impl Reaper {
    /// Starts one.
    pub fn start(program: &Path, mounted: &Mounted) -> Result<Self, Failure> {
        let failed = |e: std::io::Error| {
            Failure::new(Kind::General, format!("starting the mount's last guard: {e}"))
        };
        let mut child = Command::new(program)
            .env(VARIABLE, serde_json::to_string(mounted).expect("paths and numbers are JSON"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // What ends the supervisor's terminal or group must not end it.
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let pipe = child.stdin.take().expect("its input is piped, some lines above");
        // It ends after us, or with us: nobody waits for it.
        std::thread::spawn(move || child.wait());
        Ok(Self(pipe.into()))
    }

    /// One that another supervisor started, if it still waits.
    pub fn of(pipe: OwnedFd) -> Option<Self> {
        let this = Self(pipe);
        (!this.is_gone(Duration::ZERO)).then_some(this)
    }

    /// What to hold for it to wait.
    pub fn pipe(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Waits for its end; a pipe that nobody reads is in error.
    fn is_gone(&self, most: Duration) -> bool {
        let most = Timespec { tv_sec: most.as_secs().cast_signed(), tv_nsec: 0 };
        let mut look = [PollFd::new(&self.0, PollFlags::empty())];
        poll(&mut look, Some(&most)).is_ok_and(|changed| changed > 0)
    }

    /// Has it take the mount away now, and waits until it has.
    pub fn take_away(self) -> bool {
        rustix::io::write(&self.0, &[NOW]).is_ok() && self.is_gone(MOST)
    }

    /// Sends it home.
    pub fn dismiss(self) {
        if let Err(error) = rustix::io::write(&self.0, &[DONE]) {
            tracing::debug!(%error, "the mount's last guard had gone already");
        }
    }
}

/// Which mount this process is to take away, if it is a reaper.
pub fn task() -> Option<String> {
    std::env::var(VARIABLE).ok()
}

/// A reaper's life.
pub fn run(task: &str) -> ExitCode {
    let Ok(mounted) = serde_json::from_str::<Mounted>(task) else { return ExitCode::FAILURE };
    let mut said = [NOW];
    if std::io::stdin().read_exact(&mut said).is_ok() && said == [DONE] {
        return ExitCode::SUCCESS;
    }
    match mounted.end() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("modelfs: the daemon died, and its mount stays: {error}");
            ExitCode::FAILURE
        }
    }
}
