//! The mount daemon: puts the parts together, serves until told to end, takes them apart.
//!
//! Invariant: no way out of here leaves a mount or a socket behind, and "ready" is said only when
//! the first read would be answered. One task waits for the end; all else runs beside it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use modelfs::base::units::ByteSize;
use modelfs::fetch::{FetchOptions, Fetcher};
use modelfs::registry::HttpTimeouts;
use modelfs::store::{Holder, Store};
use modelfs::vfs::{Vfs, VfsError, VfsOptions};
use modelfs_platform::{Mount, MountOptions};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, oneshot};

use crate::control::answers::DaemonStatus;
use crate::control::ops::{Live, Ops, blocking, rfc3339};
use crate::control::server::{self, Bound};
use crate::error::{Failure, Kind};
use crate::scrub::Scrub;
use crate::{paths, service};

/// How long a forced end tries to take the mount away; a dead mount point is worse than waiting.
const LAST_TRY: Duration = Duration::from_secs(2);

/// What to serve, and how. All paths are absolute.
pub struct Options {
    /// How to mount.
    pub mount: MountOptions,
    /// The cache folder.
    pub root: PathBuf,
    /// The registry, as given: may hold credentials.
    pub registry: String,
    /// The cache's limit; none: as it was.
    pub limit: Option<ByteSize>,
    /// Bytes a second that the scrub reads; 0: none.
    pub scrub_rate: ByteSize,
    /// How to fetch.
    pub fetch: FetchOptions,
    /// The file that the log goes to, if it does.
    pub log: Option<PathBuf>,
    /// Whether losing the terminal ends it.
    pub ends_with_terminal: bool,
}

/// What is told when the mount is ready.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Ready {
    /// The daemon.
    pub daemon: DaemonStatus,
    /// The registry, without credentials.
    pub registry: String,
    /// Why it offers what was last seen, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// Everything that a live mount is made of.
struct Parts {
    store: Store,
    fetcher: Arc<Fetcher>,
    vfs: Arc<Vfs>,
    bound: Bound,
    socket: PathBuf,
}

/// Mounts and serves until a signal, an unmount or the control API ends it. `ready` is called once;
/// if it fails (nobody waits any more), all is taken down again.
pub async fn run(
    options: Options,
    ready: impl FnOnce(&Ready) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut signals = Signals::new(options.ends_with_terminal)?;
    // Until there is a mount, nothing has to be undone: a signal just drops what was begun.
    let parts = tokio::select! {
        parts = prepare(&options) => parts?,
        () = signals.next() => {
            return Err(Failure::new(Kind::Interrupted, "stopped before the mount was ready"));
        }
    };
    let (vfs, how) = (parts.vfs.clone(), options.mount.clone());
    let mounted = blocking(move || Ok(modelfs_platform::mount(vfs, &how)?)).await;
    let vfs = parts.vfs.clone();
    let store = parts.store.clone();
    let ended = match mounted {
        Ok(mount) => live(&options, parts, mount, signals, ready).await,
        Err(failure) => Err(failure),
    };
    vfs.close();
    let committed = blocking(move || Ok(store.commit()?)).await;
    ended.and(committed)
}

async fn prepare(options: &Options) -> Result<Parts, Failure> {
    let timeouts = HttpTimeouts::within(options.fetch.read_deadline);
    let registry = modelfs::registry::open_with(&options.registry, timeouts)?;
    let how = service::store_options(&options.root, options.limit);
    let store = blocking(move || Ok(Store::open(how)?)).await?;
    let fetcher = service::fetcher(registry.clone(), &store, &options.fetch);
    service::first_catalog(&*registry, fetcher.source()).await?;
    let how = VfsOptions { passthrough: options.mount.passthrough };
    let vfs = Vfs::new(fetcher.clone(), how).await.map_err(unprepared)?;
    let socket = paths::socket(store.root());
    let bound = server::bind(&socket).inspect_err(|_| vfs.close())?;
    Ok(Parts { store, fetcher, vfs, bound, socket })
}

