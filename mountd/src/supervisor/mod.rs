//! The supervisor: keeps the mount, and sees to it that somebody serves it.
//!
//! Invariant: it reads nothing that a registry sent and nothing of the store. The mount, the control
//! socket and the store's lock outlive every worker; a worker that dies is followed by another, which
//! is told what is open and gets the requests that the dead one had not answered. At most one worker
//! has the connection at a time. One task; each worker has a thread that listens to it.

mod child;
mod keeping;
pub mod link;
pub mod messages;
mod plan;
mod policy;
pub mod probe;
mod pulse;
pub mod reaper;
mod restarting;
mod service;
mod stopping;
mod talking;
mod unit;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use modelfs::store::{Holder, StoreLock};
use modelfs::vfs::Ino;
use modelfs_platform::{BackingNumber, Connection};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::control::ops::blocking;
use crate::control::server::{self, Bound};
use crate::daemon::Ready;
use crate::error::Failure;
use crate::handover;
use crate::paths;
use crate::signals::{Asked, Signals};
use child::{Generation, Heard, Program, Which, Worker};
pub use keeping::Inheritance;
use keeping::TakenUp;
use messages::ToWorker;
pub use plan::Plan;
use policy::Policy;
use probe::Probe;
use pulse::{Beat, Pulse};
use reaper::Guard;
use stopping::Refusing;
pub use unit::Unit;

