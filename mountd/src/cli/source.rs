//! `modelfs source`: which registries are configured; adding, removing and testing one.
//!
//! Invariant: a file is replaced as a whole, by one that was checked, or not at all; its mode and owner
//! stay. Two commands at once change it one after the other: the folder is locked meanwhile.

use std::fs::{self, File, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use modelfs::config::{self, Config, EditError, Found, Layer, Level, NewSource, Verify};
use modelfs::model::ModelRef;
use serde::Serialize;

use super::args::{self, ConfigFile};
use super::config::ShownSource;
use super::output::{Out, printable};
use super::source_test;
use super::table::{Column, table};
use crate::error::{Failure, Kind};
use crate::sources::{self, SourcePlan};
use crate::wiring;

/// List the configured registries, add, remove or test one
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  modelfs source add acme https://models.example.org --group 'acme-*'
  modelfs source add lab /srv/models --system
  modelfs source list
  modelfs source remove acme
  modelfs source test

Without --system and --project it is the user's file that is changed. Comments in it stay.")]
pub struct Source {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the sources of all files, the one that is asked first at the top
    List {
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Add a source to a file
    Add(Box<Add>),
    /// Test whether sources can be used from here, and say what to do if not
    Test {
        /// Their names [default: all]
        #[arg(value_name = "NAME")]
        names: Vec<String>,
        /// Model to look up in sources that do not list theirs: GROUP/MODEL
        #[arg(long, value_name = "MODEL")]
        model: Option<ModelRef>,
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Remove a source from a file
    Remove {
        /// Its name
        name: String,
        #[command(flatten)]
        target: Target,
    },
}

#[derive(Debug, Args)]
struct Add {
    /// Its name: a-z, 0-9, '.', '_' and '-'
    name: String,
    /// Its address: https://…, hf://, oci://…, s3://…, gs://…, az://…, ollama:// or a folder
    url: String,
    /// Only these groups, with * for any characters; can be repeated [default: all]
    #[arg(long = "group", value_name = "PATTERN")]
    groups: Vec<String>,
    /// Sources with a lower one are asked first [default: 100]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    priority: Option<i32>,
    /// How bytes are checked where only a digest of the whole is known [default: whole]
    #[arg(long, value_name = "whole|stream", value_parser = verify)]
    verify: Option<Verify>,
    /// Maximum age of its list of versions [default: that of --catalog-ttl]
    #[arg(long, value_name = "TIME")]
    ttl: Option<String>,
    /// Ask it without TLS, where its address does not say
    #[arg(long)]
    plain_http: bool,
    /// User that the token belongs to
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    /// File that has its token in the first line
    #[arg(long, value_name = "FILE", conflicts_with = "token_variable")]
    token_file: Option<PathBuf>,
    /// Variable of the daemon that has its token
    #[arg(long, value_name = "NAME")]
    token_variable: Option<String>,
    /// Show this model from the start: ORG/NAME or ORG/NAME@REV; can be repeated
    #[arg(long = "model", value_name = "MODEL")]
    models: Vec<String>,
    #[command(flatten)]
    target: Target,
}

fn verify(text: &str) -> Result<Verify, String> {
    let all = [Verify::Whole, Verify::Stream];
    let found = all.into_iter().find(|verify| verify.name() == text);
    found.ok_or_else(|| "is neither whole nor stream".to_owned())
}

/// Which file to change.
#[derive(Debug, Args)]
struct Target {
    /// Change /etc/modelfs/modelfs.toml
    #[arg(long, conflicts_with_all = ["project", "config"])]
    system: bool,
    /// Change the nearest modelfs.toml at or above the working directory, or make one here
    #[arg(long, conflicts_with = "config")]
    project: bool,
    #[command(flatten)]
    file: ConfigFile,
}

#[derive(Serialize)]
struct Listed {
    sources: Vec<ShownSource>,
}

#[derive(Serialize)]
struct Changed {
    name: String,
    file: PathBuf,
}

/// Runs the command.
pub async fn run(out: Out, args: Source) -> Result<(), Failure> {
    match args.action {
        Action::List { file } => {
            let config = args::resolve(Layer::default(), &file)?;
            let sources = config.sources.iter().map(ShownSource::from).collect();
            out.show(&Listed { sources }, |_| list_text(&config))
        }
        Action::Add(add) => {
            let target = target(&add.target)?;
            let new = new_source(&add)?;
            change(&target, &add.target.file, |text| {
                config::add(text, &target.path, target.level, &new)
            })?;
            let changed = Changed { name: add.name, file: target.path };
            out.say(&changed, |c| format!("added {} to {}", c.name, c.file.display()))
        }
        Action::Test { names, model, file } => {
            let config = args::resolve(Layer::default(), &file)?;
            let plans = to_test(sources::plans(&config)?, &names)?;
            source_test::run(out, plans, wiring::http_options(&config), model).await
        }
        Action::Remove { name, target: which } => {
            let target = target(&which)?;
            change(&target, &which.file, |text| {
                config::remove(text, &target.path, target.level, &name)
            })?;
            let changed = Changed { name, file: target.path };
            out.say(&changed, |c| format!("removed {} from {}", c.name, c.file.display()))
        }
    }
}

/// The sources with these names; without names all.
fn to_test(all: Vec<SourcePlan>, names: &[String]) -> Result<Vec<SourcePlan>, Failure> {
    let known = |name: &String| all.iter().any(|plan| plan.shown() == *name);
    if let Some(unknown) = names.iter().find(|name| !known(name)) {
        return Err(Failure::usage(format!("there is no source '{unknown}'"))
            .hint("`modelfs source list` shows all"));
    }
    if all.is_empty() {
        return Err(Failure::usage("no source is configured")
            .hint("add one: modelfs source add NAME URL, or set MODELFS_REGISTRY"));
    }
    let wanted = |plan: &SourcePlan| names.is_empty() || names.contains(&plan.shown());
    Ok(all.into_iter().filter(wanted).collect())
}

fn list_text(config: &Config) -> String {
    if config.sources.is_empty() {
        return "No source is configured. Add one: modelfs source add NAME URL".to_owned();
    }
    let rows = config.sources.iter().map(|source| {
        let groups = source.groups.as_ref().map_or("*".to_owned(), |g| g.value.join(", "));
        let (name, from) = (&source.name.value, source.url.origin.to_string());
        let url = source.url.value.shown();
        vec![name.clone(), printable(&url), groups, source.rank().to_string(), printable(&from)]
    });
    let columns = ["NAME", "ADDRESS", "GROUPS", "PRIORITY", "FROM"].map(Column::Left);
    table(&columns, rows.collect())
}

/// What the flags say, paths made absolute: the file lies in another folder than this process.
fn new_source(add: &Add) -> Result<NewSource, Failure> {
    let absolute = |path: &Path| {
        let failed = |e| Failure::usage(format!("{}: {e}", path.display()));
        let path = std::path::absolute(path).map_err(failed)?;
        path.into_os_string().into_string().map_err(|p| {
            Failure::usage(format!("{}: a path in a file must be UTF-8", Path::new(&p).display()))
        })
    };
    let url = match add.url.contains(':') || add.url.trim().is_empty() {
        true => add.url.clone(),
        false => absolute(Path::new(&add.url))?,
    };
    Ok(NewSource {
        name: add.name.clone(),
        url,
        groups: add.groups.clone(),
        priority: add.priority,
        verify: add.verify,
        ttl: add.ttl.clone(),
        plain_http: add.plain_http,
        username: add.username.clone(),
        token_file: add.token_file.as_deref().map(absolute).transpose()?,
        token_variable: add.token_variable.clone(),
        models: add.models.clone(),
    })
}

/// A file to change.
struct ToChange {
    path: PathBuf,
    level: Level,
    /// The mode of a new file: others must read the system's and the project's.
    mode: u32,
}

fn target(which: &Target) -> Result<ToChange, Failure> {
    let places = args::config_places(&which.file);
    let (path, level, mode) = if which.system {
        (places.system, Level::System, 0o644)
    } else if which.project {
        let here = places.working_directory.clone().map(|folder| folder.join(config::FILE_NAME));
        let path = config::project(&places).or(here);
        (path.ok_or_else(no_folder)?, Level::Project, 0o644)
    } else {
        (places.named.or(places.user).ok_or_else(no_folder)?, Level::User, 0o600)
    };
    // A link stays one: what it leads to is replaced.
    Ok(ToChange { path: fs::canonicalize(&path).unwrap_or(path), level, mode })
}

fn no_folder() -> Failure {
    Failure::usage("there is no folder for a file of settings").hint("name one: --config FILE")
}

/// Replaces a file by what `edit` makes of it, if all files together are still right.
fn change(
    target: &ToChange,
    named: &ConfigFile,
    edit: impl FnOnce(&str) -> Result<String, EditError>,
) -> Result<(), Failure> {
    let failed = |what: &str, e: &std::io::Error| Failure::storage(&target.path, what, e);
    let folder = target.path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder).map_err(|e| failed("making its folder", &e))?;
    let lock = File::open(folder).map_err(|e| failed("opening its folder", &e))?;
    lock.lock().map_err(|e| failed("locking its folder", &e))?;
    let text = match fs::read_to_string(&target.path) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => String::new(),
        Err(e) => return Err(failed("reading", &e)),
    };
    let text = edit(&text).map_err(|error| not_edited(error, &target.path))?;
    let layer = config::parse(&text, &target.path, target.level)?;
    // A named file need not exist yet.
    let mut others = match args::files(named) {
        Ok(files) => files,
        Err(_) if !target.path.exists() && args::config_places(named).named.is_some() => Vec::new(),
        Err(failure) => return Err(failure),
    };
    others.retain(|found| fs::canonicalize(&found.path).ok().as_deref() != Some(&target.path));
    others.push(Found { path: target.path.clone(), level: target.level, layer });
    others.sort_by_key(|found| found.level);
    args::with_files(others, Layer::default())?;
    replace(target, folder, &text).map_err(|e| failed("writing", &e))?;
    lock.sync_all().map_err(|e| failed("syncing its folder", &e))
}

fn replace(target: &ToChange, folder: &Path, text: &str) -> std::io::Result<()> {
    // Readable by this user alone until it has its mode.
    let mut new = tempfile::NamedTempFile::new_in(folder)?;
    new.write_all(text.as_bytes())?;
    let mode = match fs::metadata(&target.path) {
        Ok(old) => {
            use std::os::unix::fs::MetadataExt;
            std::os::unix::fs::fchown(new.as_file(), Some(old.uid()), Some(old.gid()))?;
            old.mode() & 0o7777
        }
        Err(e) if e.kind() == ErrorKind::NotFound => target.mode,
        Err(e) => return Err(e),
    };
    new.as_file().set_permissions(Permissions::from_mode(mode))?;
    new.as_file().sync_all()?;
    new.persist(&target.path)?;
    Ok(())
}

fn not_edited(error: EditError, path: &Path) -> Failure {
    let at = path.display();
    match error {
        EditError::Config(error) => error.into(),
        EditError::Exists(_) => Failure::usage(format!("{at}: {error}"))
            .hint("choose another name, or remove it first: modelfs source remove NAME"),
        EditError::Missing(_) => Failure::new(Kind::General, format!("{at}: {error}"))
            .hint("`modelfs source list` shows which file a source is in"),
        EditError::Inline => Failure::usage(format!("{at}: {error}"))
            .hint("write them as [[source]], or change the file by hand"),
    }
}
