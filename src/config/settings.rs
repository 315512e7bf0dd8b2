//! Every setting of the daemon, declared once, and the resolution of layers.
//!
//! Invariant: a setting `some_key` is the flag `--some-key`, the variable `MODELFS_SOME_KEY` and the key
//! `some_key` of a file. A later layer wins. A configuration that another version of this program sent
//! is read as far as it is known: unknown fields are ignored, missing ones have their default. Plain
//! values.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::address::Address;
use super::error::ConfigError;
use super::origin::{Origin, Setting};
use super::value::{ConfigValue, positive_duration, threads};
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

    /// The flag of the command line.
    pub fn flag(&self) -> String {
        format!("--{}", self.name.replace('_', "-"))
    }
}

/// A setting as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its name.
    pub key: &'static str,
    /// Its value, without secrets; none: not set.
    pub value: Option<String>,
    /// Where the value came from.
    pub origin: Origin,
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
        }

        /// Every setting, resolved.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct Config {
            $( #[doc = $about_o] pub $optional: Option<Setting<$of_o>>, )*
            $( #[doc = $about_d] pub $defaulted: Setting<$of_d>, )*
        }

        impl Default for Config {
            fn default() -> Self {
                Self {
                    $( $optional: None, )*
                    $( $defaulted: Setting::default($default), )*
                }
            }
        }

        /// All settings.
        pub const KEYS: &[Key] = &[
            $( Key { name: stringify!($optional), about: $about_o }, )*
            $( Key { name: stringify!($defaulted), about: $about_d }, )*
        ];

        impl Layer {
            /// Sets what `text` means; false: there is no such setting.
            fn set_text(
                &mut self,
                key: &str,
                text: &str,
                origin: &Origin,
            ) -> Result<bool, ConfigError> {
                let origin = || origin.clone();
                let wrong = |why| ConfigError::Value { origin: origin(), key: key.to_owned(), why };
                match key {
                    $( stringify!($optional) => {
                        let value = <$of_o>::parse(text).map_err(wrong)?;
                        self.$optional = Some(Setting { value, origin: origin() });
                    } )*
                    $( stringify!($defaulted) => {
                        let value = <$of_d>::parse(text).map_err(wrong)?;
                        $( let value = $check(value).map_err(wrong)?; )?
                        self.$defaulted = Some(Setting { value, origin: origin() });
                    } )*
                    _ => return Ok(false),
                }
                Ok(true)
            }
        }

        impl Config {
            fn apply(&mut self, layer: Layer) {
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
            layer.set_text(key.name, &value, &origin)?;
        }
        Ok(layer)
    }
}

impl Config {
    /// The settings of these layers, the strongest last.
    pub fn resolve(layers: impl IntoIterator<Item = Layer>) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        layers.into_iter().for_each(|layer| config.apply(layer));
        match &config.worker_user {
            Some(user) if config.keep_privileges.value => Err(ConfigError::Conflict {
                first: "worker_user",
                first_origin: user.origin.clone(),
                second: "keep_privileges",
                second_origin: config.keep_privileges.origin.clone(),
            }),
            _ => Ok(config),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(of: &[(&str, &str)]) -> Result<Layer, ConfigError> {
        let find = |name: &str| of.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v));
        Layer::from_environment(find)
    }

    #[test]
    fn without_layers_everything_is_default() {
        let config = Config::resolve([]).unwrap();
        assert_eq!(config, Config::default());
        assert_eq!(config.entries().len(), KEYS.len());
        assert!(config.entries().iter().all(|e| e.origin == Origin::Default));
    }

    #[test]
    fn a_later_layer_wins_and_every_value_knows_its_origin() {
        let low = environment(&[("MODELFS_THREADS", "7"), ("MODELFS_CACHE_SIZE", "2GiB")]).unwrap();
        let high = Layer { threads: Some(Setting::argument("--threads", 9)), ..Layer::default() };
        let config = Config::resolve([low, high]).unwrap();
        assert_eq!(config.threads, Setting::argument("--threads", 9));
        let size = config.cache_size.unwrap();
        assert_eq!(size.value, ByteSize::gib(2));
        assert_eq!(size.origin.to_string(), "MODELFS_CACHE_SIZE");
        assert_eq!(config.hang_timeout.origin, Origin::Default);
    }

    #[test]
    fn an_empty_variable_counts_as_none_and_a_wrong_one_is_named() {
        assert_eq!(environment(&[("MODELFS_REGISTRY", "")]), Ok(Layer::default()));
        for (name, value) in [
            ("MODELFS_READ_DEADLINE", "0s"),
            ("MODELFS_THREADS", "0"),
            ("MODELFS_ALLOW_OTHER", "perhaps"),
            ("MODELFS_CACHE_SIZE", "much"),
        ] {
            let error = environment(&[(name, value)]).unwrap_err();
            assert!(error.to_string().starts_with(&format!("{name}: ")), "{error}");
            assert!(error.next_step().contains(name), "{error}");
        }
    }

    #[test]
    fn settings_of_two_layers_that_exclude_each_other_are_refused_with_both_places() {
        let low = environment(&[("MODELFS_WORKER_USER", "ann")]).unwrap();
        let high = Layer {
            keep_privileges: Some(Setting::argument("--keep-privileges", true)),
            ..Layer::default()
        };
        let text = Config::resolve([low, high]).unwrap_err().to_string();
        assert!(
            text.contains("MODELFS_WORKER_USER") && text.contains("--keep-privileges"),
            "{text}"
        );
    }

    #[test]
    fn a_configuration_of_another_version_is_read_as_far_as_it_is_known() {
        let sent = Config {
            registry: Some(Setting::argument("--registry", Address("https://u:p@h".into()))),
            threads: Setting::argument("--threads", 2),
            ..Config::default()
        };
        let mut text = serde_json::to_value(&sent).unwrap();
        assert_eq!(serde_json::from_value::<Config>(text.clone()).unwrap(), sent);
        text["of_a_newer_version"] = serde_json::json!({"value": [1]});
        text.as_object_mut().unwrap().remove("hang_timeout");
        assert_eq!(serde_json::from_value::<Config>(text).unwrap(), sent);
    }

    #[test]
    fn no_secret_is_shown() {
        let with = [("MODELFS_REGISTRY", "https://u:s3cret@h/x?s3cret")];
        let config = Config::resolve([environment(&with).unwrap()]).unwrap();
        let shown = format!("{config:?} {:?}", config.entries());
        assert!(shown.contains("https://h/x") && !shown.contains("s3cret"), "{shown}");
    }
}
