//! `modelfs run`: run a command that finds models on a mount.
//!
//! Invariant: the command's exit code is ours (128 and the number of the signal that killed it). A mount that
//! was made for it is gone when we return; one that was there before stays.

mod arguments;
mod forward;
mod private_mount;

use std::ffi::OsString;
use std::io::{ErrorKind, IsTerminal};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};

use clap::Args;
use modelfs::base::blocking::blocking;
use modelfs::manager::{GetHubEndpoint, HubEndpoint, Lookup};

use self::arguments::{Named, variables};
use self::forward::Signals;
use self::private_mount::{DaemonOptions, PrivateMount, Started};
use super::args::{self, Places};
use super::output::{self, Out};
use super::session::Session;
use crate::control::backend::{self, IfAbsent};
use crate::error::{Failure, Kind};
use crate::logging::{self, Verbosity};
use crate::paths;

/// What a shell returns for a command that it does not find, and for one that it cannot start.
const NOT_FOUND: u8 = 127;
const NOT_STARTED: u8 = 126;
/// What the daemon of a private mount logs: the output of a command is the command's.
const ERRORS_ONLY: &str = "error";
/// What a shell adds to the number of the signal that killed a command.
const KILLED: i32 = 128;

/// Run a command that finds models on a mount
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  modelfs run --registry hf:// -- python train.py
  modelfs run --registry hf:// -- llama-server -m hf://org/name/model.gguf
  modelfs run -- vllm serve modelfs:org/my-model@v1

