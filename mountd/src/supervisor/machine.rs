//! What the supervisor decides: which worker runs, which one takes over, when one is killed, when it is over.
//!
//! [`Machine::on`] takes an event and the time and returns actions, which its caller carries out in order.
//! What comes of an action is an event again.
//!
//! Invariants: at most one worker has the connection. The worker that serves is told to retire only when
//! another one has been checked, and that one is told to begin only when the former has ended. If it
//! fails all the same, a worker of the program that served before takes over. While it is not over, a
//! worker runs, or the next one is due, or the mount is refused until somebody asks for a restart.
//! Pure: no I/O, no clock; log lines are all that it leaves behind.

use std::time::{Duration, Instant};

use super::heartbeat::{Beat, Heartbeat};
use super::messages::{PROTOCOL, ToWorker};
use super::restart_policy::{Next, RestartPolicy};
use crate::error::{Failure, Kind};

/// Why there is no taking over.
const OLD_KERNEL: &str = "this kernel does not send requests again: Linux 6.9 does";
/// How often to look whether a mount that nobody serves is still there.
const LOOK: Duration = Duration::from_secs(1);
/// How long a worker for a restart may take until it is checked: nothing of that takes longer than its
/// start. Less than `modelfs restart` waits for an answer.
const CHECK_TIMEOUT: Duration = Duration::from_secs(6);
/// How long a worker may take to commit and end once it was told to retire.
pub(super) const RETIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// A worker: they are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u32);

/// Which program a worker runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The one that is now installed.
    Installed,
    /// The one that was last ready for requests, wherever it lies by now; before that, the installed.
    Proven,
}

/// The mount, as it is when an event comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mount {
    /// Not made yet.
    None,
    /// Alive.
    Alive {
        /// Whether the kernel lets another process go on where one died.
        can_be_taken_over: bool,
    },
    /// Unmounted, or cut off.
    Ended,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// Somebody asked for another worker, by command or by signal.
    RestartRequested,
    /// A worker could not be started.
    StartFailed(Failure),
    /// A worker's first message.
    Hello { protocol: u32, version: String },
    /// A worker was told what it is to serve; the registry's folder did not answer.
    Welcomed { lacks_registry: bool },
    /// A worker could not be told what it is to serve.
    NotWelcomed(String),
    /// A worker could begin: nothing but the store is missing.
    Checked,
    /// A worker has opened the store and wants the connection.
    Prepared,
    /// A worker is there for requests; whether the registry's folder answers now.
    Ready { registry_answers: bool },
    /// A worker has answered its first requests.
    Served,
    /// A worker has answered a ping.
    Pong,
    /// A worker says why it cannot go on.
    Failed(Failure),
    /// A worker was asked for the end of the mount, by command.
    UnmountRequested,
    /// A worker says that the connection has ended.
    ConnectionEnded,
    /// A worker is dead, and how it ended.
    Died { pid: Option<u32>, how: String },
    /// The registry's folder answers, which did not when the worker began.
    RegistryCameBack,
    /// What [`Machine::deadline`] said is due.
    Tick,
}

/// What to do.
#[derive(Debug)]
pub enum Action {
    /// Start a worker. If that fails: [`Event::StartFailed`].
    Start(Generation, Which),
    /// Tell a worker what it is to serve. Then: [`Event::Welcomed`] or [`Event::NotWelcomed`].
    Welcome(Generation),
    /// Send a message.
    Send(Generation, ToWorker),
    /// Hand the connection over; mount first if nothing is mounted yet.
    Serve(Generation),
    /// This worker's program is a good one.
    ProveProgram(Generation),
    /// Say that the mount is ready.
    AnnounceReady,
    /// Kill a worker. Its death is an event still.
    Kill(Generation),
    /// Kill a worker that is not heard any more.
    Discard(Generation),
    /// Take back what the worker that is gone had registered and not opened.
    TakeBackUnused,
    /// Answer every request with this reason until [`Action::StopRefusing`].
    Refuse(String),
    /// Let requests wait for a worker again.
    StopRefusing,
    /// It is over.
    End(End),
}

