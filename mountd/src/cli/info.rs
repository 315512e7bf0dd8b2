//! `modelfs info`: everything that is known of one version.
//!
//! Invariant: nothing changes but what is remembered of the registry.

use clap::Args;
use modelfs::base::units::ByteSize;
use modelfs::manager::{GetInfo, Info as Answer, Lookup};
use serde_json::Value;

use super::args::Version;
use super::output::{Out, printable};
use super::table::{Column, pairs, percent, table};
use crate::error::Failure;

/// Show everything about a version: files, what is cached, metadata, pins
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  modelfs info org/my-model@v1
  modelfs info org/my-model v1 --json")]
pub struct Info {
    #[command(flatten)]
    version: Version,
}

/// Runs the command.
pub async fn run(out: Out, args: Info) -> Result<(), Failure> {
    let Version { words, places } = args.version;
    let session = places.open(out, Lookup::Online).await?;
    let reference = session.reference(&words)?;
    let info = session.ask(GetInfo { reference }).await?;
    out.show(&info, info_text)?;
    session.close().await
}

fn info_text(info: &Answer) -> String {
    let s = &info.summary;
    let total = s.total.unwrap_or(0);
    let cached =
        format!("{} of {} ({})", ByteSize(s.cached), ByteSize(total), percent(s.cached, total));
    let pins = info.pins.iter().map(|p| format!("{} since {}", p.owner, p.since));
    let pins = pins.collect::<Vec<_>>().join(", ");
    let head = pairs(&[
        ("version", Some(s.reference.to_string())),
        ("registry", Some(s.registry.clone())),
        ("also in", (!info.also_in.is_empty()).then(|| info.also_in.join(", "))),
        ("offered", (!s.offered).then(|| "no longer".to_owned())),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_printed_without_terminal_escapes() {
        let value = serde_json::json!({"a\u{1b}": "\u{1b}[2J", "n": 3});
        let text = metadata_text(&value);
        assert!(!text.contains('\u{1b}'), "{text:?}");
        assert!(text.contains("n = 3"));
        assert_eq!(metadata_text(&Value::Null), "");
    }
}