The mount is that of the daemon that has the cache, if there is one, else one that exists while the \
command runs. MODELFS_MODELS is the mount point. Programs find the mount by HF_HUB_CACHE and other \
variables. They are set offline, or with --online ask the daemon in place of the Hub. An argument \
hf://ORG/NAME[@REVISION][/FILE] or modelfs:GROUP/MODEL@VERSION[/FILE], also after --FLAG=, becomes a \
path. Signals go to the command; its exit code is returned.")]
pub struct Run {
    #[command(flatten)]
    places: Places,
    /// Let the command ask the daemon in place of the Hub, also for what it has not used yet; else it is
    /// set offline
    #[arg(long)]
    online: bool,
    /// Pass arguments on as they are
    #[arg(long)]
    as_is: bool,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// A mount to run a command on.
struct Mounted {
    mountpoint: PathBuf,
    /// Where the command may ask in place of the Hub.
    endpoint: Option<HubEndpoint>,
    /// The mount, if it exists for this command alone.
    private: Option<Box<PrivateMount>>,
}

impl Mounted {
    async fn end(self) -> Result<(), Failure> {
        match self.private {
            Some(mount) => mount.end().await,
            None => Ok(()),
        }
    }
}

/// Runs the command.
pub async fn run(out: Out, args: Run, verbosity: Verbosity) -> Result<ExitCode, Failure> {
    let named = match args.as_is {
        true => vec![None; args.command.len()],
        false => {
            let of = |argument: &OsString| Named::of(argument).map_err(Failure::usage);
            args.command.iter().map(of).collect::<Result<Vec<_>, _>>()?
        }
    };
    let mut signals = Signals::new(std::io::stdin().is_terminal())?;
    let mounted = tokio::select! {
        mounted = mount(out, &args, verbosity) => match mounted? {
            Ok(mounted) => mounted,
            // The daemon has said why.
            Err(ended) => return Ok(exit_code(ended)),
        },
        _ = signals.next() => {
            return Err(Failure::new(Kind::Interrupted, "stopped before the mount was ready"));
        }
    };
    let ran = command(out, &args.command, &named, &mounted, &mut signals).await;
    let ended = mounted.end().await;
    match (ran, ended) {
        (Ok(code), Ok(())) => Ok(code),
        // The command's own end counts more than how the mount ended.
        (Ok(code), Err(failure)) => {
            out.warn(&failure.to_string());
            Ok(code)
        }
        (Err(failure), _) => Err(failure),
    }
}

/// The mount of the daemon that has this cache, else one of our own; the inner error: that one's daemon could
/// not mount.
async fn mount(
    out: Out,
    args: &Run,
    verbosity: Verbosity,
) -> Result<Result<Mounted, ExitStatus>, Failure> {
    let places = &args.places;
    let config = places.config()?;
    let root = args::cache_root(&config)?;
    if let Some(mountpoint) = backend::holder(&root).await?.and_then(|holder| holder.mountpoint) {
        // Fails if that daemon serves another registry than this command was given.
        let session = places.open(out, Lookup::Offline).await?;
        let endpoint = match args.online {
            true => Some(endpoint(&session, &mountpoint).await?),
            false => None,
        };
        return Ok(Ok(Mounted { mountpoint, endpoint, private: None }));
    }
    let registry = config.registry.map(|given| paths::registry(&given.value.0)).transpose()?;
    let mut flags = vec!["-v".to_owned(); verbosity.verbose.into()];
    flags.extend(out.json.then(|| "--json".to_owned()));
    let log_errors_only = verbosity.verbose == 0 && std::env::var_os(logging::VARIABLE).is_none();
    let log = log_errors_only.then_some((logging::VARIABLE, ERRORS_ONLY));
    let hub_endpoint = args.online.then(free_address).transpose()?;
    let options = DaemonOptions {
        hub_endpoint,
        cache: root,
        registry,
        config: places.cache.file.config.clone(),
        flags,
        log,
    };
    Ok(match PrivateMount::start(options).await? {
        Started::Failed(ended) => Err(ended),
        Started::Mounted(mount) => {
            let mountpoint = mount.mountpoint().to_owned();
            let endpoint = match args.online {
                true => private_endpoint(args, out, &mountpoint).await.map(Some),
                false => Ok(None),
            };
            match endpoint {
                Ok(endpoint) => Ok(Mounted { mountpoint, endpoint, private: Some(mount) }),
                Err(failure) => {
                    mount.end().await?;
                    return Err(failure);
                }
            }
        }
    })
}

async fn private_endpoint(args: &Run, out: Out, mountpoint: &Path) -> Result<HubEndpoint, Failure> {
    let session = args.places.connect(out, Lookup::Offline, IfAbsent::TreatAsEmpty).await?;
    endpoint(&session, mountpoint).await
}

/// Where the daemon of a mount answers in place of the Hub.
async fn endpoint(session: &Session, mountpoint: &Path) -> Result<HubEndpoint, Failure> {
    session.ask(GetHubEndpoint {}).await?.endpoint.ok_or_else(|| {
        let at = mountpoint.display();
        Failure::usage(format!("the daemon of {at} does not answer in place of the Hub"))
            .hint("mount with --hub-endpoint 127.0.0.1:PORT, or leave out --online")
    })
}

/// An address that nothing listens at.
fn free_address() -> Result<SocketAddr, Failure> {
    let free = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr();
    free().map_err(|e| Failure::new(Kind::General, format!("finding a free port: {e}")))
}

/// Runs a command on a mount to its end.
async fn command(
    out: Out,
    words: &[OsString],
    named: &[Option<Named>],
    mounted: &Mounted,
    signals: &mut Signals,
) -> Result<ExitCode, Failure> {
    let mountpoint = &*mounted.mountpoint;
    for named in named.iter().flatten() {
        let path = named.path(mountpoint);
        // Reads the network if need be.
        let looked = tokio::select! {
            looked = blocking(move || std::fs::metadata(path)) => looked?,
            _ = signals.next() => {
                return Err(Failure::new(Kind::Interrupted, "stopped before the command began"));
            }
        };
        looked.map_err(|error| unreachable(named, mountpoint, &error))?;
    }
    let argument = |(word, named): (&OsString, &Option<Named>)| match named {
        Some(named) => named.argument(mountpoint),
        None => word.clone(),
    };
    let mut words = words.iter().zip(named).map(argument);
    let program = words.next().expect("the parser wants one");
    let mut command = tokio::process::Command::new(&program);
    command.args(words);
    for (name, value) in variables(mountpoint, mounted.endpoint.as_ref()) {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            let text = format!("{}: {error}", program.display());
            output::failed(&Failure::new(Kind::General, text), out.json);
            let missing = error.kind() == ErrorKind::NotFound;
            return Ok(ExitCode::from(if missing { NOT_FOUND } else { NOT_STARTED }));
        }
    };
    let ended = signals.wait(&mut child).await;
    ended.map(exit_code).map_err(|e| Failure::new(Kind::General, format!("the command: {e}")))
}

/// Why a path of the mount cannot be had.
fn unreachable(named: &Named, mountpoint: &Path, error: &std::io::Error) -> Failure {
    let path = named.path(mountpoint);
    let below = path.strip_prefix(mountpoint).unwrap_or(&path).display();
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => {
            let text = format!("{below}: no registry of this mount has it");
            Failure::new(Kind::NotFound, text)
        }
        _ => {
            let text = format!("{below}: {error}");
            Failure::new(Kind::Network, text)
                .hint("modelfs status says why a registry cannot be reached")
        }
    }
}

fn exit_code(ended: ExitStatus) -> ExitCode {
    let code = ended.code().or(ended.signal().map(|signal| KILLED + signal));
    code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}
