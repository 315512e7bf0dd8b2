//! Shutdown, of the mount or of this supervisor alone.
//!
//! Invariant: whatever the worker does, the mount is gone within the grace period, and no process still
//! waits for it, unless the service manager keeps it for the next supervisor. One task.

use std::sync::Arc;
use std::time::Duration;

use modelfs::base::blocking::blocking;
use modelfs_platform::{Connection, GRACE};
use tokio::time::{Instant, timeout, timeout_at};

use super::events::{End, Generation};
use super::fd_store::{self, ServiceState};
use super::kept_mount::KeptMount;
use super::machine::RETIRE_TIMEOUT;
use super::messages::{FromWorker, ToWorker};
use super::service_manager;
use super::unit::Unit;
use super::workers::{Inbox, LinkEvent, Workers};
use crate::error::{Failure, Kind};
use crate::signals::Signals;

/// How long to wait for a killed worker.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an unmount may take.
const UNMOUNT_TIMEOUT: Duration = Duration::from_secs(5);

/// What is to be shut down, once no worker is replaced any more.
pub(super) struct Ending {
    pub(super) workers: Workers,
    pub(super) mount: KeptMount,
    pub(super) inbox: Inbox,
    /// The worker that serves or is starting, and whether it has the connection.
    pub(super) worker: Option<(Generation, bool)>,
    /// The unit that we run as, whose restart keeps the mount.
    pub(super) unit: Option<Unit>,
    /// The data for the next supervisor; none: the mount was never ready.
    pub(super) service: Option<ServiceState>,
}

impl Ending {
    /// Unmounts and ends the worker, or leaves the mount to the next supervisor.
    pub(super) async fn run(mut self, end: End, mut signals: Signals) -> Result<(), Failure> {
        service_manager::stopping();
        let was_ready = self.service.is_some();
        if matches!(end, End::Signalled) {
            let kept = tokio::select! {
                kept = self.keep_in_fd_store() => kept,
                () = signals.end() => {
                    fd_store::forget();
                    false
                }
            };
            if kept {
                return Ok(());
            }
        }
        self.take_down(&mut signals).await;
        let worker = self.worker.map(|(generation, _)| generation);
        if let Some(worker) = worker {
            self.workers.kill(worker);
        }
        let gone = match self.mount.take_connection() {
            Some(connection) => {
                let unmounted = timeout(UNMOUNT_TIMEOUT, unmount(&connection)).await;
                connection.abort();
                unmounted
                    .unwrap_or_else(|_| Err(Failure::new(Kind::General, "unmounting does not end")))
            }
            None => Ok(()),
        };
        // Only now: a worker blocked in the kernel may have waited for the connection's end.
        if let Some(worker) = worker {
            let _ = timeout(KILL_TIMEOUT, self.workers.end(worker)).await;
        }
        if gone.is_ok() {
            self.mount.dismiss_guard();
        }
        match end {
            End::Asked | End::Signalled if !was_ready => {
                Err(Failure::new(Kind::Interrupted, "stopped before the mount was ready"))
            }
            End::Asked | End::Signalled | End::Unmounted => gone,
            End::Failed(failure) => Err(failure),
        }
    }

    /// Leaves the mount to the next supervisor, if one is to start. `false`: nothing has changed, or
    /// there is no worker any more.
    async fn keep_in_fd_store(&mut self) -> bool {
        let (Some(unit), Some(connection)) = (self.unit.clone(), self.mount.connection()) else {
            return false;
        };
        let can = self.service.is_some() && connection.can_be_taken_over();
        if !can || connection.has_ended() || !unit.is_restarting().await {
            return false;
        }
        tracing::info!("restarting: the mount stays for the next daemon");
        if !self.end_worker().await {
            return false;
        }
        let Some(service) = self.service.take() else { return false };
        let service = ServiceState { restarts: service.restarts + 1, ..service };
        let kept = fd_store::hand_over(&unit, &connection, self.mount.guard(), service).await;
        if kept {
            connection.detach();
        }
        kept
    }

