//! `modelfs mount`: mount registries and serve them until the end.
//!
//! Invariant: the configuration is resolved once, by the supervisor; a worker is told. Nothing is shared.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use modelfs::base::blocking::blocking;
use modelfs::base::units::{ByteSize, parse_duration};
use modelfs::config::{self, Address, Config, Layer, Setting};
use modelfs_platform::Protected;

use super::args::{self, Places};
use super::output::{Out, printable};
use crate::control::event::Event;
use crate::error::Failure;
use crate::identity::{self, Identity};
use crate::logging::Verbosity;
use crate::ready::Ready;
use crate::{background, logging, paths, sources, supervisor, wiring};

/// Maximum size of the configuration for a worker: a message has 64 KiB, of which the rest is less than 16.
const MAX_CONFIG: usize = 48 << 10;

/// Mount registries as a folder
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  modelfs mount /models --registry https://models.example.org --background
  modelfs mount ~/models --registry /srv/models --cache-size 200GiB

Without --background it runs until it is unmounted or gets SIGINT or SIGTERM; a second signal closes \
open files at once. Every flag but --background has a variable (MODELFS_CACHE_SIZE stands for --cache-size) \
and a key in modelfs.toml (cache_size); `modelfs config show` lists them. Without --registry, all \
sources that are configured there are mounted in one tree. \
Other users of the machine can read command lines: pass a registry URL that contains credentials in \
MODELFS_REGISTRY.")]
pub struct Mount {
    /// Folder to mount at [env: MODELFS_MOUNTPOINT]
    mountpoint: Option<PathBuf>,
    #[command(flatten)]
    places: Places,
    /// Maximum size of the cache on disk [default: as before, at first 50GiB]
    #[arg(long, value_name = "SIZE")]
    cache_size: Option<ByteSize>,
    /// Let other users read the mount
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true")]
    allow_other: Option<bool>,
    /// Mount even if the folder is not empty: its content is hidden until the unmount
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true")]
    allow_non_empty: Option<bool>,
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
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true")]
    no_passthrough: Option<bool>,
    /// Threads that take requests from the kernel [default: 4]
    #[arg(long, value_name = "N", value_parser = threads)]
    threads: Option<u16>,
    /// How many times in a row the worker may die before it has served anything; then reads fail. 0:
    /// no limit [default: 8]
    #[arg(long, value_name = "N")]
    max_restarts: Option<u32>,
    /// Replace the worker if it hangs for this long, also at its start; 0: never [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    hang_timeout: Option<Duration>,
    /// As root: user that the worker becomes and that will own the cache folder [default: modelfs, if
    /// that user exists]
    #[arg(long, value_name = "NAME|UID")]
    worker_user: Option<String>,
    /// Let the worker keep its user, its capabilities and access to all files of that user
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true")]
    keep_privileges: Option<bool>,
    /// The systemd unit that this runs as: the mount survives a restart of the unit [env: MODELFS_UNIT]
    #[arg(long, value_name = "UNIT")]
    unit: Option<String>,
    /// Address at which the daemon answers programs that ask the Hugging Face Hub: 127.0.0.1:PORT
    #[arg(long, value_name = "ADDRESS")]
    hub_endpoint: Option<config::LoopbackAddress>,
}

fn positive_duration(text: &str) -> Result<Duration, String> {
    config::positive_duration(parse_duration(text).map_err(|e| e.to_string())?)
}

fn threads(text: &str) -> Result<u16, String> {
    config::threads(config::ConfigValue::parse(text)?)
}

impl Mount {
    /// What the command line gives.
    fn layer(&self) -> Layer {
        fn given<T: Clone>(name: &str, value: &Option<T>) -> Option<Setting<T>> {
            value.clone().map(|value| Setting::argument(name, value))
        }
        Layer {
            mountpoint: given("MOUNTPOINT", &self.mountpoint),
            cache_size: given("--cache-size", &self.cache_size),
            allow_other: given("--allow-other", &self.allow_other),
            allow_non_empty: given("--allow-non-empty", &self.allow_non_empty),
            catalog_ttl: given("--catalog-ttl", &self.catalog_ttl),
            read_deadline: given("--read-deadline", &self.read_deadline),
            scrub_rate: given("--scrub-rate", &self.scrub_rate),
            no_passthrough: given("--no-passthrough", &self.no_passthrough),
            threads: given("--threads", &self.threads),
            max_restarts: given("--max-restarts", &self.max_restarts),
            hang_timeout: given("--hang-timeout", &self.hang_timeout),
            worker_user: given("--worker-user", &self.worker_user),
            keep_privileges: given("--keep-privileges", &self.keep_privileges),
            unit: given("--unit", &self.unit),
            hub_endpoint: given("--hub-endpoint", &self.hub_endpoint),
            ..self.places.layer()
        }
    }
}

