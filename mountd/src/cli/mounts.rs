//! `modelfs mount` and `modelfs unmount`.
//!
//! Invariant: "unmounted" is said only when the mount and its daemon are gone.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use modelfs::fetch::FetchOptions;
use modelfs_platform::{MountError, MountOptions, Protected};
use rustix::process::Signal;
use serde::Serialize;

use super::args::{Mount as MountArgs, Restart as RestartArgs, Unmount as UnmountArgs};
use super::daemons;
use super::output::Out;
use crate::control::answers::Unmounting;
use crate::control::backend;
use crate::control::client::Client;
use crate::control::ops::blocking;
use crate::control::peer::Peer;
use crate::control::types::{Event, GetStatus, Restart, Unmount};
use crate::daemon;
use crate::error::{Failure, Kind};
use crate::identity::{self, Identity};
use crate::ready::Ready;
use crate::supervisor::messages::Locations;
use crate::{background, paths, scrub, service, supervisor};

/// How long a daemon may take to end: it waits for its last commit to the disk.
const END: Duration = Duration::from_secs(30);

/// How long a mount may stay after its daemon: the guard makes two system calls, or starts a helper.
const GUARD: Duration = Duration::from_secs(5);

/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(50);

/// How long a worker may take to make room before it is taken to hang.
const HANGS: Duration = Duration::from_secs(8);

/// `modelfs mount`
pub async fn mount(
    out: Out,
    args: MountArgs,
    inherited: supervisor::Inheritance,
) -> Result<(), Failure> {
    if !background::is_child() {
        let in_background = args.background;
        let plan = plan(args)?;
        if !in_background {
            return supervisor::run(plan, inherited, |ready| out.say(ready, ready_text)).await;
        }
        let ready = blocking(move || background::start(&plan.root)).await?;
        return out.say(&ready, ready_text);
    }
    let mut told = false;
    let serve = async || {
        let plan = plan(args)?;
        background::detach();
        supervisor::run(plan, inherited, |ready| {
            told = true;
            background::tell(&Event::Done(ready))
        })
        .await
    };
    let ended = serve().await;
    match ended {
        Err(failure) if !told => {
            // Who started us prints it and ends with its code.
            let _ = background::tell(&Event::Error(failure.clone()));
            Err(failure)
        }
        ended => ended,
    }
}

fn mount_options(args: &MountArgs, mountpoint: PathBuf, protected: Vec<Protected>) -> MountOptions {
    MountOptions {
        mountpoint,
        allow_other: args.allow_other,
        allow_non_empty: args.allow_non_empty,
        protected,
        threads: args.threads.into(),
        passthrough: !args.no_passthrough,
    }
}

/// Where things are, by arguments that may be relative to this process's folder.
pub fn locations(args: &MountArgs) -> Result<Locations, Failure> {
    let registry = args.places.registry()?.ok_or_else(|| Failure::no_registry("mount"))?;
    let cache = paths::cache_root(args.places.cache_dir.as_deref())?;
    Ok(Locations {
        mountpoint: paths::absolute(&args.mountpoint)?,
        log: args.background.then(|| paths::log_file(&cache)).transpose()?,
        cache,
        registry,
    })
}

/// What no mount may hide. The home folder may hold a mount point; a daemon that reads its own mount
/// waits for itself, so the cache and the registry may not.
fn protected(cache: &Path, registry: Option<&Path>) -> Vec<Protected> {
    let inside_too = true;
    let cache = Protected { what: "the cache folder", path: cache.to_owned(), inside_too };
    let registry = registry.map(|folder| Protected {
        what: "the registry's folder",
        path: folder.to_owned(),
        inside_too,
    });
    let homes = identity::homes().into_iter();
    let homes = homes.map(|path| Protected { what: "a home folder", path, inside_too: false });
    [cache].into_iter().chain(registry).chain(homes).collect()
}

