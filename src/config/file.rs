//! One file of settings: its text becomes a layer, each value with its line and column.
//!
//! Invariant: any text ends in a layer or in one error that shows no secret; keys that are not known are
//! errors. Pure.

use std::path::{Path, PathBuf};

use toml_edit::{Document, Item, TableLike, Value};

use super::address::Address;
use super::error::ConfigError;
use super::origin::{Origin, Setting};
use super::pair::Pair;
use super::policy::{HostPattern, Policy};
use super::positions::Positions;
use super::settings::{KEYS, Layer};
use super::source::{Credential, SourceLayer, Verify};
use super::source_rules as rules;
use crate::base::text::{MESSAGE, brief};

/// Maximum size of a file: people write some hundred lines.
pub const MAX_FILE: usize = 1 << 20;

/// Maximum number of sources in a file: each is a process's connection and a catalog.
const MAX_SOURCES: usize = 256;

/// Settings that a project may not change: its file comes with the project, and these give rights on the
/// machine.
const NOT_OF_A_PROJECT: [&str; 5] =
    ["allow_other", "allow_non_empty", "keep_privileges", "worker_user", "unit"];

/// Keys of a source that a project may not give: they read files or run programs of the user.
const SECRETS: [&str; 4] = ["token_file", "token_command", "token_variable", "username"];

/// Keys that hold a secret in other programs' files.
const LITERAL_SECRETS: [&str; 9] = [
    "token",
    "password",
    "secret",
    "api_key",
    "apikey",
    "access_key",
    "secret_key",
    "authorization",
    "bearer",
];

const OF_SOURCES: [&str; 12] = [
    "name",
    "url",
    "groups",
    "priority",
    "verify",
    "ttl",
    "plain_http",
    "username",
    "token_file",
    "token_command",
    "token_variable",
    "models",
];

/// The keys of `[[source]]`.
pub const SOURCE_KEYS: &[&str] = &OF_SOURCES;

/// The keys of `[policy]`.
pub const POLICY_KEYS: &[&str] = &["allowed_hosts", "deny_private_addresses"];

/// What a list in `clear` may name.
const CLEARED: &str = "source";

/// Whose file it is; the strongest last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The machine's.
    System,
    /// The user's, or the one that was named.
    User,
    /// The project's that the working directory belongs to.
    Project,
}

/// The layer that a file's text is.
pub fn parse(text: &str, path: &Path, level: Level) -> Result<Layer, ConfigError> {
    if text.len() > MAX_FILE {
        return Err(ConfigError::TooLarge { path: path.to_owned(), limit: MAX_FILE });
    }
    let file = File { positions: Positions::new(text), path, level };
    let document = Document::parse(text).map_err(|error| ConfigError::Syntax {
        origin: file.at(error.span()),
        why: one_line(error.message()),
    })?;
    file.layer(document.as_table())
}

/// The parser's messages are lists on several lines.
fn one_line(message: &str) -> String {
    brief(&message.lines().map(str::trim).collect::<Vec<_>>().join(", "), MESSAGE)
}

struct File<'a> {
    positions: Positions<'a>,
    path: &'a Path,
    level: Level,
}

/// Accepts what a check accepts.
fn checked(check: fn(&str) -> Result<(), String>) -> impl Fn(&str) -> Result<String, String> {
    move |text| check(text).map(|()| text.to_owned())
}

