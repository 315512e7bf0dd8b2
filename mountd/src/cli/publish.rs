//! `modelfs publish`: a folder becomes a version in a registry's folder.
//!
//! Invariant: touches neither the cache nor a daemon.

use modelfs::base::units::ByteSize;
use modelfs::model::{ModelRef, VersionRef};
use modelfs::publish::{PublishError, PublishRequest, Published, publish as write};
use serde::Serialize;

use super::args::{LeafSize, Publish as Args};
use super::output::Out;
use super::progress::Meter;
use crate::control::ops::blocking;
use crate::control::types::{Progress, Ref};
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

/// `modelfs publish`
pub async fn publish(out: Out, args: Args) -> Result<(), Failure> {
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
        end = work => end,
        _ = tokio::signal::ctrl_c() => Err(Failure::new(
            Kind::Interrupted,
            "stopped; the catalog is as it was, and the next attempt finds what was written",
        )),
    };
    meter.finish();
    let done = done(reference, end?);
    for path in &done.left_out {
        out.warn(&format!("left out: {}", super::output::printable(path)));
    }
    for path in &done.skipped_empty_folders {
        out.warn(&format!("left out, an empty folder: {}", super::output::printable(path)));
    }
    out.say(&done, text)
}

fn request(args: Args) -> Result<PublishRequest, Failure> {
    let registry = args.registry.filter(|r| !r.is_empty());
    let registry = registry.ok_or_else(|| Failure::no_registry("publish"))?;
    if modelfs::registry::is_url(&registry) {
        return Err(Failure::usage("a version can only be published into a registry's folder")
            .hint("publish into a folder and serve that, or copy it to where the URL leads"));
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
            Failure::new(Kind::General, text).hint("publish again when nobody writes there")
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
        (true, _) => "was there already",
        (_, true) => "is published, in place of another content",
        (false, false) => "is published",
    };
    format!(
        "{} {what}: {} files, {}, of it {} new ({} of {} chunks)\n  manifest {}",
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
    fn failures_have_their_exit_codes() {
        let version: VersionRef = "g/m@v".parse().unwrap();
        assert_eq!(failure(PublishError::Empty("x".into())).exit_code, 2);
        assert_eq!(failure(PublishError::NoTarget(version)).exit_code, 3);
        let full = std::io::ErrorKind::StorageFull.into();
        let io = PublishError::Io { path: "x".into(), source: full };
        assert_eq!(failure(io).exit_code, 7);
    }
}
