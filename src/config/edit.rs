//! Adds a source to the text of a file, or removes one; comments and order stay.
//!
//! Invariant: what comes out parses, and differs from what went in by that source alone. Pure.

use std::path::Path;

use toml_edit::{Array, ArrayOfTables, DocumentMut, Item, Table, value};

use super::error::ConfigError;
use super::file::{self, Level};
use super::source::Verify;

/// A source to add. What is not given is left out.
#[derive(Debug, Clone, Default)]
pub struct NewSource {
    /// Its name.
    pub name: String,
    /// Its address.
    pub url: String,
    /// Patterns of its groups.
    pub groups: Vec<String>,
    /// Its priority.
    pub priority: Option<i32>,
    /// How its bytes are checked.
    pub verify: Option<Verify>,
    /// Time to live, as text.
    pub ttl: Option<String>,
    /// Without TLS.
    pub plain_http: bool,
    /// The user that the secret belongs to.
    pub username: Option<String>,
    /// The file that its secret is in.
    pub token_file: Option<String>,
    /// The variable that its secret is in.
    pub token_variable: Option<String>,
    /// Models to show from the start.
    pub models: Vec<String>,
}

/// Why a file's text was not changed.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The text before or after is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is a source of that name.
    #[error("there is a source '{0}' already")]
    Exists(String),
    /// There is no source of that name.
    #[error("there is no source '{0}'")]
    Missing(String),
    /// The sources are not written as `[[source]]`.
    #[error("its sources are written in one line, which is not edited")]
    Inline,
}

/// The text with this source behind the others.
pub fn add(text: &str, path: &Path, level: Level, new: &NewSource) -> Result<String, EditError> {
    let mut document = parsed(text, path, level)?;
    let sources = document.entry("source").or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
    let sources = sources.as_array_of_tables_mut().ok_or(EditError::Inline)?;
    if sources.iter().any(|table| is_named(table, &new.name)) {
        return Err(EditError::Exists(new.name.clone()));
    }
    sources.push(table(new));
    let text = document.to_string();
    file::parse(&text, path, level)?;
    Ok(text)
}

/// The text without the source of that name.
pub fn remove(text: &str, path: &Path, level: Level, name: &str) -> Result<String, EditError> {
    let mut document = parsed(text, path, level)?;
    let missing = || EditError::Missing(name.to_owned());
    let sources = document.get_mut("source").ok_or_else(missing)?;
    let sources = sources.as_array_of_tables_mut().ok_or(EditError::Inline)?;
    let at = sources.iter().position(|table| is_named(table, name)).ok_or_else(missing)?;
    sources.remove(at);
    if sources.is_empty() {
        document.remove("source");
    }
    let text = document.to_string();
    file::parse(&text, path, level)?;
    Ok(text)
}

/// The document of a text that is a valid file.
fn parsed(text: &str, path: &Path, level: Level) -> Result<DocumentMut, ConfigError> {
    file::parse(text, path, level)?;
    Ok(text.parse().expect("it was parsed, one line above"))
}

fn is_named(table: &Table, name: &str) -> bool {
    table.get("name").and_then(Item::as_str) == Some(name)
}

fn table(new: &NewSource) -> Table {
    let mut table = Table::new();
    let list = |texts: &[String]| value(texts.iter().collect::<Array>());
    let mut put = |key: &str, item: Option<Item>| {
        if let Some(item) = item {
            table.insert(key, item);
        }
    };
    put("name", Some(value(&new.name)));
    put("url", Some(value(&new.url)));
    put("groups", (!new.groups.is_empty()).then(|| list(&new.groups)));
    put("priority", new.priority.map(|priority| value(i64::from(priority))));
    put("verify", new.verify.map(|verify| value(verify.name())));
    put("ttl", new.ttl.as_ref().map(value));
    put("plain_http", new.plain_http.then(|| value(true)));
    put("username", new.username.as_ref().map(value));
    put("token_file", new.token_file.as_ref().map(value));
    put("token_variable", new.token_variable.as_ref().map(value));
    put("models", (!new.models.is_empty()).then(|| list(&new.models)));
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str =
        "# mine\nthreads = 4 # few\n\n[[source]]\nname = \"one\"\nurl = \"/srv/one\"\n";

    fn new(name: &str) -> NewSource {
        NewSource { name: name.into(), url: "https://h/x".into(), ..NewSource::default() }
    }

    fn edit(text: &str, new: &NewSource) -> Result<String, EditError> {
        add(text, Path::new("/f"), Level::User, new)
    }

    #[test]
    fn a_source_is_added_behind_the_others_and_comments_stay() {
        let more = NewSource {
            groups: vec!["acme-*".into()],
            priority: Some(-1),
            verify: Some(Verify::Stream),
            ttl: Some("5m".into()),
            models: vec!["org/name@v1".into()],
            token_file: Some("/secret".into()),
            ..new("two")
        };
        let after = edit(BEFORE, &more).unwrap();
        assert_eq!(
            after.strip_prefix(BEFORE),
            Some(
                "\n[[source]]\nname = \"two\"\nurl = \"https://h/x\"\ngroups = [\"acme-*\"]\n\
                 priority = -1\nverify = \"stream\"\nttl = \"5m\"\ntoken_file = \"/secret\"\n\
                 models = [\"org/name@v1\"]\n"
            )
        );
        assert!(matches!(edit(&after, &new("two")), Err(EditError::Exists(_))));
        assert!(edit("", &new("one")).unwrap().contains("[[source]]\nname = \"one\""));
    }

    #[test]
    fn removing_what_was_added_leaves_the_rest_as_it_was() {
        let path = Path::new("/f");
        let after = edit(BEFORE, &new("two")).unwrap();
        assert_eq!(remove(&after, path, Level::User, "two").unwrap(), BEFORE);
        let none = remove(BEFORE, path, Level::User, "one").unwrap();
        assert!(none.starts_with("# mine\nthreads = 4 # few\n") && !none.contains("source"));
        let missing = remove(BEFORE, path, Level::User, "two");
        assert!(matches!(missing, Err(EditError::Missing(_))));
    }

    #[test]
    fn nothing_is_written_that_would_be_refused() {
        assert!(matches!(edit(BEFORE, &new("Not A Name")), Err(EditError::Config(_))));
        let secret = NewSource { url: "https://u:p@h".into(), ..new("two") };
        assert!(matches!(edit(BEFORE, &secret), Err(EditError::Config(_))));
        assert!(matches!(edit("threads = \"x\"", &new("two")), Err(EditError::Config(_))));
        let inline = "source = [{ name = \"one\", url = \"/x\" }]";
        assert!(matches!(edit(inline, &new("two")), Err(EditError::Inline)));
    }
}
