//! What answers requests when no worker does: an error with the reason.
//!
//! Invariant: after its drop, requests wait for a worker again. One thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use modelfs_platform::Connection;

use crate::error::{Failure, Kind};

/// How often the thread looks whether it is still to refuse.
const LOOK: Duration = Duration::from_millis(200);

/// Answers every request with an error, until dropped.
pub struct Refusing {
    connection: Arc<Connection>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Refusing {
    /// Starts to refuse, for this reason.
    pub fn start(connection: Arc<Connection>, reason: String) -> Result<Self, Failure> {
        let failed = |e| Failure::new(Kind::General, format!("refusing requests: {e}"));
        // A request that went before it was read must not keep the thread.
        connection.set_waiting(false).map_err(failed)?;
        let (kept, stop) = (Arc::clone(&connection), Arc::new(AtomicBool::new(false)));
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
