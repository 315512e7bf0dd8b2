//! Tests of the supervisor's decisions, by example and in random orders of events. Pure; any thread.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const ALIVE: Mount = Mount::Alive { can_be_taken_over: true };
const OLD: Mount = Mount::Alive { can_be_taken_over: false };

/// A machine, the time, and the workers that run.
struct Simulation {
    machine: Machine,
    mount: Mount,
    now: Instant,
    running: BTreeSet<Generation>,
    /// The worker that last received the connection.
    connected: Option<Generation>,
}

impl Simulation {
    fn new(quick_deaths: u32) -> Self {
        let now = Instant::now();
        let limits = Limits { quick_deaths, hang_timeout: Duration::from_secs(30) };
        let mut this = Self {
            machine: Machine::new(limits, None, now),
            mount: Mount::None,
            now,
            running: BTreeSet::new(),
            connected: None,
        };
        let actions = this.machine.start();
        this.carry_out(&actions);
        this
    }

    /// A simulation with one serving worker.
    fn serving() -> (Self, Generation) {
        let mut this = Self::new(3);
        let first = Generation(1);
        this.brings_up(first);
        (this, first)
    }

    fn brings_up(&mut self, worker: Generation) {
        for event in [
            Event::Hello { protocol: PROTOCOL, version: "1".into() },
            Event::Welcomed { lacks_registry: false },
            Event::Checked,
            Event::Prepared,
            Event::Ready { registry_answers: true },
            Event::Served,
        ] {
            self.on(worker, event);
        }
    }

    fn on(&mut self, from: Generation, event: Event) -> Vec<Action> {
        if let Event::Died { .. } | Event::StartFailed(_) = event {
            self.running.remove(&from);
        }
        let actions = self.machine.on(event, from, self.mount, self.now);
        self.carry_out(&actions);
        actions
    }

    fn dies(&mut self, worker: Generation) -> Vec<Action> {
        self.on(worker, Event::Died { pid: None, how: "signal: 9".into() })
    }

    /// Advances the time to the next deadline.
    fn waits(&mut self) -> Vec<Action> {
        self.now = self.machine.deadline().expect("something is due").max(self.now);
        self.on(NO_WORKER, Event::Tick)
    }

    /// Checks the invariants of every action.
    fn carry_out(&mut self, actions: &[Action]) {
        for action in actions {
            match action {
                Action::Start(generation, _) => assert!(self.running.insert(*generation)),
                Action::Discard(generation) => assert!(self.running.remove(generation)),
                Action::Serve(generation) => {
                    let former = self.connected.replace(*generation);
                    let former = former.filter(|f| f != generation && self.running.contains(f));
                    assert_eq!(former, None, "two workers have the connection");
                    if self.mount == Mount::None {
                        self.mount = ALIVE;
                    }
                }
                Action::Send(to, ToWorker::Begin) => {
                    assert!(self.running.contains(to), "a dead worker is told to begin");
                    let former = self.connected.filter(|c| c != to && self.running.contains(c));
                    assert_eq!(former, None, "two workers have the store");
                }
                Action::Send(to, ToWorker::Retire) => {
                    assert_eq!(self.connected, Some(*to), "only the one that serves retires");
                    let next = self.machine.next.as_ref().expect("another one takes over");
                    assert!(next.checked, "it retires for one that may not be able to begin");
                }
                _ => {}
            }
        }
    }

    fn invariants(&self) {
        let machine = &self.machine;
        let known: BTreeSet<_> =
            machine.worker.iter().chain(&machine.next).map(|w| w.generation).collect();
        assert_eq!(self.running, known, "the workers that run are the ones that the machine knows");
        if machine.worker.is_none() {
            assert_ne!(machine.stage, Stage::Running, "no worker serves and none will start");
            assert!(machine.next.is_none());
        }
        if let Stage::Pausing { .. } = machine.stage {
            assert!(machine.worker.is_none() && machine.deadline().is_some());
        }
        if machine.retire_by.is_some() {
            assert!(machine.worker.as_ref().is_some_and(|worker| worker.retires));
        }
    }
}

fn sent(actions: &[Action]) -> Vec<String> {
    let text = |action: &Action| match action {
        Action::Send(to, message) => Some(format!("{} {message:?}", to.0)),
        _ => None,
    };
    actions.iter().filter_map(text).collect()
}

fn started(actions: &[Action]) -> Vec<(u32, WhichProgram)> {
    let start = |action: &Action| match action {
        Action::Start(generation, which) => Some((generation.0, *which)),
        _ => None,
    };
    actions.iter().filter_map(start).collect()
}

fn end(actions: &[Action]) -> Option<&End> {
    actions.iter().find_map(|action| match action {
        Action::End(end) => Some(end),
        _ => None,
    })
}

