//! Commands that take away: evict and verify.
//!
//! Invariant: what was kept is said, why, and what to do about it. An eviction that freed nothing
//! fails, of one version or of all.

use modelfs::base::units::ByteSize;

use super::args::{Evict as EvictArgs, Verify as VerifyArgs};
use super::output::{Out, print_json};
use super::progress::Meter;
use crate::control::answers::{Checked, Freed};
use crate::control::ops::Ask;
use crate::control::types::{Evict, Verify};
use crate::error::{Failure, Kind};

/// Damaged files that are named; all of them are in the JSON.
const NAMED: usize = 20;

/// `modelfs evict`
pub async fn evict(out: Out, args: EvictArgs) -> Result<(), Failure> {
    let session = args.places.open(out, Ask::Memory).await?;
    let reference = session.optional(&args.words)?;
    let freed = session.ask(Evict { reference, force: args.force }).await?;
    session.close().await?;
    let kept = freed.kept_pinned.0 + freed.kept_busy.0;
    if freed.freed.0 == 0 && kept > 0 {
        let (what, next) = kept_text(&freed);
        return Err(Failure::new(Kind::General, format!("nothing was freed: {what}")).hint(next));
    }
    out.say(&freed, freed_text)
}

fn freed_text(freed: &Freed) -> String {
    let text = format!("{} freed", freed.freed);
    match freed.kept_pinned.0 + freed.kept_busy.0 {
        0 => text,
        _ => {
            let (what, next) = kept_text(freed);
            format!("{text}; {what}\n  {next}")
        }
    }
}

/// What was kept and why, and what to do about it.
fn kept_text(freed: &Freed) -> (String, String) {
    let mut what = Vec::new();
    let mut next = Vec::new();
    if freed.kept_pinned.0 > 0 {
        let pins: Vec<_> =
            freed.pins.iter().map(|p| format!("{} by {}", p.reference, p.owner)).collect();
        let by = if pins.is_empty() { String::new() } else { format!(" ({})", pins.join(", ")) };
        what.push(format!("{} kept because it is pinned{by}", freed.kept_pinned));
        next.push(match freed.pins.first() {
            Some(pin) => format!(
                "let go with `modelfs unpin {} --owner {}`, or use --force",
                pin.reference, pin.owner
            ),
            None => "let go with `modelfs unpin`, or use --force".to_owned(),
        });
    }
    if freed.kept_busy.0 > 0 {
        what.push(format!("{} kept because it is being read", freed.kept_busy));
        next.push("try again when the files are closed".to_owned());
    }
    (what.join("; "), next.join("; "))
}

/// `modelfs verify`
pub async fn verify(out: Out, args: VerifyArgs) -> Result<(), Failure> {
    let session = args.places.open(out, Ask::Memory).await?;
    let reference = session.optional(&args.words)?;
    let meter = Meter::new(out, "verifying", false);
    let checked = session.follow(Verify { reference }, &meter).await;
    let closed = session.close().await;
    let checked = checked?;
    closed?;
    if out.json {
        print_json(&checked)?;
    }
    if checked.dropped > 0 || !checked.damaged.is_empty() || checked.damaged_unknown > 0 {
        return Err(Failure::new(Kind::Verification, damage_text(&checked))
            .hint("what was dropped is fetched again when it is read, or by `modelfs prefetch`"));
    }
    match out.json {
        true => Ok(()),
        false => out.say(&checked, right_text),
    }
}

fn right_text(c: &Checked) -> String {
    match c.checked {
        0 => "nothing is cached, so nothing was verified".to_owned(),
        checked => format!("{} verified, all of it right", ByteSize(checked)),
    }
}

fn damage_text(c: &Checked) -> String {
    let mut text = format!(
        "{} of {} did not match and was dropped from the cache:",
        ByteSize(c.dropped),
        ByteSize(c.checked)
    );
    for file in c.damaged.iter().take(NAMED) {
        text += &format!("\n  {} {}", file.reference, file.path);
    }
    if c.damaged.len() > NAMED {
        text += &format!("\n  and {} more files", c.damaged.len() - NAMED);
    }
    if c.damaged_unknown > 0 {
        text += &format!("\n  {} files that no known version uses", c.damaged_unknown);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::answers::{DamagedFile, PinInfo};
    use crate::control::types::Ref;

    fn reference() -> Ref {
        Ref { group: "g".into(), model: "m".into(), version: "v".into() }
    }

    #[test]
    fn what_was_kept_is_explained_with_the_next_step() {
        let pin = PinInfo { reference: reference(), owner: "ann".into(), since: String::new() };
        let mut freed = Freed {
            freed: ByteSize::mib(1),
            kept_pinned: ByteSize::mib(2),
            kept_busy: ByteSize(0),
            pins: vec![pin],
        };
        let text = freed_text(&freed);
        for part in ["1.0 MiB freed", "2.0 MiB kept", "g/m@v by ann", "unpin g/m@v --owner ann"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        freed.kept_pinned = ByteSize(0);
        assert_eq!(freed_text(&freed), "1.0 MiB freed");
        freed.kept_busy = ByteSize(1);
        assert!(freed_text(&freed).contains("being read"));
    }

    #[test]
    fn damage_names_files_up_to_a_screenful() {
        let file = |n| DamagedFile { reference: reference(), path: format!("f{n}") };
        let damaged = (0..NAMED + 3).map(file).collect();
        let c = Checked { checked: 10, dropped: 5, damaged, damaged_unknown: 1 };
        let text = damage_text(&c);
        assert!(text.contains("g/m@v f0\n") && text.contains("and 3 more files"), "{text}");
        assert!(text.ends_with("1 files that no known version uses"), "{text}");
    }
}
