//! `modelfs pin` and `modelfs unpin`.
//!
//! Invariant: a pin whose prefetch fails stays.

use clap::Args;
use modelfs::base::units::ByteSize;
use modelfs::manager::{Lookup, Pin as PinRequest, Pinned, Unpin as UnpinRequest, Unpinned};

use super::args::Version;
use super::output::{Out, print_json};
use super::prefetch::fetch_all;
use crate::control::event::Event;
use crate::error::Failure;

/// Keep a version in the cache
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  modelfs pin org/my-model@v1 --prefetch
  modelfs pin org/my-model@v1 --owner batch-jobs

A version is not evicted until its last owner has unpinned it.")]
pub struct Pin {
    #[command(flatten)]
    version: Version,
    /// Owner of the pin [default: the user]
    #[arg(long, value_name = "NAME")]
    owner: Option<String>,
    /// Fetch the whole version, too
    #[arg(long)]
    prefetch: bool,
}

/// Remove a pin, so that the version can be evicted
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  modelfs unpin org/my-model@v1
  modelfs unpin org/my-model@v1 --owner batch-jobs")]
pub struct Unpin {
    #[command(flatten)]
    version: Version,
    /// Owner of the pin [default: the user]
    #[arg(long, value_name = "NAME")]
    owner: Option<String>,
}

/// The owner of a pin: the user, if none is given.
fn owner(given: Option<String>) -> String {
    let named = |variable| std::env::var(variable).ok().filter(|name| !name.is_empty());
    given.or_else(|| named("USER")).or_else(|| named("LOGNAME")).unwrap_or_else(|| {
        // As in a container without accounts.
        format!("uid:{}", rustix::process::geteuid().as_raw())
    })
}

/// Runs `modelfs pin`.
pub async fn pin(out: Out, args: Pin) -> Result<(), Failure> {
    let Version { words, places } = args.version;
    let session = places.open_or_create(out, Lookup::Online).await?;
    let reference = session.reference(&words)?;
    let pin = PinRequest { reference: reference.clone(), owner: owner(args.owner) };
    let mut pinned = session.ask(pin).await?;
    if args.prefetch {
        let fetched = fetch_all(out, &session, reference).await;
        pinned.cached = match fetched {
            Ok(fetched) => fetched.present,
            Err(failure) => {
                session.close().await?;
                let note = "the version is pinned; `modelfs prefetch` continues from here";
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

/// Runs `modelfs unpin`.
pub async fn unpin(out: Out, args: Unpin) -> Result<(), Failure> {
    let Version { words, places } = args.version;
    let session = places.open(out, Lookup::Offline).await?;
    let reference = session.reference(&words)?;
    let answer = session.ask(UnpinRequest { reference, owner: owner(args.owner) }).await?;
    session.close().await?;
    out.say(&answer, unpinned_text)
}

fn unpinned_text(u: &Unpinned) -> String {
    match u.pinned_by.is_empty() {
        true => format!("{} is no longer pinned", u.reference),
        false => format!(
            "{} is no longer pinned by {}, but still by {}",
            u.reference,
            u.owner,
            u.pinned_by.join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use modelfs::manager::Ref;

    fn reference() -> Ref {
        Ref { group: "g".into(), model: "m".into(), version: "v".into() }
    }

    #[test]
    fn an_explicit_owner_takes_precedence_and_there_is_always_a_default() {
        assert_eq!(owner(Some("x".into())), "x");
        assert!(!owner(None).is_empty());
    }

    #[test]
    fn the_remaining_owners_are_named() {
        let mut u = Unpinned { reference: reference(), owner: "a".into(), pinned_by: Vec::new() };
        assert!(unpinned_text(&u).ends_with("is no longer pinned"));
        u.pinned_by = vec!["b".into()];
        assert!(unpinned_text(&u).ends_with("still by b"));
    }
}