#[test]
fn a_worker_is_asked_for_the_connection_only_when_it_is_prepared() {
    let mut s = Simulation::new(3);
    let first = Generation(1);
    let hello = s.on(first, Event::Hello { protocol: PROTOCOL, version: "1".into() });
    assert!(matches!(hello[..], [Action::Welcome(g)] if g == first), "{hello:?}");
    assert_eq!(sent(&s.on(first, Event::Checked)), ["1 Begin"]);
    let prepared = s.on(first, Event::Prepared);
    assert!(matches!(prepared[..], [Action::Serve(g)] if g == first), "{prepared:?}");
    let ready = s.on(first, Event::Ready { registry_answers: true });
    assert!(matches!(ready[..], [Action::ProveProgram(_), Action::AnnounceReady]), "{ready:?}");
}

#[test]
fn a_restart_lets_the_old_worker_serve_until_the_new_one_is_checked() {
    let (mut s, old) = Simulation::serving();
    assert_eq!(started(&s.on(old, Event::RestartRequested)), [(2, WhichProgram::Installed)]);
    let new = Generation(2);
    assert_eq!(sent(&s.on(old, Event::RestartRequested)).len(), 1, "one at a time");
    s.on(new, Event::Hello { protocol: PROTOCOL, version: "2".into() });
    assert_eq!(s.machine.worker(), Some((old, true)));
    assert_eq!(sent(&s.on(new, Event::Checked)), ["1 Restarted(Ok(()))", "1 Retire"]);
    assert_eq!(sent(&s.dies(old)), ["2 Begin"]);
    assert_eq!((s.machine.worker(), s.machine.restarts()), (Some((new, false)), 1));
}

#[test]
fn only_the_current_worker_and_signals_may_request_a_restart() {
    for (from, starts) in [(Generation(1), 1), (NO_WORKER, 1), (Generation(7), 0)] {
        let (mut s, _) = Simulation::serving();
        assert_eq!(started(&s.on(from, Event::RestartRequested)).len(), starts, "{from:?}");
    }
}

#[test]
fn a_new_program_that_fails_leaves_the_old_worker_serving_with_the_reason() {
    let failures: [fn(&mut Simulation, Generation) -> Vec<Action>; 4] = [
        |s, new| {
            s.on(new, Event::Failed(Failure::usage("no such flag")));
            s.dies(new)
        },
        |s, new| s.on(new, Event::Hello { protocol: 9, version: "9".into() }),
        |s, new| s.on(new, Event::StartFailed(Failure::usage("no such file"))),
        |s, new| {
            while s.machine.check_by.is_some() {
                let old = Generation(1);
                s.on(old, Event::Pong);
                s.waits();
            }
            s.dies(new)
        },
    ];
    for (case, fail) in failures.into_iter().enumerate() {
        let (mut s, old) = Simulation::serving();
        s.on(old, Event::RestartRequested);
        let answers = sent(&fail(&mut s, Generation(2)));
        assert_eq!(answers.len(), 1, "case {case}: {answers:?}");
        assert!(answers[0].starts_with("1 Restarted(Err("), "case {case}: {answers:?}");
        assert_eq!(s.machine.worker(), Some((old, true)), "case {case}");
        s.invariants();
    }
}

#[test]
fn a_new_program_that_fails_after_taking_over_is_replaced_by_the_previous_program() {
    // It dies while the old worker retires.
    let (mut s, old) = Simulation::serving();
    s.on(old, Event::RestartRequested);
    s.on(Generation(2), Event::Checked);
    s.dies(Generation(2));
    assert_eq!(started(&s.dies(old)), [(3, WhichProgram::Proven)]);
    assert!(s.machine.failed_restart().is_some());
    // It dies after the old worker has ended.
    let (mut s, old) = Simulation::serving();
    s.on(old, Event::RestartRequested);
    s.on(Generation(2), Event::Checked);
    s.dies(old);
    assert_eq!(started(&s.dies(Generation(2))), [(3, WhichProgram::Proven)]);
    assert!(s.machine.failed_restart().is_some_and(|why| why.contains("before it was ready")));
}

#[test]
fn a_dead_worker_is_replaced_after_a_pause_and_too_many_early_deaths_end_the_service() {
    let (mut s, first) = Simulation::serving();
    assert_eq!(started(&s.dies(first)), []);
    assert_eq!(started(&s.waits()), [(2, WhichProgram::Proven)]);
    s.dies(Generation(2));
    s.waits();
    s.dies(Generation(3));
    s.waits();
    let actions = s.dies(Generation(4));
    assert!(
        matches!(&actions[..], [Action::UnregisterUnused, Action::Refuse(why)] if why.contains("3 times")),
        "{actions:?}"
    );
    assert_eq!(started(&s.waits()), [], "no worker starts until a restart is requested");
    let again = s.on(NO_WORKER, Event::RestartRequested);
    assert!(matches!(again[0], Action::StopRefusing), "{again:?}");
    assert_eq!(started(&again), [(5, WhichProgram::Installed)]);
}

