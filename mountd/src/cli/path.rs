//! `modelfs path`: where a version is mounted.
//!
//! Invariant: nothing changes.

use clap::Args;
use modelfs::manager::{GetPath, Lookup};

use super::args::Version;
use super::output::Out;
use crate::error::Failure;

/// Print where a version is mounted
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  modelfs path org/my-model@v1
  ls \"$(modelfs path org/my-model@v1)\"")]
pub struct Path {
    #[command(flatten)]
    version: Version,
}

/// Runs the command.
pub async fn run(out: Out, args: Path) -> Result<(), Failure> {
    let Version { words, places } = args.version;
    let session = places.open(out, Lookup::Offline).await?;
    let reference = session.reference(&words)?;
    let mounted = session.ask(GetPath { reference }).await?;
    out.name(&mounted, |mounted| mounted.path.display().to_string())
}
