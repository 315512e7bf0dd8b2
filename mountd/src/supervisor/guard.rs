//! The guard: a process that unmounts when its supervisor dies without having done so.
//!
//! Invariant: it waits on a pipe and does nothing else; a supervisor that ends properly writes to it
//! first. The holder of the pipe owns the mount: a supervisor, or between two of them the service
//! manager. If the manager closes the pipe, that counts as a death too. One thread. The supervisor
//! replaces a dead guard.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use modelfs_platform::Mounted;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::Interest;
use tokio::net::unix::pipe::Sender;
use tokio::time::{Instant, sleep_until};

use crate::error::{Failure, Kind};

/// Set for the guard process: the mount to unmount.
const VARIABLE: &str = "MODELFS_GUARD";
/// Sent by a supervisor that leaves no mount behind.
const DONE: u8 = b'.';
/// Sent by a supervisor that wants the mount gone at once.
const UNMOUNT_NOW: u8 = b'!';
/// How long unmounting may take: two system calls, or a helper.
const UNMOUNT_TIMEOUT: Duration = Duration::from_secs(5);
/// This process's own program, even if its file was replaced: child processes of a supervisor have its
/// own version.
pub const OWN: &str = "/proc/self/exe";
/// Minimum interval between two starts of a guard: one that dies at once costs little.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// A running guard process, by its pipe.
pub struct GuardProcess(OwnedFd);

impl GuardProcess {
    /// Starts a guard process.
    fn start(mounted: &Mounted) -> Result<Self, Failure> {
        let failed = |e: std::io::Error| {
            Failure::new(Kind::General, format!("starting the mount's guard: {e}"))
        };
        let mut child = Command::new(OWN)
            .arg0("modelfs")
            .env(VARIABLE, serde_json::to_string(mounted).expect("paths and numbers are JSON"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // Signals to the supervisor's terminal or process group must not end it.
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let pipe = child.stdin.take().expect("its input is piped, some lines above");
        // It may outlive us; this thread only reaps it.
        std::thread::spawn(move || child.wait());
        Ok(Self(pipe.into()))
    }

    /// The guard of another supervisor, if it still runs.
    pub fn of(pipe: OwnedFd) -> Option<Self> {
        let this = Self(pipe);
        (!this.is_gone(Duration::ZERO)).then_some(this)
    }

    /// Waits for its end: a pipe without a reader reports an error.
    fn is_gone(&self, most: Duration) -> bool {
        let most = Timespec { tv_sec: most.as_secs().cast_signed(), tv_nsec: 0 };
        let mut look = [PollFd::new(&self.0, PollFlags::empty())];
        poll(&mut look, Some(&most)).is_ok_and(|changed| changed > 0)
    }

    /// Has it unmount now, and waits until it has.
    pub fn take_away(self) -> bool {
        rustix::io::write(&self.0, &[UNMOUNT_NOW]).is_ok() && self.is_gone(UNMOUNT_TIMEOUT)
    }

    fn dismiss(self) {
        if let Err(error) = rustix::io::write(&self.0, &[DONE]) {
            tracing::debug!(%error, "the guard had ended already");
        }
    }
}

/// The guard of a mount, replaced when it dies. Use it within the tokio runtime.
pub struct Guard {
    mounted: Mounted,
    at_work: Option<AtWork>,
    /// The next guard is not started before this time.
    due: Instant,
}

struct AtWork {
    guard_process: GuardProcess,
    /// The same pipe: it reports an error once it has no reader.
    pipe: Sender,
}

impl Guard {
    /// Takes over another supervisor's guard, or starts a new one.
    pub fn new(mounted: &Mounted, former: Option<GuardProcess>) -> Result<Self, Failure> {
        let mut this = Self { mounted: mounted.clone(), at_work: None, due: Instant::now() };
        match former {
            Some(guard_process) => this.put(guard_process)?,
            None => this.start()?,
        }
        Ok(this)
    }

    fn put(&mut self, guard_process: GuardProcess) -> Result<(), Failure> {
        let pipe = guard_process.0.try_clone().and_then(Sender::from_owned_fd);
        match pipe {
            Ok(pipe) => {
                self.at_work = Some(AtWork { guard_process, pipe });
                Ok(())
            }
            Err(error) => {
                // If its pipe closed without a message, it would unmount.
                guard_process.dismiss();
                let why = format!("watching the mount's guard: {error}");
                Err(Failure::new(Kind::General, why))
            }
        }
    }

    fn start(&mut self) -> Result<(), Failure> {
        self.due = Instant::now() + RESTART_PAUSE;
        let guard_process = GuardProcess::start(&self.mounted)?;
        self.put(guard_process)
    }

    /// Resolves when the guard has died and its replacement is due. Cancel safe.
    pub async fn lost(&self) {
        if let Some(guard) = &self.at_work {
            // An error means that the pipe cannot be watched: treated like a death.
            let _ = guard.pipe.ready(Interest::ERROR).await;
        }
        sleep_until(self.due).await;
    }

    /// Starts another guard in place of a lost one.
    pub fn replace(&mut self) {
        if let Some(lost) = self.at_work.take() {
            // Even if it still runs, it must not unmount.
            lost.guard_process.dismiss();
        }
        match self.start() {
            Ok(()) => tracing::warn!("the mount's guard has died; another one takes its place"),
            Err(failure) => tracing::error!("the mount has no guard: {failure}"),
        }
    }

    /// The pipe to hold open, so that the guard waits; none without a guard.
    pub fn pipe(&self) -> Option<BorrowedFd<'_>> {
        self.at_work.as_ref().map(|guard| guard.guard_process.0.as_fd())
    }

    /// Ends the guard without an unmount.
    pub fn dismiss(self) {
        if let Some(guard) = self.at_work {
            guard.guard_process.dismiss();
        }
    }
}

/// The mount that this process guards, if it is a guard.
pub fn task() -> Option<String> {
    std::env::var(VARIABLE).ok()
}

/// The guard process.
pub fn run(task: &str) -> ExitCode {
    let Ok(mounted) = serde_json::from_str::<Mounted>(task) else { return ExitCode::FAILURE };
    // It was started under the name of /proc/self/exe.
    if let Err(error) = rustix::thread::set_name(c"modelfs") {
        tracing::debug!(%error, "the guard has no name");
    }
    let mut said = [UNMOUNT_NOW];
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
