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
mod pulse;
pub mod reaper;
mod service;
mod stopping;
mod talking;
mod unit;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use modelfs::store::{Holder, StoreLock};
use modelfs::vfs::Ino;
use modelfs_platform::{BackingNumber, Connection};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::control::ops::blocking;
use crate::control::server::{self, Bound};
use crate::daemon::Ready;
use crate::error::{Failure, Kind};
use crate::handover;
use crate::paths;
use crate::signals::{Asked, Signals};
use child::{Generation, Heard, Program, Worker};
pub use keeping::Inheritance;
use keeping::TakenUp;
use messages::ToWorker;
pub use plan::Plan;
use policy::{Next, Policy};
use pulse::{Beat, Pulse};
use reaper::Reaper;
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
    reaper: Option<Reaper>,
    worker: Option<Worker>,
    /// Started for a restart: waits for its predecessor to end.
    next: Option<Worker>,
    /// When the one that makes room is killed.
    retire_by: Option<tokio::time::Instant>,
    since: Option<String>,
    generations: u32,
    restarts: u32,
    /// Why the worker said that it cannot.
    failure: Option<Failure>,
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
    // Before anything is changed. A mount to go on with was checked when it was made.
    if inherited.is_empty() {
        let mount = plan.mount.clone();
        blocking(move || Ok(modelfs_platform::check(&mount)?)).await?;
    }
    let (root, identity, registry) =
        (plan.root.clone(), plan.identity.clone(), plan.registry_folder.clone());
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
        reaper: None,
        worker: None,
        next: None,
        retire_by: None,
        since: None,
        generations: 0,
        restarts: 0,
        failure: None,
        registered: HashMap::new(),
        heard,
        plan: Plan { root, ..plan },
    };
    if let Some(TakenUp { connection, reaper, since, restarts }) = taken {
        let reaper = match reaper {
            Some(reaper) => reaper,
            None => Reaper::start(&this.program.path, connection.mounted())?,
        };
        this.reaper = Some(reaper);
        this.connection = Some(Arc::new(connection));
        (this.since, this.restarts) = (Some(since), restarts);
    }
    this.worker = Some(this.start()?);
    let end = this.watch(&mut signals, &mut hear).await;
    this.stop(end, signals, hear).await
}

impl<R> Supervisor<R>
where
    R: FnOnce(&Ready) -> Result<(), Failure>,
{
    fn start(&mut self) -> Result<Worker, Failure> {
        self.generations += 1;
        self.program.start(Generation(self.generations), self.heard.clone())
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
            let retire_by = self.retire_by;
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

    /// Asks the worker whether it is there, or has it replaced if it does not answer.
    fn beat(&mut self) {
        let Some(worker) = &mut self.worker else { return };
        match worker.pulse.as_mut().map(Pulse::tick) {
            None => {}
            Some(Beat::Ask) => worker.say(&ToWorker::Ping, &[]),
            Some(Beat::Hangs) => {
                tracing::error!(pid = worker.pid(), "the worker does not answer and is killed");
                worker.kill();
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
        self.begin()
    }

    /// Starts the worker that is to serve.
    fn begin(&mut self) -> Result<(), End> {
        match self.start() {
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

    /// Starts a worker to take the place of the one that serves.
    fn restart(&mut self) -> Result<(), End> {
        self.policy.forgive();
        if !matches!(self.stage, Stage::Running) {
            self.stage = Stage::Running;
            return self.begin();
        }
        if self.next.is_some() || self.worker.as_ref().is_none_or(|w| !w.serves) {
            self.say(&ToWorker::Restarted(Err("a worker is just starting".to_owned())));
            return Ok(());
        }
        if self.connection.as_ref().is_some_and(|c| !c.can_be_taken_over()) {
            self.say(&ToWorker::Restarted(Err(OLD_KERNEL.to_owned())));
            return Ok(());
        }
        match self.start() {
            Ok(next) => self.next = Some(next),
            Err(failure) => {
                tracing::error!("{failure}");
                self.say(&ToWorker::Restarted(Err(failure.to_string())));
            }
        }
        Ok(())
    }

    async fn on_hung_up(&mut self, generation: Generation) -> Result<(), End> {
        if let Some(next) = self.next.take_if(|next| next.generation == generation) {
            let how = ended(next).await;
            tracing::error!(how, "the worker that was to take over died");
            let why = self.failure.take().map_or(how, |failure| failure.message);
            self.say(&ToWorker::Restarted(Err(format!("the new worker ended at once: {why}"))));
            return Ok(());
        }
        let Some(worker) = self.worker.take_if(|w| w.generation == generation) else {
            return Ok(());
        };
        let (pid, served) = (worker.pid(), worker.serves);
        let how = ended(worker).await;
        self.take_back_unused();
        self.retire_by = None;
        if self.connection.as_ref().is_some_and(|c| c.has_ended()) {
            return Err(End::Unmounted);
        }
        // A mount that was taken over from a former daemon is kept, unless the worker says why not.
        if self.ready.is_some() && (self.since.is_none() || self.failure.is_some()) {
            let failure = self.failure.take().unwrap_or_else(|| {
                Failure::new(Kind::General, format!("the worker ended before it was ready: {how}"))
            });
            return Err(End::Failed(failure));
        }
        if self.connection.as_ref().is_some_and(|c| !c.can_be_taken_over()) {
            let why = format!("the worker died ({how}), and {OLD_KERNEL}");
            return Err(End::Failed(Failure::new(Kind::General, why)));
        }
        self.restarts += 1;
        if let Some(next) = self.next.take() {
            self.worker = Some(next);
            self.welcome();
            return Ok(());
        }
        tracing::error!(pid, how, served, "the worker died");
        let why = self.failure.take().map_or(how, |failure| failure.message);
        self.after_a_death(why)
    }

    /// Takes back what a worker that is gone had registered and not opened.
    fn take_back_unused(&mut self) {
        for (_, number) in self.registered.drain() {
            if let Some(connection) = &self.connection {
                connection.unregister(number);
            }
        }
    }

    fn after_a_death(&mut self, why: String) -> Result<(), End> {
        match self.policy.died(Instant::now()) {
            Next::After(pause) => {
                self.stage = Stage::Pausing { until: tokio::time::Instant::now() + pause };
            }
            Next::GiveUp(deaths) => {
                let reason = format!(
                    "modelfs does not serve this mount: its worker died {deaths} times in a row, at last: {why}; 'modelfs restart' tries again"
                );
                tracing::error!("{reason}");
                service::status(&reason);
                if let Some(connection) = &self.connection {
                    let refusing = Refusing::start(Arc::clone(connection), reason.clone())
                        .map_err(End::Failed)?;
                    self.stage = Stage::GivenUp(refusing);
                }
                self.announce(Some(reason));
            }
        }
        Ok(())
    }
}

async fn ended(worker: Worker) -> String {
    match worker.end().await {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
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
/// How long a worker may take to commit and end once its connection has ended.
const COMMIT: Duration = Duration::from_secs(10);