impl File<'_> {
    fn at(&self, span: Option<std::ops::Range<usize>>) -> Origin {
        let (line, column) = self.positions.at(span.map_or(0, |span| span.start));
        Origin::File { path: self.path.to_owned(), line, column }
    }

    fn pairs<'t>(&self, table: &'t dyn TableLike) -> Vec<Pair<'t>> {
        let pair = |(key, item): (&'t str, &'t Item)| {
            let span = table.key(key).and_then(toml_edit::Key::span).or_else(|| item.span());
            Pair { key, item, origin: self.at(span) }
        };
        table.iter().map(pair).collect()
    }

    fn layer(&self, table: &dyn TableLike) -> Result<Layer, ConfigError> {
        let mut layer = Layer::default();
        for pair in self.pairs(table) {
            match pair.key {
                "source" => layer.sources = self.sources(&pair)?,
                "policy" => layer.policy = self.policy(&pair)?,
                "clear" => {
                    let only = |text: &str| match text {
                        CLEARED => Ok(()),
                        _ => Err(format!("only \"{CLEARED}\" can be cleared")),
                    };
                    layer.clear_sources = !pair.list(only)?.value.is_empty();
                }
                key => {
                    self.refuse_of_project(&NOT_OF_A_PROJECT, &pair)?;
                    if !KEYS.iter().any(|known| known.name == key) {
                        let others = ["source", "policy", "clear"];
                        let names = KEYS.iter().map(|key| key.name).chain(others);
                        return Err(unknown(&pair, names));
                    }
                    layer.set(key, pair.given()?, &pair.origin)?;
                }
            }
        }
        self.make_absolute(&mut layer)?;
        Ok(layer)
    }

    fn refuse_of_project(&self, keys: &[&str], pair: &Pair<'_>) -> Result<(), ConfigError> {
        match self.level == Level::Project && keys.contains(&pair.key) {
            true => Err(ConfigError::NotOfProject {
                origin: pair.origin.clone(),
                key: pair.key.to_owned(),
            }),
            false => Ok(()),
        }
    }

    /// Paths of a file are relative to its folder.
    fn make_absolute(&self, layer: &mut Layer) -> Result<(), ConfigError> {
        for (key, given) in
            [("mountpoint", &mut layer.mountpoint), ("cache_dir", &mut layer.cache_dir)]
        {
            if let Some(Setting { value, origin }) = given {
                *value = self.path(value).map_err(|why| ConfigError::Value {
                    origin: origin.clone(),
                    key: key.to_owned(),
                    why,
                })?;
            }
        }
        if let Some(Setting { value, origin }) = &mut layer.registry {
            let wrong = |why| ConfigError::Value {
                origin: origin.clone(),
                key: "registry".to_owned(),
                why,
            };
            *value = self.address(&value.0).map_err(wrong)?;
            rules::check_url(value).map_err(wrong)?;
        }
        Ok(())
    }

    fn path(&self, path: &Path) -> Result<PathBuf, String> {
        if path.as_os_str().is_empty() {
            return Err("is empty".to_owned());
        }
        if path.starts_with("~") {
            return Err("~ is not the home folder here: write the whole path".to_owned());
        }
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        Ok(folder.join(path))
    }

    /// An address with a folder made absolute.
    fn address(&self, text: &str) -> Result<Address, String> {
        match text.contains(':') || text.trim().is_empty() {
            true => Ok(Address(text.to_owned())),
            false => Ok(Address(self.path(Path::new(text))?.display().to_string())),
        }
    }

    fn policy(&self, pair: &Pair<'_>) -> Result<Policy, ConfigError> {
        let table = pair.item.as_table_like();
        let table = table.ok_or_else(|| pair.wrong("a table is expected: [policy]"))?;
        let mut policy = Policy::default();
        for pair in self.pairs(table) {
            match pair.key {
                "allowed_hosts" => {
                    let check = |text: &str| {
                        HostPattern::parse(text)
                            .map_err(|why| format!("'{}' {why}", brief(text, 60)))
                    };
                    policy.allowed_hosts.push(pair.list(check)?);
                }
                "deny_private_addresses" => policy.deny_private_addresses = Some(pair.setting()?),
                _ => return Err(unknown(&pair, POLICY_KEYS.iter().copied())),
            }
        }
        Ok(policy)
    }

    fn sources(&self, pair: &Pair<'_>) -> Result<Vec<SourceLayer>, ConfigError> {
        let expected = || pair.wrong("a list of tables is expected: [[source]]");
        let tables: Vec<&dyn TableLike> = match pair.item {
            Item::ArrayOfTables(tables) => tables.iter().map(|t| t as &dyn TableLike).collect(),
            Item::Value(Value::Array(values)) => {
                let tables =
                    values.iter().map(|v| v.as_inline_table().map(|t| t as &dyn TableLike));
                tables.collect::<Option<_>>().ok_or_else(expected)?
            }
            _ => return Err(expected()),
        };
        if tables.len() > MAX_SOURCES {
            return Err(pair.wrong(format!("there are more than {MAX_SOURCES} sources")));
        }
        let mut sources: Vec<SourceLayer> = Vec::new();
        for table in tables {
            let source = self.source(table, pair)?;
            if let Some(first) = sources.iter().find(|s| s.name.value == source.name.value) {
                return Err(ConfigError::Value {
                    origin: source.name.origin,
                    key: "name".to_owned(),
                    why: format!(
                        "there is a source '{}' already ({})",
                        source.name.value, first.name.origin
                    ),
                });
            }
            sources.push(source);
        }
        Ok(sources)
    }

    fn source(&self, table: &dyn TableLike, all: &Pair<'_>) -> Result<SourceLayer, ConfigError> {
        let pairs = self.pairs(table);
        let name = pairs.iter().find(|pair| pair.key == "name").ok_or_else(|| {
            let first = pairs.first().map_or(&all.origin, |pair| &pair.origin);
            let (origin, key) = (first.clone(), "name".to_owned());
            ConfigError::Value { origin, key, why: "this source has no name".to_owned() }
        })?;
        let value = name.setting::<String>()?;
        rules::check_name(&value.value).map_err(|why| name.wrong(why))?;
        let mut source = SourceLayer::named(value);
        for pair in &pairs {
            self.refuse_of_project(&SECRETS, pair)?;
            match pair.key {
                "name" => {}
                "url" => {
                    let given = self.address(&pair.read::<String>()?);
                    let url = given.map_err(|why| pair.wrong(why))?;
                    rules::check_url(&url).map_err(|why| pair.wrong(why))?;
                    source.url = Some(Setting { value: url, origin: pair.origin.clone() });
                }
                "groups" => source.groups = Some(pair.list(checked(rules::check_group))?),
                "models" => source.models = Some(pair.list(checked(rules::check_model))?),
                "priority" => source.priority = Some(pair.setting()?),
                "verify" => {
                    let value = match &*pair.read::<String>()? {
                        "whole" => Verify::Whole,
                        "stream" => Verify::Stream,
                        _ => return Err(pair.wrong("is neither \"whole\" nor \"stream\"")),
                    };
                    source.verify = Some(Setting { value, origin: pair.origin.clone() });
                }
                "ttl" => source.ttl = Some(pair.setting()?),
                "plain_http" => source.plain_http = Some(pair.setting()?),
                "username" => source.username = Some(pair.setting()?),
                "token_file" | "token_command" | "token_variable" => {
                    if source.credential.is_some() {
                        return Err(pair.wrong("the source has another secret already"));
                    }
                    let value = self.credential(pair)?;
                    source.credential = Some(Setting { value, origin: pair.origin.clone() });
                }
                key if is_literal_secret(key) => {
                    let (origin, key) = (pair.origin.clone(), key.to_owned());
                    return Err(ConfigError::LiteralSecret { origin, key });
                }
                _ => return Err(unknown(pair, SOURCE_KEYS.iter().copied())),
            }
        }
        Ok(source)
    }

    fn credential(&self, pair: &Pair<'_>) -> Result<Credential, ConfigError> {
        Ok(match pair.key {
            "token_file" => {
                let path = pair.read::<PathBuf>()?;
                Credential::TokenFile(self.path(&path).map_err(|why| pair.wrong(why))?)
            }
            "token_variable" => {
                let name = pair.read::<String>()?;
                let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
                if name.is_empty() || !name.bytes().all(word) {
                    return Err(pair.wrong("is no name of a variable"));
                }
                Credential::TokenVariable(name)
            }
            _ => {
                let command = pair.list(|word| Ok(word.to_owned()))?.value;
                if command.first().is_none_or(String::is_empty) {
                    return Err(pair.wrong("names no program"));
                }
                Credential::TokenCommand(command)
            }
        })
    }
}

fn is_literal_secret(key: &str) -> bool {
    LITERAL_SECRETS.contains(&&*key.to_ascii_lowercase().replace('-', "_"))
}

fn unknown(pair: &Pair<'_>, known: impl Iterator<Item = &'static str>) -> ConfigError {
    ConfigError::unknown(pair.key, pair.origin.clone(), known)
}
