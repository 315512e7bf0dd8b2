//! Answers of the control API: the same types in the server, the client and `--json`.
//!
//! Invariant: additions only within `/v1`; sizes are bytes, times RFC 3339 in UTC; names are as the
//! registry gives them, so what prints them escapes them. Plain values.

use std::path::PathBuf;

use modelfs::base::units::ByteSize;
use modelfs::fetch::Traffic;
use modelfs::model::trace::TraceDoc;
use modelfs::model::{Digest, LeftOut};
use modelfs::store::Usage;
use serde::{Deserialize, Serialize};

use super::reference::Ref;
use crate::confine::Confinement;

/// How daemon and cache are.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// The daemon; none: not mounted.
    pub daemon: Option<DaemonStatus>,
    /// The registry, if one is configured.
    pub registry: Option<RegistryStatus>,
    /// The cache.
    pub cache: CacheStatus,
    /// What came over the network since the daemon's start.
    pub traffic: Option<Traffic>,
}

/// A live daemon.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DaemonStatus {
    /// The process that keeps the mount.
    pub pid: u32,
    /// The process that answers.
    pub worker: u32,
    /// How many workers have gone before it.
    pub restarts: u32,
    /// Its version.
    pub version: String,
    /// Where it is mounted.
    pub mountpoint: PathBuf,
    /// Where it listens.
    pub socket: PathBuf,
    /// When it was ready.
    pub since: String,
    /// Whether complete files are read by the kernel itself.
    pub passthrough: bool,
    /// Why not, if not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why_no_passthrough: Option<String>,
    /// The largest read request in bytes.
    pub max_read: u32,
    /// What the worker gave up.
    pub confinement: Confinement,
    /// Why the last restart that was asked for failed, if it did: the program that served before
    /// goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_restart: Option<String>,
    /// Where it logs, if to a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<PathBuf>,
}

/// A configured registry.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RegistryStatus {
    /// Its name, without credentials.
    pub name: String,
    /// Versions it offers; none: never asked.
    pub versions: Option<usize>,
    /// Seconds since it last said that the catalog is right.
    pub catalog_age_seconds: Option<u64>,
    /// Why it could not be asked of late.
    pub trouble: Option<String>,
    /// What is being waited for at this moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
    /// Names in its catalog that no path can hold, if there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<LeftOut>,
}

/// Calls that have no answer yet and go on asking.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Why there is no answer.
    pub why: String,
    /// When the last of them gives up, from now.
    pub seconds_left: u64,
}

/// What a registry said when it was asked for its catalog.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Refreshed {
    /// Its name, without credentials.
    pub registry: String,
    /// Versions that it offers.
    pub versions: usize,
    /// Of them, those that were not offered before, or with another content.
    pub new: usize,
    /// Versions that it offered before and does not offer any more.
    pub gone: usize,
    /// Names in its catalog that no path can hold, if there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<LeftOut>,
}

/// How full the cache is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CacheStatus {
    /// Its folder.
    pub folder: PathBuf,
    /// Whether there is no cache in it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub absent: bool,
    /// Bytes on disk, and files.
    #[serde(flatten)]
    pub usage: Usage,
}

/// Versions, in order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct List {
    /// Which these are.
    pub versions: Vec<ListedVersion>,
    /// Why what the registry offers may be out of date.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// One version in a list.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListedVersion {
    /// Which.
    #[serde(flatten)]
    pub reference: Ref,
    /// From where.
    pub registry: String,
    /// The SHA-256 of its manifest.
    pub hash: Digest,
    /// Bytes of all files; none: its manifest was never fetched.
    pub total: Option<u64>,
    /// Of them, cached.
    pub cached: u64,
    /// Whether all is cached.
    pub complete: bool,
    /// Whether the registry still offers this very version.
    pub offered: bool,
    /// The version it is another name for.
    pub alias_of: Option<String>,
    /// Who pinned it.
    pub pinned_by: Vec<String>,
}

/// All about one version.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Info {
    /// What a list says of it.
    #[serde(flatten)]
    pub summary: ListedVersion,
    /// When it was published, if the registry says so.
    pub published: Option<String>,
    /// What else the registry says.
    pub metadata: serde_json::Value,
    /// Who keeps it, since when.
    pub pins: Vec<PinInfo>,
    /// Its files, in the registry's order.
    pub files: Vec<FileInfo>,
    /// Where it is mounted.
    pub path: Option<PathBuf>,
}

/// A file of a version.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FileInfo {
    /// Where in the version.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Of them, cached.
    pub cached: u64,
    /// The SHA-256 that the registry claims.
    pub sha256: Option<Digest>,
}

/// A pin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinInfo {
    /// What is pinned.
    #[serde(flatten)]
    pub reference: Ref,
    /// By whom.
    pub owner: String,
    /// Since when.
    pub since: String,
}

/// Where a version is mounted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MountedPath {
    /// Its folder.
    pub path: PathBuf,
}

/// What a prefetch did.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Prefetched {
    /// Which version.
    #[serde(flatten)]
    pub reference: Ref,
    /// Its manifest.
    pub hash: Digest,
    /// Bytes of all files.
    pub total: u64,
    /// Of them, present now.
    pub present: u64,
    /// Of them, added by this prefetch.
    pub fetched: u64,
    /// How long it took.
    pub seconds: f64,
}

/// What a verification found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Checked {
    /// Bytes re-hashed.
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

/// What a pin now keeps.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Pinned {
    /// Which version.
    #[serde(flatten)]
    pub reference: Ref,
    /// For whom.
    pub owner: String,
    /// Its manifest.
    pub hash: Digest,
    /// Bytes of all files.
    pub total: u64,
    /// Of them, cached.
    pub cached: u64,
    /// All who pinned it.
    pub pinned_by: Vec<String>,
}

/// What an unpin did.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Unpinned {
    /// Which version.
    #[serde(flatten)]
    pub reference: Ref,
    /// For whom.
    pub owner: String,
    /// Who still keeps it.
    pub pinned_by: Vec<String>,
}

/// What an eviction did. Bytes on disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Freed {
    /// Given back.
    pub freed: ByteSize,
    /// Kept: pinned.
    pub kept_pinned: ByteSize,
    /// Kept: being read.
    pub kept_busy: ByteSize,
    /// The pins that kept it.
    pub pins: Vec<PinInfo>,
}

/// A recorded load.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Traced {
    /// Of which version, if that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<Ref>,
    /// Its manifest.
    pub hash: Digest,
    /// Files that it touched.
    pub files: u64,
    /// Runs of bytes that it touched.
    pub steps: u64,
    /// Their bytes.
    pub bytes: u64,
    /// All of it, as it is exported.
    pub document: TraceDoc,
}

/// A recorded load that is forgotten.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Untraced {
    /// Of which version.
    #[serde(flatten)]
    pub reference: Ref,
    /// Its manifest.
    pub hash: Digest,
}

/// The worker that answered makes room for another.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Restarting {
    /// The process that ends.
    pub worker: u32,
}

/// The daemon is on its way out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Unmounting {
    /// The process that will end.
    pub pid: u32,
    /// What is being unmounted.
    pub mountpoint: PathBuf,
}
