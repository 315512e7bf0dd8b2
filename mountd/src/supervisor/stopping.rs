//! The end of a mount, and what stands in for a worker when there is none.
//!
//! Invariant: whatever the worker does or is, the mount is gone within the grace period, and nobody
//! is left waiting for it. One task; refusing has a thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use modelfs_platform::{Connection, GRACE};
use tokio::sync::mpsc::UnboundedReceiver;

use super::child::{Generation, Heard};
use super::messages::{FromWorker, ToWorker};
use super::{COMMIT, End, Supervisor, keeping, service};
use crate::control::ops::blocking;
use crate::daemon::Ready;
use crate::error::{Failure, Kind};
use crate::signals::Signals;

/// How often the refusing thread looks whether it is still to.
const LOOK: Duration = Duration::from_millis(200);
/// How long a killed worker is waited for.
const LAST: Duration = Duration::from_secs(5);
/// How long taking the mount away may take.
const UNMOUNT: Duration = Duration::from_secs(5);

/// Answers every request with an error, until dropped.
pub(super) struct Refusing {
    connection: Arc<Connection>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Refusing {
    pub(super) fn start(connection: Arc<Connection>, reason: String) -> Result<Self, Failure> {
        // A request that went before it was read must not keep the thread.
        let failed = |e| Failure::new(Kind::General, format!("refusing requests: {e}"));
        connection.set_waiting(false).map_err(failed)?;
        let kept = Arc::clone(&connection);
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let work = move || {
            // What the last worker had taken waits, too.
            if let Err(error) = connection.send_again() {
                tracing::warn!(%error, "requests of the last worker cannot be had again");
            }
            while !told.load(Ordering::Relaxed) {
                match connection.refuse(&reason, LOOK) {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(error) => {
                        tracing::error!(%error, "requests cannot be refused");
                        std::thread::sleep(LOOK);
                    }
                }
            }
        };
        let thread =
            std::thread::Builder::new().name("refuse".into()).spawn(work).map_err(failed)?;
        Ok(Self { connection: kept, stop, thread: Some(thread) })
    }
}

impl Drop for Refusing {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        if let Err(error) = self.connection.set_waiting(true) {
            tracing::error!(%error, "the next worker cannot wait for requests");
        }
    }
}

impl<R> Supervisor<R>
where
    R: FnOnce(&Ready) -> Result<(), Failure>,
{
    /// Takes everything down.
    pub(super) async fn stop(
        mut self,
        end: End,
        mut signals: Signals,
        mut hear: UnboundedReceiver<(Generation, Heard)>,
    ) -> Result<(), Failure> {
        self.next = None;
        service::stopping();
        if matches!(end, End::Signalled) {
            let left = tokio::select! {
                left = self.leave(&mut hear) => left,
                () = signals.end() => {
                    keeping::forget();
                    false
                }
            };
            if left {
                return Ok(());
            }
        }
        self.take_down(&mut hear, &mut signals).await;
        if let Some(worker) = &mut self.worker {
            worker.kill();
        }
        let gone = match self.connection.take() {
            Some(connection) => {
                let unmounted = tokio::time::timeout(UNMOUNT, unmount(&connection)).await;
                connection.abort();
                unmounted.unwrap_or_else(|_| {
                    Err(Failure::new(Kind::General, "the system does not take the mount away"))
                })
            }
            None => Ok(()),
        };
        // Only now: one that waits in the kernel may have waited for the connection's end.
        if let Some(worker) = self.worker.take() {
            let _ = tokio::time::timeout(LAST, worker.end()).await;
        }
        if gone.is_ok()
            && let Some(guard) = self.guard.take()
        {
            guard.dismiss();
        }
        match end {
            End::Asked | End::Signalled if self.since.is_none() => {
                Err(Failure::new(Kind::Interrupted, "stopped before the mount was ready"))
            }
            End::Asked | End::Signalled | End::Unmounted => gone,
            End::Failed(failure) => Err(failure),
        }
    }

    /// The mount goes, then the worker by itself; files that stay open are cut off after a while, or at
    /// once if somebody asks a second time. Either way the worker commits what it has verified.
    async fn take_down(
        &mut self,
        hear: &mut UnboundedReceiver<(Generation, Heard)>,
        signals: &mut Signals,
    ) {
        let Some(connection) = self.connection.clone() else { return };
        // Tried again at the end, which tells of the error.
        let _ = tokio::time::timeout(UNMOUNT, unmount(&connection)).await;
        // One that does not serve has nothing to commit.
        let Some(worker) = self.worker.as_ref().filter(|worker| worker.serves) else { return };
        let generation = worker.generation;
        tokio::select! {
            by_itself = self.ended(hear, generation, GRACE) => {
                if by_itself {
                    return;
                }
            }
            () = signals.end() => {
                tracing::warn!("asked to end a second time: files that are open are cut off now");
            }
        }
        connection.abort();
        self.say(&ToWorker::Retire);
        if !self.ended(hear, generation, COMMIT).await {
            tracing::error!(
                "the worker does not end and is killed; what was not committed is lost"
            );
        }
    }

    /// Waits until the worker has ended by itself, as long as its connection ends in time.
    async fn ended(
        &mut self,
        hear: &mut UnboundedReceiver<(Generation, Heard)>,
        worker: Generation,
        most: Duration,
    ) -> bool {
        let mut until = tokio::time::Instant::now() + most;
        loop {
            let Ok(Some((generation, heard))) = tokio::time::timeout_at(until, hear.recv()).await
            else {
                return false;
            };
            let message = match heard {
                Heard::HungUp if generation == worker => return true,
                Heard::HungUp => continue,
                Heard::Message(message, _) => *message,
            };
            match message {
                // What is left is its last commit.
                FromWorker::Ended if generation == worker => {
                    until = tokio::time::Instant::now() + COMMIT;
                }
                FromWorker::Released { ino, handle } => {
                    if let Some(connection) = &self.connection {
                        let handle = modelfs::vfs::Handle(handle);
                        connection.released(modelfs::vfs::Ino(ino), handle);
                    }
                }
                // A last open must not wait for its number.
                FromWorker::Register { ask, .. } => {
                    let number = Err(rustix::io::Errno::SHUTDOWN.raw_os_error());
                    self.say(&ToWorker::Registered { ask, number });
                }
                _ => {}
            }
        }
    }
}

async fn unmount(connection: &Arc<Connection>) -> Result<(), Failure> {
    let connection = Arc::clone(connection);
    blocking(move || Ok(connection.unmount()?)).await
}