/// What the supervisor keeps up. What is wrong with the rest, the worker says.
fn plan(args: MountArgs) -> Result<supervisor::Plan, Failure> {
    let Locations { mountpoint, cache, registry, log } = locations(&args)?;
    service::check_registry(&registry)?;
    let registry_folder = service::registry_folder(&registry);
    let protected = protected(&cache, registry_folder.as_deref());
    Ok(supervisor::Plan {
        mount: mount_options(&args, mountpoint, protected),
        root: cache,
        registry_folder,
        registry,
        log,
        identity: Identity::of_worker(args.worker_user.as_deref(), args.keep_privileges)?,
        quick_deaths: args.max_restarts,
        hang_timeout: args.hang_timeout,
        ends_with_terminal: !args.background && std::io::stderr().is_terminal(),
        unit: args.unit.map(supervisor::Unit::new),
    })
}

/// What a worker is to do.
pub fn worker_options(args: &MountArgs, locations: Locations) -> daemon::Options {
    let Locations { mountpoint, cache, registry, log } = locations;
    let usual = FetchOptions::default();
    let (read_deadline, catalog_ttl) = (args.read_deadline, args.catalog_ttl);
    let fetch = FetchOptions {
        read_deadline: read_deadline.unwrap_or(usual.read_deadline),
        catalog_ttl: catalog_ttl.unwrap_or(usual.catalog_ttl),
        ..usual
    };
    daemon::Options {
        // The supervisor mounts, and has checked the mount point.
        mount: mount_options(args, mountpoint, Vec::new()),
        root: cache,
        registry,
        limit: args.cache_size,
        scrub_rate: args.scrub_rate.unwrap_or(scrub::RATE),
        fetch,
        log,
    }
}

fn ready_text(ready: &Ready) -> String {
    let d = &ready.daemon;
    let mut text =
        format!("mounted {} at {} (process {}", ready.registry, d.mountpoint.display(), d.pid);
    if let Some(log) = &d.log {
        text += &format!(", log {}", log.display());
    }
    text.push(')');
    if let Some(trouble) = &ready.trouble {
        text += &format!("\n  the registry cannot be asked, this is what was last seen: {trouble}");
    }
    super::output::printable(&text).replace("\\n", "\n")
}

#[derive(Serialize)]
struct Restarted {
    worker: u32,
    version: String,
}

