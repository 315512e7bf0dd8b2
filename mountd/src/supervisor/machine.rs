//! The supervisor's decisions: which worker runs, which one takes over, when one is killed, when the
//! mount ends.
//!
//! [`Machine::on`] takes an event and the time and returns actions, which its caller carries out in
//! order. The result of an action is an event again.
//!
//! Invariants: at most one worker has the connection. The serving worker gets Retire only when
//! the next one has been checked, and the next one gets Begin only when the former has ended. If
//! the next one then fails, a worker of the proven program takes over. Until the end, a worker runs, or
//! the next start is due, or the mount is refused until a restart is requested. Pure: no I/O, no clock;
//! its only side effects are log lines.

use std::time::{Duration, Instant};

use super::events::{Action, End, Event, Generation, Mount, NO_WORKER, WhichProgram};
use super::heartbeat::{Beat, Heartbeat};
use super::messages::{PROTOCOL, ToWorker};
use super::restart_policy::{Next, RestartPolicy};
use crate::error::{Failure, Kind};

/// Why a takeover is impossible.
const OLD_KERNEL: &str = "this kernel does not send requests again: Linux 6.9 does";
/// How often a refused mount is checked for its end.
const LOOK: Duration = Duration::from_secs(1);
/// How long a worker for a restart may take until it is checked: no step before that takes longer than
/// its start. Less than the time that `modelfs restart` waits for an answer.
const CHECK_TIMEOUT: Duration = Duration::from_secs(6);
/// How long a worker may take to commit and exit after it was told to retire.
pub(super) const RETIRE_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// A worker serves or is starting.
    Running,
    /// Waiting for the next start.
    Pausing { until: Instant },
    /// No worker serves, and none will until a restart is requested.
    GivenUp { look: Instant },
}

/// The state of a worker.
#[derive(Debug)]
struct Worker {
    generation: Generation,
    heartbeat: Heartbeat,
    /// It was started for a restart, and the proven program is still available.
    replaces_proven: bool,
    lacks_registry: bool,
    checked: bool,
    /// It has the connection.
    serves: bool,
    ready: bool,
    /// It was told to retire.
    retires: bool,
    /// Why we killed it, if we did.
    killed_for: Option<String>,
}

/// A supervisor's limits.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Number of quick deaths in a row after which requests are refused; 0: no limit.
    pub quick_deaths: u32,
    /// How long a worker may be silent before it counts as hung; zero: no limit.
    pub hang_timeout: Duration,
}

/// The decisions of a supervisor.
#[derive(Debug)]
pub struct Machine {
    policy: RestartPolicy,
    hang_timeout: Duration,
    next_beat: Option<Instant>,
    stage: Stage,
    /// The worker that serves or is starting.
    worker: Option<Worker>,
    /// Started for a restart: begins when its predecessor has ended.
    next: Option<Worker>,
    /// When the next one is killed unless it has been checked.
    check_by: Option<Instant>,
    /// When the retiring worker is killed.
    retire_by: Option<Instant>,
    generations: u32,
    restarts: u32,
    /// The mount was taken over from a former supervisor.
    inherited: bool,
    /// A worker of this supervisor was ready.
    was_ready: bool,
    /// The error that the last failing worker reported.
    failure: Option<Failure>,
    /// Why the last requested restart failed, if it did.
    failed_restart: Option<String>,
}

impl Machine {
    /// The first worker is started by [`Machine::start`]. `inherited`: the number of workers that
    /// served before, if a former supervisor left the mount.
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

    /// Number of workers that have ended.
    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    /// Why the last requested restart failed, if it did.
    pub fn failed_restart(&self) -> Option<&str> {
        self.failed_restart.as_deref()
    }

    /// The worker that serves or is starting, and whether it has the connection.
    pub fn worker(&self) -> Option<(Generation, bool)> {
        self.worker.as_ref().map(|worker| (worker.generation, worker.serves))
    }

    /// Whether this is the worker that serves or is starting: only its messages about files count.
    pub fn is_worker(&self, generation: Generation) -> bool {
        self.worker.as_ref().is_some_and(|worker| worker.generation == generation)
    }

    /// Starts the first worker.
    pub fn start(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        self.start_worker(WhichProgram::Installed, &mut actions);
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

    /// Decides. `from`: the worker that the event is about; ignored for other events.
    pub fn on(
        &mut self,
        event: Event,
        from: Generation,
        mount: Mount,
        now: Instant,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::RestartRequested if from == NO_WORKER || self.is_worker(from) => {
                self.on_restart_requested(mount, now, &mut actions);
            }
            Event::StartFailed(failure) => self.on_start_failed(failure, from, now, &mut actions),
            Event::Hello { protocol, version } => {
                self.on_hello(from, protocol, &version, &mut actions);
            }
            Event::Welcomed { lacks_registry } => {
                self.find_worker(from).into_iter().for_each(|w| w.lacks_registry = lacks_registry);
            }
            Event::NotWelcomed(why) => self.kill(from, why, &mut actions),
            Event::Checked => self.on_checked(from, now, &mut actions),
            Event::Prepared => {
                if let Some(worker) = self.current_worker(from) {
                    worker.serves = true;
                    actions.push(Action::Serve(from));
                }
            }
            Event::Ready { registry_answers } => {
                self.on_ready(from, registry_answers, mount, now, &mut actions);
            }
            Event::Served if self.is_worker(from) => self.policy.served(),
            Event::Pong => self.find_worker(from).into_iter().for_each(|w| w.heartbeat.answered()),
            Event::Failed(failure) if self.find_worker(from).is_some() => {
                self.failure = Some(failure)
            }
            Event::UnmountRequested if self.is_worker(from) => {
                actions.push(Action::End(End::Asked))
            }
            // A worker's claim alone does not end a mount: if the connection lives, the next worker
            // continues.
            Event::ConnectionEnded if self.is_worker(from) => {
                if !matches!(mount, Mount::Alive { .. }) {
                    actions.push(Action::End(End::Unmounted));
                }
            }
            Event::Died { pid, how } => self.on_death(from, pid, how, mount, now, &mut actions),
            Event::RegistryCameBack => {
                tracing::info!("the registry's folder answers again");
                if self.worker.as_ref().is_some_and(|worker| worker.ready) {
                    self.replace(WhichProgram::Proven, mount, now, &mut actions);
                }
            }
            Event::Tick => self.on_tick(mount, now, &mut actions),
            Event::RestartRequested
            | Event::Served
            | Event::Failed(_)
            | Event::UnmountRequested
            | Event::ConnectionEnded => {}
        }
        actions
    }

