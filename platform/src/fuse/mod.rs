//! FUSE on Linux: mount, serve on several threads, unmount.
//!
//! A [`Connection`] is the mount in the process that owns it; [`serve`] answers its requests, in that
//! process or in one that received the descriptor. Invariant: after the connection's drop the mount
//! point is free again, with or without open files. Concurrency: `threads` kernel threads in `adapter`;
//! one thread for opens and closes (the broker may block it); one for invalidations (the kernel may
//! block it until a lookup ends, which only the other threads can answer); one that waits for the end.

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
mod wire;

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

/// How long an unmount waits for open files before it aborts the connection: long enough for reads
/// under way, short enough for a service manager.
pub const GRACE: Duration = Duration::from_secs(3);
/// How long the threads may take to notice the end.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// A live mount, owned and served by one process. Dropping it unmounts.
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

/// Checks whether this mount is possible.
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
    /// What the kernel agreed to; passthrough may turn out to be impossible later.
    pub fn agreed(&self) -> Agreed {
        self.serving.agreed()
    }

    /// Unmounts, lazily if files are open. Returns when the session has ended, or after four seconds.
    /// After three seconds it aborts the connection, if the system lets us: readers of open files get
    /// an error. Otherwise they get it when the process ends.
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

    /// Resolves when the mount has ended, from inside or outside.
    pub async fn ended(&self) {
        self.serving.ended().await;
    }

    fn wait(&self, most: Duration) -> bool {
        let until = Instant::now() + most;
        while !self.serving.has_ended() {
            if Instant::now() >= until {
                return false;
            }
            // Short enough that no user notices the delay.
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // The serving threads hold the connection too, until it ends.
        if let Err(error) = self.connection.unmount() {
            tracing::warn!(%error, "unmounting failed");
        }
    }
}

/// Lists every modelfs mount that this process sees, live or dead.
pub(crate) fn mounts() -> Vec<MountPoint> {
    let ours = mountinfo::all().into_iter().filter(|m| m.kind == mountinfo::TYPE);
    ours.map(|m| MountPoint { path: m.point, user: m.user }).collect()
}

/// Unmounts the modelfs mount there, live or dead.
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
