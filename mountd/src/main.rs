//! `modelfs`: the mount daemon and its commands, in one program.
//!
//! This file dispatches and turns the outcome into an exit code; everything else has its module.

mod background;
mod cli;
mod daemon;
mod logging;
mod scrub;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use modelfs_mountd::{control, error, paths, service};

use cli::output;
use error::{Failure, Kind};

/// How long tasks that nobody waits for may take to end; the store is committed before that.
const LINGER: Duration = Duration::from_secs(1);

/// Fewer workers than this and a single task that computes stops all others.
const MIN_WORKERS: usize = 2;

fn main() -> ExitCode {
    modelfs_platform::allocator::give_memory_back();
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return output::wrong_arguments(&error),
    };
    logging::start(cli.quiet, cli.verbose, matches!(cli.command, cli::Command::Mount(_)));
    let json = cli.json;
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => output::failed(&failure, json),
    }
}

fn run(cli: cli::Cli) -> Result<(), Failure> {
    let cores = std::thread::available_parallelism().map_or(MIN_WORKERS, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.max(MIN_WORKERS))
        .enable_all()
        .build()
        .map_err(|e| Failure::new(Kind::General, format!("starting threads: {e}")))?;
    let outcome = runtime.block_on(cli::run(cli));
    runtime.shutdown_timeout(LINGER);
    outcome
}