/// `modelfs restart`
pub async fn restart(out: Out, args: RestartArgs) -> Result<(), Failure> {
    let root = paths::cache_root(args.cache_dir.as_deref())?;
    let nothing = || Failure::new(Kind::NotCached, "nothing is mounted");
    let holder = backend::holder(&root).await?.ok_or_else(nothing)?;
    let socket = holder.socket.ok_or_else(nothing)?;
    let client = Client::new(&socket);
    let (call, quiet) = (Restart {}, backend::none());
    let asked = async {
        match holder.trouble {
            None => tokio::time::timeout(HANGS, client.call(&call, &quiet)).await.ok(),
            Some(_) => None,
        }
    };
    let former = match asked.await {
        Some(answer) => Some(answer?.worker),
        // Nobody answers there: the supervisor is asked by signal.
        None => {
            Peer::of(&root, &socket).await?.signal(Signal::USR1)?;
            None
        }
    };
    let another = async {
        loop {
            let (call, quiet) = (GetStatus {}, backend::none());
            let asked = tokio::time::timeout(daemons::ASK, client.call(&call, &quiet)).await;
            if let Ok(Ok(status)) = asked
                && let Some(daemon) = status.daemon.filter(|d| former != Some(d.worker))
            {
                return daemon;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let daemon = tokio::time::timeout(END, another).await.map_err(|_| {
        Failure::new(Kind::General, "the new worker does not answer")
            .hint("the daemon's log may say why")
    })?;
    if let Some(why) = daemon.failed_restart {
        return Err(Failure::new(Kind::General, format!("no restart: {why}"))
            .hint("the program that served before goes on"));
    }
    let restarted = Restarted { worker: daemon.worker, version: daemon.version };
    out.say(&restarted, |r| format!("process {} serves now, version {}", r.worker, r.version))
}

#[derive(Serialize)]
struct Unmounted {
    mountpoint: PathBuf,
}

/// `modelfs unmount`
pub async fn unmount(out: Out, args: UnmountArgs) -> Result<(), Failure> {
    let wanted = args.mountpoint.as_deref().map(paths::absolute).transpose()?;
    let root = paths::cache_root(args.cache_dir.as_deref())?;
    let mountpoint = match (find(&root, wanted.as_deref()).await?, wanted) {
        (Some(socket), _) => end(&socket).await?,
        // A dead daemon's mount, or one that nobody listens for.
        (None, Some(mountpoint)) => {
            let at = mountpoint.clone();
            blocking(move || modelfs_platform::unmount(&at).map_err(not_unmounted)).await?;
            mountpoint
        }
        (None, None) => {
            return Err(Failure::new(Kind::NotCached, "nothing is mounted")
                .hint("if a mount's daemon has died: modelfs unmount MOUNTPOINT"));
        }
    };
    out.say(&Unmounted { mountpoint }, |u| format!("unmounted {}", u.mountpoint.display()))
}

/// A wrong mount point is no wrong argument here: nothing is mounted there.
fn not_unmounted(error: MountError) -> Failure {
    match error {
        MountError::Mountpoint { .. } => Failure::new(Kind::NotCached, error.to_string()),
        MountError::NotEmpty { .. } | MountError::NoFuse(_) | MountError::Failed { .. } => {
            error.into()
        }
    }
}

/// The socket of the daemon to end: that of this cache, else of the one mount there is.
async fn find(root: &Path, wanted: Option<&Path>) -> Result<Option<PathBuf>, Failure> {
    if let Some(holder) = backend::holder(root).await? {
        let right = wanted.is_none_or(|w| holder.mountpoint.as_deref() == Some(w));
        if let (true, Some(socket)) = (right, holder.socket) {
            return Ok(Some(socket));
        }
    }
    let live = daemons::of_user().await.into_iter();
    let mut live: Vec<_> = live.filter_map(|status| status.daemon).collect();
    if let Some(wanted) = wanted {
        live.retain(|d| d.mountpoint == wanted);
    }
    if live.len() > 1 {
        let places: Vec<_> = live.iter().map(|d| d.mountpoint.display().to_string()).collect();
        return Err(Failure::usage(format!("there are several mounts: {}", places.join(", ")))
            .hint("say which: modelfs unmount MOUNTPOINT"));
    }
    Ok(live.pop().map(|d| d.socket))
}

/// Asks a daemon to end and waits until it has.
async fn end(socket: &Path) -> Result<PathBuf, Failure> {
    let client = Client::new(socket);
    // Where its lock is, to see it go.
    let folder = client.call(&GetStatus {}, &backend::none()).await?.cache.folder;
    let Unmounting { pid, mountpoint } = client.call(&Unmount {}, &backend::none()).await?;
    let gone = async {
        while backend::holder(&folder).await?.is_some_and(|h| h.pid == pid) {
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    };
    tokio::time::timeout(END, gone).await.unwrap_or_else(|_| {
        Err(Failure::new(Kind::General, format!("the daemon, process {pid}, does not end"))
            .hint("its log may say why"))
    })?;
    // Its guard may still be at it.
    let until = tokio::time::Instant::now() + GUARD;
    while modelfs_platform::mounts().iter().any(|mount| mount.path == mountpoint) {
        if tokio::time::Instant::now() >= until {
            let at = mountpoint.display();
            let why = format!("{at}: the daemon has ended, and its mount is still there");
            return Err(Failure::new(Kind::General, why).hint(format!("umount -l {at}")));
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(mountpoint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::answers::DaemonStatus;

    #[test]
    fn the_ready_line_says_where_and_in_whose_log() {
        let daemon = DaemonStatus {
            pid: 7,
            worker: 8,
            restarts: 0,
            confinement: crate::confine::Confinement::off(),
            failed_restart: None,
            version: "0".into(),
            mountpoint: "/m".into(),
            socket: "/s".into(),
            since: String::new(),
            passthrough: true,
            why_no_passthrough: None,
            max_read: 0,
            log: Some("/l".into()),
        };
        let ready = Ready { daemon, registry: "r".into(), trouble: None };
        assert_eq!(ready_text(&ready), "mounted r at /m (process 7, log /l)");
    }
}