/// Runs the command.
pub async fn run(
    out: Out,
    args: Mount,
    verbosity: Verbosity,
    inherited: supervisor::Inheritance,
) -> Result<(), Failure> {
    let config = settle(&args, verbosity);
    logging::start_daemon(config.as_ref().ok().and_then(|config| config.log.as_ref()));
    if !background::is_child() {
        let config = config?;
        if !args.background {
            let plan = plan(config, false)?;
            return supervisor::run(plan, inherited, |ready| out.say(ready, ready_text)).await;
        }
        let root = plan(config, true)?.root;
        let ready = blocking(move || background::start(&root)).await??;
        return out.say(&ready, ready_text);
    }
    let mut told = false;
    let serve = async || {
        let plan = plan(config?, true)?;
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

/// The configuration of a mount: complete, and every path in it absolute. Relative paths are relative to
/// this process's working directory.
pub fn settle(args: &Mount, verbosity: Verbosity) -> Result<Config, Failure> {
    let mut config = args::resolve(args.layer(), &args.places.cache.file)?;
    config.log = Some(logging::filter(config.log.as_ref(), verbosity));
    match &mut config.registry {
        Some(given) => given.value = Address(paths::registry(&given.value.0)?),
        None if config.sources.is_empty() => return Err(Failure::no_registry("mount")),
        None => {}
    }
    let cache = args::cache_root(&config)?;
    if let Some(given) = &mut config.mountpoint {
        given.value = paths::absolute(&given.value)?;
    }
    let origin = config.cache_dir.map(|given| given.origin).unwrap_or_default();
    config.cache_dir = Some(Setting { value: cache, origin });
    Ok(config)
}

/// What no mount may hide. A home folder may contain the mount point; the cache and the registry may not be
/// inside it, since a daemon that reads its own mount waits for itself.
fn protected(cache: &Path, registries: Vec<PathBuf>) -> Vec<Protected> {
    let inside_too = true;
    let cache = Protected { what: "the cache folder", path: cache.to_owned(), inside_too };
    let registries = registries.into_iter().map(|path| Protected {
        what: "the registry's folder",
        path,
        inside_too,
    });
    let homes = identity::homes().into_iter();
    let homes = homes.map(|path| Protected { what: "a home folder", path, inside_too: false });
    [cache].into_iter().chain(registries).chain(homes).collect()
}

/// What the supervisor keeps up. The worker checks and reports the rest.
fn plan(config: Config, in_background: bool) -> Result<supervisor::Plan, Failure> {
    let places = wiring::places(&config)?;
    let message = serde_json::to_vec(&config).map_or(usize::MAX, |message| message.len());
    if message > MAX_CONFIG {
        let text = format!("the settings take {message} bytes, of which {MAX_CONFIG} are possible");
        return Err(Failure::usage(text).hint("configure fewer sources, or fewer models of them"));
    }
    let plans = sources::plans(&config)?;
    let protected = protected(&places.cache, sources::folders(&plans));
    let worker_user = config.worker_user.as_ref().map(|user| user.value.as_str());
    Ok(supervisor::Plan {
        mount: wiring::mount_options(&config, places.mountpoint, protected),
        sources: plans,
        log_file: in_background.then(|| paths::log_file(&places.cache)).transpose()?,
        identity: Identity::of_worker(worker_user, config.keep_privileges.value)?,
        quick_deaths: config.max_restarts.value,
        hang_timeout: config.hang_timeout.value,
        ends_with_terminal: !in_background && std::io::stderr().is_terminal(),
        unit: config.unit.as_ref().map(|unit| supervisor::Unit::new(unit.value.clone())),
        root: places.cache,
        config,
    })
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
        text += &format!(
            "\n  a registry cannot be reached; what was last seen of it is served: {trouble}"
        );
    }
    printable(&text).replace("\\n", "\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use modelfs::manager::DaemonStatus;

    #[test]
    fn every_setting_has_its_flag() {
        use clap::{Args, Command};
        let command = Mount::augment_args(Command::new("mount"));
        let long: Vec<_> = command.get_arguments().filter_map(|a| a.get_long()).collect();
        let flags = config::KEYS.iter().filter_map(config::Key::flag);
        for flag in flags {
            assert!(long.contains(&flag.trim_start_matches('-')), "{flag}");
        }
        assert_eq!(
            long.len(),
            config::KEYS.len(),
            "--background and --config, no mountpoint and log"
        );
    }

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
