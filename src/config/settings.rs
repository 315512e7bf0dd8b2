//! Every setting of the daemon, declared once.
//!
//! Invariant: a setting `some_key` is the flag `--some-key`, the variable `MODELFS_SOME_KEY` and the key
//! `some_key` of a file. A configuration that another version of this program sent
//! is read as far as it is known: unknown fields are ignored, missing ones have their default. Plain
//! values.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::address::Address;
use super::entry::Entry;
use super::error::ConfigError;
use super::origin::{Origin, Setting};
use super::policy::Policy;
use super::source::{SourceConfig, SourceLayer};
use super::value::{ConfigValue, Given, LoopbackAddress, positive_duration, read, threads};
use crate::base::units::ByteSize;

/// The values that are built in.
pub mod defaults {
    use super::{ByteSize, Duration};

    /// How long a read may wait for the network: longer than a server needs to restart.
    pub const READ_DEADLINE: Duration = Duration::from_secs(60);
    /// The maximum age of a catalog: users see a new version after a minute.
    pub const CATALOG_TTL: Duration = Duration::from_secs(60);
    /// Bytes per second of the scrub: a terabyte in a day and a half, a few percent of a disk's bandwidth.
    pub const SCRUB_RATE: ByteSize = ByteSize::mib(8);
    /// Threads that take requests from the kernel: more than four gain nothing where the data comes from
    /// the page cache, and each may wait for a disk.
    pub const THREADS: u16 = 4;
    /// Quick deaths in a row: with the pauses between them, some ten seconds. Enough for a passing
    /// failure, not for a lasting one.
    pub const MAX_RESTARTS: u32 = 8;
    /// How long a worker may be silent: longer than any task of a healthy one.
    pub const HANG_TIMEOUT: Duration = Duration::from_secs(30);
}

/// What is known of a setting apart from its value.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its name in files.
    pub name: &'static str,
    /// What it is, in one sentence.
    pub about: &'static str,
}

impl Key {
    /// The environment variable.
    pub fn variable(&self) -> String {
        format!("MODELFS_{}", self.name.to_ascii_uppercase())
    }

    /// The flag of `modelfs mount`, if there is one.
    pub fn flag(&self) -> Option<String> {
        let has = !matches!(self.name, "mountpoint" | "log");
        has.then(|| format!("--{}", self.name.replace('_', "-")))
    }
}

