//! `modelfs mount`: mount a registry and serve it until the end.
//!
//! Invariant: the supervisor resolves where things are once; a worker is told. Nothing is shared.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use modelfs::base::units::{ByteSize, parse_duration};
use modelfs::fetch::FetchOptions;
use modelfs_platform::{MountOptions, Protected};

use super::args::Places;
use super::output::{Out, printable};
use crate::blocking::blocking;
use crate::control::event::Event;
use crate::error::Failure;
use crate::identity::{self, Identity};
use crate::ready::Ready;
use crate::supervisor::messages::Locations;
use crate::{background, paths, scrub, supervisor, wiring, worker};

/// Threads that take requests from the kernel: more than four gain nothing where the data comes
/// from the page cache, and each may wait for a disk.
const THREADS: u16 = 4;

/// With the pauses between them, some ten seconds: enough for a passing failure, not for a lasting one.
const MAX_RESTARTS: u32 = 8;

/// Mount a registry as a folder
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  modelfs mount /models --registry https://models.example.org --background
  modelfs mount ~/models --registry /srv/models --cache-size 200GiB

Without --background it runs until it is unmounted or gets SIGINT or SIGTERM; a second signal closes \
open files at once. Other users of the machine can read command lines: pass a registry URL that contains \
credentials in MODELFS_REGISTRY.")]
pub struct Mount {
    /// Folder to mount at
    mountpoint: PathBuf,
    #[command(flatten)]
    places: Places,
    /// Maximum size of the cache on disk [default: as before, at first 50GiB]
    #[arg(long, value_name = "SIZE")]
    cache_size: Option<ByteSize>,
    /// Let other users read the mount
    #[arg(long)]
    allow_other: bool,
    /// Mount even if the folder is not empty: its content is hidden until the unmount
    #[arg(long)]
    allow_non_empty: bool,
    /// Return when the mount is ready, and serve in the background
    #[arg(long)]
    background: bool,
    /// Maximum age of the list of versions before the registry is asked again [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    catalog_ttl: Option<Duration>,
    /// How long a read waits for the network before it fails [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = positive_duration)]
    read_deadline: Option<Duration>,
    /// Speed at which the cache is verified in the background, in bytes per second; 0: never
    /// [default: 8MiB]
    #[arg(long, value_name = "SIZE")]
    scrub_rate: Option<ByteSize>,
    /// Read cached files through the daemon, never by the kernel itself
    #[arg(long)]
    no_passthrough: bool,
    /// Threads that take requests from the kernel
    #[arg(long, value_name = "N", default_value_t = THREADS,
        value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    /// How many times in a row the worker may die before it has served anything; then reads fail. 0:
    /// no limit
    #[arg(long, value_name = "N", default_value_t = MAX_RESTARTS)]
    max_restarts: u32,
    /// Replace the worker if it hangs for this long, also at its start; 0: never
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "30s")]
    hang_timeout: Duration,
    /// As root: user that the worker becomes and that will own the cache folder [default: modelfs, if
    /// that user exists]
    #[arg(long, value_name = "NAME|UID", conflicts_with = "keep_privileges")]
    worker_user: Option<String>,
    /// Let the worker keep its user, its capabilities and access to all files of that user
    #[arg(long)]
    pub keep_privileges: bool,
    /// The systemd unit that this runs as: the mount survives a restart of the unit
    #[arg(long, value_name = "UNIT", env = "MODELFS_UNIT")]
    unit: Option<String>,
}

fn positive_duration(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Ok(Duration::ZERO) => Err("must be longer than zero, or every read would fail".to_owned()),
        other => other.map_err(|e| e.to_string()),
    }
}

/// Runs the command.
pub async fn run(out: Out, args: Mount, inherited: supervisor::Inheritance) -> Result<(), Failure> {
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
            // The process that started us prints it and ends with its exit code.
            let _ = background::tell(&Event::Error(failure.clone()));
            Err(failure)
        }
        ended => ended,
    }
}

fn mount_options(args: &Mount, mountpoint: PathBuf, protected: Vec<Protected>) -> MountOptions {
    MountOptions {
        mountpoint,
        allow_other: args.allow_other,
        allow_non_empty: args.allow_non_empty,
        protected,
        threads: args.threads.into(),
        passthrough: !args.no_passthrough,
    }
}

/// Where things are. Arguments may be relative to this process's working directory.
pub fn locations(args: &Mount) -> Result<Locations, Failure> {
    let registry = args.places.registry()?.ok_or_else(|| Failure::no_registry("mount"))?;
    let cache = paths::cache_root(args.places.cache.cache_dir.as_deref())?;
    Ok(Locations {
        mountpoint: paths::absolute(&args.mountpoint)?,
        log: args.background.then(|| paths::log_file(&cache)).transpose()?,
        cache,
        registry,
    })
}

/// What no mount may hide. A home folder may contain the mount point; the cache and the registry may not be
/// inside it, since a daemon that reads its own mount waits for itself.
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

/// What the supervisor keeps up. The worker checks and reports the rest.
fn plan(args: Mount) -> Result<supervisor::Plan, Failure> {
    let Locations { mountpoint, cache, registry, log } = locations(&args)?;
    wiring::check_registry(&registry)?;
    let registry_folder = wiring::registry_folder(&registry);
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

/// What a worker serves, and how.
pub fn worker_options(args: &Mount, locations: Locations) -> worker::Options {
    let Locations { mountpoint, cache, registry, log } = locations;
    let usual = FetchOptions::default();
    let (read_deadline, catalog_ttl) = (args.read_deadline, args.catalog_ttl);
    let fetch = FetchOptions {
        read_deadline: read_deadline.unwrap_or(usual.read_deadline),
        catalog_ttl: catalog_ttl.unwrap_or(usual.catalog_ttl),
        ..usual
    };
    worker::Options {
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
        text +=
            &format!("\n  the registry cannot be reached; serving what was last seen: {trouble}");
    }
    printable(&text).replace("\\n", "\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use modelfs::manager::DaemonStatus;

    #[test]
    fn the_ready_line_says_where_and_in_whose_log() {
        let daemon = DaemonStatus {
            pid: 7,
            worker: 8,
            restarts: 0,
            confinement: crate::confine::unconfined(),
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
