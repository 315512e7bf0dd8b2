//! The options of each command, as clap reads them.
//!
//! Invariant: what parses here is well-formed; sizes and durations are read by `base::units` alone.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use modelfs::base::units::{ByteSize, parse_duration};
use modelfs::model::{HashAlgorithm, ModelRef, Name};

/// Threads that take requests from the kernel: more than four gain nothing where the data comes
/// from the page cache, and each may wait for a disk.
const THREADS: u16 = 4;

/// With the pauses between them, some ten seconds: enough for what passes, not for what stays.
const MAX_RESTARTS: u32 = 8;

/// [`modelfs::publish::CHUNK_SIZE`] as help shows it.
const CHUNK: &str = "10MiB";

/// [`modelfs::publish::LEAF_SIZE`] as help shows it.
const LEAF: &str = "128KiB";

/// Which cache and registry.
#[derive(Debug, Clone, Args)]
pub struct Places {
    /// The cache folder [default: modelfs in $XDG_CACHE_HOME or ~/.cache]
    #[arg(long, value_name = "DIR", env = "MODELFS_CACHE_DIR", hide_env_values = true)]
    pub cache_dir: Option<PathBuf>,
    /// The registry: a URL or a folder
    #[arg(long, value_name = "URL|FOLDER", env = "MODELFS_REGISTRY", hide_env_values = true)]
    pub registry: Option<String>,
}

/// `modelfs mount`
#[derive(Debug, Args)]
pub struct Mount {
    /// The folder to mount at
    pub mountpoint: PathBuf,
    #[command(flatten)]
    pub places: Places,
    /// The most that the cache takes on disk [default: as before; at first 50GiB]
    #[arg(long, value_name = "SIZE")]
    pub cache_size: Option<ByteSize>,
    /// Let other users read too
    #[arg(long)]
    pub allow_other: bool,
    /// Mount although the folder is not empty: what is in it is hidden until the unmount
    #[arg(long)]
    pub allow_non_empty: bool,
    /// Return when the mount is ready, and serve in the background
    #[arg(long)]
    pub background: bool,
    /// How old the list of versions may get before the registry is asked again [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub catalog_ttl: Option<Duration>,
    /// How long a read may wait for the network before it fails [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = positive_duration)]
    pub read_deadline: Option<Duration>,
    /// How fast the cache is looked over for spoilt bytes, in bytes a second; 0: never [default:
    /// 8MiB]
    #[arg(long, value_name = "SIZE")]
    pub scrub_rate: Option<ByteSize>,
    /// Never let the kernel read cached files by itself
    #[arg(long)]
    pub no_passthrough: bool,
    /// Threads that take requests from the kernel
    #[arg(long, value_name = "N", default_value_t = THREADS,
        value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: u16,
    /// How often in a row the process that serves may die before it has served anything, until reads
    /// fail; 0: for ever
    #[arg(long, value_name = "N", default_value_t = MAX_RESTARTS)]
    pub max_restarts: u32,
    /// Replace the process that serves if it hangs for so long, also at its start; 0: never
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "30s")]
    pub hang_timeout: Duration,
    /// As root: the user whom the process that serves becomes, who gets the cache folder [default:
    /// modelfs, if there is one]
    #[arg(long, value_name = "NAME|UID", conflicts_with = "keep_privileges")]
    pub worker_user: Option<String>,
    /// Let the process that serves keep its user, its capabilities and every file of that user
    #[arg(long)]
    pub keep_privileges: bool,
    /// The systemd unit that this runs as: a restart of it keeps the mount
    #[arg(long, value_name = "UNIT", env = "MODELFS_UNIT")]
    pub unit: Option<String>,
}

/// `modelfs doctor`
#[derive(Debug, Args)]
pub struct Doctor {
    /// The cache folder [default: modelfs in $XDG_CACHE_HOME or ~/.cache]
    #[arg(long, value_name = "DIR", env = "MODELFS_CACHE_DIR", hide_env_values = true)]
    pub cache_dir: Option<PathBuf>,
}

/// `modelfs restart`
#[derive(Debug, Args)]
pub struct Restart {
    /// The cache folder [default: modelfs in $XDG_CACHE_HOME or ~/.cache]
    #[arg(long, value_name = "DIR", env = "MODELFS_CACHE_DIR", hide_env_values = true)]
    pub cache_dir: Option<PathBuf>,
}

/// `modelfs unmount`
#[derive(Debug, Args)]
pub struct Unmount {
    /// Where it is mounted; may be left out if there is only one mount
    pub mountpoint: Option<PathBuf>,
    /// The cache folder [default: modelfs in $XDG_CACHE_HOME or ~/.cache]
    #[arg(long, value_name = "DIR", env = "MODELFS_CACHE_DIR", hide_env_values = true)]
    pub cache_dir: Option<PathBuf>,
}

