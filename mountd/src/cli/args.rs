//! The options that several commands share.
//!
//! Invariant: what parses here is well-formed. Plain values.

use std::path::PathBuf;

use clap::Args;

/// Which cache.
#[derive(Debug, Clone, Args)]
pub struct Cache {
    /// Cache folder [default: modelfs in $XDG_CACHE_HOME or ~/.cache]
    #[arg(long, value_name = "DIR", env = "MODELFS_CACHE_DIR", hide_env_values = true)]
    pub cache_dir: Option<PathBuf>,
}

/// Which cache and registry.
#[derive(Debug, Clone, Args)]
pub struct Places {
    #[command(flatten)]
    pub cache: Cache,
    /// Registry: a URL or a folder
    #[arg(long, value_name = "URL|FOLDER", env = "MODELFS_REGISTRY", hide_env_values = true)]
    pub registry: Option<String>,
}

/// One version, and where to look for it.
#[derive(Debug, Args)]
pub struct Version {
    /// Version: GROUP/MODEL@VERSION, GROUP/MODEL/VERSION or GROUP/MODEL VERSION
    #[arg(value_name = "REF", required = true, num_args = 1..=2)]
    pub words: Vec<String>,
    #[command(flatten)]
    pub places: Places,
}
