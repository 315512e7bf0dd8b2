//! Workers as processes, each with the thread that receives what it sends.
//!
//! Invariant: what a dead worker had sent is received before its hang-up, and a worker that hung up runs
//! no more. A process is killed when its value is dropped.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::link::Link;
use super::machine::{Generation, Which};
use super::messages::{FromWorker, ToWorker};
use crate::error::{Failure, Kind};
use crate::supervisor_link;

/// How long a worker that hung up may take to end by itself.
const LAST_BREATH: Duration = Duration::from_secs(2);

/// How long a worker may keep us waiting to be heard: it has a thread that does nothing else.
const LISTENS: Duration = Duration::from_secs(5);

/// What is heard from a worker.
#[derive(Debug)]
pub enum Heard {
    /// A message, with the descriptors beside it.
    Message(Box<FromWorker>, Vec<OwnedFd>),
    /// Nothing more: it is dead or dying.
    HungUp,
}

/// A worker's process.
struct Process {
    program: Option<Arc<OwnedFd>>,
    child: Child,
    link: Arc<Link>,
}

/// How workers are started.
struct Program {
    /// The file, by the name that it had when we were started: another one may lie there by now.
    path: PathBuf,
    proven: Option<Arc<OwnedFd>>,
}

impl Program {
    /// This program.
    fn this() -> Result<Self, Failure> {
        let path = std::env::current_exe().map_err(|e| {
            Failure::new(Kind::General, format!("this program's own file is not known: {e}"))
        })?;
        Ok(Self { path, proven: None })
    }

    /// Notes that the program of this worker is a good one.
    fn prove(&mut self, worker: &Process) {
        self.proven.clone_from(&worker.program);
    }

    /// Starts a worker with our own arguments; `heard` gets what it sends.
    fn start(
        &self,
        which: Which,
        generation: Generation,
        heard: UnboundedSender<(Generation, Heard)>,
    ) -> Result<Process, Failure> {
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
            .env(supervisor_link::VARIABLE, "1")
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
        Ok(Process { program, child, link })
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

impl Process {
    /// Sends a message. A process that does not take it is of no use and killed; one that hung up ends by
    /// itself.
    fn send(&self, message: &ToWorker, beside: &[BorrowedFd<'_>]) {
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

    /// Kills it. It is taken to have hung up, since one of its threads may be held in the kernel by a
    /// file system that hangs: none of them runs on.
    fn kill(&mut self) {
        if let Err(error) = self.child.start_kill() {
            tracing::debug!(%error, "the worker was dead already");
        }
        self.link.hang_up();
    }

    /// Waits for the end of one that hung up, or brings it about.
    async fn end(mut self) -> io::Result<ExitStatus> {
        if let Ok(status) = tokio::time::timeout(LAST_BREATH, self.child.wait()).await {
            return status;
        }
        self.kill();
        let held = |_| io::Error::new(io::ErrorKind::TimedOut, "it is held in the kernel");
        tokio::time::timeout(LAST_BREATH, self.child.wait()).await.map_err(held)?
    }
}

/// What workers send, each with who sent it.
pub type Inbox = UnboundedReceiver<(Generation, Heard)>;

/// All workers that run.
pub struct Workers {
    program: Program,
    running: HashMap<Generation, Process>,
    heard: UnboundedSender<(Generation, Heard)>,
}

impl Workers {
    /// None yet; they will run this program.
    pub fn new() -> Result<(Self, Inbox), Failure> {
        let (heard, inbox) = unbounded_channel();
        let program = Program::this()?;
        Ok((Self { program, running: HashMap::new(), heard }, inbox))
    }

    /// Starts one.
    pub fn start(&mut self, worker: Generation, which: Which) -> Result<(), Failure> {
        let process = self.program.start(which, worker, self.heard.clone())?;
        self.running.insert(worker, process);
        Ok(())
    }

    /// Its process number.
    pub fn pid(&self, worker: Generation) -> Option<u32> {
        self.running.get(&worker)?.child.id()
    }

    /// Sends a message, if it runs.
    pub fn send(&self, worker: Generation, message: &ToWorker, beside: &[BorrowedFd<'_>]) {
        if let Some(process) = self.running.get(&worker) {
            process.send(message, beside);
        }
    }

    /// Kills one; its hang-up is still to come.
    pub fn kill(&mut self, worker: Generation) {
        self.running.get_mut(&worker).into_iter().for_each(Process::kill);
    }

    /// Kills one whose end nobody waits for.
    pub fn discard(&mut self, worker: Generation) {
        self.running.remove(&worker);
    }

    /// Notes that the program of this worker is a good one: [`Which::Proven`].
    pub fn prove(&mut self, worker: Generation) {
        if let Some(process) = self.running.get(&worker) {
            self.program.prove(process);
        }
    }

    /// Waits for the end of one that hung up, or brings it about; how it ended. Nothing if it does not run.
    pub async fn end(&mut self, worker: Generation) -> Option<String> {
        match self.running.remove(&worker)?.end().await {
            Ok(status) => Some(status.to_string()),
            Err(error) => Some(error.to_string()),
        }
    }
}