/// `modelfs status`, `modelfs refresh`
#[derive(Debug, Args)]
pub struct Status {
    #[command(flatten)]
    pub places: Places,
}

/// `modelfs list`
#[derive(Debug, Args)]
pub struct List {
    /// All that the registry offers, not only what is cached
    #[arg(long)]
    pub remote: bool,
    #[command(flatten)]
    pub places: Places,
}

/// Commands about one version.
#[derive(Debug, Args)]
pub struct One {
    /// The version: GROUP/MODEL@VERSION, GROUP/MODEL/VERSION or GROUP/MODEL VERSION
    #[arg(value_name = "REF", required = true, num_args = 1..=2)]
    pub words: Vec<String>,
    #[command(flatten)]
    pub places: Places,
}

/// `modelfs pin`
#[derive(Debug, Args)]
pub struct Pin {
    #[command(flatten)]
    pub one: One,
    /// For whom [default: the user]
    #[arg(long, value_name = "NAME")]
    pub owner: Option<String>,
    /// Fetch all of it, too
    #[arg(long)]
    pub prefetch: bool,
}

/// `modelfs unpin`
#[derive(Debug, Args)]
pub struct Unpin {
    #[command(flatten)]
    pub one: One,
    /// Whose pin [default: the user's]
    #[arg(long, value_name = "NAME")]
    pub owner: Option<String>,
}

/// `modelfs evict`
#[derive(Debug, Args)]
pub struct Evict {
    /// The version: GROUP/MODEL@VERSION, GROUP/MODEL/VERSION or GROUP/MODEL VERSION
    #[arg(value_name = "REF", num_args = 1..=2, required_unless_present = "all")]
    pub words: Vec<String>,
    /// Everything that is neither pinned nor being read
    #[arg(long, conflicts_with = "words")]
    pub all: bool,
    /// Also what is pinned; the pins stay
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub places: Places,
}

/// `modelfs verify`
#[derive(Debug, Args)]
pub struct Verify {
    /// The version; all that is cached if left out
    #[arg(value_name = "REF", num_args = 1..=2)]
    pub words: Vec<String>,
    #[command(flatten)]
    pub places: Places,
}

/// `modelfs publish`
#[derive(Debug, Args)]
pub struct Publish {
    /// The folder whose files make up the version
    pub dir: PathBuf,
    /// What it is to be called
    #[arg(value_name = "GROUP/MODEL")]
    pub model: ModelRef,
    /// The version's name
    #[arg(value_parser = name)]
    pub version: Name,
    /// The registry's folder; made if it is not there
    #[arg(long, value_name = "FOLDER", env = "MODELFS_REGISTRY", hide_env_values = true)]
    pub registry: Option<String>,
    /// The most bytes of a chunk
    #[arg(long, value_name = "SIZE", default_value = CHUNK)]
    pub chunk_size: ByteSize,
    /// Bytes of a leaf, the unit that readers verify; `none`: whole chunks
    #[arg(long, value_name = "SIZE|none", default_value = LEAF, value_parser = leaf_size)]
    pub leaf_size: LeafSize,
    /// What leaves are hashed with
    #[arg(long, value_name = "KIND", default_value = "blake3")]
    pub leaf_digest: LeafKind,
    /// Something to say about the version in the catalog; may be given again
    #[arg(long = "meta", value_name = "KEY=VALUE", value_parser = meta)]
    pub metadata: Vec<(String, String)>,
    /// The version that this is another name for; the folder must have the same content
    #[arg(long, value_name = "VERSION", value_parser = name)]
    pub alias_of: Option<Name>,
    /// Chunks of one size that cross files, as the plain format has them
    #[arg(long)]
    pub fixed_chunks: bool,
    /// Replace a version of that name that has another content
    #[arg(long)]
    pub replace: bool,
}

/// The bytes of a leaf; none: there are no leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeafSize(pub Option<ByteSize>);

/// What leaves are hashed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LeafKind {
    /// Many times as fast
    Blake3,
    /// For readers that know nothing else
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

fn positive_duration(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Ok(Duration::ZERO) => Err("no time at all: every read would fail".to_owned()),
        other => other.map_err(|e| e.to_string()),
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
    fn leaves_have_a_size_or_are_not() {
        assert_eq!(leaf_size("none"), Ok(LeafSize(None)));
        assert_eq!(leaf_size("64KiB"), Ok(LeafSize(Some(ByteSize::kib(64)))));
        assert!(leaf_size("some").unwrap_err().contains("none"));
        assert_eq!(leaf_size(LEAF), Ok(LeafSize(Some(ByteSize(modelfs::publish::LEAF_SIZE)))));
        assert_eq!(CHUNK.parse(), Ok(ByteSize(modelfs::publish::CHUNK_SIZE)));
    }
}