/// What goes on.
enum Stage {
    /// A worker serves, or will soon.
    Running,
    /// Between workers.
    Pausing { until: tokio::time::Instant },
    /// Nobody serves, and nobody will unless asked to.
    GivenUp(#[expect(dead_code, reason = "it answers until it goes")] Refusing),
}

/// Why it is over.
enum End {
    /// Somebody wants it, by command.
    Asked,
    /// Somebody wants it, or only us to go: by signal.
    Signalled,
    /// Unmounted from outside.
    Unmounted,
    /// It cannot be.
    Failed(Failure),
}

struct Supervisor<R> {
    plan: Plan,
    program: Program,
    lock: StoreLock,
    bound: Bound,
    ready: Option<R>,
    policy: Policy,
    stage: Stage,
    connection: Option<Arc<Connection>>,
    guard: Option<Guard>,
    /// Of the registry's folder.
    probe: Probe,
    worker: Option<Worker>,
    /// Started for a restart: waits for its predecessor to end.
    next: Option<Worker>,
    /// When the next one is killed unless it could begin.
    check_by: Option<tokio::time::Instant>,
    /// When the one that makes room is killed.
    retire_by: Option<tokio::time::Instant>,
    since: Option<String>,
    generations: u32,
    restarts: u32,
    /// Why the worker said that it cannot.
    failure: Option<Failure>,
    /// Why the last restart that was asked for failed, if it did.
    failed_restart: Option<String>,
    /// Registered, and not yet said to be open.
    registered: HashMap<Ino, BackingNumber>,
    heard: UnboundedSender<(Generation, Heard)>,
}

/// Keeps a mount until it is to end: the inherited one if it can. `ready` is called once; if it fails
/// (nobody waits any more), all is taken down again.
pub async fn run<R>(plan: Plan, inherited: Inheritance, ready: R) -> Result<(), Failure>
where
    R: FnOnce(&Ready) -> Result<(), Failure>,
{
    let mut signals = Signals::new(plan.ends_with_terminal)?;
    let mut probe = Probe::new(plan.registry_folder.clone());
    if !probe.answers().await && inherited.is_empty() {
        probe.answers_at_last().await?;
    }
    // Before anything is changed. A mount to go on with was checked when it was made.
    if inherited.is_empty() {
        let mount = plan.mount.clone();
        blocking(move || Ok(modelfs_platform::check(&mount)?)).await?;
    }
    // A registry that does not answer is for the worker to tell of: the mount is there already.
    let registry = plan.registry_folder.clone().filter(|_| !probe.hangs());
    let (root, identity) = (plan.root.clone(), plan.identity.clone());
    let lock = blocking(move || handover::take(&root, &identity, registry.as_deref())).await?;
    // As the worker will find it, now that the folder is there.
    let root = paths::absolute(&plan.root)?;
    let (mount, at) = (plan.mount.clone(), root.clone());
    let taken = blocking(move || Ok(inherited.take_up(&mount, &at))).await?;
    let bound = server::bind(&paths::socket(&root))?;
    let (heard, mut hear) = unbounded_channel();
    let mut this = Supervisor {
        policy: Policy::new(plan.most_deaths),
        program: Program::this()?,
        lock,
        bound,
        ready: Some(ready),
        stage: Stage::Running,
        connection: None,
        guard: None,
        probe,
        worker: None,
        next: None,
        check_by: None,
        retire_by: None,
        since: None,
        generations: 0,
        restarts: 0,
        failure: None,
        failed_restart: None,
        registered: HashMap::new(),
        heard,
        plan: Plan { root, ..plan },
    };
    if let Some(TakenUp { connection, reaper, since, restarts }) = taken {
        this.guard = Some(Guard::new(connection.mounted(), reaper)?);
        this.connection = Some(Arc::new(connection));
        (this.since, this.restarts) = (Some(since), restarts);
    }
    this.worker = Some(this.start(Which::Installed)?);
    let end = this.watch(&mut signals, &mut hear).await;
    this.stop(end, signals, hear).await
}

impl<R> Supervisor<R>
where
    R: FnOnce(&Ready) -> Result<(), Failure>,
{
    fn start(&mut self, which: Which) -> Result<Worker, Failure> {
        self.generations += 1;
        self.program.start(which, Generation(self.generations), self.heard.clone())
    }

    async fn watch(
        &mut self,
        signals: &mut Signals,
        hear: &mut UnboundedReceiver<(Generation, Heard)>,
    ) -> End {
        let mut watchdog = service::Watchdog::new();
        let mut beaten = tokio::time::Instant::now();
        loop {
            let pause = match &self.stage {
                Stage::Pausing { until } => Some(*until),
                Stage::Running => None,
                Stage::GivenUp(_) => Some(tokio::time::Instant::now() + LOOK),
            };
            let (retire_by, check_by) = (self.retire_by, self.check_by);
            let beat = Pulse::every(self.plan.silence).map(|every| beaten + every);
            let step = tokio::select! {
                asked = signals.next() => match asked {
                    Asked::End => Err(End::Signalled),
                    Asked::Restart => self.restart(),
                },
                Some((generation, heard)) = hear.recv() => match heard {
                    Heard::Message(message, beside) => self.on(generation, *message, beside).await,
                    Heard::HungUp => self.on_hung_up(generation).await,
                },
                () = watchdog.tick() => Ok(()),
                () = sleep_until(retire_by) => {
                    tracing::error!("the worker does not make room and is killed");
                    self.retire_by = None;
                    self.worker.iter_mut().for_each(Worker::kill);
                    Ok(())
                }
                () = sleep_until(check_by) => {
                    self.check_by = None;
                    let why = format!("it was not prepared within {CHECK:?}");
                    self.next.iter_mut().for_each(|next| next.doom(&why));
                    Ok(())
                }
                () = lost(self.guard.as_ref()) => {
                    self.guard.iter_mut().for_each(Guard::replace);
                    Ok(())
                }
                () = self.probe.came_back() => self.on_registry_back(),
                () = sleep_until(pause) => self.on_pause(),
                () = sleep_until(beat) => {
                    beaten = tokio::time::Instant::now();
                    self.beat();
                    Ok(())
                }
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    /// Asks the workers whether they are there, from their start on, and has one replaced that does
    /// not answer.
    fn beat(&mut self) {
        for worker in self.worker.iter_mut().chain(&mut self.next) {
            match worker.pulse.tick() {
                Beat::Ask => worker.say(&ToWorker::Ping, &[]),
                Beat::Hangs => {
                    tracing::error!(pid = worker.pid(), "the worker does not answer and is killed");
                    worker.doom(format!("it did not answer for {:?}", self.plan.silence));
                }
            }
        }
    }

    /// A pause is over; or nobody serves, and perhaps nobody needs to any more.
    fn on_pause(&mut self) -> Result<(), End> {
        if self.connection.as_ref().is_some_and(|c| c.has_ended()) {
            return Err(End::Unmounted);
        }
        if let Stage::GivenUp(_) = self.stage {
            return Ok(());
        }
        self.stage = Stage::Running;
        self.begin(Which::Proven)
    }

    /// Starts the worker that is to serve.
    fn begin(&mut self, which: Which) -> Result<(), End> {
        match self.start(which) {
            Ok(worker) => {
                self.worker = Some(worker);
                Ok(())
            }
            // No memory, no processes: like a worker that died at once.
            Err(failure) => {
                tracing::error!("{failure}");
                self.after_a_death(failure.to_string())
            }
        }
    }

    /// Whether it is the one that serves or is to.
    fn is_worker(&self, generation: Generation) -> bool {
        self.worker.as_ref().is_some_and(|w| w.generation == generation)
    }

    /// Says in the store who serves it, or why nobody does: a small write to an open file.
    fn announce(&self, trouble: Option<String>) {
        let holder = Holder {
            pid: std::process::id(),
            mountpoint: Some(self.plan.mount.mountpoint.clone()),
            socket: Some(self.bound.path().to_owned()),
            trouble,
        };
        if let Err(error) = self.lock.say(&holder) {
            tracing::error!(%error, "commands cannot be told who serves the store");
        }
    }

    /// Takes back what a worker that is gone had registered and not opened.
    fn take_back_unused(&mut self) {
        for (_, number) in self.registered.drain() {
            if let Some(connection) = &self.connection {
                connection.unregister(number);
            }
        }
    }
}

async fn ended(mut worker: Worker) -> String {
    let doomed = worker.doomed.take();
    let how = match worker.end().await {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    };
    doomed.unwrap_or(how)
}

async fn lost(guard: Option<&Guard>) {
    match guard {
        Some(guard) => guard.lost().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(when: Option<tokio::time::Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when).await,
        None => std::future::pending().await,
    }
}

/// Why there is no taking over.
const OLD_KERNEL: &str = "this kernel does not send requests again: Linux 6.9 does";
/// How often it is looked whether a mount that nobody serves is still there.
const LOOK: Duration = Duration::from_secs(1);
/// How long a worker for a restart may take until it could begin: nothing of that takes longer than
/// its start. Less than `modelfs restart` waits for an answer.
const CHECK: Duration = Duration::from_secs(6);
/// How long a worker may take to commit and end once its connection has ended.
const COMMIT: Duration = Duration::from_secs(10);