fn unprepared(error: VfsError) -> Failure {
    let kind = match error {
        VfsError::Unavailable { .. } | VfsError::TimedOut { .. } => Kind::Network,
        VfsError::Corrupt { .. } => Kind::Verification,
        VfsError::NotFound
        | VfsError::NotFolder
        | VfsError::IsFolder
        | VfsError::NoAttribute
        | VfsError::Stale => Kind::General,
    };
    Failure::new(kind, format!("preparing the tree: {error}"))
}

/// From the mount to its end.
async fn live(
    options: &Options,
    parts: Parts,
    mount: Mount,
    mut signals: Signals,
    ready: impl FnOnce(&Ready) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let Parts { store, fetcher, bound, socket, .. } = parts;
    let said = Ready {
        daemon: status(options, &mount, socket),
        registry: fetcher.source().name().to_owned(),
        trouble: fetcher.source().trouble(),
    };
    let stop = Arc::new(Notify::new());
    let ops = Arc::new(Ops {
        store: store.clone(),
        source: Some(fetcher.source().clone()),
        fetcher: Some(fetcher),
        daemon: Some(Live { status: said.daemon.clone(), stop: stop.clone() }),
        options: options.fetch.clone(),
    });
    let (quit, quitting) = oneshot::channel::<()>();
    let control = tokio::spawn(server::serve(bound, ops, async {
        let _ = quitting.await;
    }));

    let scrub = Scrub::start(store.clone(), options.scrub_rate)
        .map_err(|e| Failure::new(Kind::General, format!("starting the scrub: {e}")))?;
    let begun = announce(store, &said.daemon).await.and_then(|()| ready(&said));
    if begun.is_ok() {
        if let Some(trouble) = &said.trouble {
            tracing::warn!("the registry cannot be asked; offering what was last seen: {trouble}");
        }
        tokio::select! {
            () = signals.next() => tracing::info!("asked to end by a signal"),
            () = stop.notified() => tracing::info!("asked to end by a command"),
            () = mount.ended() => tracing::info!("unmounted from outside"),
        }
    }
    let mountpoint = options.mount.mountpoint.clone();
    tokio::spawn(async move {
        signals.next().await;
        end_now(mountpoint).await;
    });
    let unmounted = blocking(move || {
        drop(scrub);
        Ok(mount.unmount()?)
    })
    .await;
    drop(quit);
    let _ = control.await;
    begun.and(unmounted)
}

fn status(options: &Options, mount: &Mount, socket: PathBuf) -> DaemonStatus {
    let agreed = mount.agreed();
    DaemonStatus {
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        mountpoint: options.mount.mountpoint.clone(),
        socket,
        since: rfc3339(SystemTime::now()),
        passthrough: agreed.passthrough,
        why_no_passthrough: agreed.why_not,
        max_read: agreed.max_read,
        log: options.log.clone(),
    }
}

async fn announce(store: Store, daemon: &DaemonStatus) -> Result<(), Failure> {
    let holder = Holder {
        pid: daemon.pid,
        mountpoint: Some(daemon.mountpoint.clone()),
        socket: Some(daemon.socket.clone()),
    };
    blocking(move || Ok(store.announce(&holder)?)).await
}

/// The second signal: somebody has waited long enough.
async fn end_now(mountpoint: PathBuf) {
    tracing::warn!("asked to end a second time: ending at once");
    let last = blocking(move || Ok(modelfs_platform::unmount(&mountpoint)?));
    let _ = tokio::time::timeout(LAST_TRY, last).await;
    std::process::exit(Kind::Interrupted.exit_code().into());
}

/// The signals that ask a daemon to end.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    ends_with_terminal: bool,
}

impl Signals {
    fn new(ends_with_terminal: bool) -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind)
                .map_err(|e| Failure::new(Kind::General, format!("listening for signals: {e}")))
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
            ends_with_terminal,
        })
    }

    /// The next one. Cancel safe.
    async fn next(&mut self) {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return,
                _ = self.terminate.recv() => return,
                _ = self.hangup.recv() => {
                    if self.ends_with_terminal {
                        return;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_with_the_tree_keeps_its_kind() {
        let reason = || "x".to_owned();
        assert_eq!(unprepared(VfsError::Unavailable { reason: reason() }).exit_code, 5);
        assert_eq!(unprepared(VfsError::Corrupt { reason: reason() }).exit_code, 6);
        assert_eq!(unprepared(VfsError::Stale).exit_code, 1);
    }
}
