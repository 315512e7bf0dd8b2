//! The command line: what can be said, and which function does it.
//!
//! Invariant: every command has an example in its help and works with `--json`; the words that users
//! and scripts see are here and in the files beside.

mod args;
mod change;
mod check;
mod daemons;
mod doctor;
mod look;
pub mod mounts;
pub mod output;
mod progress;
mod publish;
mod session;
mod table;
mod trace;

use clap::{Parser, Subcommand};

use crate::error::Failure;
use crate::supervisor::Inheritance;
use output::Out;

/// Mounts registries of model weights as a folder: lazy, verified, cached.
#[derive(Debug, Parser)]
#[command(name = "modelfs", version, after_help = ABOUT, arg_required_else_help = true)]
pub struct Cli {
    /// Print one JSON document (prefetch: a line for every step, too); errors as JSON as well
    #[arg(long, global = true, help_heading = "Global options")]
    pub json: bool,
    /// Print errors only
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Global options")]
    pub quiet: bool,
    /// Log more; again: still more
    #[arg(short, long, global = true, action = clap::ArgAction::Count,
        help_heading = "Global options")]
    pub verbose: u8,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

const ABOUT: &str = "\
Examples:
  modelfs publish ./my-model org/my-model v1 --registry /srv/models
  modelfs mount /models --registry /srv/models --background
  modelfs prefetch org/my-model@v1
  modelfs status

A version (REF) is written GROUP/MODEL@VERSION, GROUP/MODEL/VERSION or GROUP/MODEL VERSION; a path \
below the mount point does as well.

Environment: MODELFS_REGISTRY and MODELFS_CACHE_DIR stand for --registry and --cache-dir, MODELFS_LOG \
sets what is logged (debug, modelfs=trace). Other users of the machine can read command lines: \
give a registry's URL that has credentials in it by MODELFS_REGISTRY.

Exit codes: 0 success, 1 general, 2 invalid arguments, 3 not found in the registry, 4 not mounted or \
not cached, 5 network, 6 verification failed, 7 storage, 130 interrupted.";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Mount a registry as a folder
    #[command(after_help = "\
Examples:
  modelfs mount /models --registry https://models.example.org --background
  modelfs mount ~/models --registry /srv/models --cache-size 200GiB

Without --background it runs until it is unmounted or gets SIGINT or SIGTERM; a second signal ends \
it at once. Other users of the machine can read command lines: give a registry's URL that has \
credentials in it by MODELFS_REGISTRY.")]
    Mount(args::Mount),
    /// Look at what this machine can do, and say what to do about the rest
    #[command(after_help = "\
Examples:
  modelfs doctor
  modelfs doctor --json")]
    Doctor(args::Doctor),
    /// Replace the process that serves a mount, without unmounting
    #[command(after_help = "\
Examples:
  modelfs restart

The new process is of the program that is now installed: this is how to update. Files stay open, and \
reads under way are answered by the new one. Also tries again where the daemon has given up.")]
    Restart(args::Restart),
    /// Unmount
    #[command(after_help = "\
Examples:
  modelfs unmount
  modelfs unmount /models")]
    Unmount(args::Unmount),
    /// Show how the daemon and the cache are, and every mount
    #[command(after_help = "\
Examples:
  modelfs status
  modelfs status --json | jq .cache.used")]
    Status(args::Status),
    /// List the versions that are cached, or that the registry offers
    #[command(after_help = "\
Examples:
  modelfs list
  modelfs list --remote --json")]
    List(args::List),
    /// Show all about a version: files, what is cached, metadata, pins
    #[command(after_help = "\
Examples:
  modelfs info org/my-model@v1
  modelfs info org/my-model v1 --json")]
    Info(args::One),
    /// Print where a version is mounted
    #[command(after_help = "\
Examples:
  modelfs path org/my-model@v1
  ls \"$(modelfs path org/my-model@v1)\"")]
    Path(args::One),
    /// Ask the registry now what it offers
    #[command(after_help = "\
Examples:
  modelfs refresh
  modelfs refresh --json | jq .versions

A mount asks by itself every --catalog-ttl, and at once for a name that it does not know.")]
    Refresh(args::Status),
    /// Fetch all of a version into the cache
    #[command(after_help = "\
Examples:
  modelfs prefetch org/my-model@v1
  modelfs prefetch org/my-model v1 --json

Ctrl-C stops it; what was fetched stays, and the next prefetch goes on from there. With --json it
prints lines {\"progress\": …} and at last {\"done\": …}.")]
    Prefetch(args::One),
    /// Keep a version in the cache
    #[command(after_help = "\
Examples:
  modelfs pin org/my-model@v1 --prefetch
  modelfs pin org/my-model@v1 --owner batch-jobs

A version stays until its last owner has let it go.")]
    Pin(args::Pin),
    /// Let a pinned version go
    #[command(after_help = "\
Examples:
  modelfs unpin org/my-model@v1
  modelfs unpin org/my-model@v1 --owner batch-jobs")]
    Unpin(args::Unpin),
    /// Give the space of cached versions back
    #[command(after_help = "\
Examples:
  modelfs evict org/my-model@v1
  modelfs evict --all

What is pinned or being read is kept. The exit code is 1 if nothing could be freed for that reason, and \
4 if nothing was cached.")]
    Evict(args::Evict),
    /// Re-hash what is cached and drop what does not match
    #[command(after_help = "\
Examples:
  modelfs verify
  modelfs verify org/my-model@v1

The exit code is 6 if something was dropped; it is fetched again when it is read.")]
    Verify(args::Verify),
    /// Show, export, import or forget the order in which a program loaded a version
    #[command(after_help = "\
Examples:
  modelfs trace show org/my-model@v1
  modelfs trace export org/my-model@v1 --output load.json
  modelfs trace import load.json
  modelfs trace forget org/my-model@v1

The first load of a version is recorded; the next one that finds it uncached, here or on a machine \
that imported it, is fetched ahead in that order.")]
    Trace(trace::Trace),
    /// Publish a folder as a version in a registry's folder
    #[command(after_help = "\
Examples:
  modelfs publish ./my-model org/my-model v1 --registry /srv/models
  modelfs publish ./my-model org/my-model v1 --registry /srv/models --meta license=apache-2.0
  modelfs publish ./my-model org/my-model latest --registry /srv/models --alias-of v1 --replace")]
    Publish(args::Publish),
}

/// Does what was said.
pub async fn run(cli: Cli, inherited: Inheritance) -> Result<(), Failure> {
    let out = Out { json: cli.json, quiet: cli.quiet };
    match cli.command {
        Command::Mount(args) => mounts::mount(out, args, inherited).await,
        Command::Doctor(args) => doctor::doctor(out, args).await,
        Command::Restart(args) => mounts::restart(out, args).await,
        Command::Unmount(args) => mounts::unmount(out, args).await,
        Command::Status(args) => look::status(out, args).await,
        Command::List(args) => look::list(out, args).await,
        Command::Info(args) => look::info(out, args).await,
        Command::Path(args) => look::path(out, args).await,
        Command::Refresh(args) => look::refresh(out, args).await,
        Command::Prefetch(args) => change::prefetch(out, args).await,
        Command::Pin(args) => change::pin(out, args).await,
        Command::Unpin(args) => change::unpin(out, args).await,
        Command::Evict(args) => check::evict(out, args).await,
        Command::Verify(args) => check::verify(out, args).await,
        Command::Trace(args) => trace::trace(out, args).await,
        Command::Publish(args) => publish::publish(out, args).await,
    }
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
