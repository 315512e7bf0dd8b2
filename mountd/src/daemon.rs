//! The worker: puts the parts together, serves until told to end, takes them apart.
//!
//! Invariant: "ready" is said only when the first read would be answered. It owns neither the mount
//! nor the control socket nor the store's lock: its supervisor does, and ends it. A panic anywhere
//! ends the process before any request is answered by it. One task waits for the end; all else runs
//! beside it.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use modelfs::base::units::ByteSize;
use modelfs::fetch::{FetchOptions, Fetcher, Source};
use modelfs::registry::{HttpTimeouts, Registry, Unanswering};
use modelfs::store::Store;
use modelfs::vfs::{Vfs, VfsError, VfsOptions};
use modelfs_platform::{MountOptions, Serving, Task};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};

use crate::confine::Confinement;
use crate::control::answers::DaemonStatus;
use crate::control::ops::{Keeper, Live, Ops, blocking, rfc3339};
use crate::control::server;
use crate::error::{Failure, Kind};
use crate::ready::Ready;
use crate::scrub::Scrub;
use crate::service;
use crate::signals::Signals;
use crate::supervisor::messages::FromWorker;
use crate::worker::{Assignment, Joined, Supervisor, Told, Wish};

/// How long a user waits before asking what is going on.
const WONDER: Duration = Duration::from_secs(2);

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
}

/// Where commands come from.
struct Listener {
    socket: std::os::unix::net::UnixListener,
    /// Who may ask, beside root.
    owner: u32,
}

/// Everything that is served.
struct Parts {
    store: Store,
    fetcher: Arc<Fetcher>,
    vfs: Arc<Vfs>,
}

/// Serves what the supervisor assigns until the connection ends or the supervisor wants it.
pub async fn run(
    options: Options,
    joined: Joined,
    confinement: Confinement,
) -> Result<(), Failure> {
    // They are for the supervisor; a service manager sends them to everybody.
    let mut signals = Signals::new(true)?;
    tokio::spawn(async move {
        loop {
            signals.next().await;
        }
    });
    let supervisor = Arc::clone(&joined.supervisor);
    let served = serve(&options, joined, confinement).await;
    match &served {
        Ok(()) => supervisor.say(&FromWorker::Ended),
        Err(failure) => {
            supervisor.say(&FromWorker::Failed(failure.clone()));
            // Nothing is taken apart: a request dropped on the way would be answered with an
            // error, where the next worker has the right answer.
            std::process::exit(failure.exit_code.into());
        }
    }
    served
}

async fn serve(options: &Options, joined: Joined, confinement: Confinement) -> Result<(), Failure> {
    let Joined { welcome, lock, listener, supervisor, owner } = joined;
    let Told { begin, assigned, mut wishes } = supervisor.listen()?;
    let stopped = || Failure::new(Kind::Interrupted, "stopped before the mount was ready");
    let timeouts = HttpTimeouts::within(options.fetch.read_deadline);
    let mut registry = modelfs::registry::open_with(&options.registry, timeouts)?;
    if welcome.registry_hangs {
        // We may not look at it either. A waiting reader is answered by the worker that takes over
        // when it answers.
        let why = "the registry's folder does not answer";
        registry = Arc::new(Unanswering::new(registry.name(), why));
    }
    let how = service::store_options(&options.root, options.limit);
    // Another worker may have the store yet: what is not well is found before that one goes.
    let checked = how.clone();
    blocking(move || Ok(Store::check(&checked)?)).await?;
    supervisor.say(&FromWorker::Checked);
    begin.await.map_err(|_| stopped())?;
    let store = blocking(move || Ok(Store::open_locked(how, lock)?)).await?;
    let parts = prepare(options, registry, store, welcome.since.is_some()).await?;
    supervisor.say(&FromWorker::Prepared);
    let assignment = assigned.await.map_err(|_| stopped())?;
    let (vfs, keeper, threads) = (parts.vfs.clone(), supervisor.clone(), options.mount.threads);
    let serving = blocking(move || {
        let Assignment { device, offer, open, takes_over, no_passthrough } = assignment;
        let task = Task { device, offer, open, takes_over, no_passthrough, threads };
        modelfs_platform::serve(vfs, task, keeper)
            .map_err(|e| Failure::new(Kind::General, format!("talking to the kernel: {e}")))
    })
    .await?;
    if welcome.since.is_some() {
        parts.vfs.tell_all();
    }
    let agreed = serving.agreed();
    let status = DaemonStatus {
        pid: welcome.supervisor,
        worker: std::process::id(),
        restarts: welcome.restarts,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        mountpoint: options.mount.mountpoint.clone(),
        socket: welcome.socket,
        since: welcome.since.unwrap_or_else(|| rfc3339(std::time::SystemTime::now())),
        passthrough: agreed.passthrough,
        why_no_passthrough: agreed.why_not,
        max_read: agreed.max_read,
        confinement,
        failed_restart: welcome.failed_restart,
        log: options.log.clone(),
    };
    let listener = Listener { socket: listener, owner };
    live(options, parts, status, serving, listener, supervisor, &mut wishes).await
}

