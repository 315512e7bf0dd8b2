//! The worker: wires the parts together, serves until it is told to end, shuts them down.
//!
//! Invariant: "ready" is reported only when the first read would be answered. The worker owns neither the
//! mount nor the control socket nor the store's lock: its supervisor does, and ends it. A panic anywhere
//! ends the process before it answers another request. One task waits for the end; everything else runs
//! beside it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use modelfs::base::blocking::blocking;
use modelfs::base::clock::rfc3339;
use modelfs::base::units::ByteSize;
use modelfs::config::Config;
use modelfs::fetch::{FetchOptions, Fetcher, Sources};
use modelfs::manager::{Confinement, DaemonControl, DaemonStatus, HubEndpoint, Manager};
use modelfs::model::SourceIx;
use modelfs::registry::{HttpOptions, Unavailable};
use modelfs::store::Store;
use modelfs::vfs::{Vfs, VfsError, VfsOptions};
use modelfs_platform::{MountOptions, Serving, Task};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};

use crate::control::server;
use crate::endpoint;
use crate::error::{Failure, Kind};
use crate::ready::Ready;
use crate::scrub::Scrub;
use crate::signals::Signals;
use crate::sources::SourcePlan;
use crate::supervisor::messages::{FromWorker, Welcome};
use crate::wiring::OpenSource;
use crate::worker_link::{Assignment, Joined, Supervisor, Told, Wish};
use crate::{logins, sources, wiring};

/// How long a start may take before the log says what it waits for: users wonder after a moment.
const REPORT_AFTER: Duration = Duration::from_secs(2);

/// What to serve, and how. All paths are absolute.
struct Options {
    mount: MountOptions,
    /// The cache folder.
    root: PathBuf,
    /// The sources, in order of priority.
    sources: Vec<SourcePlan>,
    /// How servers are asked.
    http: HttpOptions,
    /// The cache's limit; none: unchanged.
    limit: Option<ByteSize>,
    /// Bytes per second that the scrub reads; 0: never.
    scrub_rate: ByteSize,
    /// Where programs that ask the Hub are answered.
    hub_endpoint: Option<SocketAddr>,
    fetch: FetchOptions,
}

impl Options {
    fn of(config: &Config) -> Result<Self, Failure> {
        let places = wiring::places(config)?;
        Ok(Self {
            // The supervisor mounts, and has checked the mount point.
            mount: wiring::mount_options(config, places.mountpoint, Vec::new()),
            root: places.cache,
            sources: sources::plans(config)?,
            http: wiring::http_options(config),
            limit: config.cache_size.as_ref().map(|limit| limit.value),
            scrub_rate: config.scrub_rate.value,
            hub_endpoint: config.hub_endpoint.as_ref().map(|address| address.value.0),
            fetch: wiring::fetch_options(config),
        })
    }
}

/// Where commands arrive.
struct Listener {
    socket: std::os::unix::net::UnixListener,
    /// The user who may send commands, besides root.
    owner: u32,
}

/// Everything that is served.
struct Parts {
    store: Store,
    fetcher: Arc<Fetcher>,
    vfs: Arc<Vfs>,
}

/// Serves what the supervisor assigns until the connection ends or the supervisor wants it.
pub async fn run(config: &Config, joined: Joined, confinement: Confinement) -> Result<(), Failure> {
    // Signals are for the supervisor; a service manager sends them to every process.
    let mut signals = Signals::new(true)?;
    tokio::spawn(async move {
        loop {
            signals.next().await;
        }
    });
    let supervisor = Arc::clone(&joined.supervisor);
    let served = match Options::of(config) {
        Ok(options) => serve(&options, joined, confinement).await,
        Err(failure) => Err(failure),
    };
    match &served {
        Ok(()) => supervisor.say(&FromWorker::Ended),
        Err(failure) => {
            supervisor.say(&FromWorker::Failed(failure.clone()));
            // Nothing is shut down: a request dropped on the way would be answered with an error, where
            // the next worker has the right answer.
            std::process::exit(failure.exit_code.into());
        }
    }
    served
}

