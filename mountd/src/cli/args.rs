//! The options that several commands share, and the configuration that they are a layer of.
//!
//! Invariant: what parses here is well-formed. Plain values; environment and files are read by
//! [`config_places`] and [`with_files`] alone.

use std::path::PathBuf;

use clap::Args;
use modelfs::config::{self, Address, Config, Found, Layer, Setting};

use crate::error::Failure;
use crate::paths;

/// Which file of settings.
#[derive(Debug, Clone, Default, Args)]
pub struct ConfigFile {
    /// File of settings to use instead of the user's and the project's [env: MODELFS_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Which cache.
#[derive(Debug, Clone, Args)]
pub struct Cache {
    /// Cache folder [env: MODELFS_CACHE_DIR] [default: modelfs in $XDG_CACHE_HOME or ~/.cache]
    #[arg(long, value_name = "DIR")]
    cache_dir: Option<PathBuf>,
    #[command(flatten)]
    pub file: ConfigFile,
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

/// The files that are looked at, as the flags and the environment have it.
pub fn config_places(file: &ConfigFile) -> config::Places {
    let variable = std::env::var_os("MODELFS_CONFIG").filter(|name| !name.is_empty());
    let named = file.config.clone().or(variable.map(PathBuf::from));
    config::Places {
        system: config::SYSTEM_FILE.into(),
        user: paths::user_config(),
        // Paths in it are relative to its folder, so that must be known. An empty name stays one.
        named: named.map(|path| std::path::absolute(&path).unwrap_or(path)),
        working_directory: std::env::current_dir().ok(),
        // Looking into a mount would ask its daemon, and the registry.
        avoid: modelfs_platform::mounts().into_iter().map(|mount| mount.path).collect(),
        user_id: rustix::process::geteuid().as_raw(),
    }
}

/// Reads the files of settings.
pub fn files(file: &ConfigFile) -> Result<Vec<Found>, Failure> {
    Ok(config::read_all(&config_places(file))?)
}

/// The configuration of this process: these files, above them the environment, above it the flags.
pub fn with_files(files: Vec<Found>, flags: Layer) -> Result<Config, Failure> {
    let environment = Layer::from_environment(|name| std::env::var_os(name))?;
    let files = files.into_iter().map(|found| found.layer);
    Ok(Config::resolve(files.chain([environment, flags]))?)
}

/// As [`with_files`], with all files that there are.
pub fn resolve(flags: Layer, file: &ConfigFile) -> Result<Config, Failure> {
    with_files(files(file)?, flags)
}

/// The cache folder of a configuration, absolute.
pub fn cache_root(config: &Config) -> Result<PathBuf, Failure> {
    paths::cache_root(config.cache_dir.as_ref().map(|dir| dir.value.as_path()))
}

impl Cache {
    fn layer(&self) -> Layer {
        let given = self.cache_dir.clone();
        let cache_dir = given.map(|dir| Setting::argument("--cache-dir", dir));
        Layer { cache_dir, ..Layer::default() }
    }

    /// The cache folder, absolute.
    pub fn root(&self) -> Result<PathBuf, Failure> {
        cache_root(&resolve(self.layer(), &self.file)?)
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
        resolve(self.layer(), &self.cache.file)
    }
}
