//! `modelfs list`: the versions that are cached, or that the registry offers.
//!
//! Invariant: nothing changes but the remembered catalog.

use clap::Args;
use modelfs::base::units::ByteSize;
use modelfs::manager::{GetList, List as Answer, ListedVersion, Lookup};

use super::args::Places;
use super::output::Out;
use super::table::{Column, percent, table};
use crate::error::Failure;

/// List the versions that are cached, or that the registry offers
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  modelfs list
  modelfs list --remote --json")]
pub struct List {
    /// All that the registry offers, not only what is cached
    #[arg(long)]
    remote: bool,
    #[command(flatten)]
    places: Places,
}

/// Runs the command.
pub async fn run(out: Out, args: List) -> Result<(), Failure> {
    let lookup = if args.remote { Lookup::Online } else { Lookup::Offline };
    let session = args.places.open(out, lookup).await?;
    let list = session.ask(GetList { remote: args.remote }).await?;
    if let Some(trouble) = &list.trouble {
        out.warn(&format!(
            "the registry cannot be reached, so this list may be out of date: {trouble}"
        ));
    }
    out.show(&list, |list| list_text(list, args.remote))
}

fn list_text(list: &Answer, remote: bool) -> String {
    if list.versions.is_empty() {
        return match remote {
            true => "The registry offers nothing.".to_owned(),
            false => "Nothing is cached. `modelfs list --remote` shows what the registry offers."
                .to_owned(),
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
        notes.push("no longer offered".to_owned());
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

#[cfg(test)]
mod tests {
    use super::*;
    use modelfs::manager::Ref;
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
    fn a_table_is_aligned_and_marks_unknown_values() {
        let mut pinned = listed("v10", Some(4096), 1024);
        pinned.pinned_by = vec!["a".into(), "b".into()];
        let list = Answer { versions: vec![listed("v1", None, 0), pinned], trouble: None };
        let text = list_text(&list, true);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[1].starts_with("g/m@v1 ") && lines[1].ends_with('?'), "{text}");
        assert!(lines[2].contains("25%") && lines[2].ends_with("a, b"), "{text}");
        assert!(!text.contains("REGISTRY"));
    }

    #[test]
    fn versions_of_several_registries_name_their_registry() {
        let mut other = listed("v2", Some(1), 1);
        other.registry = "s".into();
        let list = Answer { versions: vec![listed("v1", Some(1), 1), other], trouble: None };
        assert!(list_text(&list, false).contains("REGISTRY"));
    }
}
