//! The process that listens at a control socket, as the kernel identifies it.
//!
//! Invariant: a signal goes to the process that listens, or to none. It is sent through a descriptor of
//! the process that the socket provides, never by the number in the lock file: the cache's owner writes that
//! file, the number may belong to another process by now, and in a container it means another process. Root
//! signals only processes of the cache's owner, and its own daemons.

use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::socket::{getsockopt, sockopt};
use rustix::process::{Signal, pidfd_send_signal};
use tokio::net::UnixStream;

use super::client::CONNECT;
use crate::error::{Failure, Kind};
use crate::paths;

/// A daemon's supervisor.
#[derive(Debug)]
pub struct Peer(OwnedFd);

impl Peer {
    /// The supervisor of the cache at `root`, which its lock file says to listen at `socket`.
    pub async fn of(root: &Path, socket: &Path) -> Result<Self, Failure> {
        let failed = |why: String| {
            let at = socket.display();
            Failure::new(Kind::General, format!("the daemon at {at} cannot be signalled: {why}"))
                .hint("if it runs in a container, or as another user, send the signal from there")
        };
        let by_name = |e: std::io::Error| failed(e.to_string());
        // The path that is looked at is the one that is connected to.
        let socket = std::fs::canonicalize(socket).map_err(by_name)?;
        let stream = tokio::time::timeout(CONNECT, UnixStream::connect(&socket))
            .await
            .map_err(|_| failed("it does not answer".to_owned()))?
            .map_err(by_name)?;
        let user = stream.peer_cred().map_err(by_name)?.uid();
        let owner = std::fs::metadata(root).map_err(by_name)?.uid();
        let ours = user == rustix::process::geteuid().as_raw() && paths::is_own_socket(&socket);
        if user != owner && !ours {
            return Err(failed("what listens there is another user's process".to_owned()));
        }
        let process = getsockopt(&stream, sockopt::PeerPidfd);
        process.map(Self).map_err(|e| failed(format!("its process cannot be identified: {e}")))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<(), Failure> {
        pidfd_send_signal(&self.0, signal)
            .map_err(|e| Failure::new(Kind::General, format!("signalling the daemon: {e}")))
    }
}
