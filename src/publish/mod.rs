//! Publishing: turns a folder of files into a version in a registry's folder.
//!
//! `scan` finds the files, `plan` cuts them into chunks, `hash` reads them once, `write` stores what is
//! new; then the catalog names the version. Invariant: the same files give the same manifest byte for
//! byte; readers and other publishers never see a partial state; memory is bounded whatever the size.
//! Concurrency: blocks; call it on its own thread. `docs/registry-format.md` explains the design
//! decisions.

mod hash;
mod plan;
mod scan;
mod types;
mod write;

use std::path::Path;

pub use plan::OWN_CHUNKS;
pub use scan::LEFT_OUT;
pub use types::{
    CHUNK_SIZE, LEAF_SIZE, MAX_CHUNK, Problem, Progress, PublishError, PublishRequest, Published,
    Why,
};

use crate::model::hash::sha256;
use crate::model::{Catalog, Digest, HashAlgorithm, ModelRef, Name, VersionEntry, VersionRef};
use crate::registry::xprim::{self, Entry, FileDoc, MAX_MANIFEST, ManifestDoc};
use write::{Locked, Target};

/// Publishes a folder. On an error the catalog is unchanged; objects that were written stay, and the next
/// attempt reuses them.
pub fn publish(
    request: &PublishRequest,
    progress: &dyn Fn(Progress),
) -> Result<Published, PublishError> {
    check_names(&request.version, request.alias_of.as_ref())?;
    check_sizes(request.chunk_size, request.leaf)?;
    let metadata = Metadata::new(&request.metadata)?;
    let mut found = scan::scan(&request.source)?;
    apart(&request.source, &request.registry)?;
    let size = |f: &scan::Found| f.stamp.size;
    plan::order(&mut found.files, size, |f| f.path.as_str(), request.chunk_size);
    let sizes: Vec<u64> = found.files.iter().map(size).collect();
    let cut = if request.fixed_chunks { plan::fixed } else { plan::cut };
    let chunks = cut(&sizes, request.chunk_size);

    let target = Target::open(&request.registry)?;
    let job = hash::Job {
        files: &found.files,
        chunks: &chunks,
        chunk_size: request.chunk_size,
        leaf: request.leaf,
        keep: &|digest, bytes| target.put(digest, bytes),
    };
    let hashed = hash::hash_all(&job, progress)?;
    let file = |(f, sha256): (&scan::Found, &Digest)| FileDoc {
        path: f.path.to_string(),
        size: f.stamp.size,
        sha256: Some(*sha256),
    };
    let doc = ManifestDoc {
        total_size: sizes.iter().sum(),
        chunk_size: request.chunk_size,
        chunks: hashed.chunks,
        files: found.files.iter().zip(&hashed.files).map(file).collect(),
        chunk_sizes: (!request.fixed_chunks).then(|| chunks.iter().map(|c| c.len).collect()),
        leaf_size: request.leaf.map(|l| l.0),
        leaf_digest: request.leaf.map(|l| l.1),
        leaves: hashed.leaves,
    };
    let body = doc.write();
    let manifest = sha256(&body);
    if body.len() as u64 > MAX_MANIFEST {
        let why = format!(
            "its manifest would be {} bytes, more than {MAX_MANIFEST}: choose larger chunks",
            body.len()
        );
        return Err(PublishError::Request(why));
    }
    // A manifest that could not be read must not be published.
    doc.check(manifest)?;
    target.put(&manifest, &body)?;
    let locked = target.lock()?;
    let alias_of = request.alias_of.as_ref();
    let outcome = enter(&locked, &request.version, manifest, alias_of, &metadata, request.replace)?;
    Ok(Published {
        manifest,
        files: doc.files.len() as u64,
        bytes: doc.total_size,
        chunks_total: hash::distinct(&doc.chunks),
        chunks_new: hashed.new,
        bytes_new: hashed.new_bytes,
        skipped_empty_folders: found.empty_folders,
        left_out: found.left_out,
        already_there: outcome == Outcome::AlreadyThere,
        replaced: outcome == Outcome::Replaced,
    })
}

/// Adds an alias of an existing version. Returns whether the catalog changed: the name may already exist
/// with the same content.
pub fn publish_alias(
    registry: &Path,
    version: &VersionRef,
    alias_of: &Name,
    metadata: &[(String, String)],
    replace: bool,
) -> Result<bool, PublishError> {
    check_names(version, Some(alias_of))?;
    let metadata = Metadata::new(metadata)?;
    if !registry.is_dir() {
        let gone = std::io::ErrorKind::NotFound.into();
        return Err(PublishError::Io { path: registry.to_owned(), source: gone });
    }
    let target = Target::open(registry)?;
    let locked = target.lock()?;
    let hash = find_target(&read(&locked)?.0, &version.model, alias_of)?;
    let outcome = enter(&locked, version, hash, Some(alias_of), &metadata, replace)?;
    Ok(outcome != Outcome::AlreadyThere)
}

#[derive(PartialEq)]
enum Outcome {
    New,
    AlreadyThere,
    Replaced,
}

