//! The options that several commands share, and the configuration that they are a layer of.
//!
//! Invariant: what parses here is well-formed. Plain values; the environment is read by [`resolve`] alone.

use std::path::PathBuf;

use clap::Args;
use modelfs::config::{Address, Config, Layer, Setting};

use crate::error::Failure;
use crate::paths;

/// Which cache.
#[derive(Debug, Clone, Args)]
pub struct Cache {
    /// Cache folder [env: MODELFS_CACHE_DIR] [default: modelfs in $XDG_CACHE_HOME or ~/.cache]
    #[arg(long, value_name = "DIR")]
    cache_dir: Option<PathBuf>,
}

/// Which cache and registry.
#[derive(Debug, Clone, Args)]
pub struct Places {
    #[command(flatten)]
    pub cache: Cache,
    /// Registry: a URL or a folder [env: MODELFS_REGISTRY]
    #[arg(long, value_name = "URL|FOLDER")]
    registry: Option<String>,
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

/// The configuration of this process: the environment, and above it the flags.
pub fn resolve(flags: Layer) -> Result<Config, Failure> {
    let environment = Layer::from_environment(|name| std::env::var_os(name))?;
    Ok(Config::resolve([environment, flags])?)
}

/// The cache folder of a configuration, absolute.
pub fn cache_root(config: &Config) -> Result<PathBuf, Failure> {
    paths::cache_root(config.cache_dir.as_ref().map(|dir| dir.value.as_path()))
}

/// The registry of a configuration, a folder made absolute.
pub fn registry(config: &Config) -> Result<Option<String>, Failure> {
    config.registry.as_ref().map(|given| paths::registry(&given.value.0)).transpose()
}

impl Cache {
    fn layer(&self) -> Layer {
        let given = self.cache_dir.clone();
        let cache_dir = given.map(|dir| Setting::argument("--cache-dir", dir));
        Layer { cache_dir, ..Layer::default() }
    }

    /// The cache folder, absolute.
    pub fn root(&self) -> Result<PathBuf, Failure> {
        cache_root(&resolve(self.layer())?)
    }
}

impl Places {
    /// What the flags give; an empty registry counts as none.
    pub fn layer(&self) -> Layer {
        let given = self.registry.clone().filter(|registry| !registry.is_empty());
        let registry = given.map(|name| Setting::argument("--registry", Address(name)));
        Layer { registry, ..self.cache.layer() }
    }

    /// The configuration of a command.
    pub fn config(&self) -> Result<Config, Failure> {
        resolve(self.layer())
    }
}