/// Why it is over.
#[derive(Debug)]
pub enum End {
    /// Somebody asked for it, by command.
    Asked,
    /// Somebody asked for it, or only for this process to go: by signal.
    Signalled,
    /// Unmounted from outside.
    Unmounted,
    /// It cannot go on.
    Failed(Failure),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// A worker serves, or will soon.
    Running,
    /// Between workers.
    Pausing { until: Instant },
    /// Nobody serves, and nobody will unless asked to.
    GivenUp { look: Instant },
}

/// What is known of a worker.
#[derive(Debug)]
struct Worker {
    generation: Generation,
    heartbeat: Heartbeat,
    /// It was started for a restart, and the program that served before is still there.
    replaces_proven: bool,
    lacks_registry: bool,
    checked: bool,
    /// It has the connection.
    serves: bool,
    ready: bool,
    /// It was told to retire.
    retires: bool,
    /// Why it was killed, if it was.
    killed_for: Option<String>,
}

/// How a supervisor decides.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Quick deaths in a row after which requests are refused; 0: never.
    pub quick_deaths: u32,
    /// How long a worker may be silent before it is taken to hang; zero: for ever.
    pub hang_timeout: Duration,
}

/// The decisions of a supervisor.
#[derive(Debug)]
pub struct Machine {
    policy: RestartPolicy,
    hang_timeout: Duration,
    next_beat: Option<Instant>,
    stage: Stage,
    /// The one that serves, or is to.
    worker: Option<Worker>,
    /// Started for a restart: begins when its predecessor has ended.
    next: Option<Worker>,
    /// When the next one is killed unless it was checked.
    check_by: Option<Instant>,
    /// When the one that retires is killed.
    retire_by: Option<Instant>,
    generations: u32,
    restarts: u32,
    /// A former supervisor's mount is gone on with.
    inherited: bool,
    /// A worker of this supervisor was ready.
    was_ready: bool,
    /// Why the last worker to fail said that it cannot go on.
    failure: Option<Failure>,
    /// Why the last restart that was asked for failed, if it did.
    failed_restart: Option<String>,
}

impl Machine {
    /// The first worker is still to be started: [`Machine::start`]. `inherited`: how many workers served
    /// the mount before, if a former supervisor left it.
    pub fn new(limits: Limits, inherited: Option<u32>, now: Instant) -> Self {
        Self {
            policy: RestartPolicy::new(limits.quick_deaths),
            hang_timeout: limits.hang_timeout,
            next_beat: Heartbeat::every(limits.hang_timeout).map(|every| now + every),
            stage: Stage::Running,
            worker: None,
            next: None,
            check_by: None,
            retire_by: None,
            generations: 0,
            restarts: inherited.unwrap_or(0),
            inherited: inherited.is_some(),
            was_ready: false,
            failure: None,
            failed_restart: None,
        }
    }

    /// How many workers have gone.
    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    /// Why the last restart that was asked for failed, if it did.
    pub fn failed_restart(&self) -> Option<&str> {
        self.failed_restart.as_deref()
    }

    /// The worker that serves or is to, and whether it has the connection.
    pub fn worker(&self) -> Option<(Generation, bool)> {
        self.worker.as_ref().map(|worker| (worker.generation, worker.serves))
    }

    /// Whether this is the worker that serves or is to: only its messages about files count.
    pub fn is_worker(&self, generation: Generation) -> bool {
        self.worker.as_ref().is_some_and(|worker| worker.generation == generation)
    }

    /// Starts the first worker.
    pub fn start(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        self.start_worker(Which::Installed, &mut actions);
        actions
    }

