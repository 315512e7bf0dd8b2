//! How many connections to the control socket may be open, and which of them gives way.
//!
//! Invariant: there are never more than [`MAX_CONNECTIONS`], and every client that sends a request is
//! answered: when all places are taken, the oldest connection that has sent no request yet is closed to
//! admit a new one; one that has is never closed. (A semaphore would let idle connections keep requests
//! out.) One list, owned by the task that accepts; a connection's state is shared with its task.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::task::AbortHandle;

/// Connections at once: many scripts may ask, but a loop gone wild must not eat the daemon's
/// descriptors.
pub const MAX_CONNECTIONS: usize = 128;

const IDLE: u8 = 0;
const REQUESTED: u8 = 1;
const CLOSED: u8 = 2;

/// What a connection has done so far. Either its request arrives or it is closed; never both.
#[derive(Debug, Clone, Default)]
pub struct Connection(Arc<AtomicU8>);

impl Connection {
    fn becomes(&self, state: u8) -> bool {
        self.0.compare_exchange(IDLE, state, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Its request has arrived. `false`: too late, it was closed for another connection.
    pub fn request_arrived(&self) -> bool {
        self.becomes(REQUESTED)
    }
}

/// The open connections, the oldest first.
#[derive(Debug, Default)]
pub struct ConnectionLimit(Vec<(Connection, AbortHandle)>);

impl ConnectionLimit {
    /// Makes room for one more. `false`: all that are open are being answered.
    pub fn make_room(&mut self) -> bool {
        self.0.retain(|(_, task)| !task.is_finished());
        if self.0.len() < MAX_CONNECTIONS {
            return true;
        }
        let Some(at) = self.0.iter().position(|(connection, _)| connection.becomes(CLOSED)) else {
            return false;
        };
        self.0.remove(at).1.abort();
        true
    }

    /// Adds a new one.
    pub fn add(&mut self, connection: Connection, task: AbortHandle) {
        self.0.push((connection, task));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_without_a_request_makes_room_and_one_with_a_request_stays() {
        let mut limit = ConnectionLimit::default();
        let waits = || tokio::spawn(std::future::pending::<()>());
        let open: Vec<_> = (0..MAX_CONNECTIONS).map(|_| (Connection::default(), waits())).collect();
        for (connection, task) in &open {
            assert!(limit.make_room());
            limit.add(connection.clone(), task.abort_handle());
        }
        assert!(open[0].0.request_arrived());
        assert!(limit.make_room());
        assert!(!open[1].0.request_arrived(), "the oldest without a request is closed");
        limit.add(Connection::default(), waits().abort_handle());
        for (connection, _) in &open[2..] {
            assert!(connection.request_arrived());
        }
        assert!(limit.make_room(), "the last one has sent no request");
        let last = Connection::default();
        assert!(last.request_arrived());
        limit.add(last, waits().abort_handle());
        assert!(!limit.make_room(), "all are being answered");
        let mut open = open.into_iter();
        let (_, answered) = open.next().unwrap();
        answered.abort();
        assert!(answered.await.is_err_and(|e| e.is_cancelled()));
        assert!(limit.make_room(), "one has its answer");
    }
}
