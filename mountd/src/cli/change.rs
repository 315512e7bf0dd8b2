//! Commands that bring or keep: prefetch, pin, unpin.
//!
//! Invariant: what a stopped prefetch has brought is kept.

use modelfs::base::units::ByteSize;

use super::args::{One, Pin as PinArgs, Unpin as UnpinArgs};
use super::output::{Out, print_json};
use super::progress::Meter;
use super::session::Session;
use crate::control::answers::{Pinned, Prefetched, Unpinned};
use crate::control::ops::Ask;
use crate::control::types::{Event, Pin, Prefetch, Ref, Unpin};
use crate::error::Failure;

/// Whose pins these are if nobody says: the user's.
fn owner(given: Option<String>) -> String {
    let named = |variable| std::env::var(variable).ok().filter(|name| !name.is_empty());
    given.or_else(|| named("USER")).or_else(|| named("LOGNAME")).unwrap_or_else(|| {
        // As in a container without accounts.
        format!("uid:{}", rustix::process::geteuid().as_raw())
    })
}

/// `modelfs prefetch`
pub async fn prefetch(out: Out, args: One) -> Result<(), Failure> {
    let session = args.places.open_or_make(out, Ask::Registry).await?;
    let reference = session.reference(&args.words)?;
    let end = fetch_all(out, &session, reference).await;
    // Also what a stopped prefetch has brought.
    let closed = session.close().await;
    let done = end?;
    closed?;
    match out.json {
        true => print_json(&Event::Done(done)),
        false => out.say(&done, prefetched_text),
    }
}

async fn fetch_all(out: Out, session: &Session, reference: Ref) -> Result<Prefetched, Failure> {
    let meter = Meter::new(out, "fetching", true);
    session.follow(Prefetch { reference }, &meter).await
}

fn prefetched_text(p: &Prefetched) -> String {
    let total = ByteSize(p.total);
    if p.fetched == 0 {
        return format!("{} was cached already: {total}", p.reference);
    }
    let (fetched, speed) = (p.fetched, p.fetched as f64 / p.seconds.max(0.001));
    let speed = ByteSize(speed as u64);
    format!("{} is cached: {} fetched of {total}, {speed}/s", p.reference, ByteSize(fetched))
}

/// `modelfs pin`
pub async fn pin(out: Out, args: PinArgs) -> Result<(), Failure> {
    let session = args.one.places.open_or_make(out, Ask::Registry).await?;
    let reference = session.reference(&args.one.words)?;
    let pin = Pin { reference: reference.clone(), owner: owner(args.owner) };
    let mut pinned = session.ask(pin).await?;
    if args.prefetch {
        let fetched = fetch_all(out, &session, reference).await;
        pinned.cached = match fetched {
            Ok(fetched) => fetched.present,
            Err(failure) => {
                session.close().await?;
                let note = "it is pinned all the same; `modelfs prefetch` goes on from there";
                return Err(failure.hint(note));
            }
        };
    }
    session.close().await?;
    match out.json && args.prefetch {
        true => print_json(&Event::Done(pinned)),
        false => out.say(&pinned, pinned_text),
    }
}

fn pinned_text(p: &Pinned) -> String {
    let mut text = format!("{} is pinned by {}", p.reference, p.pinned_by.join(", "));
    if p.cached < p.total {
        text += &format!(
            "\n  {} of {} is cached; to fetch the rest now: modelfs prefetch {}",
            ByteSize(p.cached),
            ByteSize(p.total),
            p.reference
        );
    }
    text
}

/// `modelfs unpin`
pub async fn unpin(out: Out, args: UnpinArgs) -> Result<(), Failure> {
    let session = args.one.places.open(out, Ask::Memory).await?;
    let reference = session.reference(&args.one.words)?;
    let answer = session.ask(Unpin { reference, owner: owner(args.owner) }).await?;
    session.close().await?;
    out.say(&answer, unpinned_text)
}

fn unpinned_text(u: &Unpinned) -> String {
    match u.pinned_by.is_empty() {
        true => format!("{} is not pinned any more", u.reference),
        false => format!(
            "{} is not pinned by {} any more, but still by {}",
            u.reference,
            u.owner,
            u.pinned_by.join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference() -> Ref {
        Ref { group: "g".into(), model: "m".into(), version: "v".into() }
    }

    #[test]
    fn a_given_owner_wins_and_there_is_always_one() {
        assert_eq!(owner(Some("x".into())), "x");
        assert!(!owner(None).is_empty());
    }

    #[test]
    fn who_still_keeps_it_is_said() {
        let mut u = Unpinned { reference: reference(), owner: "a".into(), pinned_by: Vec::new() };
        assert!(unpinned_text(&u).ends_with("not pinned any more"));
        u.pinned_by = vec!["b".into()];
        assert!(unpinned_text(&u).ends_with("still by b"));
    }
}
