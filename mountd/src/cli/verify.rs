//! `modelfs verify`: hash what is cached again and drop what does not match.
//!
//! Invariant: dropped bytes make the command fail, with the files that lost them.

use clap::Args;
use modelfs::base::units::ByteSize;
use modelfs::manager::{Lookup, Verified, Verify as Request};

use super::args::Places;
use super::output::{Out, print_json};
use super::progress::Meter;
use crate::error::{Failure, Kind};

/// Damaged files that are named; all of them are in the JSON.
const NAMED: usize = 20;

/// Verify the cache and drop what does not match its digest
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  modelfs verify
  modelfs verify org/my-model@v1

The exit code is 6 if something was dropped; it is fetched again when it is read.")]
pub struct Verify {
    /// Version [default: all that is cached]
    #[arg(value_name = "REF", num_args = 1..=2)]
    words: Vec<String>,
    #[command(flatten)]
    places: Places,
}

/// Runs the command.
pub async fn run(out: Out, args: Verify) -> Result<(), Failure> {
    let session = args.places.open(out, Lookup::Offline).await?;
    let reference = session.optional(&args.words)?;
    let meter = Meter::new(out, "verifying", false);
    let verified = session.follow(Request { reference }, &meter).await;
    let closed = session.close().await;
    let verified = verified?;
    closed?;
    if out.json {
        print_json(&verified)?;
    }
    if verified.dropped > 0 || !verified.damaged.is_empty() || verified.damaged_unknown > 0 {
        return Err(Failure::new(Kind::Verification, damage_text(&verified))
            .hint("what was dropped is fetched again when it is read, or by `modelfs prefetch`"));
    }
    match out.json {
        true => Ok(()),
        false => out.say(&verified, verified_text),
    }
}

fn verified_text(v: &Verified) -> String {
    match v.checked {
        0 => "nothing is cached, so nothing was verified".to_owned(),
        checked => format!("{} verified, no damage found", ByteSize(checked)),
    }
}

fn damage_text(v: &Verified) -> String {
    let mut text = format!(
        "{} of {} did not match and was dropped from the cache:",
        ByteSize(v.dropped),
        ByteSize(v.checked)
    );
    for file in v.damaged.iter().take(NAMED) {
        text += &format!("\n  {} {}", file.reference, file.path);
    }
    if v.damaged.len() > NAMED {
        text += &format!("\n  and {} more files", v.damaged.len() - NAMED);
    }
    if v.damaged_unknown > 0 {
        text += &format!("\n  {} files that no known version uses", v.damaged_unknown);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use modelfs::manager::{DamagedFile, Ref};

    fn reference() -> Ref {
        Ref { group: "g".into(), model: "m".into(), version: "v".into() }
    }

    #[test]
    fn damage_names_files_up_to_a_screenful() {
        let file = |n| DamagedFile { reference: reference(), path: format!("f{n}") };
        let damaged = (0..NAMED + 3).map(file).collect();
        let c = Verified { checked: 10, dropped: 5, damaged, damaged_unknown: 1 };
        let text = damage_text(&c);
        assert!(text.contains("g/m@v f0\n") && text.contains("and 3 more files"), "{text}");
        assert!(text.ends_with("1 files that no known version uses"), "{text}");
    }
}
