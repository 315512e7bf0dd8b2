//! `modelfs trace`: recorded loads.
//!
//! Invariant: what is exported can be imported; a file is written completely or not at all.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use modelfs::base::blocking::blocking;
use modelfs::base::units::ByteSize;
use modelfs::manager::{ForgetTrace, GetTrace, ImportTrace, Lookup, Trace as Answer};
use modelfs::model::trace::MAX_DOCUMENT;
use serde::Serialize;

use super::args::{Places, Version};
use super::output::{Out, print_json};
use super::table::{Column, table};
use crate::error::{Failure, Kind};

/// How many steps are shown: a screen.
const SHOWN: usize = 20;

/// Show, export, import or forget the order in which a program loaded a version
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  modelfs trace show org/my-model@v1
  modelfs trace export org/my-model@v1 --output load.json
  modelfs trace import load.json
  modelfs trace forget org/my-model@v1

The first load of a version is recorded. When a later load finds the version uncached, here or on a \
machine that imported the record, it is prefetched in that order.")]
pub struct Trace {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show the order in which a load read a version
    Show(Version),
    /// Write a recorded load for another machine
    Export(Export),
    /// Import a load that was recorded on another machine
    Import(Import),
    /// Forget a recorded load; the next one is recorded again
    Forget(Version),
}

#[derive(Debug, Args)]
struct Export {
    #[command(flatten)]
    version: Version,
    /// File to write [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Import {
    /// Exported file; -: standard input
    file: PathBuf,
    #[command(flatten)]
    places: Places,
}

/// Runs the command.
pub async fn run(out: Out, args: Trace) -> Result<(), Failure> {
    match args.action {
        Action::Show(version) => out.say(&get(out, version).await?, shown),
        Action::Export(args) => export(out, args).await,
        Action::Import(args) => import(out, args).await,
        Action::Forget(Version { words, places }) => {
            let session = places.open(out, Lookup::Offline).await?;
            let reference = session.reference(&words)?;
            let answer = session.ask(ForgetTrace { reference }).await?;
            session.close().await?;
            out.say(&answer, |a| format!("the recorded load of {} was forgotten", a.reference))
        }
    }
}

async fn get(out: Out, version: Version) -> Result<Answer, Failure> {
    let Version { words, places } = version;
    let session = places.open(out, Lookup::Offline).await?;
    let reference = session.reference(&words)?;
    let trace = session.ask(GetTrace { reference }).await?;
    session.close().await?;
    Ok(trace)
}

fn counted(trace: &Answer) -> String {
    let (files, steps) = (trace.files, trace.steps);
    format!("{files} files, {steps} steps, {}", ByteSize(trace.bytes))
}

fn shown(trace: &Answer) -> String {
    let whose = trace.reference.as_ref().map_or_else(String::new, |r| format!("{r}: "));
    let rows = (1..).zip(trace.document.listed()).take(SHOWN).map(|(n, (file, start, len))| {
        vec![n.to_string(), file.as_str().to_owned(), start.to_string(), ByteSize(len).to_string()]
    });
    let columns = [
        Column::Right("step"),
        Column::Left("file"),
        Column::Right("from byte"),
        Column::Right("size"),
    ];
    let mut text = format!("{whose}{}\n{}", counted(trace), table(&columns, rows.collect()));
    if trace.document.listed().len() > SHOWN {
        text += &format!("… and {} more (--json has all)", trace.document.listed().len() - SHOWN);
    }
    text
}

#[derive(Serialize)]
struct Exported {
    #[serde(flatten)]
    trace: Answer,
    file: PathBuf,
}

async fn export(out: Out, args: Export) -> Result<(), Failure> {
    let trace = get(out, args.version).await?;
    let Some(file) = args.output else { return print_json(&trace.document) };
    let (body, to) = (trace.document.to_json(), file.clone());
    blocking(move || write(&to, &body)).await??;
    out.say(&Exported { trace, file }, |e| {
        format!("{} written to {}", counted(&e.trace), e.file.display())
    })
}

fn write(file: &Path, body: &[u8]) -> Result<(), Failure> {
    let failed =
        |e: std::io::Error| Failure::new(Kind::General, format!("writing {}: {e}", file.display()));
    let mut part = file.as_os_str().to_owned();
    part.push(format!(".{}.part", std::process::id()));
    let written = std::fs::write(&part, body).and_then(|()| std::fs::rename(&part, file));
    written.inspect_err(|_| drop(std::fs::remove_file(&part))).map_err(failed)
}

async fn import(out: Out, args: Import) -> Result<(), Failure> {
    let file = args.file.clone();
    let body = blocking(move || read(&file)).await??;
    let document = serde_json::from_slice(&body).map_err(|e| {
        Failure::usage(format!("{} is not an exported load: {e}", args.file.display()))
    })?;
    let session = args.places.open_or_create(out, Lookup::Offline).await?;
    let trace = session.ask(ImportTrace { document }).await?;
    session.close().await?;
    out.say(&trace, |t| format!("{} imported for manifest {}", counted(t), t.hash))
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |e: std::io::Error| Failure::usage(format!("reading {}: {e}", file.display()));
    let mut body = Vec::new();
    let most = MAX_DOCUMENT as u64 + 1;
    match file == Path::new("-") {
        true => std::io::stdin().lock().take(most).read_to_end(&mut body).map_err(failed)?,
        false => {
            let file = std::fs::File::open(file).map_err(failed)?;
            file.take(most).read_to_end(&mut body).map_err(failed)?
        }
    };
    if body.len() > MAX_DOCUMENT {
        return Err(Failure::usage(format!("{} is too large for a recorded load", file.display())));
    }
    Ok(body)
}
