//! The supervisor: keeps the mount and a worker that serves it.
//!
//! Its decisions are in [`machine`], a function of events; this file feeds it events and carries out
//! its actions. Invariant: it reads nothing that a registry sent and nothing of the store. The mount,
//! the control socket and the store's lock outlive every worker. A worker that dies is followed by
//! another one, which receives the open files and the requests that the dead one had not answered. One
//! task; each worker has a thread that receives its messages.

mod events;
mod fd_store;
pub mod guard;
mod heartbeat;
mod kept_mount;
pub mod link;
mod login_desk;
mod machine;
pub mod messages;
mod plan;
pub mod probe;
mod refusing;
mod restart_policy;
mod service_manager;
mod shutdown;
mod unit;
mod workers;

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::time::{Instant, SystemTime};

use modelfs::base::blocking::blocking;
use modelfs::base::clock::rfc3339;
use modelfs::store::{Holder, StoreLock};

use crate::cache_ownership;
use crate::control::server::{self, Bound};
use crate::error::Failure;
use crate::identity::Identity;
use crate::paths;
use crate::ready::Ready;
use crate::signals::{Asked, Signals};
use crate::sources;
use events::{Action, End, Event, Generation, NO_WORKER};
pub use fd_store::Inheritance;
use fd_store::{ServiceState, TakenUp};
use kept_mount::KeptMount;
use login_desk::LoginDesk;
use machine::{Limits, Machine};
use messages::{FromWorker, OPEN_FILES, ToWorker, Welcome};
pub use plan::Plan;
use probe::Probes;
use shutdown::Ending;
pub use unit::Unit;
use workers::{Inbox, LinkEvent, Workers};

struct Supervisor<R> {
    plan: Plan,
    machine: Machine,
    workers: Workers,
    mount: KeptMount,
    /// Check the folders of registries.
    probes: Probes,
    /// Answers workers that need a login.
    login_desk: LoginDesk,
    lock: StoreLock,
    bound: Bound,
    /// Since when the mount exists; none: it was never ready.
    since: Option<String>,
    /// Called when the mount is ready for the first time.
    ready: Option<R>,
    /// The last worker's ready message, until it is announced.
    said_ready: Option<Box<Ready>>,
}

/// Keeps a mount until its end, the inherited one if possible. `ready` is called once; if it fails
/// (its caller has gone), everything is taken down again.
pub async fn run<R>(plan: Plan, inherited: Inheritance, ready: R) -> Result<(), Failure>
where
    R: FnOnce(&Ready) -> Result<(), Failure>,
{
    let mut signals = Signals::new(plan.ends_with_terminal)?;
    let login_desk = LoginDesk::new(&plan.sources)?;
    let mut probes = Probes::new(sources::folders(&plan.sources));
    if !probes.answer().await && inherited.is_empty() {
        let failure = probes.answer_before_first_mount().await.err();
        // Other sources are served without the one that hangs.
        if let Some(failure) = failure.filter(|_| plan.sources.len() == 1) {
            return Err(failure);
        }
    }
    // Before anything is changed. An inherited mount was checked when it was made.
    if inherited.is_empty() {
        let mount = plan.mount.clone();
        blocking(move || modelfs_platform::check(&mount)).await??;
    }
    // The worker reports a registry that does not answer: an inherited mount already exists.
    let mut folders = sources::folders(&plan.sources);
    folders.retain(|folder| !probes.hanging().contains(folder));
    let (root, identity) = (plan.root.clone(), plan.identity.clone());
    let lock = blocking(move || cache_ownership::take(&root, &identity, &folders)).await??;
    // The path as the worker will resolve it, now that the folder exists.
    let root = paths::absolute(&plan.root)?;
    let (mount, at) = (plan.mount.clone(), root.clone());
    let taken = blocking(move || inherited.take_up(&mount, &at)).await?;
    let bound = server::bind(&paths::socket(&root))?;
    let (workers, mut inbox) = Workers::new()?;
    let restarts = taken.as_ref().map(|taken| taken.restarts);
    let (mount, since) = match taken {
        Some(TakenUp { connection, guard_process, since, .. }) => {
            (KeptMount::inherited(connection, guard_process)?, Some(since))
        }
        None => (KeptMount::default(), None),
    };
    let limits = Limits { quick_deaths: plan.quick_deaths, hang_timeout: plan.hang_timeout };
    let mut this = Supervisor {
        machine: Machine::new(limits, restarts, Instant::now()),
        workers,
        mount,
        probes,
        login_desk,
        lock,
        bound,
        since,
        ready: Some(ready),
        said_ready: None,
        plan: plan.with_root(root),
    };
    let end = this.watch(&mut signals, &mut inbox).await;
    if let Some(next) = this.machine.stop_replacing() {
        this.workers.discard(next);
    }
    let (root, restarts) = (this.plan.root, this.machine.restarts());
    let ending = Ending {
        worker: this.machine.worker(),
        workers: this.workers,
        mount: this.mount,
        inbox,
        unit: this.plan.unit,
        service: this.since.map(|since| ServiceState { root, since, restarts }),
    };
    // Lock and socket are held until the end.
    ending.run(end, signals).await
}

