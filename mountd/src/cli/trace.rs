//! `modelfs trace`: recorded loads.
//!
//! Invariant: what is exported can be imported; a file is written whole or not at all.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use modelfs::base::units::ByteSize;
use modelfs::model::trace::MAX_DOCUMENT;
use serde::Serialize;

use super::args::{One, Places};
use super::output::{Out, print_json};
use super::table::{Column, table};
use crate::control::answers::Traced;
use crate::control::ops::{Ask, blocking};
use crate::control::types::{ForgetTrace, GetTrace, ImportTrace};
use crate::error::{Failure, Kind};

/// How many steps are shown: a screen.
const SHOWN: usize = 20;

/// `modelfs trace`
#[derive(Debug, Args)]
pub struct Trace {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show in which order a load touched a version
    Show(One),
    /// Write a recorded load for another machine
    Export(Export),
    /// Take a load that was recorded on another machine
    Import(Import),
    /// Forget a recorded load: the next one is recorded anew
    Forget(One),
}

#[derive(Debug, Args)]
struct Export {
    #[command(flatten)]
    one: One,
    /// The file to write [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Import {
    /// The exported file; -: standard input
    file: PathBuf,
    #[command(flatten)]
    places: Places,
}

/// Does it.
pub async fn trace(out: Out, args: Trace) -> Result<(), Failure> {
    match args.what {
        What::Show(one) => out.say(&get(out, one).await?, shown),
        What::Export(args) => export(out, args).await,
        What::Import(args) => import(out, args).await,
        What::Forget(one) => {
            let session = one.places.open(out, Ask::Memory).await?;
            let reference = session.reference(&one.words)?;
            let answer = session.ask(ForgetTrace { reference }).await?;
            session.close().await?;
            out.say(&answer, |a| format!("the recorded load of {} is forgotten", a.reference))
        }
    }
}

async fn get(out: Out, one: One) -> Result<Traced, Failure> {
    let session = one.places.open(out, Ask::Memory).await?;
    let reference = session.reference(&one.words)?;
    let traced = session.ask(GetTrace { reference }).await?;
    session.close().await?;
    Ok(traced)
}

fn counted(traced: &Traced) -> String {
    let (files, steps) = (traced.files, traced.steps);
    format!("{files} files, {steps} steps, {}", ByteSize(traced.bytes))
}

fn shown(traced: &Traced) -> String {
    let whose = traced.reference.as_ref().map_or_else(String::new, |r| format!("{r}: "));
    let rows = (1..).zip(traced.document.listed()).take(SHOWN).map(|(n, (file, start, len))| {
        vec![n.to_string(), file.as_str().to_owned(), start.to_string(), ByteSize(len).to_string()]
    });
    let columns = [
        Column::Right("step"),
        Column::Left("file"),
        Column::Right("from byte"),
        Column::Right("size"),
    ];
    let mut text = format!("{whose}{}\n{}", counted(traced), table(&columns, rows.collect()));
    if traced.document.listed().len() > SHOWN {
        text += &format!("… and {} more (--json has all)", traced.document.listed().len() - SHOWN);
    }
    text
}

#[derive(Serialize)]
struct Exported {
    #[serde(flatten)]
    traced: Traced,
    file: PathBuf,
}

async fn export(out: Out, args: Export) -> Result<(), Failure> {
    let traced = get(out, args.one).await?;
    let Some(file) = args.output else { return print_json(&traced.document) };
    let (body, to) = (traced.document.to_json(), file.clone());
    blocking(move || write(&to, &body)).await?;
    out.say(&Exported { traced, file }, |e| {
        format!("{} written to {}", counted(&e.traced), e.file.display())
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
    let body = blocking(move || read(&file)).await?;
    let document = serde_json::from_slice(&body)
        .map_err(|e| Failure::usage(format!("{} is no exported load: {e}", args.file.display())))?;
    let session = args.places.open_or_make(out, Ask::Memory).await?;
    let traced = session.ask(ImportTrace { document }).await?;
    session.close().await?;
    out.say(&traced, |t| format!("{} taken over for manifest {}", counted(t), t.hash))
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
