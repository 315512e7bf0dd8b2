//! The command line: one line per command.
//!
//! Invariant: every command has an example in its help and works with `--json`. Each command has a file
//! of its own with its options, its help and its text; the other files are what commands share.

mod args;
mod config;
mod daemons;
mod doctor;
mod evict;
mod info;
mod left_out;
mod link;
mod list;
pub mod mount;
pub mod output;
mod path;
mod pin;
mod prefetch;
mod progress;
mod publish;
mod refresh;
mod restart;
mod run;
mod session;
mod source;
mod source_test;
mod status;
mod table;
mod trace;
mod unmount;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::Failure;
use crate::logging::Verbosity;
use crate::supervisor::Inheritance;
use output::Out;

/// Mount registries of model weights as a folder: lazy, verified, cached
#[derive(Debug, Parser)]
#[command(name = "modelfs", version, after_help = ABOUT, arg_required_else_help = true)]
pub struct Cli {
    /// Print one JSON document (prefetch: also a line for every step); errors as JSON as well
    #[arg(long, global = true, help_heading = "Global options")]
    pub json: bool,
    /// Print errors only
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Global options")]
    pub quiet: bool,
    /// Log more; repeat for even more
    #[arg(short, long, global = true, action = clap::ArgAction::Count,
        help_heading = "Global options")]
    pub verbose: u8,
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// What the flags ask of the log.
    pub fn verbosity(&self) -> Verbosity {
        Verbosity { quiet: self.quiet, verbose: self.verbose }
    }
}

const ABOUT: &str = "\
Examples:
  modelfs publish ./my-model org/my-model v1 --registry /srv/models
  modelfs mount /models --registry /srv/models --background
  modelfs prefetch org/my-model@v1
  modelfs status

A version (REF) is written GROUP/MODEL@VERSION, GROUP/MODEL/VERSION or GROUP/MODEL VERSION, or as a \
path below the mount point.

Environment: MODELFS_REGISTRY and MODELFS_CACHE_DIR stand for --registry and --cache-dir; MODELFS_LOG \
sets what is logged (debug, modelfs=trace). Settings can stand in modelfs.toml: see `modelfs config`. Other users of the machine can read command lines: pass a \
registry URL that contains credentials in MODELFS_REGISTRY.

Exit codes: 0 success, 1 general, 2 invalid arguments, 3 not found in the registry, 4 not mounted or \
not cached, 5 network, 6 verification failed, 7 storage, 130 interrupted.";

/// A command. Its help is at its options.
#[derive(Debug, Subcommand)]
pub enum Command {
    Mount(mount::Mount),
    Run(run::Run),
    Doctor(doctor::Doctor),
    Restart(restart::Restart),
    Unmount(unmount::Unmount),
    Status(status::Status),
    List(list::List),
    Info(info::Info),
    Path(path::Path),
    Link(link::Link),
    Refresh(refresh::Refresh),
    Prefetch(prefetch::Prefetch),
    Pin(pin::Pin),
    Unpin(pin::Unpin),
    Evict(evict::Evict),
    Verify(verify::Verify),
    Trace(trace::Trace),
    Publish(publish::Publish),
    Source(source::Source),
    Config(config::ConfigCommand),
}

/// Runs the command; the exit code if it did not fail.
pub async fn run(cli: Cli, inherited: Inheritance) -> Result<ExitCode, Failure> {
    let out = Out { json: cli.json, quiet: cli.quiet };
    let verbosity = cli.verbosity();
    let done = match cli.command {
        Command::Run(args) => return run::run(out, args, verbosity).await,
        Command::Mount(args) => mount::run(out, args, verbosity, inherited).await,
        Command::Doctor(args) => doctor::run(out, args).await,
        Command::Restart(args) => restart::run(out, args).await,
        Command::Unmount(args) => unmount::run(out, args).await,
        Command::Status(args) => status::run(out, args).await,
        Command::List(args) => list::run(out, args).await,
        Command::Info(args) => info::run(out, args).await,
        Command::Path(args) => path::run(out, args).await,
        Command::Link(args) => link::run(out, args).await,
        Command::Refresh(args) => refresh::run(out, args).await,
        Command::Prefetch(args) => prefetch::run(out, args).await,
        Command::Pin(args) => pin::pin(out, args).await,
        Command::Unpin(args) => pin::unpin(out, args).await,
        Command::Evict(args) => evict::run(out, args).await,
        Command::Verify(args) => verify::run(out, args).await,
        Command::Trace(args) => trace::run(out, args).await,
        Command::Publish(args) => publish::run(out, args).await,
        Command::Source(args) => source::run(out, args).await,
        Command::Config(args) => config::run(out, args),
    };
    done.map(|()| ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent_and_every_command_has_an_example() {
        let mut cli = Cli::command();
        cli.clone().debug_assert();
        for command in cli.get_subcommands_mut() {
            let help = command.render_long_help().to_string();
            let example = format!("  modelfs {}", command.get_name());
            assert!(help.contains("Examples:\n") && help.contains(&example), "{help}");
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            assert!(!about.is_empty() && !about.starts_with("Which "), "{about}");
            // A registry's URL may hold credentials, and help is pasted into tickets.
            assert!(!help.contains("MODELFS_REGISTRY="), "{help}");
        }
    }

    #[test]
    fn a_reference_is_one_word_or_two() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' ')).is_ok();
        assert!(parse("modelfs info a/b@c") && parse("modelfs info a/b c"));
        assert!(!parse("modelfs info") && !parse("modelfs info a b c"));
        assert!(parse("modelfs evict --all") && parse("modelfs evict a/b@c --force"));
        assert!(!parse("modelfs evict") && !parse("modelfs evict --all a/b@c"));
        assert!(parse("modelfs verify") && parse("modelfs --json verify a/b c"));
        assert!(parse("modelfs publish . a/b c --registry r --leaf-size none"));
        assert!(!parse("modelfs publish . a/b c --registry r --leaf-size few"));
        assert!(!parse("modelfs mount /m --read-deadline 0s"));
        assert!(!parse("modelfs mount /m --cache-size much"));
    }
}
