//! A worker as its supervisor has it: the process, and the thread that hears what it says.
//!
//! Invariant: what a dead worker had said is heard before its hang-up, and a worker that hung up is
//! dead. The process is killed when the value goes.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

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
    /// Whether it answers the kernel's requests.
    pub serves: bool,
    /// Once it is ready: what it answers to being asked.
    pub pulse: Option<Pulse>,
    child: Child,
    link: Arc<Link>,
}

/// How workers are started.
pub struct Program {
    /// The file, by the name that it had when we were started: another one may lie there by now.
    pub path: PathBuf,
}

impl Program {
    /// This program.
    pub fn this() -> Result<Self, Failure> {
        let path = std::env::current_exe().map_err(|e| {
            Failure::new(Kind::General, format!("this program's own file is not known: {e}"))
        })?;
        Ok(Self { path })
    }

    /// Starts a worker with our own arguments; `heard` gets what it says.
    pub fn start(
        &self,
        generation: Generation,
        heard: UnboundedSender<(Generation, Heard)>,
    ) -> Result<Worker, Failure> {
        let failed = |path: &Path, e: io::Error| {
            Failure::new(Kind::General, format!("{}: starting a worker: {e}", path.display()))
        };
        let (link, theirs) = Link::pair().map_err(|e| failed(&self.path, e))?;
        let link = link.bounded(LISTENS).map_err(|e| failed(&self.path, e))?;
        let child = Command::new(&self.path)
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
        Ok(Worker { generation, serves: false, pulse: None, child, link })
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

    /// Tells it something. Who does not hear it is of no use, and killed; its hang-up tells the rest.
    pub fn say(&self, message: &ToWorker, beside: &[BorrowedFd<'_>]) {
        if let Err(error) = self.link.send(message, beside) {
            tracing::error!(%error, "the worker does not listen");
            let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok());
            if let Some(pid) = pid.and_then(Pid::from_raw) {
                // Not yet waited for, so the number is still its own.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }

    /// Kills it.
    pub fn kill(&mut self) {
        if let Err(error) = self.child.start_kill() {
            tracing::debug!(%error, "the worker was dead already");
        }
    }

    /// Waits for the end of one that hung up, or brings it about.
    pub async fn end(mut self) -> io::Result<ExitStatus> {
        match tokio::time::timeout(LAST_BREATH, self.child.wait()).await {
            Ok(status) => status,
            Err(_) => {
                self.kill();
                self.child.wait().await
            }
        }
    }
}