async fn serve(options: &Options, joined: Joined, confinement: Confinement) -> Result<(), Failure> {
    let Joined { welcome, lock, listener, supervisor, owner } = joined;
    let Told { begin, assigned, mut wishes } = supervisor.listen()?;
    let stopped = || Failure::new(Kind::Interrupted, "stopped before the mount was ready");
    let open = open_sources(options, &welcome, &supervisor)?;
    let how = wiring::store_options(&options.root, options.limit);
    // The former worker may still hold the store: errors are found before it ends.
    let checked = how.clone();
    blocking(move || Store::check(&checked)).await??;
    supervisor.say(&FromWorker::Checked);
    begin.await.map_err(|_| stopped())?;
    let store = blocking(move || Store::open_locked(how, lock)).await??;
    let parts = prepare(options, &open, store, welcome.since.is_some()).await?;
    supervisor.say(&FromWorker::Prepared);
    let assignment = assigned.await.map_err(|_| stopped())?;
    let (vfs, keeper, threads) = (parts.vfs.clone(), supervisor.clone(), options.mount.threads);
    let serving = blocking(move || {
        let Assignment { device, offer, open, takes_over, no_passthrough } = assignment;
        let task = Task { device, offer, open, takes_over, no_passthrough, threads };
        modelfs_platform::serve(vfs, task, keeper)
            .map_err(|e| Failure::new(Kind::General, format!("talking to the kernel: {e}")))
    })
    .await??;
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
        log: welcome.log_file,
    };
    let listener = Listener { socket: listener, owner };
    live(options, parts, status, serving, listener, supervisor, &mut wishes).await
}

/// Puts the registries together. Opens no connection.
fn open_sources(
    options: &Options,
    welcome: &Welcome,
    supervisor: &Arc<Supervisor>,
) -> Result<Vec<OpenSource>, Failure> {
    let open = (0..).zip(&options.sources).map(|(ix, plan)| {
        // A supervisor of an older program looks up no login.
        let logins = match welcome.answers_logins {
            true => supervisor.logins_of(SourceIx(ix)),
            false => logins::of_source(plan)?,
        };
        let mut open = OpenSource::open(plan.clone(), &options.http, logins)?;
        if plan.folder().is_some_and(|folder| welcome.hangs(&folder)) {
            // Looking at it may hang this worker, too. Waiting readers are answered by the worker that takes
            // over when the folder answers again.
            let why = "the registry's folder does not answer";
            open.registry = Arc::new(Unavailable::new(&*open.registry, why));
        }
        Ok(open)
    });
    open.collect()
}

/// Wires the parts together. A worker that takes a mount over needs cache and index, but no registry: what
/// is cached is served at once, and the registry is asked meanwhile.
async fn prepare(
    options: &Options,
    open: &[OpenSource],
    store: Store,
    takes_over: bool,
) -> Result<Parts, Failure> {
    let fetcher = wiring::fetcher(open, &store, &options.fetch)?;
    let how = VfsOptions { passthrough: options.mount.passthrough };
    if !takes_over {
        tokio::select! {
            first = wiring::first_catalogs(fetcher.sources()) => first?,
            never = report_waiting(fetcher.sources()) => match never {},
        }
    }
    // A source that could not be reached is asked in the background from now on.
    let vfs = Vfs::resume(fetcher.clone(), how).await.map_err(unprepared)?;
    Ok(Parts { store, vfs, fetcher })
}