/// Puts the parts together. A worker that takes a mount over needs cache and index for that, and no
/// registry: what is cached is read at once, and the registry is asked meanwhile.
async fn prepare(
    options: &Options,
    registry: Arc<dyn Registry>,
    store: Store,
    takes_over: bool,
) -> Result<Parts, Failure> {
    let fetcher = service::fetcher(registry.clone(), &store, &options.fetch);
    let how = VfsOptions { passthrough: options.mount.passthrough };
    let vfs = match takes_over {
        true => Vfs::resume(fetcher.clone(), how).await,
        false => {
            tokio::select! {
                first = service::first_catalog(&*registry, fetcher.source()) => first?,
                never = say_what_is_waited_for(fetcher.source()) => match never {},
            }
            Vfs::new(fetcher.clone(), how).await
        }
    };
    Ok(Parts { store, vfs: vfs.map_err(unprepared)?, fetcher })
}

/// Once, if the first answer takes so long that somebody may wonder. Never ends.
async fn say_what_is_waited_for(source: &Source) -> Infallible {
    tokio::time::sleep(WONDER).await;
    if let Some(wait) = source.waiting() {
        let (registry, left) = (source.name(), wait.left.min(service::FIRST_CONTACT).as_secs());
        tracing::warn!("waiting for {registry}, for at most {left}s more: {}", wait.why);
    }
    std::future::pending().await
}

fn unprepared(error: VfsError) -> Failure {
    let kind = match error {
        VfsError::Unavailable { .. } | VfsError::TimedOut { .. } => Kind::Network,
        VfsError::Corrupt { .. } => Kind::Verification,
        VfsError::NotFound
        | VfsError::NotFolder
        | VfsError::IsFolder
        | VfsError::NoAttribute
        | VfsError::NoAttributes
        | VfsError::Stale => Kind::General,
    };
    Failure::new(kind, format!("preparing the tree: {error}"))
}

/// From the first request to the end.
async fn live(
    options: &Options,
    parts: Parts,
    status: DaemonStatus,
    serving: Serving,
    listener: Listener,
    supervisor: Arc<Supervisor>,
    wishes: &mut mpsc::UnboundedReceiver<Wish>,
) -> Result<(), Failure> {
    let Parts { store, fetcher, vfs } = parts;
    let general =
        |what: &str, e: std::io::Error| Failure::new(Kind::General, format!("{what}: {e}"));
    let ready = Ready {
        daemon: status.clone(),
        registry: fetcher.source().name().to_owned(),
        trouble: fetcher.source().trouble(),
    };
    let asked = Arc::new(Asked { supervisor: supervisor.clone(), restart: Mutex::default() });
    let ops = Arc::new(Ops {
        store: store.clone(),
        source: Some(fetcher.source().clone()),
        fetcher: Some(fetcher.clone()),
        daemon: Some(Live { status, keeper: asked.clone() }),
        options: options.fetch.clone(),
        scratch: None,
    });
    let Listener { socket, owner } = listener;
    socket.set_nonblocking(true).map_err(|e| general("the control socket", e))?;
    let socket = UnixListener::from_std(socket).map_err(|e| general("the control socket", e))?;
    let (quit, quitting) = oneshot::channel::<()>();
    let control = tokio::spawn(server::serve(socket, owner, ops, async {
        let _ = quitting.await;
    }));
    let scrub = Scrub::start(store.clone(), options.scrub_rate)
        .map_err(|e| general("starting the scrub", e))?;
    if let Some(trouble) = &ready.trouble {
        tracing::warn!("the registry cannot be asked; offering what was last seen: {trouble}");
    }
    supervisor.say(&FromWorker::Ready(Box::new(ready)));
    let retires = loop {
        tokio::select! {
            () = serving.ended() => break false,
            wish = wishes.recv() => match wish {
                Some(Wish::Restarted(outcome)) => asked.restarted(outcome),
                Some(Wish::Retire) => break true,
                Some(Wish::Orphaned) | None => {
                    tracing::error!("the supervisor died: ending");
                    break true;
                }
            },
        }
    };
    // Requests are answered until the last moment; those that are not, the next worker answers.
    drop(quit);
    let _ = control.await;
    let committed = blocking(move || {
        drop(scrub);
        fetcher.keep_traces();
        Ok(store.commit()?)
    })
    .await;
    if retires {
        // Without taking anything apart: a request dropped on the way would be answered with an
        // error.
        std::process::exit(committed.map_or_else(|failure| failure.exit_code.into(), |()| 0));
    }
    vfs.close();
    committed
}

/// Carries what commands ask for to the supervisor.
struct Asked {
    supervisor: Arc<Supervisor>,
    /// Who waits for a restart.
    restart: Mutex<Vec<oneshot::Sender<Result<(), String>>>>,
}

impl Asked {
    fn restarted(&self, outcome: Result<(), String>) {
        let mut waiting = self.restart.lock().unwrap_or_else(PoisonError::into_inner);
        for who in waiting.drain(..) {
            let _ = who.send(outcome.clone());
        }
    }
}

impl Keeper for Asked {
    fn unmount(&self) {
        self.supervisor.tell(&FromWorker::Unmount);
    }

    fn restart(&self) -> BoxFuture<'static, Result<(), String>> {
        let (tell, told) = oneshot::channel();
        self.restart.lock().unwrap_or_else(PoisonError::into_inner).push(tell);
        self.supervisor.tell(&FromWorker::Restart);
        Box::pin(async move { told.await.unwrap_or_else(|_| Err("the daemon ends".to_owned())) })
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
