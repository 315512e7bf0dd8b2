//! Answers requests with an error and its reason while no worker serves.
//!
//! Invariant: after its drop, requests wait for a worker again. One thread of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use modelfs_platform::Connection;

use crate::error::{Failure, Kind};

/// How often the thread checks whether to stop.
const LOOK: Duration = Duration::from_millis(200);

/// Answers every request with an error until dropped.
pub struct Refusing {
    connection: Arc<Connection>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Refusing {
    /// Starts to refuse requests with this reason.
    pub fn start(connection: Arc<Connection>, reason: String) -> Result<Self, Failure> {
        let failed = |e| Failure::new(Kind::General, format!("refusing requests: {e}"));
        // A request that is cancelled before it is read must not block the thread.
        connection.set_waiting(false).map_err(failed)?;
        let (kept, stop) = (Arc::clone(&connection), Arc::new(AtomicBool::new(false)));
        let told = Arc::clone(&stop);
        let work = move || {
            // The requests that the last worker read are waiting too.
            if let Err(error) = connection.resend() {
                tracing::warn!(%error, "cannot have the kernel resend the requests of the last worker");
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
