//! One worker in the place of another: when it was asked for, and when one has died.
//!
//! Invariant: the worker that serves makes room only for one that could begin at once. If that one
//! fails all the same, a worker of the program that served before takes over. Part of the
//! supervisor's one task.

use std::sync::Arc;
use std::time::Instant;

use super::child::{Generation, Which};
use super::messages::ToWorker;
use super::policy::Next;
use super::stopping::Refusing;
use super::{CHECK, COMMIT, End, OLD_KERNEL, Stage, Supervisor, ended, service};
use crate::daemon::Ready;
use crate::error::{Failure, Kind};

impl<R> Supervisor<R>
where
    R: FnOnce(&Ready) -> Result<(), Failure>,
{
    /// Starts a worker of the installed program to take the place of the one that serves.
    pub(super) fn restart(&mut self) -> Result<(), End> {
        self.policy.forgive();
        self.failed_restart = None;
        if !matches!(self.stage, Stage::Running) {
            self.stage = Stage::Running;
            return self.begin(Which::Installed);
        }
        self.replace(Which::Installed);
        Ok(())
    }

    /// The registry's folder answers, which did not when the worker began.
    pub(super) fn on_registry_back(&mut self) -> Result<(), End> {
        tracing::info!("the registry's folder answers again");
        if self.worker.as_ref().is_some_and(|worker| worker.ready) {
            self.replace(Which::Proven);
        }
        Ok(())
    }

    /// Starts the next worker beside the one that serves.
    pub(super) fn replace(&mut self, which: Which) {
        let refusal = match &self.connection {
            _ if self.next.is_some() || self.worker.as_ref().is_none_or(|w| !w.serves) => {
                Some("a worker is just starting".to_owned())
            }
            Some(connection) if !connection.can_be_taken_over() => Some(OLD_KERNEL.to_owned()),
            _ => None,
        };
        let started = match refusal {
            Some(why) => Err(why),
            None => self.start(which).map_err(|failure| {
                tracing::error!("{failure}");
                failure.to_string()
            }),
        };
        match started {
            Ok(next) => {
                self.next = Some(next);
                self.check_by = Some(tokio::time::Instant::now() + CHECK);
            }
            Err(why) => self.say(&ToWorker::Restarted(Err(why))),
        }
    }

    /// A worker could begin: now, or as soon as the one that serves has made room.
    pub(super) fn on_checked(&mut self, generation: Generation) {
        if self.is_worker(generation) {
            self.worker.iter_mut().for_each(|worker| worker.checked = true);
            return self.say(&ToWorker::Begin);
        }
        let Some(next) = self.next.as_mut().filter(|next| next.generation == generation) else {
            return;
        };
        next.checked = true;
        self.check_by = None;
        tracing::info!("another worker is prepared; the one that serves makes room");
        self.say(&ToWorker::Restarted(Ok(())));
        self.say(&ToWorker::Retire);
        self.worker.iter_mut().for_each(|worker| worker.retires = true);
        self.retire_by = Some(tokio::time::Instant::now() + COMMIT);
    }

    pub(super) async fn on_hung_up(&mut self, generation: Generation) -> Result<(), End> {
        if let Some(next) = self.next.take_if(|next| next.generation == generation) {
            self.check_by = None;
            let checked = next.checked;
            let how = ended(next).await;
            tracing::error!(how, "the worker that was to take over died");
            let why = self.failure.take().map_or(how, |failure| failure.message);
            let why = format!("the new worker ended before it could take over: {why}");
            if checked {
                // It is too late for an answer: the one that serves makes room already.
                self.failed_restart = Some(why.clone());
            }
            self.say(&ToWorker::Restarted(Err(why)));
            return Ok(());
        }
        let Some(worker) = self.worker.take_if(|w| w.generation == generation) else {
            return Ok(());
        };
        let (pid, served, retired) = (worker.pid(), worker.serves, worker.retires);
        let failed_restart = worker.asked_for && !worker.ready;
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
            let checked = next.checked;
            self.check_by = None;
            self.policy.replaced();
            self.worker = Some(next);
            if checked {
                self.say(&ToWorker::Begin);
            }
            return Ok(());
        }
        if retired {
            // The one that it made room for has died meanwhile.
            self.policy.replaced();
            return self.begin(Which::Proven);
        }
        tracing::error!(pid, how, served, "the worker died");
        let why = self.failure.take().map_or(how, |failure| failure.message);
        if failed_restart {
            let why = format!("the new worker ended before it was ready: {why}");
            tracing::error!("{why}; the program that served before goes on");
            self.failed_restart = Some(why);
            return self.begin(Which::Proven);
        }
        self.after_a_death(why)
    }

    pub(super) fn after_a_death(&mut self, why: String) -> Result<(), End> {
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
