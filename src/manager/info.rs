//! `info`: everything that is known of one version.
//!
//! Invariant: nothing is fetched but a catalog and the version's manifest.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::error::ManagerError;
use super::listed::{ListedVersion, Owners};
use super::lookup::{Lookup, resolve};
use super::manager::{Command, Manager};
use super::pin_info::{PinInfo, pins_of};
use super::progress::ProgressSink;
use super::reference::Ref;
use crate::base::blocking::blocking;
use crate::base::clock::rfc3339;
use crate::model::Digest;

/// Asks about one version.
#[derive(Debug, Serialize, Deserialize)]
pub struct GetInfo {
    /// Which.
    pub reference: Ref,
}

/// Everything that is known of one version.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Info {
    /// The version as lists show it.
    #[serde(flatten)]
    pub summary: ListedVersion,
    /// Other sources that have the model, as far as that is known; one with a higher priority provides it.
    #[serde(default)]
    pub also_in: Vec<String>,
    /// When it was published, if the registry says so.
    pub published: Option<String>,
    /// What else the registry says.
    pub metadata: serde_json::Value,
    /// Its pins.
    pub pins: Vec<PinInfo>,
    /// Its files, in the registry's order.
    pub files: Vec<FileInfo>,
    /// Where it is mounted.
    pub path: Option<PathBuf>,
}

/// A file of a version.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FileInfo {
    /// Its path in the version.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Of them, cached.
    pub cached: u64,
    /// The SHA-256 that the registry claims.
    pub sha256: Option<Digest>,
}

impl Command for GetInfo {
    type Answer = Info;

    async fn run(self, manager: Manager, _: ProgressSink) -> Result<Info, ManagerError> {
        let reference = self.reference.parse()?;
        let version = resolve(&manager, &reference, Lookup::Online).await?;
        blocking(move || {
            let store = manager.store();
            let entry = version.found.entry.as_ref();
            let text = entry.and_then(|e| e.metadata.as_deref());
            let cached = version.cached(store);
            let files = version.manifest.files().iter().zip(cached);
            let mountpoint = manager.daemon().map(|daemon| daemon.status().mountpoint);
            Ok(Info {
                summary: ListedVersion::resolved(&version, store, &Owners::of(store)?),
                also_in: manager
                    .sources()
                    .into_iter()
                    .flat_map(|s| {
                        s.others_with(&version.found.version.model, version.found.source.name())
                    })
                    .map(|source| source.name().to_string())
                    .collect(),
                published: entry.and_then(|e| e.published).map(rfc3339),
                metadata: text.and_then(|t| serde_json::from_str(t).ok()).unwrap_or_default(),
                pins: pins_of(store, &version.found)?,
                path: mountpoint.map(|at| version.found.version.folder_in(&at)),
                files: files
                    .map(|(file, cached)| FileInfo {
                        path: file.path.as_str().to_owned(),
                        size: file.len,
                        cached,
                        sha256: file.sha256,
                    })
                    .collect(),
            })
        })
        .await?
    }
}
