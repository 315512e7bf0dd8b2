//! The process that takes the mount away when its supervisor dies without having done so.
//!
//! Invariant: it waits on a pipe and does nothing else; a supervisor that ends well says so first. Who
//! holds the pipe holds the mount: a supervisor, or between two of them the service manager, whose
//! letting go of it is a death like any other. One thread. Its supervisor replaces it when it dies.

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

/// Set for the reaper: which mount it is about.
const VARIABLE: &str = "MODELFS_REAPER";
/// What a supervisor says that leaves no mount behind.
const DONE: u8 = b'.';
/// What one says that wants the mount gone at once.
const NOW: u8 = b'!';
/// How long taking it away may take: two system calls, or a helper.
const MOST: Duration = Duration::from_secs(5);
/// The program of this process, wherever it lies by now: what a supervisor starts for itself is of its
/// own version.
pub const OWN: &str = "/proc/self/exe";
/// How soon after one guard the next is started: one that dies at once costs little.
const AGAIN: Duration = Duration::from_secs(1);

/// A reaper at work.
pub struct Reaper(OwnedFd);

impl Reaper {
    /// Starts one.
    fn start(mounted: &Mounted) -> Result<Self, Failure> {
        let failed = |e: std::io::Error| {
            Failure::new(Kind::General, format!("starting the mount's last guard: {e}"))
        };
        let mut child = Command::new(OWN)
            .arg0("modelfs")
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

    fn dismiss(self) {
        if let Err(error) = rustix::io::write(&self.0, &[DONE]) {
            tracing::debug!(%error, "the mount's last guard had gone already");
        }
    }
}

/// The guard of a mount, replaced when it dies. Within the tokio runtime.
pub struct Guard {
    mounted: Mounted,
    at_work: Option<AtWork>,
    /// Not before this is another one started.
    due: Instant,
}

struct AtWork {
    reaper: Reaper,
    /// The same pipe: in error once nobody reads it.
    pipe: Sender,
}

impl Guard {
    /// The one that another supervisor started, else a new one.
    pub fn new(mounted: &Mounted, former: Option<Reaper>) -> Result<Self, Failure> {
        let mut this = Self { mounted: mounted.clone(), at_work: None, due: Instant::now() };
        match former {
            Some(reaper) => this.put(reaper)?,
            None => this.start()?,
        }
        Ok(this)
    }

    fn put(&mut self, reaper: Reaper) -> Result<(), Failure> {
        let pipe = reaper.0.try_clone().and_then(Sender::from_owned_fd);
        match pipe {
            Ok(pipe) => {
                self.at_work = Some(AtWork { reaper, pipe });
                Ok(())
            }
            Err(error) => {
                // Without a word it would take the mount away.
                reaper.dismiss();
                let why = format!("watching the mount's guard: {error}");
                Err(Failure::new(Kind::General, why))
            }
        }
    }

    fn start(&mut self) -> Result<(), Failure> {
        self.due = Instant::now() + AGAIN;
        let reaper = Reaper::start(&self.mounted)?;
        self.put(reaper)
    }

    /// Resolves when it has died and another one is due. Cancel safe.
    pub async fn lost(&self) {
        if let Some(guard) = &self.at_work {
            // An error means that it cannot be watched: like a death.
            let _ = guard.pipe.ready(Interest::ERROR).await;
        }
        sleep_until(self.due).await;
    }

    /// Starts another one in the place of one that was lost.
    pub fn replace(&mut self) {
        if let Some(lost) = self.at_work.take() {
            // Dead or not, it must not take the mount away.
            lost.reaper.dismiss();
        }
        match self.start() {
            Ok(()) => tracing::warn!("the mount's guard has died; another one takes its place"),
            Err(failure) => tracing::error!("the mount has no guard: {failure}"),
        }
    }

    /// What to hold for it to wait; none while there is none.
    pub fn pipe(&self) -> Option<BorrowedFd<'_>> {
        self.at_work.as_ref().map(|guard| guard.reaper.0.as_fd())
    }

    /// Sends it home.
    pub fn dismiss(self) {
        if let Some(guard) = self.at_work {
            guard.reaper.dismiss();
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
    // It was started by another name than its own.
    if let Err(error) = rustix::thread::set_name(c"modelfs") {
        tracing::debug!(%error, "the guard has no name");
    }
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
