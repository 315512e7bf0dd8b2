//! `modelfs config`: what the settings are, where each comes from, and whether a file is right.
//!
//! Invariant: nothing is changed, no secret is shown.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use modelfs::config::{Config, Entry, Found, Layer, Level, Policy, SourceConfig};
use serde::Serialize;

use super::args::{self, ConfigFile};
use super::output::{Out, printable};
use super::table::{Column, table};
use crate::error::Failure;

/// Show the settings and where they come from, or check a file of settings
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  modelfs config show --origin
  modelfs config check ./modelfs.toml

Settings come from, the weakest first: built-in defaults, /etc/modelfs/modelfs.toml, the user's \
~/.config/modelfs/modelfs.toml, the nearest modelfs.toml at or above the working directory, variables \
MODELFS_*, and flags. A running daemon keeps those that it was started with.")]
pub struct ConfigCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show all settings as a mount would have them without flags
    Show {
        /// Show where each value comes from
        #[arg(long)]
        origin: bool,
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Check a file, or all that would be read
    Check {
        /// File to check [default: all that would be read]
        #[arg(value_name = "FILE")]
        path: Option<PathBuf>,
    },
}

/// A source as it is shown.
#[derive(Serialize)]
pub struct ShownSource {
    name: String,
    settings: Vec<Entry>,
}

impl From<&SourceConfig> for ShownSource {
    fn from(source: &SourceConfig) -> Self {
        Self { name: source.name.value.clone(), settings: source.entries() }
    }
}

#[derive(Serialize)]
struct Shown {
    files: Vec<PathBuf>,
    settings: Vec<Entry>,
    sources: Vec<ShownSource>,
    policy: Policy,
}

#[derive(Serialize)]
struct Checked {
    files: Vec<PathBuf>,
}

/// Runs the command.
pub fn run(out: Out, args: ConfigCommand) -> Result<(), Failure> {
    match args.action {
        Action::Show { origin, file } => {
            let files = args::files(&file)?;
            let paths = files.iter().map(|found| found.path.clone()).collect();
            let config = args::with_files(files, Layer::default())?;
            out.show(&shown(paths, &config), |shown| text(shown, origin))
        }
        Action::Check { path } => {
            let files = args::files(&ConfigFile { config: path.clone() })?;
            let asked = |found: &&Found| path.is_none() || found.level == Level::User;
            let read = files.iter().filter(asked).map(|found| found.path.clone()).collect();
            args::with_files(files, Layer::default())?;
            out.say(&Checked { files: read }, |checked| {
                let lines = checked.files.iter().map(|file| format!("{}: ok", file.display()));
                match checked.files.is_empty() {
                    true => "there is no file of settings".to_owned(),
                    false => lines.collect::<Vec<_>>().join("\n"),
                }
            })
        }
    }
}

fn shown(files: Vec<PathBuf>, config: &Config) -> Shown {
    Shown {
        files,
        settings: config.entries(),
        sources: config.sources.iter().map(ShownSource::from).collect(),
        policy: config.policy.clone(),
    }
}

fn rows(prefix: &str, entries: &[Entry], origin: bool) -> Vec<Vec<String>> {
    let row = |entry: &Entry| {
        let value = printable(entry.value.as_deref().unwrap_or("(not set)"));
        let mut row = vec![format!("{prefix}{}", entry.key), value];
        row.extend(origin.then(|| printable(&entry.origin.to_string())));
        row
    };
    entries.iter().map(row).collect()
}

fn text(shown: &Shown, origin: bool) -> String {
    let mut all = rows("", &shown.settings, origin);
    for source in &shown.sources {
        all.extend(rows(&format!("source.{}.", source.name), &source.settings, origin));
    }
    let policy = &shown.policy;
    let hosts = policy.allowed_hosts.iter().map(|list| {
        let hosts: Vec<_> = list.value.iter().map(ToString::to_string).collect();
        ("allowed_hosts", hosts.join(", "), &list.origin)
    });
    let private = policy.deny_private_addresses.iter();
    let private = private.map(|d| ("deny_private_addresses", d.value.to_string(), &d.origin));
    for (key, value, from) in hosts.chain(private) {
        let entry = Entry { key, value: Some(value), origin: from.clone() };
        all.extend(rows("policy.", &[entry], origin));
    }
    let mut columns = vec![Column::Left("SETTING"), Column::Left("VALUE")];
    columns.extend(origin.then_some(Column::Left("FROM")));
    table(&columns, all)
}