macro_rules! settings {
    (
        optional { $( #[doc = $about_o:literal] $optional:ident: $of_o:ty; )* }
        defaulted { $( #[doc = $about_d:literal] $defaulted:ident: $of_d:ty = $default:expr
            $(, $check:path)?; )* }
    ) => {
        /// The values that one place gives.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct Layer {
            $( #[doc = $about_o] pub $optional: Option<Setting<$of_o>>, )*
            $( #[doc = $about_d] pub $defaulted: Option<Setting<$of_d>>, )*
            /// The sources.
            pub sources: Vec<SourceLayer>,
            /// Whether the sources of weaker layers are dropped.
            pub clear_sources: bool,
            /// The host policy.
            pub policy: Policy,
        }

        /// Every setting, resolved.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct Config {
            $( #[doc = $about_o] pub $optional: Option<Setting<$of_o>>, )*
            $( #[doc = $about_d] pub $defaulted: Setting<$of_d>, )*
            /// The sources, the one that is asked first at the front.
            pub sources: Vec<SourceConfig>,
            /// The host policy.
            pub policy: Policy,
        }

        impl Default for Config {
            fn default() -> Self {
                Self {
                    $( $optional: None, )*
                    $( $defaulted: Setting::default($default), )*
                    sources: Vec::new(),
                    policy: Policy::default(),
                }
            }
        }

        /// All settings.
        pub const KEYS: &[Key] = &[
            $( Key { name: stringify!($optional), about: $about_o }, )*
            $( Key { name: stringify!($defaulted), about: $about_d }, )*
        ];

        impl Layer {
            /// Sets what was given; a key that is not in [`KEYS`] sets nothing.
            pub(super) fn set(
                &mut self,
                key: &str,
                given: Given<'_>,
                origin: &Origin,
            ) -> Result<(), ConfigError> {
                let origin = || origin.clone();
                let wrong = |why| ConfigError::Value { origin: origin(), key: key.to_owned(), why };
                match key {
                    $( stringify!($optional) => {
                        let value: $of_o = read(given).map_err(wrong)?;
                        self.$optional = Some(Setting { value, origin: origin() });
                    } )*
                    $( stringify!($defaulted) => {
                        let value: $of_d = read(given).map_err(wrong)?;
                        $( let value = $check(value).map_err(wrong)?; )?
                        self.$defaulted = Some(Setting { value, origin: origin() });
                    } )*
                    _ => {}
                }
                Ok(())
            }
        }

        impl Config {
            pub(super) fn apply(&mut self, layer: Layer) {
                $( if layer.$optional.is_some() { self.$optional = layer.$optional; } )*
                $( if let Some(given) = layer.$defaulted { self.$defaulted = given; } )*
            }

            /// All settings as they are shown, in the order of [`KEYS`].
            pub fn entries(&self) -> Vec<Entry> {
                vec![
                    $( Entry {
                        key: stringify!($optional),
                        value: self.$optional.as_ref().map(|s| s.value.shown()),
                        origin: self.$optional.as_ref().map_or(Origin::Default, |s| s.origin.clone()),
                    }, )*
                    $( Entry {
                        key: stringify!($defaulted),
                        value: Some(self.$defaulted.value.shown()),
                        origin: self.$defaulted.origin.clone(),
                    }, )*
                ]
            }
        }
    };
}

settings! {
    optional {
        #[doc = "Folder to mount at."]
        mountpoint: PathBuf;
        #[doc = "Registry: a URL or a folder."]
        registry: Address;
        #[doc = "Cache folder; not set: `modelfs` in `$XDG_CACHE_HOME` or `~/.cache`."]
        cache_dir: PathBuf;
        #[doc = "Maximum size of the cache on disk; not set: as before, at first 50GiB."]
        cache_size: ByteSize;
        #[doc = "As root: user that the worker becomes and that will own the cache folder; not set: `modelfs`, if that user exists."]
        worker_user: String;
        #[doc = "The systemd unit that the daemon runs as: the mount survives a restart of the unit."]
        unit: String;
        #[doc = "Address, as `127.0.0.1:8090`, at which the daemon answers programs that ask the Hugging Face Hub; not set: none."]
        hub_endpoint: LoopbackAddress;
        #[doc = "What the daemon logs, as `debug` or `modelfs=trace`; not set: `info`."]
        log: String;
    }
    defaulted {
        #[doc = "Let other users read the mount."]
        allow_other: bool = false;
        #[doc = "Mount even if the folder is not empty: its content is hidden until the unmount."]
        allow_non_empty: bool = false;
        #[doc = "Maximum age of the list of versions before the registry is asked again."]
        catalog_ttl: Duration = defaults::CATALOG_TTL;
        #[doc = "How long a read waits for the network before it fails."]
        read_deadline: Duration = defaults::READ_DEADLINE, positive_duration;
        #[doc = "Speed at which the cache is verified in the background, in bytes per second; 0: never."]
        scrub_rate: ByteSize = defaults::SCRUB_RATE;
        #[doc = "Read cached files through the daemon, never by the kernel itself."]
        no_passthrough: bool = false;
        #[doc = "Threads that take requests from the kernel."]
        threads: u16 = defaults::THREADS, threads;
        #[doc = "How many times in a row the worker may die before it has served anything; then reads fail. 0: no limit."]
        max_restarts: u32 = defaults::MAX_RESTARTS;
        #[doc = "Replace the worker if it hangs for this long, also at its start; 0: never."]
        hang_timeout: Duration = defaults::HANG_TIMEOUT;
        #[doc = "Let the worker keep its user, its capabilities and access to all files of that user."]
        keep_privileges: bool = false;
    }
}

impl Layer {
    /// What the environment gives; an empty variable counts as none.
    pub fn from_environment(
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, ConfigError> {
        let mut layer = Self::default();
        for key in KEYS {
            let name = key.variable();
            let Some(value) = variable(&name).filter(|value| !value.is_empty()) else { continue };
            let origin = Origin::Environment { variable: name };
            let value = value.into_string().map_err(|_| ConfigError::Value {
                origin: origin.clone(),
                key: key.name.to_owned(),
                why: "the value is not UTF-8".to_owned(),
            })?;
            layer.set(key.name, Given::Plain(&value), &origin)?;
        }
        Ok(layer)
    }
}
