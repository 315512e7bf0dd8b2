//! A source: a configured registry. Its layers, and what they make together.
//!
//! Invariant: a source has a name and an address of a known kind. Its secrets are references, never the
//! secrets themselves, and they belong to the address that they were given with: a layer that changes where
//! or how a source is asked does not inherit them. Pure values.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::address::Address;
use super::entry::Entry;
use super::origin::Setting;
use super::source_rules::{SourceKind, host, kind};
use super::value::ConfigValue;

/// The priority of a source that has none: others can be put before it and after it.
pub const PRIORITY: i32 = 100;

/// How a file's bytes are checked where only a digest of the whole is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verify {
    /// Nothing is served before the whole has matched.
    #[default]
    Whole,
    /// Bytes are served as they come and checked when the whole is there.
    Stream,
}

impl Verify {
    /// Its name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Stream => "stream",
        }
    }
}

/// Where a secret comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Credential {
    /// The first line of a file.
    TokenFile(PathBuf),
    /// The first line of the output of a program: the program and its arguments; no shell.
    TokenCommand(Vec<String>),
    /// An environment variable of the daemon.
    TokenVariable(String),
}

/// What one layer says of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceLayer {
    /// Its name.
    pub name: Setting<String>,
    /// Its address.
    pub url: Option<Setting<Address>>,
    /// Patterns of the groups that it may have.
    pub groups: Option<Setting<Vec<String>>>,
    /// Its priority.
    pub priority: Option<Setting<i32>>,
    /// How its bytes are checked.
    pub verify: Option<Setting<Verify>>,
    /// Maximum age of what it said of its versions.
    pub ttl: Option<Setting<Duration>>,
    /// Whether it is asked without TLS, where its address does not say.
    pub plain_http: Option<Setting<bool>>,
    /// The user that the secret belongs to.
    pub username: Option<Setting<String>>,
    /// Where its secret comes from.
    pub credential: Option<Setting<Credential>>,
    /// Models to show from the start.
    pub models: Option<Setting<Vec<String>>>,
}

/// A source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceConfig {
    /// Its name: the key of everything that is remembered of it.
    pub name: Setting<String>,
    /// Its address, without credentials.
    pub url: Setting<Address>,
    /// Patterns of the groups that it may have, with `*` for any characters; empty: all groups.
    #[serde(default)]
    pub groups: Option<Setting<Vec<String>>>,
    /// Lower is asked first; sources of the same priority in their order here.
    #[serde(default)]
    pub priority: Option<Setting<i32>>,
    /// How its bytes are checked where only a digest of the whole is known.
    #[serde(default)]
    pub verify: Option<Setting<Verify>>,
    /// Maximum age of what it said of its versions; none: `catalog_ttl`.
    #[serde(default)]
    pub ttl: Option<Setting<Duration>>,
    /// Whether it is asked without TLS, where its address does not say.
    #[serde(default)]
    pub plain_http: Option<Setting<bool>>,
    /// The user that the secret belongs to; none: the secret is a bearer token.
    #[serde(default)]
    pub username: Option<Setting<String>>,
    /// Where its secret comes from.
    #[serde(default)]
    pub credential: Option<Setting<Credential>>,
    /// Models to show from the start, for a source that cannot list: `org/name` or `org/name@rev`.
    #[serde(default)]
    pub models: Option<Setting<Vec<String>>>,
}

impl SourceLayer {
    /// A source of which nothing but the name is said.
    pub fn named(name: Setting<String>) -> Self {
        Self {
            name,
            url: None,
            groups: None,
            priority: None,
            verify: None,
            ttl: None,
            plain_http: None,
            username: None,
            credential: None,
            models: None,
        }
    }

