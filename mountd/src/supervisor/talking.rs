//! What a worker says, and what is done about it.
//!
//! Invariant: only the worker whose turn it is has a say; a first word comes from anybody that was
//! started. Part of the supervisor's one task.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use modelfs::vfs::{Handle, Ino};
use modelfs_platform::{BackingNumber, Connection, Open};
use rustix::fs::OFlags;

use super::child::{Generation, Which, Worker};
use super::messages::{FromWorker, OPEN_FILES, PROTOCOL, ToWorker, Welcome};
use super::reaper::Guard;
use super::{End, Supervisor, service};
use crate::control::ops::{blocking, rfc3339};
use crate::daemon::Ready;
use crate::error::Failure;
use crate::handover;
use crate::identity::Identity;

impl<R> Supervisor<R>
where
    R: FnOnce(&Ready) -> Result<(), Failure>,
{
    pub(super) async fn on(
        &mut self,
        generation: Generation,
        message: FromWorker,
        beside: Vec<OwnedFd>,
    ) -> Result<(), End> {
        match message {
            FromWorker::Hello { protocol, version } => {
                self.on_hello(generation, protocol, &version).await;
                return Ok(());
            }
            FromWorker::Checked => {
                self.on_checked(generation);
                return Ok(());
            }
            FromWorker::Pong => {
                self.of(generation).into_iter().for_each(|worker| worker.pulse.answered());
                return Ok(());
            }
            _ => {}
        }
        if !self.is_worker(generation) {
            if let FromWorker::Failed(failure) = message
                && self.next.as_ref().is_some_and(|next| next.generation == generation)
            {
                self.failure = Some(failure);
            }
            return Ok(());
        }
        match message {
            FromWorker::Hello { .. } | FromWorker::Checked | FromWorker::Pong => {}
            FromWorker::Prepared => return self.on_prepared().await.map_err(End::Failed),
            FromWorker::Answered { reply } => {
                let outcome = self.connection.as_ref().map(|c| c.answered(&reply));
                let outcome = outcome.unwrap_or(Ok(())).map_err(|e| e.to_string());
                self.say(&ToWorker::Answered(outcome));
            }
            FromWorker::Register { ask, ino } => {
                let number = self.register(Ino(ino), beside).map(|number| number.0);
                let number = number.map_err(|e| {
                    e.raw_os_error().unwrap_or(rustix::io::Errno::INVAL.raw_os_error())
                });
                self.say(&ToWorker::Registered { ask, number });
            }
            FromWorker::Opened(open) => {
                let open = Open::from(open);
                let registered = self.registered.remove(&open.ino);
                if let Some(connection) = &self.connection {
                    // It may not have waited for our answer.
                    if let Some(number) = registered.filter(|n| open.backing != Some(*n)) {
                        connection.unregister(number);
                    }
                    connection.opened(open);
                }
            }
            FromWorker::Released { ino, handle } => {
                if let Some(connection) = &self.connection {
                    connection.released(Ino(ino), Handle(handle));
                }
            }
            FromWorker::Ready(ready) => return self.on_ready(&ready).map_err(End::Failed),
            FromWorker::Served => self.policy.served(),
            FromWorker::Failed(failure) => self.failure = Some(failure),
            FromWorker::Unmount => return Err(End::Asked),
            FromWorker::Restart => return self.restart(),
            // Its word alone does not end a mount: if the connection lives, the next one goes on.
            FromWorker::Ended if self.connection.as_ref().is_none_or(|c| c.has_ended()) => {
                return Err(End::Unmounted);
            }
            FromWorker::Ended => {}
        }
        Ok(())
    }

    pub(super) fn say(&self, message: &ToWorker) {
        if let Some(worker) = &self.worker {
            worker.say(message, &[]);
        }
    }

    /// The worker of this generation, whose turn it is or will be.
    fn of(&mut self, generation: Generation) -> Option<&mut Worker> {
        self.worker.iter_mut().chain(&mut self.next).find(|w| w.generation == generation)
    }

    async fn on_hello(&mut self, generation: Generation, protocol: u32, version: &str) {
        if protocol == PROTOCOL {
            return self.welcome(generation).await;
        }
        let why = format!(
            "the program now installed, {version}, speaks protocol {protocol}, this daemon {PROTOCOL}: unmount and mount again to change over"
        );
        tracing::error!("{why}");
        if self.next.take_if(|next| next.generation == generation).is_some() {
            self.check_by = None;
            self.say(&ToWorker::Restarted(Err(why)));
        } else if let Some(worker) = self.of(generation) {
            worker.doom(why);
        }
    }

    async fn welcome(&mut self, generation: Generation) {
        // Somebody may have emptied the cache folder: then a worker that is gone locked it anew.
        match handover::keep(&self.plan.root, &self.lock, &self.plan.identity) {
            Ok(Some(lock)) => self.lock = lock,
            Ok(None) => {}
            Err(error) => tracing::error!("the cache folder cannot be used any more: {error}"),
        }
        let registry_hangs = !self.probe.answers().await;
        if registry_hangs {
            tracing::warn!("the registry's folder does not answer: the worker goes on without it");
        }
        let welcome = Welcome {
            supervisor: std::process::id(),
            socket: self.bound.path().to_owned(),
            since: self.since.clone(),
            restarts: self.restarts,
            user: match &self.plan.identity {
                Identity::Other(user) => Some(user.clone()),
                Identity::Kept | Identity::Bare => None,
            },
            locations: Some(self.plan.locations()),
            registry_hangs,
            failed_restart: self.failed_restart.clone(),
        };
        let lock = self.lock.share();
        let mut workers = self.worker.iter_mut().chain(&mut self.next);
        let Some(worker) = workers.find(|w| w.generation == generation) else { return };
        match lock {
            Ok(lock) => {
                worker.lacks_registry = registry_hangs;
                let beside = [lock.as_fd(), self.bound.listener()];
                worker.say(&ToWorker::Welcome(welcome), &beside);
            }
            Err(error) => {
                tracing::error!(%error, "the store's lock cannot be handed over");
                worker.doom(error.to_string());
            }
        }
    }

    /// Hands the connection over, which the first worker to come so far brings about.
    async fn on_prepared(&mut self) -> Result<(), Failure> {
        let takes_over = self.connection.is_some();
        let connection = match &self.connection {
            Some(connection) => Arc::clone(connection),
            None => {
                let how = self.plan.mount.clone();
                let made = Arc::new(blocking(move || Ok(Connection::open(&how)?)).await?);
                self.guard = Some(Guard::new(made.mounted(), None)?);
                self.connection.insert(made).clone()
            }
        };
        let no_passthrough = connection.no_passthrough(self.plan.mount.passthrough);
        let Some(worker) = &mut self.worker else { return Ok(()) };
        for files in connection.open_files().chunks(OPEN_FILES) {
            let files = files.iter().map(|open| (*open).into()).collect();
            worker.say(&ToWorker::Open(files), &[]);
        }
        let offer = connection.offer();
        worker.serves = true;
        worker.say(&ToWorker::Serve { offer, takes_over, no_passthrough }, &[connection.device()]);
        Ok(())
    }

    fn register(&mut self, ino: Ino, mut beside: Vec<OwnedFd>) -> std::io::Result<BackingNumber> {
        let nothing = || std::io::Error::from(std::io::ErrorKind::InvalidInput);
        let file = File::from(beside.pop().ok_or_else(nothing)?);
        // What the worker may read itself, and nothing else: the kernel would use our rights.
        let flags = rustix::fs::fcntl_getfl(&file)?;
        let readable = flags & OFlags::ACCMODE == OFlags::RDONLY && !flags.contains(OFlags::PATH);
        if !readable || !file.metadata()?.is_file() {
            return Err(nothing());
        }
        if let Some(number) = self.registered.get(&ino) {
            return Ok(*number);
        }
        let number = self.connection.as_ref().ok_or_else(nothing)?.register(ino, &file)?;
        self.registered.insert(ino, number);
        Ok(number)
    }

    fn on_ready(&mut self, ready: &Ready) -> Result<(), Failure> {
        self.policy.ready(Instant::now());
        self.failure = None;
        if let Some(worker) = &mut self.worker {
            worker.ready = true;
            self.program.prove(worker);
        }
        if self.since.is_none() {
            self.since = Some(rfc3339(SystemTime::now()));
        }
        self.announce(None);
        let at = self.plan.mount.mountpoint.display();
        let by = ready.daemon.worker;
        service::ready(&format!("{} mounted at {at}, served by process {by}", ready.registry));
        match self.ready.take() {
            Some(tell) => tell(ready)?,
            None => tracing::info!(worker = ready.daemon.worker, "another worker goes on"),
        }
        // The registry's folder may have come back while it began.
        if self.worker.as_ref().is_some_and(|w| w.lacks_registry) && !self.probe.hangs() {
            self.replace(Which::Proven);
        }
        Ok(())
    }
}
