//! A worker as its supervisor has it: the process, and the thread that hears what it says.
//!
//! Invariant: what a dead worker had said is heard before its hang-up, and a worker that hung up runs
//! no more. The process is killed when the value goes.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::mpsc::UnboundedSender;

use super::link::Link;
use super::messages::{FromWorker, ToWorker};
use super::pulse::Pulse;
use crate::error::{Failure, Kind};
use crate::worker;

/// How long a worker that hung up may take to end by itself.
const LAST_BREATH: Duration = Duration::from_secs(2);

/// How long a worker may keep us waiting to be heard: it has a thread that does nothing else.
const LISTENS: Duration = Duration::from_secs(5);

/// Which worker: they are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generation(pub u32);

/// What is heard from a worker.
#[derive(Debug)]
pub enum Heard {
    /// A message, with the descriptors beside it.
    Message(Box<FromWorker>, Vec<OwnedFd>),
    /// Nothing more: it is dead or dying.
    HungUp,
}

/// A worker.
pub struct Worker {
    /// Which.
    pub generation: Generation,
    /// What it answers to being asked, from its start on.
    pub pulse: Pulse,
    /// Whether it was started for a restart that was asked for, and the former program is there still.
    pub asked_for: bool,
    /// Whether it began while the registry's folder did not answer.
    pub lacks_registry: bool,
    /// Whether it could begin as soon as the store is free.
    pub checked: bool,
    /// Whether it has the connection.
    pub serves: bool,
    /// Whether it was ready for requests.
    pub ready: bool,
    /// Whether it was told to make room.
    pub retires: bool,
    /// Why we killed it, if we did.
    pub doomed: Option<String>,
    program: Option<Arc<OwnedFd>>,
    child: Child,
    link: Arc<Link>,
}

/// Which program a worker is to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The one that is now installed.
    Installed,
    /// The one that was last ready for requests, wherever it lies by now; before that, the installed.
    Proven,
}

/// How workers are started.
pub struct Program {
    /// The file, by the name that it had when we were started: another one may lie there by now.
    path: PathBuf,
    proven: Option<Arc<OwnedFd>>,
}

impl Program {
    /// This program.
    pub fn this() -> Result<Self, Failure> {
        let path = std::env::current_exe().map_err(|e| {
            Failure::new(Kind::General, format!("this program's own file is not known: {e}"))
        })?;
        Ok(Self { path, proven: None })
    }

    /// Notes that the program of this worker is a good one.
    pub fn prove(&mut self, worker: &Worker) {
        self.proven.clone_from(&worker.program);
    }

    /// Starts a worker with our own arguments; `heard` gets what it says.
    pub fn start(
        &self,
        which: Which,
        generation: Generation,
        heard: UnboundedSender<(Generation, Heard)>,
    ) -> Result<Worker, Failure> {
        let (at, program) = match (which, &self.proven) {
            (Which::Proven, Some(file)) => {
                (PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())), Some(file.clone()))
            }
            _ => {
                let flags = OFlags::PATH | OFlags::CLOEXEC;
                let file = rustix::fs::open(&self.path, flags, Mode::empty());
                (self.path.clone(), file.ok().map(Arc::new))
            }
        };
        let failed = |path: &Path, e: io::Error| {
            Failure::new(Kind::General, format!("{}: starting a worker: {e}", path.display()))
        };
        let (link, theirs) = Link::pair().map_err(|e| failed(&self.path, e))?;
        let link = link.bounded(LISTENS).map_err(|e| failed(&self.path, e))?;
        let child = Command::new(&at)
            .arg0(&self.path)
            .args(std::env::args_os().skip(1))
            .env(worker::VARIABLE, "1")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            // The terminal's signals are for the supervisor.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| failed(&self.path, e))?;
        let link = Arc::new(link);
        let theirs = Arc::clone(&link);
        std::thread::Builder::new()
            .name(format!("worker-{}", generation.0))
            .spawn(move || listen(&theirs, generation, &heard))
            .map_err(|e| failed(&self.path, e))?;
        Ok(Worker {
            generation,
            pulse: Pulse::default(),
            asked_for: which == Which::Installed && self.proven.is_some(),
            lacks_registry: false,
            checked: false,
            serves: false,
            ready: false,
            retires: false,
            doomed: None,
            program,
            child,
            link,
        })
    }
}

fn listen(link: &Link, generation: Generation, heard: &UnboundedSender<(Generation, Heard)>) {
    loop {
        match link.receive() {
            Ok(Some((message, beside))) => {
                if heard.send((generation, Heard::Message(Box::new(message), beside))).is_err() {
                    return;
                }
            }
            Ok(None) => break,
            Err(error) => {
                tracing::error!(%error, "the worker cannot be understood");
                break;
            }
        }
    }
    let _ = heard.send((generation, Heard::HungUp));
}

impl Worker {
    /// Its process.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Tells it something. One that does not take it is of no use and killed; one that hung up ends
    /// by itself.
    pub fn say(&self, message: &ToWorker, beside: &[BorrowedFd<'_>]) {
        if let Err(error) = self.link.send(message, beside) {
            if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) {
                return;
            }
            tracing::error!(%error, "the worker does not listen");
            let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok());
            if let Some(pid) = pid.and_then(Pid::from_raw) {
                // Not yet waited for, so the number is still its own.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }

    /// Kills it, for this reason.
    pub fn doom(&mut self, why: impl Into<String>) {
        self.doomed.get_or_insert_with(|| why.into());
        self.kill();
    }

    /// Kills it. It is taken to have hung up, since one of its threads may be held in the kernel by a
    /// file system that hangs: none of them runs on.
    pub fn kill(&mut self) {
        if let Err(error) = self.child.start_kill() {
            tracing::debug!(%error, "the worker was dead already");
        }
        self.link.hang_up();
    }

    /// Waits for the end of one that hung up, or brings it about.
    pub async fn end(mut self) -> io::Result<ExitStatus> {
        if let Ok(status) = tokio::time::timeout(LAST_BREATH, self.child.wait()).await {
            return status;
        }
        self.kill();
        let held = |_| io::Error::new(io::ErrorKind::TimedOut, "it is held in the kernel");
        tokio::time::timeout(LAST_BREATH, self.child.wait()).await.map_err(held)?
    }
}