    /// Ends the worker and handles its remaining messages. `false`: the mount is to end.
    async fn end_worker(&mut self) -> bool {
        // Requests answered from now on might be missing in the stored state.
        self.mount.stop_refusing();
        let Some((worker, serves)) = self.worker else { return true };
        match serves {
            true => self.workers.send(worker, &ToWorker::Retire, &[]),
            false => self.workers.kill(worker),
        }
        let (mut until, mut killed, mut goes_on) = (Instant::now() + RETIRE_TIMEOUT, false, true);
        loop {
            match timeout_at(until, self.inbox.recv()).await {
                Ok(Some((from, LinkEvent::HungUp))) if from == worker => break,
                Ok(Some((from, LinkEvent::Message(message, beside)))) if from == worker => {
                    goes_on &= !self.ends_the_mount(&message);
                    if let Some(answer) = self.mount.on_message(*message, beside) {
                        self.workers.send(worker, &answer, &[]);
                    }
                }
                Ok(Some(_)) => {}
                Err(_) if !killed => {
                    tracing::error!("the worker does not end and is killed");
                    self.workers.kill(worker);
                    (killed, until) = (true, Instant::now() + KILL_TIMEOUT);
                }
                Ok(None) | Err(_) => return false,
            }
        }
        let how = self.workers.end(worker).await;
        tracing::debug!(how, "the worker has retired");
        self.worker = None;
        self.mount.unregister_unused();
        goes_on
    }

    /// Whether a worker's message ends the mount; its claim alone does not, if the connection lives.
    fn ends_the_mount(&self, message: &FromWorker) -> bool {
        match message {
            FromWorker::Unmount => true,
            FromWorker::Ended => self.mount.connection().is_none_or(|c| c.has_ended()),
            _ => false,
        }
    }

    /// Unmounts; then the worker ends by itself. Files that stay open get errors after the
    /// grace period, or at once on a second signal. In both cases the worker commits what it has verified.
    async fn take_down(&mut self, signals: &mut Signals) {
        let Some(connection) = self.mount.connection() else { return };
        // The unmount at the end tries again and reports the error.
        let _ = timeout(UNMOUNT_TIMEOUT, unmount(&connection)).await;
        // A worker that does not serve has nothing to commit.
        let Some((worker, true)) = self.worker else { return };
        tokio::select! {
            by_itself = self.worker_ends(worker, GRACE) => {
                if by_itself {
                    return;
                }
            }
            () = signals.end() => {
                tracing::warn!("asked to end a second time: files that are open are cut off now");
            }
        }
        connection.abort();
        self.workers.send(worker, &ToWorker::Retire, &[]);
        if !self.worker_ends(worker, RETIRE_TIMEOUT).await {
            tracing::error!(
                "the worker does not end and is killed; what was not committed is lost"
            );
        }
    }

    /// Waits until the worker has ended by itself; extends the wait once its connection has ended.
    async fn worker_ends(&mut self, worker: Generation, most: Duration) -> bool {
        let mut until = Instant::now() + most;
        loop {
            let Ok(Some((from, event))) = timeout_at(until, self.inbox.recv()).await else {
                return false;
            };
            let (message, beside) = match event {
                LinkEvent::HungUp if from == worker => return true,
                LinkEvent::HungUp => continue,
                LinkEvent::Message(message, beside) => (*message, beside),
            };
            match message {
                // Only its last commit remains.
                FromWorker::Ended if from == worker => until = Instant::now() + RETIRE_TIMEOUT,
                FromWorker::Released { .. } => {
                    self.mount.on_message(message, beside);
                }
                // A last open must not wait for its backing id.
                FromWorker::Register { ask, .. } => {
                    let number = Err(rustix::io::Errno::SHUTDOWN.raw_os_error());
                    self.workers.send(from, &ToWorker::Registered { ask, number }, &[]);
                }
                _ => {}
            }
        }
    }
}

async fn unmount(connection: &Arc<Connection>) -> Result<(), Failure> {
    let connection = Arc::clone(connection);
    Ok(blocking(move || connection.unmount()).await??)
}