    /// When [`Event::Tick`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        let stage = match self.stage {
            Stage::Running => None,
            Stage::Pausing { until } => Some(until),
            Stage::GivenUp { look } => Some(look),
        };
        [stage, self.check_by, self.retire_by, self.next_beat].into_iter().flatten().min()
    }

    /// Decides. `from`: the worker that the event is about; events of others carry any.
    pub fn on(
        &mut self,
        event: Event,
        from: Generation,
        mount: Mount,
        now: Instant,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::RestartRequested => self.on_restart_requested(mount, now, &mut actions),
            Event::StartFailed(failure) => self.on_start_failed(failure, from, now, &mut actions),
            Event::Hello { protocol, version } => {
                self.on_hello(from, protocol, &version, &mut actions);
            }
            Event::Welcomed { lacks_registry } => {
                self.known(from).into_iter().for_each(|w| w.lacks_registry = lacks_registry);
            }
            Event::NotWelcomed(why) => self.kill(from, why, &mut actions),
            Event::Checked => self.on_checked(from, now, &mut actions),
            Event::Prepared => {
                if let Some(worker) = self.serving(from) {
                    worker.serves = true;
                    actions.push(Action::Serve(from));
                }
            }
            Event::Ready { registry_answers } => {
                self.on_ready(from, registry_answers, mount, now, &mut actions);
            }
            Event::Served if self.is_worker(from) => self.policy.served(),
            Event::Pong => self.known(from).into_iter().for_each(|w| w.heartbeat.answered()),
            Event::Failed(failure) if self.known(from).is_some() => self.failure = Some(failure),
            Event::UnmountRequested if self.is_worker(from) => {
                actions.push(Action::End(End::Asked))
            }
            // A worker's word alone does not end a mount: if the connection lives, the next one goes on.
            Event::ConnectionEnded if self.is_worker(from) => {
                if !matches!(mount, Mount::Alive { .. }) {
                    actions.push(Action::End(End::Unmounted));
                }
            }
            Event::Died { pid, how } => self.on_death(from, pid, how, mount, now, &mut actions),
            Event::RegistryCameBack => {
                tracing::info!("the registry's folder answers again");
                if self.worker.as_ref().is_some_and(|worker| worker.ready) {
                    self.replace(Which::Proven, mount, now, &mut actions);
                }
            }
            Event::Tick => self.on_tick(mount, now, &mut actions),
            Event::Served | Event::Failed(_) | Event::UnmountRequested | Event::ConnectionEnded => {
            }
        }
        actions
    }

    /// No worker is replaced any more: everything ends. Returns the next one, if there is one.
    pub fn stop_replacing(&mut self) -> Option<Generation> {
        (self.check_by, self.retire_by) = (None, None);
        self.next.take().map(|next| next.generation)
    }

    /// The worker that this generation is, whether it serves or is to follow.
    fn known(&mut self, generation: Generation) -> Option<&mut Worker> {
        self.worker.iter_mut().chain(&mut self.next).find(|w| w.generation == generation)
    }

    fn serving(&mut self, generation: Generation) -> Option<&mut Worker> {
        self.worker.as_mut().filter(|worker| worker.generation == generation)
    }

    fn is_next(&self, generation: Generation) -> bool {
        self.next.as_ref().is_some_and(|next| next.generation == generation)
    }

    fn send(&self, message: ToWorker, actions: &mut Vec<Action>) {
        actions.extend(self.worker.as_ref().map(|w| Action::Send(w.generation, message)));
    }

    fn kill(&mut self, generation: Generation, why: String, actions: &mut Vec<Action>) {
        if let Some(worker) = self.known(generation) {
            worker.killed_for.get_or_insert(why);
            actions.push(Action::Kill(generation));
        }
    }

    fn new_worker(&mut self, which: Which, actions: &mut Vec<Action>) -> Worker {
        self.generations += 1;
        let generation = Generation(self.generations);
        actions.push(Action::Start(generation, which));
        Worker {
            generation,
            heartbeat: Heartbeat::default(),
            replaces_proven: which == Which::Installed && self.was_ready,
            lacks_registry: false,
            checked: false,
            serves: false,
            ready: false,
            retires: false,
            killed_for: None,
        }
    }

    /// Starts the worker that is to serve.
    fn start_worker(&mut self, which: Which, actions: &mut Vec<Action>) {
        self.worker = Some(self.new_worker(which, actions));
    }

    fn on_start_failed(
        &mut self,
        failure: Failure,
        from: Generation,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        tracing::error!("{failure}");
        if self.is_next(from) {
            (self.next, self.check_by) = (None, None);
            self.send(ToWorker::Restarted(Err(failure.to_string())), actions);
        } else if self.is_worker(from) {
            self.worker = None;
            if from == Generation(1) {
                actions.push(Action::End(End::Failed(failure)));
            } else {
                // No memory, no processes: like a worker that died at once.
                self.after_death(&failure.to_string(), now, actions);
            }
        }
    }

    fn on_restart_requested(&mut self, mount: Mount, now: Instant, actions: &mut Vec<Action>) {
        self.policy.forgive();
        self.failed_restart = None;
        match std::mem::replace(&mut self.stage, Stage::Running) {
            Stage::Running => self.replace(Which::Installed, mount, now, actions),
            stage => {
                if let Stage::GivenUp { .. } = stage {
                    actions.push(Action::StopRefusing);
                }
                self.start_worker(Which::Installed, actions);
            }
        }
    }

    /// Starts the next worker beside the one that serves.
    fn replace(&mut self, which: Which, mount: Mount, now: Instant, actions: &mut Vec<Action>) {
        let is_starting =
            self.next.is_some() || self.worker.as_ref().is_none_or(|worker| !worker.serves);
        if is_starting {
            let why = "a worker is just starting".to_owned();
            return self.send(ToWorker::Restarted(Err(why)), actions);
        }
        if mount == (Mount::Alive { can_be_taken_over: false }) {
            return self.send(ToWorker::Restarted(Err(OLD_KERNEL.to_owned())), actions);
        }
        self.next = Some(self.new_worker(which, actions));
        self.check_by = Some(now + CHECK_TIMEOUT);
    }

    fn on_hello(
        &mut self,
        from: Generation,
        protocol: u32,
        version: &str,
        actions: &mut Vec<Action>,
    ) {
        if protocol == PROTOCOL {
            if self.known(from).is_some() {
                actions.push(Action::Welcome(from));
            }
            return;
        }
        let why = format!(
            "the program now installed, {version}, speaks protocol {protocol}, this daemon {PROTOCOL}: unmount and mount again to change over"
        );
        tracing::error!("{why}");
        if self.is_next(from) {
            (self.next, self.check_by) = (None, None);
            actions.push(Action::Discard(from));
            self.send(ToWorker::Restarted(Err(why)), actions);
        } else {
            self.kill(from, why, actions);
        }
    }

    fn on_checked(&mut self, from: Generation, now: Instant, actions: &mut Vec<Action>) {
        if let Some(worker) = self.serving(from) {
            worker.checked = true;
            return self.send(ToWorker::Begin, actions);
        }
        let Some(next) = self.next.as_mut().filter(|next| next.generation == from) else { return };
        next.checked = true;
        self.check_by = None;
        tracing::info!("another worker is prepared; the one that serves makes room");
        self.send(ToWorker::Restarted(Ok(())), actions);
        self.send(ToWorker::Retire, actions);
        self.worker.iter_mut().for_each(|worker| worker.retires = true);
        self.retire_by = Some(now + RETIRE_TIMEOUT);
    }

    fn on_ready(
        &mut self,
        from: Generation,
        registry_answers: bool,
        mount: Mount,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        let Some(worker) = self.serving(from) else { return };
        worker.ready = true;
        let lacks_registry = worker.lacks_registry;
        self.policy.ready(now);
        self.failure = None;
        self.was_ready = true;
        actions.extend([Action::ProveProgram(from), Action::AnnounceReady]);
        // The registry's folder may have come back while it began.
        if lacks_registry && registry_answers {
            self.replace(Which::Proven, mount, now, actions);
        }
    }

    fn on_death(
        &mut self,
        from: Generation,
        pid: Option<u32>,
        how: String,
        mount: Mount,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        if let Some(next) = self.next.take_if(|next| next.generation == from) {
            return self.on_death_of_next(&next, how, actions);
        }
        let Some(worker) = self.worker.take_if(|worker| worker.generation == from) else { return };
        let how = worker.killed_for.unwrap_or(how);
        actions.push(Action::TakeBackUnused);
        self.retire_by = None;
        if mount == Mount::Ended {
            return actions.push(Action::End(End::Unmounted));
        }
        // A mount that was taken over from a former supervisor is kept, unless the worker says why not.
        if !self.was_ready && (!self.inherited || self.failure.is_some()) {
            let failure = self.failure.take().unwrap_or_else(|| {
                Failure::new(Kind::General, format!("the worker ended before it was ready: {how}"))
            });
            return actions.push(Action::End(End::Failed(failure)));
        }
        if mount == (Mount::Alive { can_be_taken_over: false }) {
            let why = format!("the worker died ({how}), and {OLD_KERNEL}");
            return actions.push(Action::End(End::Failed(Failure::new(Kind::General, why))));
        }
        self.restarts += 1;
        if let Some(next) = self.next.take() {
            self.check_by = None;
            self.policy.replaced();
            let checked = next.checked;
            self.worker = Some(next);
            if checked {
                self.send(ToWorker::Begin, actions);
            }
            return;
        }
        if worker.retires {
            // The one that it made room for has died meanwhile.
            self.policy.replaced();
            return self.start_worker(Which::Proven, actions);
        }
        tracing::error!(pid, how, served = worker.serves, "the worker died");
        let why = self.failure.take().map_or(how, |failure| failure.message);
        if worker.replaces_proven && !worker.ready {
            let why = format!("the new worker ended before it was ready: {why}");
            tracing::error!("{why}; the program that served before goes on");
            self.failed_restart = Some(why);
            return self.start_worker(Which::Proven, actions);
        }
        self.after_death(&why, now, actions);
    }

    fn on_death_of_next(&mut self, next: &Worker, how: String, actions: &mut Vec<Action>) {
        self.check_by = None;
        let how = next.killed_for.clone().unwrap_or(how);
        tracing::error!(how, "the worker that was to take over died");
        let why = self.failure.take().map_or(how, |failure| failure.message);
        let why = format!("the new worker ended before it could take over: {why}");
        if next.checked {
            // It is too late for an answer: the one that serves makes room already.
            self.failed_restart = Some(why.clone());
        }
        self.send(ToWorker::Restarted(Err(why)), actions);
    }

    fn after_death(&mut self, why: &str, now: Instant, actions: &mut Vec<Action>) {
        match self.policy.died(now) {
            Next::After(pause) => self.stage = Stage::Pausing { until: now + pause },
            Next::GiveUp(deaths) => {
                self.stage = Stage::GivenUp { look: now + LOOK };
                let reason = format!(
                    "modelfs does not serve this mount: its worker died {deaths} times in a row, at last: {why}; 'modelfs restart' tries again"
                );
                tracing::error!("{reason}");
                actions.push(Action::Refuse(reason));
            }
        }
    }

    fn on_tick(&mut self, mount: Mount, now: Instant, actions: &mut Vec<Action>) {
        let is_due = |when: Option<Instant>| when.is_some_and(|when| when <= now);
        if is_due(self.retire_by) {
            tracing::error!("the worker does not make room and is killed");
            self.retire_by = None;
            actions.extend(self.worker.as_ref().map(|w| Action::Kill(w.generation)));
        }
        if is_due(self.check_by) {
            self.check_by = None;
            let why = format!("it was not prepared within {CHECK_TIMEOUT:?}");
            if let Some(next) = self.next.as_ref().map(|next| next.generation) {
                self.kill(next, why, actions);
            }
        }
        if is_due(self.next_beat) {
            self.next_beat = Heartbeat::every(self.hang_timeout).map(|every| now + every);
            self.beat(actions);
        }
        match self.stage {
            Stage::Pausing { until } if until <= now => {
                if mount == Mount::Ended {
                    return actions.push(Action::End(End::Unmounted));
                }
                self.stage = Stage::Running;
                self.start_worker(Which::Proven, actions);
            }
            Stage::GivenUp { look } if look <= now => {
                if mount == Mount::Ended {
                    return actions.push(Action::End(End::Unmounted));
                }
                self.stage = Stage::GivenUp { look: now + LOOK };
            }
            _ => {}
        }
    }

    /// Asks the workers whether they are there, from their start on, and has one that does not answer
    /// replaced.
    fn beat(&mut self, actions: &mut Vec<Action>) {
        for worker in self.worker.iter_mut().chain(&mut self.next) {
            match worker.heartbeat.tick() {
                Beat::Ask => actions.push(Action::Send(worker.generation, ToWorker::Ping)),
                Beat::Hangs => {
                    tracing::error!("a worker does not answer and is killed");
                    let why = format!("it did not answer for {:?}", self.hang_timeout);
                    worker.killed_for.get_or_insert(why);
                    actions.push(Action::Kill(worker.generation));
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
