//! FUSE on Linux: mount, serve on several threads, unmount.
//!
//! A [`Connection`] is the mount as the process has it that keeps it; [`serve`] answers its requests, in
//! that process or in one that it sent the descriptor to. Invariant: after the connection's drop
//! the folder is free again, open files or not.
//! Concurrency: `threads` kernel threads in `adapter`, one thread for opens and closes (the broker may
//! make it wait), one that carries invalidations (the kernel makes it wait for look-ups that only the
//! others can answer), one that waits for the end.

mod adapter;
mod broker;
mod checks;
mod connection;
mod convert;
mod device;
mod errno;
mod init;
mod lists;
mod modes;
mod mounted;
mod mountinfo;
mod negotiate;
mod opens;
mod place;
mod refuse;
mod replies;
mod serve;
mod system;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use modelfs::vfs::{Handle, Ino, Vfs};

use crate::error::MountError;
use crate::options::{Agreed, MountOptions, MountPoint};
pub use broker::MountBroker;
pub use connection::{Connection, Kept};
pub use modes::{BackingNumber, Open, RequestNumber};
pub use mounted::Mounted;
pub use serve::{Serving, Task, serve};

/// How long an unmount waits for files that are still open before it cuts them off: long enough
/// for reads under way, short enough for a service manager.
pub const GRACE: Duration = Duration::from_secs(3);
/// How long the threads may take to notice the end.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// A live mount, kept and served by one process. Dropping it unmounts.
pub struct Mount {
    serving: Serving,
    connection: Arc<Connection>,
}

impl MountBroker for Connection {
    fn answered(&self, reply: &[u8]) -> std::io::Result<()> {
        Self::answered(self, reply)
    }

    fn register(&self, ino: Ino, file: &std::fs::File) -> std::io::Result<BackingNumber> {
        Self::register(self, ino, file)
    }

    fn opened(&self, open: Open) {
        Self::opened(self, open);
    }

    fn released(&self, ino: Ino, handle: Handle) {
        Self::released(self, ino, handle);
    }
}

/// Whether it makes sense to mount there.
pub(crate) fn check(options: &MountOptions) -> Result<(), MountError> {
    checks::early(options)
}

/// Mounts and serves.
pub(crate) fn mount(vfs: Arc<Vfs>, options: &MountOptions) -> Result<Mount, MountError> {
    let connection = Arc::new(Connection::open(options)?);
    let failed = |source| MountError::Failed { path: connection.point().to_owned(), source };
    let task = Task {
        device: connection.device().try_clone_to_owned().map_err(failed)?,
        offer: connection.offer(),
        open: Vec::new(),
        takes_over: false,
        no_passthrough: connection.no_passthrough(options.passthrough),
        threads: options.threads,
    };
    let serving =
        serve(vfs, task, Arc::clone(&connection) as Arc<dyn MountBroker>).map_err(failed)?;
    Ok(Mount { serving, connection })
}

impl Mount {
    /// What the kernel agreed to; passthrough may turn out impossible only later.
    pub fn agreed(&self) -> Agreed {
        self.serving.agreed()
    }

    /// Unmounts, lazily if files are open; returns when the session has ended, or after four
    /// seconds. Files still open after three are cut off, if the system lets us: their readers get
    /// an error, as they do when the process ends, which cuts off the rest.
    pub fn unmount(self) -> Result<(), MountError> {
        self.connection.unmount()?;
        if self.wait(GRACE) {
            return Ok(());
        }
        self.connection.abort();
        if !self.wait(LAST_WAIT) {
            tracing::warn!("files are still open; they end with this process");
        }
        Ok(())
    }

    /// Resolves when the mount has ended, by whoever.
    pub async fn ended(&self) {
        self.serving.ended().await;
    }

    fn wait(&self, most: Duration) -> bool {
        let until = Instant::now() + most;
        while !self.serving.has_ended() {
            if Instant::now() >= until {
                return false;
            }
            // An end is noticed within what a person does not.
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // The threads that serve hold the connection too, until it ends.
        if let Err(error) = self.connection.unmount() {
            tracing::warn!(%error, "unmounting failed");
        }
    }
}

/// Every mount of modelfs's that this process sees, dead or alive.
pub(crate) fn mounts() -> Vec<MountPoint> {
    let ours = mountinfo::all().into_iter().filter(|m| m.kind == mountinfo::TYPE);
    ours.map(|m| MountPoint { path: m.point, user: m.user }).collect()
}

/// Unmounts what modelfs mounted there, dead or alive.
pub(crate) fn unmount(mountpoint: &Path) -> Result<(), MountError> {
    let point = checks::absolute(mountpoint)?;
    match mountinfo::at(&point) {
        Some(mounted) if mounted.kind == mountinfo::TYPE => system::unmount(&point).map(drop),
        Some(mounted) => Err(MountError::Mountpoint {
            path: point,
            why: format!("what is mounted there is not modelfs but {}", mounted.kind),
        }),
        None => Err(MountError::Mountpoint { path: point, why: "nothing is mounted there".into() }),
    }
}