impl<R> Supervisor<R>
where
    R: FnOnce(&Ready) -> Result<(), Failure>,
{
    async fn watch(&mut self, signals: &mut Signals, inbox: &mut Inbox) -> End {
        let mut watchdog = service_manager::Watchdog::new();
        let first = self.machine.start();
        if let Err(end) = self.carry_out(first).await {
            return end;
        }
        loop {
            let (from, event) = tokio::select! {
                asked = signals.next() => match asked {
                    Asked::End => return End::Signalled,
                    Asked::Restart => (NO_WORKER, Event::RestartRequested),
                },
                Some((from, event)) = inbox.recv() => match self.event(from, event).await {
                    Some(event) => (from, event),
                    None => continue,
                },
                () = watchdog.tick() => continue,
                () = self.mount.guard_lost() => {
                    self.mount.replace_guard();
                    continue;
                }
                (worker, answer) = self.login_desk.answered() => {
                    self.workers.send(worker, &answer, &[]);
                    continue;
                }
                () = self.probes.came_back() => (NO_WORKER, Event::RegistryCameBack),
                () = sleep_until(self.machine.deadline()) => (NO_WORKER, Event::Tick),
            };
            let actions = self.machine.on(event, from, self.mount.state(), Instant::now());
            if let Err(end) = self.carry_out(actions).await {
                return end;
            }
        }
    }

    /// Turns a worker's message into an event, if it needs a decision; answers all others.
    async fn event(&mut self, from: Generation, event: LinkEvent) -> Option<Event> {
        let (message, beside) = match event {
            LinkEvent::Message(message, beside) => (*message, beside),
            LinkEvent::HungUp => {
                let pid = self.workers.pid(from);
                return Some(Event::Died { pid, how: self.workers.end(from).await? });
            }
        };
        Some(match message {
            FromWorker::Hello { protocol, version } => Event::Hello { protocol, version },
            FromWorker::Checked => Event::Checked,
            FromWorker::Prepared => Event::Prepared,
            FromWorker::Ready(ready) => {
                self.said_ready = Some(ready);
                Event::Ready { registry_answers: self.probes.hanging().is_empty() }
            }
            FromWorker::Served => Event::Served,
            FromWorker::Pong => Event::Pong,
            FromWorker::Failed(failure) => Event::Failed(failure),
            FromWorker::Login { ask, source, repository } => {
                self.login_desk.ask(from, ask, source, repository);
                return None;
            }
            FromWorker::Unmount => Event::UnmountRequested,
            FromWorker::Restart => Event::RestartRequested,
            FromWorker::Ended => Event::ConnectionEnded,
            message => {
                if self.machine.is_worker(from)
                    && let Some(answer) = self.mount.on_message(message, beside)
                {
                    self.workers.send(from, &answer, &[]);
                }
                return None;
            }
        })
    }

    /// Carries out actions, and those that follow from their results.
    async fn carry_out(&mut self, actions: Vec<Action>) -> Result<(), End> {
        let mut actions = VecDeque::from(actions);
        while let Some(action) = actions.pop_front() {
            if let Some((from, event)) = self.act(action).await? {
                let state = self.mount.state();
                actions.extend(self.machine.on(event, from, state, Instant::now()));
            }
        }
        Ok(())
    }

    async fn act(&mut self, action: Action) -> Result<Option<(Generation, Event)>, End> {
        match action {
            Action::Start(worker, which) => {
                if let Err(failure) = self.workers.start(worker, which) {
                    return Ok(Some((worker, Event::StartFailed(failure))));
                }
            }
            Action::Welcome(worker) => return Ok(Some((worker, self.welcome(worker).await))),
            Action::Send(worker, message) => self.workers.send(worker, &message, &[]),
            Action::Serve(worker) => self.hand_over(worker).await.map_err(End::Failed)?,
            Action::ProveProgram(worker) => self.workers.prove(worker),
            Action::AnnounceReady => self.announce_ready().map_err(End::Failed)?,
            Action::Kill(worker) => self.workers.kill(worker),
            Action::Discard(worker) => self.workers.discard(worker),
            Action::UnregisterUnused => self.mount.unregister_unused(),
            Action::Refuse(reason) => {
                service_manager::status(&reason);
                self.mount.refuse(reason.clone()).map_err(End::Failed)?;
                self.announce(Some(reason));
            }
            Action::StopRefusing => self.mount.stop_refusing(),
            Action::End(end) => return Err(end),
        }
        Ok(None)
    }

    /// Sends a worker the mount's parameters.
    async fn welcome(&mut self, worker: Generation) -> Event {
        // If a user emptied the cache folder, the former worker made a new lock file.
        match cache_ownership::keep(&self.plan.root, &self.lock, &self.plan.identity) {
            Ok(Some(lock)) => self.lock = lock,
            Ok(None) => {}
            Err(error) => tracing::error!("the cache folder cannot be used any more: {error}"),
        }
        let registry_hangs = !self.probes.answer().await;
        for folder in self.probes.hanging() {
            let folder = folder.display();
            tracing::warn!(
                "{folder}: the registry's folder does not answer: the worker goes on without it"
            );
        }
        let welcome = Welcome {
            supervisor: std::process::id(),
            socket: self.bound.path().to_owned(),
            since: self.since.clone(),
            restarts: self.machine.restarts(),
            user: match &self.plan.identity {
                Identity::Other(user) => Some(user.clone()),
                Identity::Kept | Identity::Bare => None,
            },
            config: Some(self.plan.config.clone()),
            log_file: self.plan.log_file.clone(),
            locations: None,
            registry_hangs,
            hanging_folders: Some(self.probes.hanging()),
            answers_logins: true,
            failed_restart: self.machine.failed_restart().map(str::to_owned),
        };
        match self.lock.share() {
            Ok(lock) => {
                let beside = [lock.as_fd(), self.bound.listener()];
                self.workers.send(worker, &ToWorker::Welcome(Box::new(welcome)), &beside);
                Event::Welcomed { lacks_registry: registry_hangs }
            }
            Err(error) => {
                tracing::error!(%error, "the store's lock cannot be handed over");
                Event::NotWelcomed(error.to_string())
            }
        }
    }

    /// Hands the connection over; mounts for the first worker.
    async fn hand_over(&mut self, worker: Generation) -> Result<(), Failure> {
        let (connection, takes_over) = self.mount.open(&self.plan.mount).await?;
        let no_passthrough = connection.no_passthrough(self.plan.mount.passthrough);
        for files in connection.open_files().chunks(OPEN_FILES) {
            let files = files.iter().map(|open| (*open).into()).collect();
            self.workers.send(worker, &ToWorker::Open(files), &[]);
        }
        let offer = connection.offer();
        let serve = ToWorker::Serve { offer, takes_over, no_passthrough };
        self.workers.send(worker, &serve, &[connection.device()]);
        Ok(())
    }

    fn announce_ready(&mut self) -> Result<(), Failure> {
        let Some(ready) = self.said_ready.take() else { return Ok(()) };
        if self.since.is_none() {
            self.since = Some(rfc3339(SystemTime::now()));
        }
        self.announce(None);
        let (at, by) = (self.plan.mount.mountpoint.display(), ready.daemon.worker);
        service_manager::ready(&format!(
            "{} mounted at {at}, served by process {by}",
            ready.registry
        ));
        match self.ready.take() {
            Some(tell) => tell(&ready)?,
            None => tracing::info!(worker = by, "another worker goes on"),
        }
        Ok(())
    }

    /// Records in the store which process serves it, or why none does: a small write to an open file.
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
}

async fn sleep_until(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when.into()).await,
        None => std::future::pending().await,
    }
}
