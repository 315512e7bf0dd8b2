//! `modelfs publish`: a folder becomes a version in a registry folder.
//!
//! Invariant: neither the cache nor a daemon is used.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use modelfs::base::blocking::blocking;
use modelfs::base::units::ByteSize;
use modelfs::manager::{Progress, Ref};
use modelfs::model::{HashAlgorithm, ModelRef, Name, VersionRef};
use modelfs::publish::{PublishError, PublishRequest, Published, publish as write};
use serde::Serialize;

use super::output::{Out, printable};
use super::progress::Meter;
use crate::error::{Failure, Kind};
use crate::paths;

/// What was published, as JSON has it.
#[derive(Debug, Serialize)]
struct Done {
    #[serde(flatten)]
    reference: Ref,
    hash: modelfs::model::Digest,
    files: u64,
    bytes: u64,
    chunks: u64,
    new_chunks: u64,
    new_bytes: u64,
    already_there: bool,
    replaced: bool,
    skipped_empty_folders: Vec<String>,
    left_out: Vec<String>,
}

/// [`modelfs::publish::CHUNK_SIZE`] as help shows it.
const CHUNK: &str = "10MiB";

/// [`modelfs::publish::LEAF_SIZE`] as help shows it.
const LEAF: &str = "128KiB";

/// Publish a folder as a version in a registry folder
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  modelfs publish ./my-model org/my-model v1 --registry /srv/models
  modelfs publish ./my-model org/my-model v1 --registry /srv/models --meta license=apache-2.0
  modelfs publish ./my-model org/my-model latest --registry /srv/models --alias-of v1 --replace")]
pub struct Publish {
    /// Folder whose files make up the version
    dir: PathBuf,
    /// Model to publish
    #[arg(value_name = "GROUP/MODEL")]
    model: ModelRef,
    /// Name of the version
    #[arg(value_parser = name)]
    version: Name,
    /// Registry folder; created if it does not exist
    #[arg(long, value_name = "FOLDER", env = "MODELFS_REGISTRY", hide_env_values = true)]
    registry: Option<String>,
    /// Maximum chunk size
    #[arg(long, value_name = "SIZE", default_value = CHUNK)]
    chunk_size: ByteSize,
    /// Size of a leaf, the unit of verification; none: readers verify whole chunks
    #[arg(long, value_name = "SIZE|none", default_value = LEAF, value_parser = leaf_size)]
    leaf_size: LeafSize,
    /// Hash algorithm of the leaves
    #[arg(long, value_name = "KIND", default_value = "blake3")]
    leaf_digest: LeafKind,
    /// Metadata of the version in the catalog; can be repeated
    #[arg(long = "meta", value_name = "KEY=VALUE", value_parser = meta)]
    metadata: Vec<(String, String)>,
    /// Publish as another name for this version; the folder must have the same content
    #[arg(long, value_name = "VERSION", value_parser = name)]
    alias_of: Option<Name>,
    /// Cut chunks of one size across file boundaries, as the plain format does
    #[arg(long)]
    fixed_chunks: bool,
    /// Replace a version of that name that has other content
    #[arg(long)]
    replace: bool,
}

/// Size of a leaf; none: there are no leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LeafSize(Option<ByteSize>);

/// Hash algorithm of leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LeafKind {
    /// Many times as fast as SHA-256
    Blake3,
    /// For readers that support nothing else
    Sha256,
}

impl From<LeafKind> for HashAlgorithm {
    fn from(kind: LeafKind) -> Self {
        match kind {
            LeafKind::Blake3 => Self::Blake3,
            LeafKind::Sha256 => Self::Sha256,
        }
    }
}

fn name(text: &str) -> Result<Name, String> {
    Name::new(text).map_err(|why| format!("the name {why}"))
}

fn leaf_size(text: &str) -> Result<LeafSize, String> {
    match text {
        "none" => Ok(LeafSize(None)),
        _ => text.parse().map(|size| LeafSize(Some(size))).map_err(|e| format!("{e}, or none")),
    }
}

fn meta(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE, for example license=apache-2.0".to_owned()),
    }
}

