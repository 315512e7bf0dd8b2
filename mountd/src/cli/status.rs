//! `modelfs status`: the state of the daemon, the cache and every mount.
//!
//! Invariant: nothing changes, and nothing is waited for but the daemon's answer.

use clap::Args;
use modelfs::base::units::ByteSize;
use modelfs::manager::{DaemonStatus, GetStatus, Lookup, Status as Answer, Waiting};
use modelfs::store::Usage;
use serde::Serialize;

use super::args::Places;
use super::daemons::{self, Mounted};
use super::left_out::left_out_text;
use super::output::Out;
use super::table::{bar, pairs, percent};
use crate::control::backend::IfAbsent;
use crate::error::Failure;

/// Width of the bar that shows how full the cache is.
const BAR: usize = 20;

/// Show the state of the daemon and the cache, and every mount
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  modelfs status
  modelfs status --json | jq .cache.used")]
pub struct Status {
    #[command(flatten)]
    places: Places,
}

/// What is shown: one cache, and every mount that the user may see.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    status: Answer,
    mounts: Vec<Mounted>,
}

/// Runs the command.
pub async fn run(out: Out, args: Status) -> Result<(), Failure> {
    let places = args.places;
    let session = places.connect(out, Lookup::Offline, IfAbsent::TreatAsEmpty).await?;
    let (status, mounts) = tokio::join!(session.ask(GetStatus {}), daemons::mounts());
    let status = status?;
    if let (Some(given), Some(theirs)) = (places.registry_name()?, &status.registry)
        && given != theirs.name
    {
        let theirs = &theirs.name;
        out.note(&format!("note: the daemon of this cache serves {theirs}, not {given}"));
    }
    out.show(&Shown { status, mounts }, shown_text)
}

fn shown_text(shown: &Shown) -> String {
    let own = shown.status.daemon.as_ref().map(|d| &d.mountpoint);
    let others: Vec<_> = shown.mounts.iter().filter(|m| Some(&m.mountpoint) != own).collect();
    let text = status_text(&shown.status);
    match others.is_empty() {
        true => text,
        false => {
            let table = daemons::mounts_text(&others, rustix::process::geteuid().as_raw());
            format!("{text}\nother mounts\n{table}")
        }
    }
}

fn status_text(s: &Answer) -> String {
    let d = s.daemon.as_ref();
    let c = &s.cache.usage;
    let r = s.registry.as_ref();
    let passthrough = d.map(|d| match &d.why_no_passthrough {
        _ if d.passthrough => "yes".to_owned(),
        Some(why) => format!("no: {why}"),
        None => "no".to_owned(),
    });
    let age = r.and_then(|r| r.catalog_age_seconds).map(|seconds| {
        humantime::format_duration(std::time::Duration::from_secs(seconds)).to_string()
    });
    let count = r.and_then(|r| r.versions).map(|n| match n {
        1 => "1 version".to_owned(),
        n => format!("{n} versions"),
    });
    let catalog = r.map(|_| match (count, &age) {
        (Some(count), Some(age)) => format!("{count}, last confirmed {age} ago"),
        (Some(count), None) => count,
        (None, Some(age)) => format!("last confirmed {age} ago"),
        (None, None) => "never fetched".to_owned(),
    });
    let space = format!(
        "{} {} of {} ({})",
        bar(c.used.0, c.limit.0, BAR),
        c.used,
        c.limit,
        percent(c.used.0, c.limit.0)
    );
    let mut cache = s.cache.folder.display().to_string();
    if s.cache.absent {
        cache += " (there is no cache yet)";
    }
    pairs(&[
        ("mounted", Some(d.map_or("no".to_owned(), |d| d.mountpoint.display().to_string()))),
        (
            "daemon",
            d.map(|d| format!("process {}, version {}, since {}", d.pid, d.version, d.since)),
        ),
        ("worker", d.map(worker_text)),
        ("failed restart", d.and_then(|d| d.failed_restart.clone())),
        ("passthrough", passthrough),
        ("log", d.and_then(|d| d.log.as_ref()).map(|l| l.display().to_string())),
        ("registry", r.map(|r| r.name.clone())),
        ("catalog", catalog),
        ("left out", r.and_then(|r| r.left_out.as_ref()).map(left_out_text)),
        ("trouble", r.and_then(|r| r.trouble.clone())),
        ("waiting", r.and_then(|r| r.waiting.as_ref()).map(waiting_text)),
        ("cache", Some(cache)),
        ("space", Some(space)),
        ("data", Some(format!("{} in {} files, {} complete", c.data, c.blobs, c.complete_blobs))),
        ("unverified", (c.unverified.0 > 0).then(|| c.unverified.to_string())),
        ("pinned", Some(c.pinned.to_string())),
        ("reserved", (c.reserved.0 > 0).then(|| c.reserved.to_string())),
        ("disk free", Some(disk_text(c))),
        ("traffic", s.traffic.map(|t| format!("{} in {} requests", ByteSize(t.bytes), t.requests))),
    ])
}

fn waiting_text(w: &Waiting) -> String {
    format!("for at most {}s more: {}", w.seconds_left, w.why)
}

/// What is free on the disk, and what that means where it is less than the limit allows.
fn disk_text(c: &Usage) -> String {
    let most = ByteSize(c.used.0.saturating_add(c.disk_free.0));
    match most < c.limit {
        true => format!("{}: the cache cannot grow beyond {most}", c.disk_free),
        false => c.disk_free.to_string(),
    }
}

fn worker_text(d: &DaemonStatus) -> String {
    let before = match d.restarts {
        0 => String::new(),
        1 => ", 1 before it".to_owned(),
        n => format!(", {n} before it"),
    };
    let confined = match &d.confinement.missing {
        None => "without privileges".to_owned(),
        Some(missing) => missing.clone(),
    };
    format!("process {}{before}, {confined}", d.worker)
}
