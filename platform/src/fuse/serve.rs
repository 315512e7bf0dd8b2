//! Serving a connection: the handshake, answers on several threads, takeover after a former process
//! died.
//!
//! Invariant: no request is read before the broker has the reply to FUSE_INIT. Requests that a former
//! process read are resent only when all files that it had opened are known. Concurrency: see `fuse`.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use fuser::{Config, INodeNo, Notifier, Session, SessionACL};
use modelfs::vfs::{Invalidation, Vfs};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tokio::sync::{mpsc, watch};

use super::adapter::{Adapter, Answered};
use super::broker::MountBroker;
use super::convert::Owner;
use super::device;
use super::modes::{Modes, Open};
use super::opens::Opens;
use crate::options::Agreed;

/// Buffer size for the reply to FUSE_INIT (`fuse_out_header` and `fuse_init_out` are 80 bytes).
const FIRST_ANSWER: usize = 1024;

/// A connection to serve.
pub struct Task {
    /// Its descriptor.
    pub device: OwnedFd,
    /// The FUSE_INIT request.
    pub offer: Vec<u8>,
    /// The files already open.
    pub open: Vec<Open>,
    /// Whether another process has served this connection before.
    pub takes_over: bool,
    /// Why passthrough must not be used, if so.
    pub no_passthrough: Option<String>,
    /// Threads that take requests from the kernel.
    pub threads: usize,
}

/// A connection being served.
pub struct Serving {
    agreed: Arc<Mutex<Agreed>>,
    ended: watch::Receiver<bool>,
}

impl Serving {
    /// What the kernel agreed to; passthrough may turn out to be impossible later.
    pub fn agreed(&self) -> Agreed {
        self.agreed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Resolves when the connection has ended, from inside or outside.
    pub async fn ended(&self) {
        let mut ended = self.ended.clone();
        // An error means that the thread has ended, and the connection with it.
        ended.wait_for(|ended| *ended).await.ok();
    }

    pub(super) fn has_ended(&self) -> bool {
        *self.ended.borrow() || self.ended.has_changed().is_err()
    }
}

/// Serves until the connection ends. Call it within the tokio runtime that is to run the requests that
/// have to wait.
pub fn serve(vfs: Arc<Vfs>, task: Task, broker: Arc<dyn MountBroker>) -> io::Result<Serving> {
    let runtime = tokio::runtime::Handle::try_current().map_err(io::Error::other)?;
    let agreed = Agreed { passthrough: false, why_not: None, max_read: 0 };
    let agreed = Arc::new(Mutex::new(agreed));
    let mut modes = Modes::default();
    task.open.iter().for_each(|open| modes.opened(*open));
    let (told, threads) = (Arc::clone(&broker), task.threads.max(1));
    let opens = Opens::start(vfs.clone(), told, Arc::clone(&agreed), modes, threads)?;
    let adapter = Adapter {
        vfs: Arc::clone(&vfs),
        runtime,
        owner: Owner {
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
        },
        no_passthrough: task.no_passthrough,
        agreed: Arc::clone(&agreed),
        without_opendir: false,
        without_open: false,
        opens,
        answered: Arc::new(Answered::new(Arc::clone(&broker))),
    };
    let mut config = Config::default();
    config.n_threads = Some(threads);
    config.clone_fd = false;
    // fuser always reads FUSE_INIT first: we send it, and its reply goes to the broker, which alone
    // knows whether the kernel still waits for one.
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    rustix::io::write(&ours, &task.offer)?;
    // The kernel decides which users have access (allow_other); we do not check it a second time.
    let session = Session::from_fd(adapter, theirs, SessionACL::All, config)?;
    let mut reply = [0; FIRST_ANSWER];
    let len = rustix::io::read(&ours, &mut reply)?;
    broker.answered(&reply[..len])?;
    device::swap_in(task.device.as_fd(), session.as_fd().as_raw_fd())?;
    // Before any thread reads: the kernel must not resend requests that they read.
    if task.takes_over {
        device::resend(&task.device)?;
    }
    let ended = start(session, &vfs)?;
    Ok(Serving { agreed, ended })
}

/// Starts the threads; the receiver turns true when the session has ended.
fn start(session: Session<Adapter>, vfs: &Vfs) -> io::Result<watch::Receiver<bool>> {
    let (notifier, changes) = (session.notifier(), vfs.invalidations());
    let (end, ended) = watch::channel(false);
    thread::Builder::new()
        .name("fuse-invalidate".into())
        .spawn(move || invalidate(&notifier, changes))?;
    thread::Builder::new().name("fuse-session".into()).spawn(move || {
        if let Err(error) = session.run() {
            tracing::error!(%error, "the mount's session ended badly");
        }
        end.send_replace(true);
    })?;
    Ok(ended)
}

/// Sends invalidations to the kernel until their sender is gone.
fn invalidate(notifier: &Notifier, mut changes: mpsc::UnboundedReceiver<Invalidation>) {
    while let Some(change) = changes.blocking_recv() {
        let told = match &change {
            Invalidation::Entry { parent, name } => {
                notifier.inval_entry(INodeNo(parent.0), OsStr::new(&**name))
            }
            // Invalidates its whole cached list, which the kernel keeps like a file's pages.
            Invalidation::Folder { ino } => notifier.inval_inode(INodeNo(ino.0), 0, 0),
        };
        if let Err(error) = told {
            tracing::debug!(%error, ?change, "the kernel did not take an invalidation");
        }
    }
}
