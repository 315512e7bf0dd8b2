//! `modelfs prefetch`: fetch a whole version into the cache.
//!
//! Invariant: what a stopped prefetch has fetched is kept.

use clap::Args;
use modelfs::base::units::ByteSize;
use modelfs::manager::{Lookup, Prefetch as Request, Prefetched, Ref};

use super::args::Version;
use super::output::{Out, print_json};
use super::progress::Meter;
use super::session::Session;
use crate::control::event::Event;
use crate::error::Failure;

/// Fetch a whole version into the cache
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  modelfs prefetch org/my-model@v1
  modelfs prefetch org/my-model v1 --json

Ctrl-C stops it; what was fetched stays, and the next prefetch continues from there. With --json it
prints lines {\"progress\": …} and finally {\"done\": …}.")]
pub struct Prefetch {
    #[command(flatten)]
    version: Version,
}

/// Runs the command.
pub async fn run(out: Out, args: Prefetch) -> Result<(), Failure> {
    let Version { words, places } = args.version;
    let session = places.open_or_create(out, Lookup::Online).await?;
    let reference = session.reference(&words)?;
    let end = fetch_all(out, &session, reference).await;
    // Also what a stopped prefetch has fetched.
    let closed = session.close().await;
    let done = end?;
    closed?;
    match out.json {
        true => print_json(&Event::Done(done)),
        false => out.say(&done, prefetched_text),
    }
}

/// Fetches all of a version and shows how far it is.
pub async fn fetch_all(out: Out, session: &Session, reference: Ref) -> Result<Prefetched, Failure> {
    let meter = Meter::new(out, "fetching", true);
    session.follow(Request { reference }, &meter).await
}

fn prefetched_text(p: &Prefetched) -> String {
    let total = ByteSize(p.total);
    if p.fetched == 0 {
        return format!("{} was already cached: {total}", p.reference);
    }
    let (fetched, speed) = (p.fetched, p.fetched as f64 / p.seconds.max(0.001));
    let speed = ByteSize(speed as u64);
    format!("{} is cached: {} fetched of {total}, {speed}/s", p.reference, ByteSize(fetched))
}