fn read(locked: &Locked<'_>) -> Result<(Catalog, Option<Vec<u8>>), PublishError> {
    let body = locked.catalog()?;
    let catalog = body.as_deref().map(xprim::parse_catalog).transpose()?.unwrap_or_default();
    Ok((catalog, body))
}

fn find_target(catalog: &Catalog, model: &ModelRef, alias: &Name) -> Result<Digest, PublishError> {
    let target = VersionRef { model: model.clone(), version: alias.clone() };
    catalog.find(&target).and_then(VersionEntry::hash).ok_or(PublishError::NoTarget(target))
}

/// Adds the version to the catalog.
fn enter(
    locked: &Locked<'_>,
    version: &VersionRef,
    hash: Digest,
    alias_of: Option<&Name>,
    metadata: &Metadata,
    replace: bool,
) -> Result<Outcome, PublishError> {
    let (catalog, body) = read(locked)?;
    if let Some(alias) = alias_of
        && find_target(&catalog, &version.model, alias)? != hash
    {
        let target = VersionRef { model: version.model.clone(), version: alias.clone() };
        return Err(PublishError::NotAlias(target));
    }
    let listed = |entry: &VersionEntry| entry.hash().expect("XPRIM lists manifests");
    let outcome = match catalog.find(version).map(listed) {
        None => Outcome::New,
        Some(old) if old == hash && !replace => return Ok(Outcome::AlreadyThere),
        Some(old) if !replace => {
            return Err(PublishError::Taken { version: version.clone(), hash: old });
        }
        Some(_) => Outcome::Replaced,
    };
    let metadata = metadata.with_time(std::time::SystemTime::now());
    let entry = Entry { hash, alias_of: alias_of.map(|a| a.as_str().to_owned()), metadata };
    locked.set_catalog(&xprim::with_entry(body.as_deref(), version, &entry)?)?;
    Ok(outcome)
}

/// Checked metadata.
struct Metadata(std::collections::BTreeMap<String, String>);

impl Metadata {
    fn new(given: &[(String, String)]) -> Result<Self, PublishError> {
        let mut out = std::collections::BTreeMap::new();
        for (key, value) in given {
            if key == PUBLISHED_AT && humantime::parse_rfc3339(value).is_err() {
                let why =
                    format!("{PUBLISHED_AT} '{value}' is not a time such as 2024-05-01T10:00:00Z");
                return Err(PublishError::Request(why));
            }
            if out.insert(key.clone(), value.clone()).is_some() {
                return Err(PublishError::Request(format!("metadata '{key}' is given twice")));
            }
        }
        Ok(Self(out))
    }

    /// Adds the current time, unless a time was given or the clock is before 1970: no time is better than
    /// a wrong one.
    fn with_time(&self, now: std::time::SystemTime) -> std::collections::BTreeMap<String, String> {
        let mut out = self.0.clone();
        if now >= std::time::SystemTime::UNIX_EPOCH {
            out.entry(PUBLISHED_AT.to_owned())
                .or_insert_with(|| humantime::format_rfc3339_seconds(now).to_string());
        }
        out
    }
}

const PUBLISHED_AT: &str = "published_at";

fn check_names(version: &VersionRef, alias_of: Option<&Name>) -> Result<(), PublishError> {
    let names = [&version.model.group, &version.model.model, &version.version];
    for name in names.into_iter().chain(alias_of) {
        let wrong = |why| PublishError::Request(format!("the name '{name}' {why}"));
        name.portable().map_err(wrong)?;
    }
    if alias_of == Some(&version.version) {
        return Err(PublishError::Request(format!("{version} cannot be an alias of itself")));
    }
    Ok(())
}

fn check_sizes(chunk_size: u64, leaf: Option<(u64, HashAlgorithm)>) -> Result<(), PublishError> {
    // Below a page, a leaf or chunk is outweighed by its digest.
    const LEAST: u64 = 4 << 10;
    let bad = |what, size, most| {
        let why = format!("a {what} of {size} bytes: between {LEAST} and {most} is possible");
        Err(PublishError::Request(why))
    };
    if !(LEAST..=MAX_CHUNK).contains(&chunk_size) {
        return bad("chunk", chunk_size, MAX_CHUNK);
    }
    match leaf {
        Some((size, _)) if !(LEAST..=MAX_CHUNK).contains(&size) => bad("leaf", size, MAX_CHUNK),
        _ => Ok(()),
    }
}

/// Rejects a registry inside the source folder: it would publish itself.
fn apart(source: &Path, registry: &Path) -> Result<(), PublishError> {
    let source = std::fs::canonicalize(source).map_err(PublishError::io(source))?;
    let registry = std::path::absolute(registry).map_err(PublishError::io(registry))?;
    // The registry may not exist yet: its deepest existing ancestor decides.
    let existing = registry.ancestors().find_map(|path| std::fs::canonicalize(path).ok());
    match existing.is_some_and(|path| path.starts_with(&source)) {
        true => Err(PublishError::Request(format!(
            "the registry {} lies in the folder to publish",
            registry.display()
        ))),
        false => Ok(()),
    }
}

#[cfg(test)]
#[cfg(unix)]
#[allow(clippy::unwrap_used)]
mod hostile_tests;
#[cfg(test)]
mod tests;