    /// Puts a stronger layer's values above these.
    pub fn merge(&mut self, stronger: Self) {
        fn over<T>(weak: &mut Option<Setting<T>>, strong: Option<Setting<T>>) {
            if strong.is_some() {
                *weak = strong;
            }
        }
        // A secret may not go to another place, or by another way, than it was given for.
        if stronger.url.is_some() || stronger.plain_http.is_some() {
            (self.username, self.credential) = (None, None);
        }
        over(&mut self.url, stronger.url);
        over(&mut self.groups, stronger.groups);
        over(&mut self.priority, stronger.priority);
        over(&mut self.verify, stronger.verify);
        over(&mut self.ttl, stronger.ttl);
        over(&mut self.plain_http, stronger.plain_http);
        over(&mut self.username, stronger.username);
        over(&mut self.credential, stronger.credential);
        over(&mut self.models, stronger.models);
    }

    /// The source; none if no layer gave its address.
    pub fn finish(self) -> Option<SourceConfig> {
        Some(SourceConfig {
            name: self.name,
            url: self.url?,
            groups: self.groups,
            priority: self.priority,
            verify: self.verify,
            ttl: self.ttl,
            plain_http: self.plain_http,
            username: self.username,
            credential: self.credential,
            models: self.models,
        })
    }
}

impl SourceConfig {
    /// Its kind.
    pub fn kind(&self) -> SourceKind {
        kind(&self.url.value.0)
    }

    /// Its priority, given or not.
    pub fn rank(&self) -> i32 {
        self.priority.as_ref().map_or(PRIORITY, |priority| priority.value)
    }

    /// What was given of it, as it is shown.
    pub fn entries(&self) -> Vec<Entry> {
        fn text<T>(
            key: &'static str,
            given: &Option<Setting<T>>,
            shown: impl Fn(&T) -> String,
        ) -> Option<Entry> {
            let given = given.as_ref()?;
            Some(Entry { key, value: Some(shown(&given.value)), origin: given.origin.clone() })
        }
        let (key, shown) = match self.credential.as_ref().map(|given| &given.value) {
            Some(Credential::TokenFile(path)) => ("token_file", path.display().to_string()),
            // Arguments may be secrets, in spite of everything.
            Some(Credential::TokenCommand(words)) => {
                ("token_command", format!("{} …", words.first().map_or("", String::as_str)))
            }
            Some(Credential::TokenVariable(name)) => ("token_variable", name.clone()),
            None => ("token_file", String::new()),
        };
        let url = Some(self.url.clone());
        let list = |all: &Vec<String>| all.join(", ");
        let all = [
            text("url", &url, Address::shown),
            text("groups", &self.groups, list),
            text("priority", &self.priority, ToString::to_string),
            text("verify", &self.verify, |verify| verify.name().to_owned()),
            text("ttl", &self.ttl, ConfigValue::shown),
            text("plain_http", &self.plain_http, ToString::to_string),
            text("username", &self.username, Clone::clone),
            text(key, &self.credential, |_| shown.clone()),
            text("models", &self.models, list),
        ];
        all.into_iter().flatten().collect()
    }

    /// The host and port of its address, if the address names them.
    pub fn host(&self) -> Option<(String, Option<u16>)> {
        host(&self.url.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(url: &str) -> SourceLayer {
        let name = Setting::argument("NAME", "acme".to_owned());
        let url = Some(Setting::argument("URL", Address(url.to_owned())));
        SourceLayer { url, ..SourceLayer::named(name) }
    }

    #[test]
    fn a_secret_does_not_follow_a_source_to_another_address() {
        let secret = Setting::argument("x", Credential::TokenFile("/secret".into()));
        let with = || SourceLayer { credential: Some(secret.clone()), ..source("https://a") };
        let mut moved = with();
        moved.merge(source("https://evil.example"));
        let moved = moved.finish().unwrap();
        assert_eq!((moved.url.value.0.as_str(), moved.credential), ("https://evil.example", None));
        let name = || SourceLayer::named(Setting::argument("NAME", "acme".to_owned()));
        let mut open = with();
        open.merge(SourceLayer { plain_http: Some(Setting::argument("x", true)), ..name() });
        assert_eq!(open.credential, None);
        let mut ranked = with();
        ranked.merge(SourceLayer { priority: Some(Setting::argument("x", 1)), ..name() });
        assert_eq!((ranked.finish().unwrap().credential), Some(secret.clone()));
    }
}
