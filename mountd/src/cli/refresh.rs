//! `modelfs refresh`: ask the registry for its catalog now.
//!
//! Invariant: nothing changes but the remembered catalog.

use clap::Args;
use modelfs::manager::{Lookup, Refresh as Request, Refreshed};

use super::args::Places;
use super::left_out::left_out_text;
use super::output::Out;
use crate::error::Failure;

/// Ask the registry now what it offers
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  modelfs refresh
  modelfs refresh --json | jq .versions

A mount asks by itself every --catalog-ttl, and at once for a name that it does not know.")]
pub struct Refresh {
    #[command(flatten)]
    places: Places,
}

/// Runs the command.
pub async fn run(out: Out, args: Refresh) -> Result<(), Failure> {
    // It keeps the catalog that it received.
    let session = args.places.open_or_create(out, Lookup::Online).await?;
    out.show(&session.ask(Request {}).await?, refreshed_text)?;
    session.close().await
}

fn refreshed_text(r: &Refreshed) -> String {
    let versions = if r.versions == 1 { "version" } else { "versions" };
    let head =
        format!("{} offers {} {versions}: {} new, {} gone", r.registry, r.versions, r.new, r.gone);
    match &r.left_out {
        Some(left_out) => format!("{head}\nleft out: {}", left_out_text(left_out)),
        None => head,
    }
}