/// Logs once what is being waited for, if the first answer takes long. Never ends.
async fn report_waiting(sources: &Sources) -> Infallible {
    tokio::time::sleep(REPORT_AFTER).await;
    for (_, source) in sources.iter() {
        let Some(wait) = source.waiting() else { continue };
        let (registry, left) =
            (source.name().as_str(), wait.left.min(wiring::FIRST_CONTACT).as_secs());
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

/// The names of all sources.
fn names(sources: &Sources) -> String {
    let names: Vec<_> = sources.iter().map(|(_, source)| source.name().as_str()).collect();
    names.join(", ")
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
        registry: names(fetcher.sources()),
        trouble: fetcher.sources().trouble(),
    };
    let hub_endpoint = options.hub_endpoint.map(|address| -> Result<HubEndpoint, Failure> {
        let token = endpoint::Token::of_cache(&options.root)?;
        let text = token.as_str().to_owned();
        tokio::spawn(endpoint::serve(address, vfs.clone(), token));
        Ok(HubEndpoint { url: format!("http://{address}"), token: text })
    });
    let daemon = Arc::new(Control {
        status,
        hub_endpoint: hub_endpoint.transpose()?,
        supervisor: supervisor.clone(),
        restarts: Mutex::default(),
    });
    let manager = Manager::new(store.clone(), options.fetch.clone())
        .with_fetcher(fetcher.clone())
        .with_daemon(daemon.clone());
    let Listener { socket, owner } = listener;
    socket.set_nonblocking(true).map_err(|e| general("the control socket", e))?;
    let socket = UnixListener::from_std(socket).map_err(|e| general("the control socket", e))?;
    let (quit, quitting) = oneshot::channel::<()>();
    let control = tokio::spawn(server::serve(socket, owner, manager, async {
        let _ = quitting.await;
    }));
    let scrub = Scrub::start(store.clone(), options.scrub_rate)
        .map_err(|e| general("starting the scrub", e))?;
    if let Some(trouble) = &ready.trouble {
        tracing::warn!(
            "a registry cannot be reached; what was last seen of it is served: {trouble}"
        );
    }
    supervisor.say(&FromWorker::Ready(Box::new(ready)));
    let retires = loop {
        tokio::select! {
            () = serving.ended() => break false,
            wish = wishes.recv() => match wish {
                Some(Wish::Restarted(outcome)) => daemon.restarted(outcome),
                Some(Wish::Retire) => break true,
                Some(Wish::Orphaned) | None => {
                    tracing::error!("the supervisor died: ending");
                    break true;
                }
            },
        }
    };
    // Requests are answered until the end; the next worker answers the rest.
    drop(quit);
    let _ = control.await;
    let committed = blocking(move || {
        drop(scrub);
        fetcher.save_traces();
        store.commit()
    })
    .await;
    let committed = committed.map_err(Failure::from).and_then(|done| Ok(done?));
    if retires {
        // Without shutting anything down: a request dropped on the way would be answered with an error.
        std::process::exit(committed.map_or_else(|failure| failure.exit_code.into(), |()| 0));
    }
    vfs.close();
    committed
}

/// What commands ask of the daemon, passed on to the supervisor.
struct Control {
    status: DaemonStatus,
    hub_endpoint: Option<HubEndpoint>,
    supervisor: Arc<Supervisor>,
    /// Commands that wait for a restart.
    restarts: Mutex<Vec<oneshot::Sender<Result<(), String>>>>,
}

impl Control {
    fn restarted(&self, outcome: Result<(), String>) {
        let mut waiting = self.restarts.lock().unwrap_or_else(PoisonError::into_inner);
        for command in waiting.drain(..) {
            let _ = command.send(outcome.clone());
        }
    }
}

impl DaemonControl for Control {
    fn status(&self) -> DaemonStatus {
        self.status.clone()
    }

    fn hub_endpoint(&self) -> Option<HubEndpoint> {
        self.hub_endpoint.clone()
    }

    fn unmount(&self) {
        self.supervisor.tell(&FromWorker::Unmount);
    }

    fn restart(&self) -> BoxFuture<'static, Result<(), String>> {
        let (tell, told) = oneshot::channel();
        self.restarts.lock().unwrap_or_else(PoisonError::into_inner).push(tell);
        self.supervisor.tell(&FromWorker::Restart);
        Box::pin(async move { told.await.unwrap_or_else(|_| Err("the daemon ends".to_owned())) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_tree_keep_their_kind() {
        let reason = || "x".to_owned();
        assert_eq!(unprepared(VfsError::Unavailable { reason: reason() }).exit_code, 5);
        assert_eq!(unprepared(VfsError::Corrupt { reason: reason() }).exit_code, 6);
        assert_eq!(unprepared(VfsError::Stale).exit_code, 1);
    }
}