    /// Stops replacing workers, since everything ends. Returns the next worker, if there is one.
    pub fn stop_replacing(&mut self) -> Option<Generation> {
        (self.check_by, self.retire_by) = (None, None);
        self.next.take().map(|next| next.generation)
    }

    /// The worker of this generation, current or next.
    fn find_worker(&mut self, generation: Generation) -> Option<&mut Worker> {
        self.worker.iter_mut().chain(&mut self.next).find(|w| w.generation == generation)
    }

    fn current_worker(&mut self, generation: Generation) -> Option<&mut Worker> {
        self.worker.as_mut().filter(|worker| worker.generation == generation)
    }

    fn is_next(&self, generation: Generation) -> bool {
        self.next.as_ref().is_some_and(|next| next.generation == generation)
    }

    fn send(&self, message: ToWorker, actions: &mut Vec<Action>) {
        actions.extend(self.worker.as_ref().map(|w| Action::Send(w.generation, message)));
    }

    fn kill(&mut self, generation: Generation, why: String, actions: &mut Vec<Action>) {
        if let Some(worker) = self.find_worker(generation) {
            worker.killed_for.get_or_insert(why);
            actions.push(Action::Kill(generation));
        }
    }

    fn new_worker(&mut self, which: WhichProgram, actions: &mut Vec<Action>) -> Worker {
        self.generations += 1;
        let generation = Generation(self.generations);
        actions.push(Action::Start(generation, which));
        Worker {
            generation,
            heartbeat: Heartbeat::default(),
            replaces_proven: which == WhichProgram::Installed && self.was_ready,
            lacks_registry: false,
            checked: false,
            serves: false,
            ready: false,
            retires: false,
            killed_for: None,
        }
    }

    /// Starts the worker that is to serve.
    fn start_worker(&mut self, which: WhichProgram, actions: &mut Vec<Action>) {
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
                // Out of memory or processes: treated like a worker that died at once.
                self.after_death(&failure.to_string(), now, actions);
            }
        }
    }

    fn on_restart_requested(&mut self, mount: Mount, now: Instant, actions: &mut Vec<Action>) {
        self.policy.reset();
        self.failed_restart = None;
        match std::mem::replace(&mut self.stage, Stage::Running) {
            Stage::Running => self.replace(WhichProgram::Installed, mount, now, actions),
            stage => {
                if let Stage::GivenUp { .. } = stage {
                    actions.push(Action::StopRefusing);
                }
                self.start_worker(WhichProgram::Installed, actions);
            }
        }
    }

    /// Starts the next worker beside the serving one.
    fn replace(
        &mut self,
        which: WhichProgram,
        mount: Mount,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
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
            if self.find_worker(from).is_some() {
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
        if let Some(worker) = self.current_worker(from) {
            worker.checked = true;
            return self.send(ToWorker::Begin, actions);
        }
        let Some(next) = self.next.as_mut().filter(|next| next.generation == from) else { return };
        next.checked = true;
        self.check_by = None;
        tracing::info!("another worker is prepared; the one that serves retires");
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
        let Some(worker) = self.current_worker(from) else { return };
        worker.ready = true;
        let lacks_registry = worker.lacks_registry;
        self.policy.ready(now);
        self.failure = None;
        self.was_ready = true;
        actions.extend([Action::ProveProgram(from), Action::AnnounceReady]);
        // The registry's folder may have come back while the worker began.
        if lacks_registry && registry_answers {
            self.replace(WhichProgram::Proven, mount, now, actions);
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
        actions.push(Action::UnregisterUnused);
        self.retire_by = None;
        if mount == Mount::Ended {
            return actions.push(Action::End(End::Unmounted));
        }
        // A mount that was taken over is kept, unless the worker reports why it cannot serve.
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
            // The worker that it retired for has died meanwhile.
            self.policy.replaced();
            return self.start_worker(WhichProgram::Proven, actions);
        }
        tracing::error!(pid, how, served = worker.serves, "the worker died");
        let why = self.failure.take().map_or(how, |failure| failure.message);
        if worker.replaces_proven && !worker.ready {
            let why = format!("the new worker ended before it was ready: {why}");
            tracing::error!("{why}; starting the program that served before");
            self.failed_restart = Some(why);
            return self.start_worker(WhichProgram::Proven, actions);
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
            // Too late for a reply: the serving worker is already retiring.
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
            tracing::error!("the worker does not retire in time and is killed");
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
                self.start_worker(WhichProgram::Proven, actions);
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

    /// Pings the workers, from their start on, and has one that does not answer killed.
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