#[test]
fn a_worker_that_does_not_answer_is_killed_and_one_that_does_is_not() {
    let (mut s, first) = Simulation::serving();
    for _ in 0..20 {
        assert_eq!(sent(&s.waits()), ["1 Ping"]);
        s.on(first, Event::Pong);
    }
    let killed = (0..4).flat_map(|_| s.waits()).any(|a| matches!(a, Action::Kill(g) if g == first));
    assert!(killed);
    s.dies(first);
    s.invariants();
}

#[test]
fn the_supervisor_ends_when_the_mount_is_gone_or_cannot_be_served() {
    let first_dies = Simulation::new(3).dies(Generation(1));
    assert!(matches!(end(&first_dies), Some(End::Failed(_))), "{first_dies:?}");
    for (mount, wants) in [(Mount::Ended, "Unmounted"), (OLD, "Failed")] {
        let (mut s, first) = Simulation::serving();
        s.mount = mount;
        let actions = s.dies(first);
        let end = end(&actions).map(|end| format!("{end:?}")).unwrap_or_default();
        assert!(end.starts_with(wants), "{end}");
    }
    let (mut s, first) = Simulation::serving();
    assert!(end(&s.on(first, Event::ConnectionEnded)).is_none(), "its word alone ends nothing");
    assert!(matches!(end(&s.on(first, Event::UnmountRequested)), Some(End::Asked)));
    s.mount = Mount::Ended;
    assert!(matches!(end(&s.on(first, Event::ConnectionEnded)), Some(End::Unmounted)));
}

#[test]
fn an_inherited_mount_outlives_first_workers_that_die_silently() {
    let limits = Limits { quick_deaths: 3, hang_timeout: Duration::ZERO };
    let now = Instant::now();
    let mut machine = Machine::new(limits, Some(7), now);
    machine.start();
    let died = || Event::Died { pid: None, how: "signal: 9".into() };
    let actions = machine.on(died(), Generation(1), ALIVE, now);
    assert!(end(&actions).is_none(), "{actions:?}");
    assert_eq!(machine.restarts(), 8);
    let at = machine.deadline().expect("a pause");
    machine.on(Event::Tick, NO_WORKER, ALIVE, at);
    machine.on(Event::Failed(Failure::usage("no")), Generation(2), ALIVE, at);
    let actions = machine.on(died(), Generation(2), ALIVE, at);
    assert!(matches!(end(&actions), Some(End::Failed(_))), "it said why: {actions:?}");
}

#[test]
fn a_worker_is_replaced_when_a_hung_registry_folder_answers_again() {
    let (mut s, first) = Simulation::serving();
    assert_eq!(started(&s.on(first, Event::RegistryCameBack)), [(2, WhichProgram::Proven)]);
    let mut s = Simulation::new(3);
    s.on(first, Event::Welcomed { lacks_registry: true });
    s.on(first, Event::Checked);
    assert_eq!(started(&s.on(first, Event::RegistryCameBack)), [], "it is not ready yet");
    s.on(first, Event::Prepared);
    let ready = s.on(first, Event::Ready { registry_answers: true });
    assert_eq!(started(&ready), [(2, WhichProgram::Proven)], "it came back while the worker began");
}

fn any_event() -> impl Strategy<Value = (u8, bool)> {
    (0u8..16, any::<bool>())
}

proptest! {
    /// `newest`: the event is about the newest running worker, else about the oldest.
    #[test]
    fn in_any_order_of_events_one_worker_serves_and_every_worker_is_reaped(
        events in proptest::collection::vec(any_event(), 0..120),
        quick_deaths in 0u32..4,
    ) {
        let mut s = Simulation::new(quick_deaths);
        for (kind, newest) in events {
            let oldest = s.running.first().copied();
            let who = if newest { s.running.last().copied() } else { oldest };
            let who = who.unwrap_or(NO_WORKER);
            let actions = match kind {
                0 | 1 => s.on(who, Event::Hello { protocol: PROTOCOL, version: "1".into() }),
                2 => s.on(who, Event::Hello { protocol: 9, version: "9".into() }),
                3 => s.on(who, Event::Welcomed { lacks_registry: newest }),
                4 | 5 => s.on(who, Event::Checked),
                // A worker is prepared only after it was told to begin.
                6 | 7 if s.machine.current_worker(who).is_some_and(|w| w.checked) => s.on(who, Event::Prepared),
                8 if s.connected == Some(who) => s.on(who, Event::Ready { registry_answers: newest }),
                9 => s.on(who, Event::Served),
                10 => s.on(who, Event::Pong),
                11 => s.on(who, Event::Failed(Failure::usage("x"))),
                12 | 13 if s.running.contains(&who) => s.dies(who),
                14 => s.on(who, Event::RestartRequested),
                15 if s.machine.deadline().is_some() => s.waits(),
                _ => s.on(who, Event::RegistryCameBack),
            };
            if let Some(over) = end(&actions) {
                prop_assert!(matches!(over, End::Failed(_)), "{over:?}");
                return Ok(());
            }
            s.invariants();
        }
    }
}
