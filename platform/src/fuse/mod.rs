//! FUSE on Linux: mount, serve on several threads, unmount.
//!
//! Invariant: one connection, one descriptor, never cloned: what a cloned one had read would be
//! lost with it. After [`Mount::unmount`] or drop the folder is free again, open files or not.
//! Concurrency: `threads` kernel threads in `adapter`, one thread that carries invalidations (the
//! kernel makes it wait for look-ups that only the others can answer), one that waits for the end.

mod adapter;
mod backing;
mod checks;
mod convert;
mod errno;
mod lists;
mod mountinfo;
mod negotiate;
mod replies;
mod system;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use fuser::{Config, INodeNo, Notifier, Session, SessionACL};
use modelfs::vfs::{Invalidation, Vfs};
use tokio::sync::{mpsc, watch};

use crate::{Agreed, MountError, MountOptions};
use adapter::Adapter;
use backing::Backings;
use convert::Owner;

/// How long an unmount waits for files that are still open before it cuts them off: long enough
/// for reads under way, short enough for a service manager.
const GRACE: Duration = Duration::from_secs(3);
/// How long the threads may take to notice the end.
const LAST_WAIT: Duration = Duration::from_secs(1);
/// What the kernel reads ahead of a sequential reader, where we may say so: one full request.
/// The default of 128 KiB makes eight requests of it (0.63 to 0.75 of the native speed, measured).
const READ_AHEAD_KIB: &str = "1024";

/// A live mount. Dropping it unmounts.
pub struct Mount {
    point: PathBuf,
    /// The connection's number, in sysfs and in the device number of its files.
    connection: Option<String>,
    agreed: Arc<Mutex<Agreed>>,
    ended: watch::Receiver<bool>,
}

/// Mounts and serves.
pub(crate) fn mount(vfs: Arc<Vfs>, options: &MountOptions) -> Result<Mount, MountError> {
    let runtime = tokio::runtime::Handle::try_current().map_err(|_| {
        MountError::NoFuse("mounting needs to be called within a tokio runtime".to_owned())
    })?;
    let point = checks::check(&options.mountpoint, options.allow_other)?;
    let failed = |source| MountError::Failed { path: point.clone(), source };
    let device = system::mount(&point, options.allow_other)?;
    let agreed = Agreed { passthrough: false, why_not: None, max_read: 0 };
    let agreed = Arc::new(Mutex::new(agreed));
    let adapter = Adapter {
        vfs: Arc::clone(&vfs),
        runtime,
        owner: Owner {
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
        },
        passthrough: options.passthrough,
        agreed: Arc::clone(&agreed),
        backings: Arc::new(Backings::new()),
    };
    let mut config = Config::default();
    config.n_threads = Some(options.threads.max(1));
    config.clone_fd = false;
    // Who may come in is decided by the kernel (allow_other), not a second time here.
    let started = Session::from_fd(adapter, device, SessionACL::All, config)
        .and_then(|session| start(session, &vfs));
    let ended = match started {
        Ok(ended) => ended,
        Err(error) => {
            system::unmount(&point).ok();
            return Err(failed(error));
        }
    };
    let mounted = mountinfo::at(&point).filter(|m| m.kind == mountinfo::TYPE);
    if let Some(mounted) = &mounted {
        let setting = format!("/sys/class/bdi/{}/read_ahead_kb", mounted.device);
        if let Err(error) = std::fs::write(&setting, READ_AHEAD_KIB) {
            tracing::debug!(%error, setting, "the kernel's readahead stays as it is");
        }
    }
    let connection = mounted.and_then(|m| m.connection().map(str::to_owned));
    Ok(Mount { point, connection, agreed, ended })
}

/// Starts the threads; the receiver turns true when the session has ended.
fn start(session: Session<Adapter>, vfs: &Vfs) -> std::io::Result<watch::Receiver<bool>> {
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

/// Carries the catalog's changes to the kernel until there can be no more.
fn invalidate(notifier: &Notifier, mut changes: mpsc::UnboundedReceiver<Invalidation>) {
    while let Some(change) = changes.blocking_recv() {
        let told = match &change {
            Invalidation::Entry { parent, name } => {
                notifier.inval_entry(INodeNo(parent.0), OsStr::new(&**name))
            }
            // All of its cached list, which the kernel keeps like a file's pages.
            Invalidation::Folder { ino } => notifier.inval_inode(INodeNo(ino.0), 0, 0),
        };
        if let Err(error) = told {
            tracing::debug!(%error, ?change, "the kernel did not take an invalidation");
        }
    }
}

impl Mount {
    /// What the kernel agreed to; passthrough may turn out impossible only later.
    pub fn agreed(&self) -> Agreed {
        self.agreed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Unmounts, lazily if files are open; returns when the session has ended, or after four
    /// seconds. Files still open after three are cut off, if the system lets us: their readers get
    /// an error, as they do when the process ends, which cuts off the rest.
    pub fn unmount(self) -> Result<(), MountError> {
        self.detach()?;
        if self.wait(GRACE) {
            return Ok(());
        }
        if let Some(connection) = &self.connection {
            let abort = format!("/sys/fs/fuse/connections/{connection}/abort");
            match std::fs::write(&abort, "1") {
                Ok(()) => tracing::info!("files were still open and have been cut off"),
                Err(error) => tracing::debug!(%error, abort, "open files stay until we end"),
            }
        }
        if !self.wait(LAST_WAIT) {
            tracing::warn!("files are still open; they end with this process");
        }
        Ok(())
    }

    /// Resolves when the mount has ended, by whoever.
    pub async fn ended(&self) {
        let mut ended = self.ended.clone();
        // An error means that the thread is gone, which is an end too.
        ended.wait_for(|ended| *ended).await.ok();
    }

    fn has_ended(&self) -> bool {
        *self.ended.borrow() || self.ended.has_changed().is_err()
    }

    /// Unmounts if our mount is still there: by now, another may be.
    fn detach(&self) -> Result<(), MountError> {
        let ours = mountinfo::at(&self.point).is_some_and(|m| {
            m.kind == mountinfo::TYPE
                && self.connection.as_deref().is_none_or(|ours| m.connection() == Some(ours))
        });
        if !self.has_ended() && ours { system::unmount(&self.point).map(drop) } else { Ok(()) }
    }

    fn wait(&self, most: Duration) -> bool {
        let until = Instant::now() + most;
        while !self.has_ended() {
            if Instant::now() >= until {
                return false;
            }
            // An end is noticed within what a person does not.
            thread::sleep(Duration::from_millis(10));
        }
        true
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Err(error) = self.detach() {
            tracing::warn!(%error, "unmounting failed");
        }
    }
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
