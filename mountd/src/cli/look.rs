//! Commands that only look: status, list, info, path, refresh.
//!
//! Invariant: nothing changes but what is remembered of a registry's catalog, and that only where there
//! is a cache.

use modelfs::base::units::ByteSize;
use modelfs::model::LeftOut;
use modelfs::store::Usage;
use serde::Serialize;
use serde_json::Value;

use super::args::{List as ListArgs, One, Status as StatusArgs};
use super::daemons::{self, Mounted};
use super::output::{Out, printable};
use super::table::{Column, bar, pairs, percent, table};
use crate::control::answers::{
    DaemonStatus, Info, List, ListedVersion, MountedPath, Refreshed, Status, Waiting,
};
use crate::control::backend::Absent;
use crate::control::ops::Ask;
use crate::control::types::{GetInfo, GetList, GetPath, GetStatus, Refresh};
use crate::error::Failure;

/// Signs of the bar that shows how full the cache is.
const BAR: usize = 20;

/// What is shown: of one cache, and every mount that the user may see.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    status: Status,
    mounts: Vec<Mounted>,
}

/// `modelfs status`
pub async fn status(out: Out, args: StatusArgs) -> Result<(), Failure> {
    let places = args.places;
    let session = places.connect(out, Ask::Memory, Absent::IsEmpty).await?;
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

fn status_text(s: &Status) -> String {
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

/// Names that no path can hold, on one line.
fn left_out_text(left_out: &LeftOut) -> String {
    let names = if left_out.count == 1 { "name" } else { "names" };
    let first = left_out.first.join("; ");
    let more = if left_out.count > left_out.first.len() { "; …" } else { "" };
    format!("{} {names} of the catalog that no path can hold: {first}{more}", left_out.count)
}

/// `modelfs refresh`
pub async fn refresh(out: Out, args: StatusArgs) -> Result<(), Failure> {
    // It keeps the catalog that it was told.
    let session = args.places.open_or_make(out, Ask::Registry).await?;
    out.show(&session.ask(Refresh {}).await?, refreshed_text)?;
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

fn worker_text(d: &DaemonStatus) -> String {
    let before = match d.restarts {
        0 => String::new(),
        1 => ", 1 before it".to_owned(),
        n => format!(", {n} before it"),
    };
    let confined = match &d.confinement.missing {
        None => "without privileges".to_owned(),
        Some(missing) => format!("confinement lacks: {missing}"),
    };
    format!("process {}{before}, {confined}", d.worker)
}

/// `modelfs list`
pub async fn list(out: Out, args: ListArgs) -> Result<(), Failure> {
    let ask = if args.remote { Ask::Registry } else { Ask::Memory };
    let session = args.places.open(out, ask).await?;
    let list = session.ask(GetList { remote: args.remote }).await?;
    if let Some(trouble) = &list.trouble {
        out.warn(&format!("the registry cannot be asked; this is what was last seen: {trouble}"));
    }
    out.show(&list, |list| list_text(list, args.remote))
}

fn list_text(list: &List, remote: bool) -> String {
    if list.versions.is_empty() {
        return match remote {
            true => "The registry offers nothing.".to_owned(),
            false => "Nothing is cached. `modelfs list --remote` shows what there is.".to_owned(),
        };
    }
    let mut columns = vec![
        Column::Left("VERSION"),
        Column::Right("CACHED"),
        Column::Right("OF"),
        Column::Right(""),
        Column::Left("PINNED BY"),
        Column::Left("NOTES"),
    ];
    let first = &list.versions[0].registry;
    let several = list.versions.iter().any(|v| v.registry != *first);
    if several {
        columns.push(Column::Left("REGISTRY"));
    }
    let rows = list.versions.iter().map(|v| {
        let mut row = row(v);
        if several {
            row.push(v.registry.clone());
        }
        row
    });
    table(&columns, rows.collect())
}

fn row(v: &ListedVersion) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(alias) = &v.alias_of {
        notes.push(format!("same as {alias}"));
    }
    if !v.offered {
        notes.push("not offered any more".to_owned());
    }
    vec![
        v.reference.to_string(),
        match v.cached {
            0 => "-".to_owned(),
            cached => ByteSize(cached).to_string(),
        },
        v.total.map_or_else(|| "?".to_owned(), |t| ByteSize(t).to_string()),
        match v.total {
            Some(total) if v.cached > 0 => percent(v.cached, total),
            _ => String::new(),
        },
        v.pinned_by.join(", "),
        notes.join(", "),
    ]
}

/// `modelfs info`
pub async fn info(out: Out, args: One) -> Result<(), Failure> {
    let session = args.places.open(out, Ask::Registry).await?;
    let reference = session.reference(&args.words)?;
    let info = session.ask(GetInfo { reference }).await?;
    out.show(&info, info_text)?;
    session.close().await
}

fn info_text(info: &Info) -> String {
    let s = &info.summary;
    let total = s.total.unwrap_or(0);
    let cached =
        format!("{} of {} ({})", ByteSize(s.cached), ByteSize(total), percent(s.cached, total));
    let pins = info.pins.iter().map(|p| format!("{} since {}", p.owner, p.since));
    let pins = pins.collect::<Vec<_>>().join(", ");
    let head = pairs(&[
        ("version", Some(s.reference.to_string())),
        ("registry", Some(s.registry.clone())),
        ("offered", (!s.offered).then(|| "not any more".to_owned())),
        ("hash", Some(s.hash.to_string())),
        ("same as", s.alias_of.clone()),
        ("published", info.published.clone()),
        ("cached", Some(cached)),
        ("pinned by", (!pins.is_empty()).then_some(pins)),
        ("path", info.path.as_ref().map(|p| p.display().to_string())),
    ]);
    let rows = info
        .files
        .iter()
        .map(|f| vec![f.path.clone(), ByteSize(f.size).to_string(), percent(f.cached, f.size)]);
    let columns = [Column::Left("FILE"), Column::Right("SIZE"), Column::Right("CACHED")];
    format!("{head}{}\n{}", metadata_text(&info.metadata), table(&columns, rows.collect()))
}

fn metadata_text(metadata: &Value) -> String {
    let Some(map) = metadata.as_object() else { return String::new() };
    let lines = map.iter().map(|(key, value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        format!("  {} = {}\n", printable(key), printable(&value))
    });
    let lines: String = lines.collect();
    if lines.is_empty() { lines } else { format!("metadata\n{lines}") }
}

/// `modelfs path`
pub async fn path(out: Out, args: One) -> Result<(), Failure> {
    let session = args.places.open(out, Ask::Memory).await?;
    let reference = session.reference(&args.words)?;
    let found: MountedPath = session.ask(GetPath { reference }).await?;
    out.name(&found, |p| p.path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::types::Ref;
    use modelfs::model::hash;

    fn listed(version: &str, total: Option<u64>, cached: u64) -> ListedVersion {
        ListedVersion {
            reference: Ref { group: "g".into(), model: "m".into(), version: version.into() },
            registry: "r".into(),
            hash: hash::sha256(b""),
            total,
            cached,
            complete: total == Some(cached),
            offered: true,
            alias_of: None,
            pinned_by: Vec::new(),
        }
    }

    #[test]
    fn a_list_lines_up_and_says_what_is_not_known() {
        let mut pinned = listed("v10", Some(4096), 1024);
        pinned.pinned_by = vec!["a".into(), "b".into()];
        let list = List { versions: vec![listed("v1", None, 0), pinned], trouble: None };
        let text = list_text(&list, true);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[1].starts_with("g/m@v1 ") && lines[1].ends_with('?'), "{text}");
        assert!(lines[2].contains("25%") && lines[2].ends_with("a, b"), "{text}");
        assert!(!text.contains("REGISTRY"));
    }

    #[test]
    fn what_is_left_out_is_one_line_that_says_how_many() {
        let first = vec!["the group name \"..\" has a part '.' or '..'".to_owned()];
        let one = LeftOut { count: 1, first: first.clone() };
        let text = left_out_text(&one);
        assert_eq!(text, format!("1 name of the catalog that no path can hold: {}", first[0]));
        let many = left_out_text(&LeftOut { count: 9, first });
        assert!(many.starts_with("9 names ") && many.ends_with("; …"), "{many}");
    }

    #[test]
    fn versions_of_several_registries_say_which() {
        let mut other = listed("v2", Some(1), 1);
        other.registry = "s".into();
        let list = List { versions: vec![listed("v1", Some(1), 1), other], trouble: None };
        assert!(list_text(&list, false).contains("REGISTRY"));
    }

    #[test]
    fn metadata_cannot_speak_to_the_terminal() {
        let value = serde_json::json!({"a\u{1b}": "\u{1b}[2J", "n": 3});
        let text = metadata_text(&value);
        assert!(!text.contains('\u{1b}'), "{text:?}");
        assert!(text.contains("n = 3"));
        assert_eq!(metadata_text(&Value::Null), "");
    }
}
