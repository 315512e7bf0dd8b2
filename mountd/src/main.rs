//! `modelfs`: the mount daemon and its commands, in one program.
//!
//! This file dispatches and turns the outcome into an exit code; everything else has its module.

mod background;
mod cli;
mod endpoint;
mod logging;
mod ready;
mod scrub;
mod signals;
mod supervisor;
mod worker;
mod worker_link;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use modelfs::config::{Config, Setting};
use modelfs_mountd::{
    cache_ownership, confine, control, error, identity, logins, paths, reach, sources, wiring,
};

use cli::output;
use error::{Failure, Kind};
use supervisor::messages::Locations;

/// How long background tasks may take to end; the store is committed before that.
const LINGER: Duration = Duration::from_secs(1);

/// Fewer workers than this and a single task that computes stops all others.
const MIN_WORKERS: usize = 2;

fn main() -> ExitCode {
    modelfs_platform::allocator::give_memory_back();
    if let Some(task) = supervisor::guard::task() {
        return supervisor::guard::run(&task);
    }
    if let Some(folder) = supervisor::probe::task() {
        return supervisor::probe::run(folder);
    }
    // Before anything is opened. Whatever becomes of it: dropping it takes a former mount away.
    let inherited = supervisor::Inheritance::take();
    if worker_link::is_worker() {
        return work();
    }
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return output::wrong_arguments(&error),
    };
    // A daemon's log is a setting.
    if !matches!(cli.command, cli::Command::Mount(_)) {
        logging::start_command(cli.verbosity());
    }
    let json = cli.json;
    match run(cli, inherited) {
        Ok(code) => code,
        Err(failure) => output::failed(&failure, json),
    }
}

/// A worker's life. What goes wrong is said to the supervisor, who says it to the user.
fn work() -> ExitCode {
    die_of_panics();
    // It may have been started by another name than its own.
    if let Err(error) = rustix::thread::set_name(c"modelfs") {
        tracing::debug!(%error, "the worker has no name");
    }
    let outcome = (|| {
        let (joined, config) =
            worker_link::join(from_arguments).inspect_err(worker_link::cannot)?;
        logging::start_daemon(config.log.as_ref());
        let confinement = match config.keep_privileges.value {
            true => confine::unconfined(),
            false => {
                let places = wiring::places(&config).inspect_err(worker_link::cannot)?;
                let plans = sources::plans(&config).inspect_err(worker_link::cannot)?;
                let mut folders = sources::folders(&plans);
                folders.retain(|folder| !joined.welcome.hangs(folder));
                let read: Vec<_> = folders.iter().map(|folder| folder.as_path()).collect();
                confine::confine(&[&places.cache], &read, joined.welcome.user.as_ref())
                    .inspect_err(worker_link::cannot)?
            }
        };
        runtime()?.block_on(worker::run(&config, joined, confinement))
    })();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            tracing::debug!("{failure}");
            ExitCode::from(failure.exit_code)
        }
    }
}

/// The configuration of a worker whose supervisor's program is too old to send it: that of the arguments,
/// with the places that the supervisor has resolved. A restart may have such a supervisor start us.
fn from_arguments(resolved: Option<Locations>) -> Result<Config, Failure> {
    let cli = cli::Cli::try_parse().map_err(|error| Failure::usage(error.to_string()))?;
    let verbosity = cli.verbosity();
    let cli::Command::Mount(args) = cli.command else {
        return Err(Failure::usage("a worker's arguments are those of mount"));
    };
    let mut config = cli::mount::settle(&args, verbosity)?;
    if let Some(Locations { mountpoint, cache, registry, .. }) = resolved {
        config.mountpoint = Some(Setting::argument("MOUNTPOINT", mountpoint));
        config.cache_dir = Some(Setting::argument("--cache-dir", cache));
        config.registry = Some(Setting::argument("--registry", registry));
    }
    Ok(config)
}

/// A panic must not unwind: requests that are dropped on the way would be answered with errors, where
/// the next worker has the right answer.
fn die_of_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        usual(panic);
        std::process::abort();
    }));
}

fn run(cli: cli::Cli, inherited: supervisor::Inheritance) -> Result<ExitCode, Failure> {
    let runtime = runtime()?;
    let outcome = runtime.block_on(cli::run(cli, inherited));
    runtime.shutdown_timeout(LINGER);
    outcome
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let cores = std::thread::available_parallelism().map_or(MIN_WORKERS, usize::from);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.max(MIN_WORKERS))
        .enable_all()
        .build()
        .map_err(|e| Failure::new(Kind::General, format!("starting threads: {e}")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    /// Set for the process that is to die.
    const DIES: &str = "MODELFS_TEST_DIES";

    /// In a process of its own: this same test, which then panics on a thread whose end is awaited.
    #[test]
    fn a_panic_on_any_thread_ends_the_process_and_nothing_unwinds() {
        if std::env::var_os(DIES).is_some() {
            super::die_of_panics();
            let _ = std::thread::spawn(|| panic!("as a bug would")).join();
            std::process::exit(0);
        }
        let name = "tests::a_panic_on_any_thread_ends_the_process_and_nothing_unwinds";
        let program = std::env::current_exe().unwrap();
        let dead = Command::new(program).args(["--exact", name]).env(DIES, "1").output().unwrap();
        assert_eq!(dead.status.signal(), Some(6), "{dead:?}");
    }
}
