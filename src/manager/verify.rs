//! `verify`: hash what is cached again and drop what does not match.
//!
//! Invariant: every dropped byte is reported, by file where a known version uses it.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::error::ManagerError;
use super::lookup::all_resolved;
use super::manager::{Command, Manager};
use super::progress::{Progress, ProgressSink};
use super::reference::Ref;
use super::selection;
use crate::base::blocking::blocking;
use crate::model::ContentKey;

/// Hashes what is cached again.
#[derive(Debug, Serialize, Deserialize)]
pub struct Verify {
    /// Which version; none: all.
    pub reference: Option<Ref>,
}

/// What a verification found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Verified {
    /// Bytes hashed.
    pub checked: u64,
    /// Bytes that did not match and were dropped.
    pub dropped: u64,
    /// The files that lost something.
    pub damaged: Vec<DamagedFile>,
    /// Damaged blobs that no known version uses any more.
    pub damaged_unknown: usize,
}

/// A file that lost bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DamagedFile {
    /// Of which version.
    #[serde(flatten)]
    pub reference: Ref,
    /// Which file.
    pub path: String,
}

impl Command for Verify {
    type Answer = Verified;

    async fn run(self, manager: Manager, progress: ProgressSink) -> Result<Verified, ManagerError> {
        let blobs = selection::blobs(&manager, &self.reference).await?;
        let store = manager.store().clone();
        let verified = blocking(move || {
            let report = |done, total| {
                progress(Progress { total, done, at_start: 0 });
                true
            };
            store.verify(&blobs, &report)
        })
        .await??;
        let lost: HashSet<_> = verified.damaged.iter().copied().collect();
        let (damaged, damaged_unknown) = files_of(&manager, &lost).await?;
        for file in damaged.iter().filter(|_| manager.daemon().is_some()) {
            tracing::warn!(version = %file.reference, file = %file.path,
                "dropped cached bytes that did not match");
        }
        Ok(Verified {
            checked: verified.checked.0,
            dropped: verified.dropped.0,
            damaged,
            damaged_unknown,
        })
    }
}

/// The files that these blobs are, and how many blobs no known version uses.
async fn files_of(
    manager: &Manager,
    blobs: &HashSet<ContentKey>,
) -> Result<(Vec<DamagedFile>, usize), ManagerError> {
    if blobs.is_empty() {
        return Ok((Vec::new(), 0));
    }
    let (mut files, mut unknown) = (Vec::new(), blobs.clone());
    for version in all_resolved(manager).await? {
        for (ix, key) in version.files() {
            if let Some(key) = key.filter(|key| blobs.contains(key)) {
                unknown.remove(&key);
                files.push(DamagedFile {
                    reference: (&version.found.version).into(),
                    path: version.manifest.file(ix).path.as_str().to_owned(),
                });
            }
        }
    }
    files.sort_unstable();
    files.dedup();
    Ok((files, unknown.len()))
}
