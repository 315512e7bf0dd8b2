//! The supervisor's mount: the connection, its guard, open files and registered backing files.
//!
//! Invariant: when a worker is gone, backing files that it registered and did not open are
//! unregistered. Part of the supervisor's one task; refusing has a thread.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use modelfs::base::blocking::blocking;
use modelfs::vfs::{Handle, Ino};
use modelfs_platform::{BackingNumber, Connection, MountOptions, Open};
use rustix::fs::OFlags;

use super::events::Mount;
use super::guard::{Guard, GuardProcess};
use super::messages::{FromWorker, ToWorker};
use super::refusing::Refusing;
use crate::error::Failure;

/// The mount, if it was made.
#[derive(Default)]
pub struct KeptMount {
    connection: Option<Arc<Connection>>,
    guard: Option<Guard>,
    refusing: Option<Refusing>,
    /// Registered, and not yet reported open.
    registered: HashMap<Ino, BackingNumber>,
}

impl KeptMount {
    /// Wraps a mount that a former supervisor made.
    pub fn inherited(
        connection: Connection,
        guard_process: Option<GuardProcess>,
    ) -> Result<Self, Failure> {
        let guard = Some(Guard::new(connection.mounted(), guard_process)?);
        Ok(Self { connection: Some(Arc::new(connection)), guard, ..Self::default() })
    }

    /// The mount's state, for decisions.
    pub fn state(&self) -> Mount {
        match &self.connection {
            None => Mount::None,
            Some(connection) if connection.has_ended() => Mount::Ended,
            Some(connection) => Mount::Alive { can_be_taken_over: connection.can_be_taken_over() },
        }
    }

    /// The connection, if there is one.
    pub fn connection(&self) -> Option<Arc<Connection>> {
        self.connection.clone()
    }

    /// Its guard, if there is one.
    pub fn guard(&self) -> Option<&Guard> {
        self.guard.as_ref()
    }

    /// Resolves when the guard has died and its replacement is due. Cancel safe.
    pub async fn guard_lost(&self) {
        match &self.guard {
            Some(guard) => guard.lost().await,
            None => std::future::pending().await,
        }
    }

    /// Starts another guard.
    pub fn replace_guard(&mut self) {
        self.guard.iter_mut().for_each(Guard::replace);
    }

    /// Returns the connection; mounts if nothing is mounted yet. `true`: it existed before.
    pub async fn open(
        &mut self,
        options: &MountOptions,
    ) -> Result<(Arc<Connection>, bool), Failure> {
        if let Some(connection) = &self.connection {
            return Ok((Arc::clone(connection), true));
        }
        let options = options.clone();
        let made = Arc::new(blocking(move || Connection::open(&options)).await??);
        self.guard = Some(Guard::new(made.mounted(), None)?);
        self.connection = Some(Arc::clone(&made));
        Ok((made, false))
    }

    /// Answers every request with this reason.
    pub fn refuse(&mut self, reason: String) -> Result<(), Failure> {
        if let Some(connection) = &self.connection {
            self.refusing = Some(Refusing::start(Arc::clone(connection), reason)?);
        }
        Ok(())
    }

    /// Lets requests wait for a worker again.
    pub fn stop_refusing(&mut self) {
        self.refusing = None;
    }

    /// Handles a worker's message about the connection and its files; returns the reply.
    pub fn on_message(&mut self, message: FromWorker, beside: Vec<OwnedFd>) -> Option<ToWorker> {
        match message {
            FromWorker::Answered { reply } => {
                let outcome = self.connection.as_ref().map(|c| c.answered(&reply));
                Some(ToWorker::Answered(outcome.unwrap_or(Ok(())).map_err(|e| e.to_string())))
            }
            FromWorker::Register { ask, ino } => {
                let number = self.register(Ino(ino), beside).map(|number| number.0);
                let number = number.map_err(|e| {
                    e.raw_os_error().unwrap_or(rustix::io::Errno::INVAL.raw_os_error())
                });
                Some(ToWorker::Registered { ask, number })
            }
            FromWorker::Opened(open) => {
                self.opened(open.into());
                None
            }
            FromWorker::Released { ino, handle } => {
                if let Some(connection) = &self.connection {
                    connection.released(Ino(ino), Handle(handle));
                }
                None
            }
            _ => None,
        }
    }

    fn opened(&mut self, open: Open) {
        let registered = self.registered.remove(&open.ino);
        let Some(connection) = &self.connection else { return };
        // The worker may not have waited for our reply.
        if let Some(number) = registered.filter(|n| open.backing != Some(*n)) {
            connection.unregister(number);
        }
        connection.opened(open);
    }

    fn register(&mut self, ino: Ino, mut beside: Vec<OwnedFd>) -> io::Result<BackingNumber> {
        let nothing = || io::Error::from(io::ErrorKind::InvalidInput);
        let file = File::from(beside.pop().ok_or_else(nothing)?);
        // Only a file that the worker itself may read: the kernel would use our privileges.
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

    /// Unregisters what an ended worker had registered and not opened.
    pub fn unregister_unused(&mut self) {
        for (_, number) in self.registered.drain() {
            if let Some(connection) = &self.connection {
                connection.unregister(number);
            }
        }
    }

    /// Hands the connection to the caller, which must unmount it.
    pub fn take_connection(&mut self) -> Option<Arc<Connection>> {
        self.refusing = None;
        self.connection.take()
    }

    /// Ends the guard, once the mount is gone.
    pub fn dismiss_guard(&mut self) {
        if let Some(guard) = self.guard.take() {
            guard.dismiss();
        }
    }
}
