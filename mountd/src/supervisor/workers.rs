//! Worker processes, each with a thread that receives its messages.
//!
//! Invariant: all messages of a dead worker are received before its hang-up, and a worker that hung up
//! runs no more. Dropping the value of a process kills it.

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

use super::events::{Generation, WhichProgram};
use super::link::Link;
use super::messages::{FromWorker, ToWorker};
use crate::error::{Failure, Kind};
use crate::worker_link;

/// How long a worker may take to exit after it hung up.
const EXIT_TIMEOUT: Duration = Duration::from_secs(2);

/// Send timeout for a worker: it has a thread that only receives.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// What arrives on the link of a worker.
#[derive(Debug)]
pub enum LinkEvent {
    /// A message with its attached descriptors.
    Message(Box<FromWorker>, Vec<OwnedFd>),
    /// End of file: the worker is dead or dying.
    HungUp,
}

/// A worker process.
struct Process {
    program: Option<Arc<OwnedFd>>,
    child: Child,
    link: Arc<Link>,
}

/// The program that workers run.
struct Program {
    /// Its file, by its name when we were started: the file may have been replaced.
    path: PathBuf,
    proven: Option<Arc<OwnedFd>>,
}

impl Program {
    /// This process's program.
    fn this() -> Result<Self, Failure> {
        let path = std::env::current_exe().map_err(|e| {
            Failure::new(Kind::General, format!("this program's own file is not known: {e}"))
        })?;
        Ok(Self { path, proven: None })
    }

    /// Records this worker's program as proven.
    fn prove(&mut self, worker: &Process) {
        self.proven.clone_from(&worker.program);
    }

    /// Starts a worker; its messages go to `events`. It has no arguments: its configuration is in the
    /// welcome.
    fn start(
        &self,
        which: WhichProgram,
        generation: Generation,
        events: UnboundedSender<(Generation, LinkEvent)>,
    ) -> Result<Process, Failure> {
        let (at, program) = match (which, &self.proven) {
            (WhichProgram::Proven, Some(file)) => {
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
        let link = link.bounded(SEND_TIMEOUT).map_err(|e| failed(&self.path, e))?;
        let child = Command::new(&at)
            .arg0(&self.path)
            .env(worker_link::VARIABLE, "1")
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
            .spawn(move || listen(&theirs, generation, &events))
            .map_err(|e| failed(&self.path, e))?;
        Ok(Process { program, child, link })
    }
}

fn listen(link: &Link, generation: Generation, events: &UnboundedSender<(Generation, LinkEvent)>) {
    loop {
        match link.receive() {
            Ok(Some((message, beside))) => {
                if events.send((generation, LinkEvent::Message(Box::new(message), beside))).is_err()
                {
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
    let _ = events.send((generation, LinkEvent::HungUp));
}

impl Process {
    /// Sends a message. Kills a worker that does not receive it; one that hung up exits by
    /// itself.
    fn send(&self, message: &ToWorker, beside: &[BorrowedFd<'_>]) {
        if let Err(error) = self.link.send(message, beside) {
            if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) {
                return;
            }
            tracing::error!(%error, "the worker does not listen");
            let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok());
            if let Some(pid) = pid.and_then(Pid::from_raw) {
                // Not yet reaped, so its process id was not reused.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }

    /// Kills it and shuts the link down at once: a hung file system may hold a thread in the kernel and
    /// delay the exit, but no thread runs on.
    fn kill(&mut self) {
        if let Err(error) = self.child.start_kill() {
            tracing::debug!(%error, "the worker was dead already");
        }
        self.link.hang_up();
    }

    /// Waits for the exit of a worker that hung up; kills it if it takes too long.
    async fn end(mut self) -> io::Result<ExitStatus> {
        if let Ok(status) = tokio::time::timeout(EXIT_TIMEOUT, self.child.wait()).await {
            return status;
        }
        self.kill();
        let held = |_| io::Error::new(io::ErrorKind::TimedOut, "it is held in the kernel");
        tokio::time::timeout(EXIT_TIMEOUT, self.child.wait()).await.map_err(held)?
    }
}

/// The messages of all workers, each with its sender.
pub type Inbox = UnboundedReceiver<(Generation, LinkEvent)>;

/// All running workers.
pub struct Workers {
    program: Program,
    running: HashMap<Generation, Process>,
    events: UnboundedSender<(Generation, LinkEvent)>,
}

impl Workers {
    /// No workers yet; they will run this program.
    pub fn new() -> Result<(Self, Inbox), Failure> {
        let (events, inbox) = unbounded_channel();
        let program = Program::this()?;
        Ok((Self { program, running: HashMap::new(), events }, inbox))
    }

    /// Starts a worker.
    pub fn start(&mut self, worker: Generation, which: WhichProgram) -> Result<(), Failure> {
        let process = self.program.start(which, worker, self.events.clone())?;
        self.running.insert(worker, process);
        Ok(())
    }

    /// The worker's process id.
    pub fn pid(&self, worker: Generation) -> Option<u32> {
        self.running.get(&worker)?.child.id()
    }

    /// Sends a message, if the worker runs.
    pub fn send(&self, worker: Generation, message: &ToWorker, beside: &[BorrowedFd<'_>]) {
        if let Some(process) = self.running.get(&worker) {
            process.send(message, beside);
        }
    }

    /// Kills a worker; its hang-up is still reported.
    pub fn kill(&mut self, worker: Generation) {
        self.running.get_mut(&worker).into_iter().for_each(Process::kill);
    }

    /// Kills a worker whose end need not be waited for.
    pub fn discard(&mut self, worker: Generation) {
        self.running.remove(&worker);
    }

    /// Records this worker's program as [`WhichProgram::Proven`].
    pub fn prove(&mut self, worker: Generation) {
        if let Some(process) = self.running.get(&worker) {
            self.program.prove(process);
        }
    }

    /// Waits for a worker's exit, or kills it; returns how it ended. None if it does not run.
    pub async fn end(&mut self, worker: Generation) -> Option<String> {
        match self.running.remove(&worker)?.end().await {
            Ok(status) => Some(status.to_string()),
            Err(error) => Some(error.to_string()),
        }
    }
}
