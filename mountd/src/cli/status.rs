//! `modelfs status`: the state of the daemon, the cache and every mount.
//!
//! Invariant: nothing changes, and nothing is waited for but the daemon's answer.

use clap::Args;
use modelfs::base::units::ByteSize;
use modelfs::manager::{
    DaemonStatus, GetStatus, Lookup, RegistryStatus, Status as Answer, Waiting,
};
use modelfs::store::Usage;
use serde::Serialize;

use super::args::Places;
use super::daemons::{self, Mounted};
use super::left_out::left_out_text;
use super::output::{Out, printable};
use super::table::{Column, bar, pairs, percent, table};
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
    if let Some(given) = places.registry_name()?
        && !status.sources.is_empty()
        && !status.sources.iter().any(|theirs| theirs.is_at(&given))
    {
        let theirs: Vec<_> = status.sources.iter().map(RegistryStatus::shown).collect();
        let theirs = theirs.join(", ");
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
    let one = if let [only] = &*s.sources { Some(only) } else { None };
    let passthrough = d.map(|d| match &d.why_no_passthrough {
        _ if d.passthrough => "yes".to_owned(),
        Some(why) => format!("no: {why}"),
        None => "no".to_owned(),
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
    let text = pairs(&[
        ("mounted", Some(d.map_or("no".to_owned(), |d| d.mountpoint.display().to_string()))),
        (
            "daemon",
            d.map(|d| format!("process {}, version {}, since {}", d.pid, d.version, d.since)),
        ),
        ("worker", d.map(worker_text)),
        ("failed restart", d.and_then(|d| d.failed_restart.clone())),
        ("passthrough", passthrough),
        ("log", d.and_then(|d| d.log.as_ref()).map(|l| l.display().to_string())),
        ("registry", one.map(RegistryStatus::shown)),
        ("catalog", one.map(catalog_text)),
        ("left out", one.and_then(|r| r.left_out.as_ref()).map(left_out_text)),
        ("trouble", one.and_then(|r| r.trouble.clone())),
        ("waiting", one.and_then(|r| r.waiting.as_ref()).map(waiting_text)),
        ("cache", Some(cache)),
        ("space", Some(space)),
        ("data", Some(format!("{} in {} files, {} complete", c.data, c.blobs, c.complete_blobs))),
        ("unverified", (c.unverified.0 > 0).then(|| c.unverified.to_string())),
        ("pinned", Some(c.pinned.to_string())),
        ("reserved", (c.reserved.0 > 0).then(|| c.reserved.to_string())),
        ("disk free", Some(disk_text(c))),
        ("traffic", s.traffic.map(|t| format!("{} in {} requests", ByteSize(t.bytes), t.requests))),
    ]);
    match s.sources.len() {
        0 | 1 => text,
        _ => format!("{text}\n{}", sources_text(&s.sources)),
    }
}

/// What is served of a registry, and how old that is.
fn catalog_text(r: &RegistryStatus) -> String {
    let age = r.catalog_age_seconds.map(|seconds| {
        humantime::format_duration(std::time::Duration::from_secs(seconds)).to_string()
    });
    let count = r.versions.map(|n| match n {
        1 => "1 version".to_owned(),
        n => format!("{n} versions"),
    });
    match (count, age) {
        (Some(count), Some(age)) => format!("{count}, last confirmed {age} ago"),
        (Some(count), None) => count,
        (None, Some(age)) => format!("last confirmed {age} ago"),
        (None, None) => "never fetched".to_owned(),
    }
}

/// Several sources, the one that is asked first at the top, and what is to be said of single ones.
fn sources_text(sources: &[RegistryStatus]) -> String {
    let state = |source: &RegistryStatus| match (source.reachable, &source.trouble) {
        (Some(true), None) => "reachable".to_owned(),
        (None, None) => "not asked yet".to_owned(),
        (_, Some(why)) => printable(why),
        (Some(false), None) => "unreachable".to_owned(),
    };
    let rows = sources.iter().map(|source| {
        let (name, address) = (source.name.clone(), printable(&source.address));
        vec![name, address, catalog_text(source), state(source)]
    });
    let columns = ["SOURCE", "ADDRESS", "SERVED", "STATE"].map(Column::Left);
    let mut text = table(&columns, rows.collect());
    for source in sources {
        let left_out = source.left_out.as_ref().map(left_out_text);
        let waiting = source.waiting.as_ref().map(waiting_text);
        for (what, said) in [("left out", left_out), ("waiting", waiting)] {
            if let Some(said) = said {
                text += &format!("\n{} of {}: {said}", what, source.name);
            }
        }
    }
    text
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