/// Runs the command.
pub async fn run(out: Out, args: Publish) -> Result<(), Failure> {
    let request = request(args)?;
    let reference = Ref::from(&request.version);
    let meter = Meter::new(out, "publishing", false);
    let sink = meter.sink();
    let work = blocking(move || {
        let report = |p: modelfs::publish::Progress| {
            sink(Progress { total: p.bytes_total, done: p.bytes_done, at_start: 0 });
        };
        write(&request, &report).map_err(failure)
    });
    let end = tokio::select! {
        end = work => end.map_err(Failure::from).and_then(|end| end),
        _ = tokio::signal::ctrl_c() => Err(Failure::new(
            Kind::Interrupted,
            "stopped; the catalog is unchanged, and the next attempt reuses what was written",
        )),
    };
    meter.finish();
    let done = done(reference, end?);
    for path in &done.left_out {
        out.warn(&format!("left out: {}", printable(path)));
    }
    for path in &done.skipped_empty_folders {
        out.warn(&format!("left out, an empty folder: {}", printable(path)));
    }
    out.say(&done, text)
}

fn request(args: Publish) -> Result<PublishRequest, Failure> {
    let registry = args.registry.filter(|r| !r.is_empty());
    let registry = registry.ok_or_else(|| Failure::no_registry("publish"))?;
    if modelfs::registry::is_url(&registry) {
        return Err(Failure::usage("a version can only be published into a registry folder")
            .hint("publish into a folder, then serve it or copy it to the server behind the URL"));
    }
    let ModelRef { group, model } = args.model;
    let version = VersionRef { model: ModelRef { group, model }, version: args.version };
    let LeafSize(leaf) = args.leaf_size;
    Ok(PublishRequest {
        source: args.dir,
        version,
        registry: paths::absolute(registry.as_ref())?,
        chunk_size: args.chunk_size.0,
        leaf: leaf.map(|size| (size.0, args.leaf_digest.into())),
        fixed_chunks: args.fixed_chunks,
        metadata: args.metadata,
        alias_of: args.alias_of,
        replace: args.replace,
    })
}

fn failure(error: PublishError) -> Failure {
    let text = error.to_string();
    match error {
        PublishError::Request(_)
        | PublishError::Problems(_)
        | PublishError::Empty(_)
        | PublishError::Limits(_)
        | PublishError::NotAlias(_) => Failure::usage(text),
        PublishError::Io { .. } | PublishError::Refused { .. } => Failure::new(Kind::Storage, text),
        PublishError::Changed(_) => {
            Failure::new(Kind::General, text).hint("publish again when no program writes there")
        }
        PublishError::Catalog(error) => error.into(),
        PublishError::Taken { .. } => Failure::new(Kind::General, text).hint("use --replace"),
        PublishError::NoTarget(_) => Failure::new(Kind::NotFound, text),
    }
}

fn done(reference: Ref, p: Published) -> Done {
    Done {
        reference,
        hash: p.manifest,
        files: p.files,
        bytes: p.bytes,
        chunks: p.chunks_total,
        new_chunks: p.chunks_new,
        new_bytes: p.bytes_new,
        already_there: p.already_there,
        replaced: p.replaced,
        skipped_empty_folders: p.skipped_empty_folders,
        left_out: p.left_out,
    }
}

fn text(d: &Done) -> String {
    let what = match (d.already_there, d.replaced) {
        (true, _) => "was already published",
        (_, true) => "is published, replacing other content",
        (false, false) => "is published",
    };
    format!(
        "{} {what}: {} files, {}, of which {} new ({} of {} chunks)\n  manifest {}",
        d.reference,
        d.files,
        ByteSize(d.bytes),
        ByteSize(d.new_bytes),
        d.new_chunks,
        d.chunks,
        d.hash
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_cut_at_the_first_equals_sign() {
        assert_eq!(meta("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(meta("a="), Ok(("a".into(), String::new())));
        assert!(meta("a").is_err() && meta("=b").is_err());
    }

    #[test]
    fn leaf_sizes_are_parsed_and_none_means_no_leaves() {
        assert_eq!(leaf_size("none"), Ok(LeafSize(None)));
        assert_eq!(leaf_size("64KiB"), Ok(LeafSize(Some(ByteSize::kib(64)))));
        assert!(leaf_size("some").unwrap_err().contains("none"));
        assert_eq!(leaf_size(LEAF), Ok(LeafSize(Some(ByteSize(modelfs::publish::LEAF_SIZE)))));
        assert_eq!(CHUNK.parse(), Ok(ByteSize(modelfs::publish::CHUNK_SIZE)));
    }

    #[test]
    fn failures_have_their_exit_codes() {
        let version: VersionRef = "g/m@v".parse().unwrap();
        assert_eq!(failure(PublishError::Empty("x".into())).exit_code, 2);
        assert_eq!(failure(PublishError::NoTarget(version)).exit_code, 3);
        let full = std::io::ErrorKind::StorageFull.into();
        let io = PublishError::Io { path: "x".into(), source: full };
        assert_eq!(failure(io).exit_code, 7);
    }
}
