//! `modelfs evict`: remove versions from the cache.
//!
//! Invariant: the text says what was kept, why, and what to do about it. An eviction that freed nothing
//! fails, of one version or of all.

use clap::Args;
use modelfs::manager::{Evict as Request, Evicted, Lookup};

use super::args::Places;
use super::output::Out;
use crate::error::{Failure, Kind};

/// Remove versions from the cache
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  modelfs evict org/my-model@v1
  modelfs evict --all

Versions that are pinned or being read are kept. The exit code is 1 if nothing could be freed for that \
reason, and 4 if nothing was cached.")]
pub struct Evict {
    /// Version: GROUP/MODEL@VERSION, GROUP/MODEL/VERSION or GROUP/MODEL VERSION
    #[arg(value_name = "REF", num_args = 1..=2, required_unless_present = "all")]
    words: Vec<String>,
    /// Everything that is neither pinned nor being read
    #[arg(long, conflicts_with = "words")]
    all: bool,
    /// Also what is pinned; the pins stay
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    places: Places,
}

/// Runs the command.
pub async fn run(out: Out, args: Evict) -> Result<(), Failure> {
    let session = args.places.open(out, Lookup::Offline).await?;
    let reference = session.optional(&args.words)?;
    let evicted = session.ask(Request { reference, force: args.force }).await?;
    session.close().await?;
    let kept = evicted.kept_pinned.0 + evicted.kept_busy.0;
    if evicted.freed.0 == 0 && kept > 0 {
        let (what, next) = kept_text(&evicted);
        return Err(Failure::new(Kind::General, format!("nothing was freed: {what}")).hint(next));
    }
    out.say(&evicted, evicted_text)
}

fn evicted_text(evicted: &Evicted) -> String {
    let text = format!("{} freed", evicted.freed);
    match evicted.kept_pinned.0 + evicted.kept_busy.0 {
        0 => text,
        _ => {
            let (what, next) = kept_text(evicted);
            format!("{text}; {what}\n  {next}")
        }
    }
}

/// What was kept and why, and what to do about it.
fn kept_text(evicted: &Evicted) -> (String, String) {
    let mut what = Vec::new();
    let mut next = Vec::new();
    if evicted.kept_pinned.0 > 0 {
        let pins: Vec<_> =
            evicted.pins.iter().map(|p| format!("{} by {}", p.reference, p.owner)).collect();
        let by = if pins.is_empty() { String::new() } else { format!(" ({})", pins.join(", ")) };
        what.push(format!("{} kept because it is pinned{by}", evicted.kept_pinned));
        next.push(match evicted.pins.first() {
            Some(pin) => format!(
                "unpin it with `modelfs unpin {} --owner {}`, or use --force",
                pin.reference, pin.owner
            ),
            None => "unpin it with `modelfs unpin`, or use --force".to_owned(),
        });
    }
    if evicted.kept_busy.0 > 0 {
        what.push(format!("{} kept because it is being read", evicted.kept_busy));
        next.push("try again after the files are closed".to_owned());
    }
    (what.join("; "), next.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use modelfs::base::units::ByteSize;
    use modelfs::manager::{PinInfo, Ref};

    fn reference() -> Ref {
        Ref { group: "g".into(), model: "m".into(), version: "v".into() }
    }

    #[test]
    fn data_that_eviction_kept_is_explained_with_the_next_step() {
        let pin = PinInfo { reference: reference(), owner: "ann".into(), since: String::new() };
        let mut evicted = Evicted {
            freed: ByteSize::mib(1),
            kept_pinned: ByteSize::mib(2),
            kept_busy: ByteSize(0),
            pins: vec![pin],
        };
        let text = evicted_text(&evicted);
        for part in ["1.0 MiB freed", "2.0 MiB kept", "g/m@v by ann", "unpin g/m@v --owner ann"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        evicted.kept_pinned = ByteSize(0);
        assert_eq!(evicted_text(&evicted), "1.0 MiB freed");
        evicted.kept_busy = ByteSize(1);
        assert!(evicted_text(&evicted).contains("being read"));
    }
}
